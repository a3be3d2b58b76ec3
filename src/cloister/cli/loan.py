"""``cloister loan``: lend, add units, answer requests, block, watch; and the borrower's side of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from cloister.attest.policy import Policy
from cloister.cli.loan_clauses import mark_ticketed, offline_term
from cloister.cli.loan_watch import watch_loan
from cloister.cli.remote import Remote, from_options, from_token, remote_options, segment
from cloister.cli.terminal import Group, Terminal, demand_writable, pass_terminal, write_file
from cloister.cli.voucher import voucher
from cloister.enclave.loanfile import read_loan_file
from cloister.errors import UsageError
from cloister.lending.terms import NAME
from cloister.wire import Json, dump_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["loan"]

_MAX_POLICY_BYTES = 1 << 20
_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)
_units = click.IntRange(min=0)
_loan_file = click.option("--loan-file", type=_file, required=True, help="The loan file the custodian gave you.")


@click.group(cls=Group)
def loan() -> None:
    """Lend models, watch what is used, add units, block."""


def _spec(text: str, what: str) -> tuple[str, int | None]:
    """Split NAME[=UNITS]."""
    name, found, units = text.partition("=")
    if not found:
        return name, None
    if not units.isdecimal():
        msg = f"--{what} {text}: want NAME or NAME=UNITS"
        raise UsageError(msg)
    return name, int(units)


def _model(text: str) -> dict[str, Json]:
    name, found, rest = text.partition("=")
    digest, colon, units = rest.partition(":")
    if not found or (colon and not units.isdecimal()):
        msg = f"--model {text}: want NAME=DIGEST or NAME=DIGEST:UNITS"
        raise UsageError(msg, hint="'cloister model list' shows digests")
    return {"digest": digest, "name": name} | ({"allowance": int(units)} if colon else {})


def _consumers(consumers: tuple[str, ...], *, anybody: bool) -> Json:
    if anybody == bool(consumers):
        msg = "loan create: name each --consumer, or say --anybody"
        raise UsageError(msg, hint="--anybody lets everyone who reaches the enclave spend the loan's allowance")
    if anybody:
        return None
    made: list[Json] = []
    for name, units in (_spec(text, "consumer") for text in consumers):
        made.append({"id": name} | ({} if units is None else {"allowance": units}))
    return made


def _policy(path: Path) -> Json:
    try:
        return Policy.parse(path.read_bytes()[: _MAX_POLICY_BYTES + 1]).to_json()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg, hint="'cloister enclave measure --policy' writes one for this build") from exc


def _token_files(folder: Path | None, consumers: tuple[str, ...], *, force: bool) -> dict[str, Path]:
    """Return where each consumer's token goes. Refuses now what could not be written once the token is made."""
    names = [_spec(text, "consumer")[0] for text in consumers]
    if folder is None or not names:
        return {}
    for name in names:
        if not NAME.fullmatch(name):
            msg = f"--consumer {name}: want lower case letters, digits, . _ -"
            raise UsageError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.token" for name in names}
    demand_writable(files.values(), force=force)
    return files


def _write_tokens(files: dict[str, Path], tokens: dict[str, str], *, force: bool) -> list[str]:
    for name, path in files.items():
        write_file(path, tokens[name].encode() + b"\n", force=force, private=True)
    return [str(path) for path in files.values()]


