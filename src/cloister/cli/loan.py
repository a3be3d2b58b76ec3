"""``cloister loan``: lend, add units, answer requests, block, watch; and the borrower's side of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from cloister.cli.limit_words import limit_rows
from cloister.cli.loan_contract import accept, amend, roll_out, show_contract
from cloister.cli.loan_create import consumer_json, create, no_tokens, policy_json, token_files, write_tokens
from cloister.cli.loan_watch import watch
from cloister.cli.pending import settled, wait_option
from cloister.cli.remote import from_loan_file, from_options, remote_options, segment
from cloister.cli.terminal import Group, Terminal, pass_terminal
from cloister.cli.voucher import voucher
from cloister.errors import UsageError
from cloister.lending.clauses import Clauses

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.wire import Json

__all__ = ["loan"]

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)
_units = click.IntRange(min=0)
_loan_file = click.option("--loan-file", type=_file, required=True, help="The loan file the custodian gave you.")


@click.group(cls=Group)
def loan() -> None:
    """Lend models, watch what is used, add units, block."""


loan.add_command(create)
loan.add_command(show_contract)
loan.add_command(accept)
loan.add_command(amend)
loan.add_command(roll_out)


@loan.command("list")
@remote_options
@pass_terminal
def list_loans(terminal: Terminal, /, **where: Any) -> None:
    """List loans with what is left of them."""
    with from_options(**where) as remote:
        shown = remote.get("/v1/loans")
    rows = [
        (
            item["loan"],
            item["borrower"],
            item["state"],
            str(item["balances"]["loan"]),
            str(item["live_instances"]),
            ", ".join(entry["name"] for entry in item["models"]),
        )
        for item in shown["loans"]
    ]
    columns = ("loan", "borrower", "state", "left", "live", "models")
    terminal.result(shown, lambda out: out.print(terminal.table(columns, rows)))


def draw_loan(terminal: Terminal, shown: dict[str, Any], out: Console) -> None:
    """Draw one loan: where every unit is, who serves, what is asked for."""
    bound = shown["bound"]
    out.print(Text.assemble(f"{shown['loan']}  {shown['borrower']}  ", (str(shown["state"]), "bold")))
    out.print(f"a block stops it within {bound['seconds']:g} s or {bound['units']} units, whichever comes first")
    parts: tuple[str, ...] = ("granted", "balance", "held", "spent", "written_off")
    if any(counts["owed"] for counts in shown["meters"].values()):
        parts = (*parts, "owed")
    rows = [(meter, *(str(counts[part]) for part in parts)) for meter, counts in shown["meters"].items()]
    out.print(terminal.table(("meter", *parts), rows))
    if "terms" in shown:  # a borrower is shown them by 'contract show', as it signed them
        limits = limit_rows(Clauses.from_json(shown["terms"].get("clauses", {})), shown["terms"]["max_instances"])
        if limits:
            out.print(terminal.table(("limit", ""), limits))
    live = [item for item in shown["instances"] if item["live"]]
    out.print(terminal.table(("instance", "tee", "state"), [(i["id"][:16], i["tee"], i["state"]) for i in live]))
    asked = [item for item in shown["requests"] if item["state"] == "open"]
    rows = [(item["id"], item["meter"], str(item["units"]), item["reason"]) for item in asked]
    if rows:
        out.print(terminal.table(("request", "meter", "units", "reason"), rows))


@loan.command()
@click.argument("loan_id", metavar="LOAN")
@remote_options
@pass_terminal
def show(terminal: Terminal, /, *, loan_id: str, **where: Any) -> None:
    """Show one loan: where every unit is, who serves, what is asked for."""
    with from_options(**where) as remote:
        shown = remote.get(f"/v1/loans/{segment(loan_id)}")
    terminal.result(shown, lambda out: draw_loan(terminal, shown, out))


def _change(terminal: Terminal, where: dict[str, Any], path: str, body: dict[str, Json], words: str) -> None:
    with from_options(**where) as remote:
        shown = remote.post(path, {key: value for key, value in body.items() if value is not None})
    terminal.result(shown, lambda out: out.print(f"{words}; balance {shown['balance']}"))


_meter = click.option("--meter", help="loan (default), model:NAME or consumer:NAME.")


@loan.command("top-up")
@click.argument("loan_id", metavar="LOAN")
@click.option("--units", type=click.IntRange(min=1), required=True, help="Units to add.")
@_meter
@remote_options
@pass_terminal
def top_up(terminal: Terminal, /, *, loan_id: str, units: int, meter: str | None, **where: Any) -> None:
    """Add units to an allowance."""
    path = f"/v1/loans/{segment(loan_id)}/top-up"
    _change(terminal, where, path, {"units": units, "meter": meter}, f"added {units}")


@loan.command("set")
@click.argument("loan_id", metavar="LOAN")
@click.option("--units", type=_units, required=True, help="Units the allowance shall hold.")
@_meter
@remote_options
@pass_terminal
def set_units(terminal: Terminal, /, *, loan_id: str, units: int, meter: str | None, **where: Any) -> None:
    """Set an allowance. What enclaves already hold stays theirs until it is used or written off."""
    path = f"/v1/loans/{segment(loan_id)}/set"
    _change(terminal, where, path, {"units": units, "meter": meter}, f"set to {units}")


@loan.command()
@_loan_file
@click.option("--units", type=click.IntRange(min=1), required=True, help="How many more.")
@click.option("--reason", default="", help="Why; the custodian reads it.")
@_meter
@pass_terminal
def request(terminal: Terminal, /, *, loan_file: Path, units: int, reason: str, meter: str | None) -> None:
    """Ask the custodian for more units (for borrowers)."""
    connection, loan_id = from_loan_file(loan_file)
    body: dict[str, Json] = {"reason": reason, "units": units}
    if meter:
        body["meter"] = meter
    with connection as remote:
        shown = remote.post(f"/v1/loans/{segment(loan_id)}/requests", body)
    terminal.result(shown, lambda out: out.print(f"{shown['id']}: asked for {units}; 'loan status' shows the answer"))


@loan.command()
@_loan_file
@pass_terminal
def status(terminal: Terminal, /, *, loan_file: Path) -> None:
    """Show what is left and what became of requests (for borrowers)."""
    connection, loan_id = from_loan_file(loan_file)
    with connection as remote:
        shown = remote.get(f"/v1/loans/{segment(loan_id)}/summary")
    terminal.result(shown, lambda out: draw_loan(terminal, shown, out))


@loan.command()
@click.argument("loan_id", metavar="LOAN")
@click.argument("request_id", metavar="REQUEST")
@click.option("--units", type=click.IntRange(min=1), help="Grant another number than was asked for.")
@remote_options
@pass_terminal
def approve(terminal: Terminal, /, *, loan_id: str, request_id: str, units: int | None, **where: Any) -> None:
    """Approve a borrower's request: the units are added at once."""
    path = f"/v1/loans/{segment(loan_id)}/requests/{segment(request_id)}/approve"
    _change(terminal, where, path, {"units": units}, "approved")