@loan.command()
@click.option("--borrower", required=True, help="Who runs the enclave, as consumers are told.")
@click.option("--model", "models", multiple=True, required=True, help="NAME=DIGEST[:UNITS]; repeat for more.")
@click.option("--allowance", type=_units, required=True, help="Units of the whole loan.")
@click.option("--consumer", "consumers", multiple=True, help="NAME[=UNITS]; repeat for more.")
@click.option("--anybody", is_flag=True, help="Serve whoever reaches the enclave.")
@click.option("--policy", type=_file, required=True, help="Appraisal policy: which enclaves may have the key.")
@click.option(
    "--offline",
    metavar="SECONDS:UNITS[:OVERDRAFT]",
    help="Offline term: how long a voucher lasts and what it may carry.",
)
@click.option("--ticketed", multiple=True, metavar="NAME", help="Model that takes a ticket for each inference; repeat.")
@click.option("--ttl", "ttl_s", type=click.IntRange(1, 3600), help="T: seconds a lease lives.")
@click.option("--rate-cap", type=_units, help="Units per second, 0 for no cap.")
@click.option("--max-ceiling", type=click.IntRange(min=1), help="N: units one instance may hold unserved.")
@click.option("--max-instances", type=click.IntRange(min=1), help="Enclaves that may live at once.")
@click.option("--out", type=_file, required=True, help="Loan file to write for the borrower (mode 0600).")
@click.option("--tokens", type=_folder, help="Folder for the consumers' token files (mode 0600).")
@click.option("--force", is_flag=True, help="Replace files.")
@remote_options
@pass_terminal
def create(
    terminal: Terminal,
    /,
    *,
    borrower: str,
    models: tuple[str, ...],
    allowance: int,
    consumers: tuple[str, ...],
    anybody: bool,
    policy: Path,
    offline: str | None,
    ticketed: tuple[str, ...],
    out: Path,
    tokens: Path | None,
    force: bool,
    home: Path | None,
    url: str | None,
    ca: Path | None,
    token_file: str | None,
    **limits: int | None,
) -> None:
    """Lend models to a borrower. Tokens are shown in files only, and only now."""
    if consumers and tokens is None:
        msg = "loan create: consumers get tokens; say where with --tokens"
        raise UsageError(msg)
    demand_writable((out,), force=force)
    files = _token_files(tokens, consumers, force=force)
    body: dict[str, Json] = {
        "allowance": allowance,
        "borrower": borrower,
        "consumers": _consumers(consumers, anybody=anybody),
        "models": mark_ticketed([_model(text) for text in models], ticketed),
        "policy": _policy(policy),
    }
    body |= {name: value for name, value in limits.items() if value is not None}
    if offline is not None:
        body["offline"] = offline_term(offline)
    with from_options(home=home, url=url, ca=ca, token_file=token_file) as remote:
        made = remote.post("/v1/loans", body)
    write_file(out, dump_json(made["loan_file"]), force=force, private=True)
    written = _write_tokens(files, made["consumer_tokens"], force=force)
    result: Json = {"loan": made["loan"], "loan_file": str(out), "token_files": written}
    terminal.result(result, lambda console: console.print(f"{made['loan']}\nloan file {out}\n" + "\n".join(written)))


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


def _borrower(path: Path) -> tuple[Remote, str]:
    given = read_loan_file(path)
    return from_token(url=given.custodian_url, ca_pem=given.ca_pem, token=given.token), given.loan


@loan.command()
@_loan_file
@click.option("--units", type=click.IntRange(min=1), required=True, help="How many more.")
@click.option("--reason", default="", help="Why; the custodian reads it.")
@_meter
@pass_terminal
def request(terminal: Terminal, /, *, loan_file: Path, units: int, reason: str, meter: str | None) -> None:
    """Ask the custodian for more units (for borrowers)."""
    connection, loan_id = _borrower(loan_file)
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
    connection, loan_id = _borrower(loan_file)
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
@remote_options
@pass_terminal
def unblock(terminal: Terminal, /, *, subject: str, kind: str, of_loan: str | None, **where: Any) -> None:
    """Lift a block. Enclaves that ended meanwhile must be started again."""
    query = {"loan": of_loan} if of_loan else {}
    with from_options(**where) as remote:
        shown = remote.delete(f"/v1/blocks/{segment(kind)}/{segment(subject)}", **query)
    terminal.result(shown, lambda out: out.print("unblocked"))


@loan.command()
@click.argument("loan_id", metavar="LOAN")
@remote_options
@pass_terminal
def watch(terminal: Terminal, /, *, loan_id: str, **where: Any) -> None:
    """Follow a loan live until interrupted."""
    with from_options(**where) as remote:
        watch_loan(terminal, remote, loan_id, lambda shown, out: draw_loan(terminal, shown, out))


loan.add_command(voucher)


@loan.group(cls=Group)
def consumer() -> None:
    """Who may ask the models of a loan."""


@consumer.command("add")
@click.argument("loan_id", metavar="LOAN")
@click.argument("names", nargs=-1, required=True, metavar="NAME[=UNITS]...")
@click.option("--tokens", type=_folder, required=True, help="Folder for the token files (mode 0600).")
@click.option("--force", is_flag=True, help="Replace files.")
@remote_options
@pass_terminal
def add(
    terminal: Terminal, /, *, loan_id: str, names: tuple[str, ...], tokens: Path, force: bool, **where: Any
) -> None:
    """Admit consumers; each gets a token of its own."""
    files = _token_files(tokens, names, force=force)
    with from_options(**where) as remote:
        made = remote.post(f"/v1/loans/{segment(loan_id)}/consumers", {"consumers": _consumers(names, anybody=False)})
    written = _write_tokens(files, made["consumer_tokens"], force=force)
    terminal.result({"token_files": list(written)}, lambda out: out.print("\n".join(written)))


@loan.command("policy")
@click.argument("loan_id", metavar="LOAN")
@click.argument("file", type=_file)
@remote_options
@pass_terminal
def replace_policy(terminal: Terminal, /, *, loan_id: str, file: Path, **where: Any) -> None:
    """Replace a loan's appraisal policy by a newer version; running enclaves must attest again."""
    with from_options(**where) as remote:
        shown = remote.post(f"/v1/loans/{segment(loan_id)}/policy", {"policy": _policy(file)})
    terminal.result(shown, lambda out: out.print("policy replaced"))