@loan.command()
@click.argument("loan_id", metavar="LOAN")
@click.argument("request_id", metavar="REQUEST")
@click.option("--reason", default="", help="Why not; the borrower reads it.")
@remote_options
@pass_terminal
def deny(terminal: Terminal, /, *, loan_id: str, request_id: str, reason: str, **where: Any) -> None:
    """Deny a borrower's request."""
    path = f"/v1/loans/{segment(loan_id)}/requests/{segment(request_id)}/deny"
    with from_options(**where) as remote:
        shown = remote.post(path, {"reason": reason})
    terminal.result(shown, lambda out: out.print(f"denied {request_id}"))


_kind = click.option(
    "--kind",
    type=click.Choice(["loan", "model", "instance", "consumer"]),
    default="loan",
    show_default=True,
    help="What SUBJECT is.",
)
_of_loan = click.option("--loan", "of_loan", help="The loan a consumer belongs to.")


@loan.command()
@click.argument("subject")
@_kind
@_of_loan
@click.option("--reason", default="", help="Why; written to the audit log.")
@remote_options
@pass_terminal
def block(terminal: Terminal, /, *, subject: str, kind: str, of_loan: str | None, reason: str, **where: Any) -> None:
    """Stop a loan, model, instance or consumer, and print within what bound it stops."""
    body: dict[str, Json] = {"kind": kind, "reason": reason, "subject": subject}
    with from_options(**where) as remote:
        shown = remote.post("/v1/blocks", body | ({"loan": of_loan} if of_loan else {}))
    bound = shown["bound"]
    words = f"blocked; stops within {bound['seconds']:g} s or {bound['units']} units, whichever comes first"
    terminal.result(shown, lambda out: out.print(words))


@loan.command()
@click.argument("subject")
@_kind
@_of_loan
@wait_option
@remote_options
@pass_terminal
def unblock(terminal: Terminal, /, *, subject: str, kind: str, of_loan: str | None, wait: bool, **where: Any) -> None:
    """Lift a block. Enclaves that ended meanwhile must be started again. A second person may have to approve."""
    query = {"loan": of_loan} if of_loan else {}
    with from_options(**where) as remote:
        shown = remote.delete(f"/v1/blocks/{segment(kind)}/{segment(subject)}", **query)
        shown = settled(terminal, remote, shown, wait=wait)
    terminal.result(shown, lambda out: out.print("unblocked"))


loan.add_command(watch)
loan.add_command(voucher)


@loan.group(cls=Group)
def consumer() -> None:
    """Who may ask the models of a loan."""


@consumer.command("add")
@click.argument("loan_id", metavar="LOAN")
@click.argument("names", nargs=-1, required=True, metavar="NAME[=UNITS]...")
@click.option("--tokens", type=_folder, help="Folder for the token files (mode 0600).")
@no_tokens
@click.option("--force", is_flag=True, help="Replace files.")
@remote_options
@pass_terminal
def add(
    terminal: Terminal,
    /,
    *,
    loan_id: str,
    names: tuple[str, ...],
    tokens: Path | None,
    no_tokens: bool,
    force: bool,
    **where: Any,
) -> None:
    """Admit consumers; each gets a token of its own, unless an issuer says who they are."""
    if (tokens is None) != no_tokens:
        msg = "loan consumer add: say where tokens go with --tokens, or --no-tokens"
        raise UsageError(msg)
    added = consumer_json(names, tokens=not no_tokens)
    files = token_files(tokens, [name.partition("=")[0] for name in names], force=force)
    with from_options(**where) as remote:
        made = remote.post(f"/v1/loans/{segment(loan_id)}/consumers", {"consumers": added})
    written = write_tokens(files, made["consumer_tokens"], force=force)
    terminal.result({"token_files": list(written)}, lambda out: out.print("\n".join(written)))


@loan.command("policy")
@click.argument("loan_id", metavar="LOAN")
@click.argument("file", type=_file)
@wait_option
@remote_options
@pass_terminal
def replace_policy(terminal: Terminal, /, *, loan_id: str, file: Path, wait: bool, **where: Any) -> None:
    """Replace a loan's appraisal policy by a newer version; running enclaves must attest again.

    A second person may have to approve.
    """
    with from_options(**where) as remote:
        shown = remote.post(f"/v1/loans/{segment(loan_id)}/policy", {"policy": policy_json(file)})
        shown = settled(terminal, remote, shown, wait=wait)
    terminal.result(shown, lambda out: out.print("policy replaced"))
