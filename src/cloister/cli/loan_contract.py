"""``cloister loan contract``, ``accept`` and ``amend``: read it, sign it, change it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.borrower import read_borrower_key
from cloister.cli.contract_file import EXAMPLE
from cloister.cli.contract_words import contract_rows
from cloister.cli.loan_create import clause_options, take_clause_options
from cloister.cli.remote import from_loan_file, from_options, remote_options, segment
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.enclave.loanfile import read_loan_file
from cloister.errors import UsageError
from cloister.lending.contract import Contract, SignedContract
from cloister.wire import Json, dump_b64u, parse_b64u, parse_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["accept", "amend", "roll_out", "show_contract"]

_CLAUSES = (
    "purpose", "hours", "precision", "outputs", "consumer_limits", "offline", "refund", "revocations", "sub_allowances",
    "watches",
)  # fmt: skip
_file = click.Path(path_type=Path, dir_okay=False)


def _signed(answer: dict[str, Any], name: str) -> SignedContract | None:
    """Return the signed contract in a member of the custodian's answer, unverified."""
    text = answer[name]
    return None if text is None else SignedContract.parse(parse_b64u(text, what="custodian's answer"))


def _rows(found: Contract) -> list[tuple[str, str]]:
    listed = found.terms.consumers
    return contract_rows(found, None if listed is None else tuple(consumer.id for consumer in listed))


@click.command("contract", cls=Verb)
@click.argument("loan_id", metavar="LOAN", required=False)
@click.option("--loan-file", type=_file, help="For borrowers: the loan file the custodian gave you.")
@click.option("--example", is_flag=True, help="Print a contract file with every member, for 'loan create --from'.")
@remote_options
@pass_terminal
def show_contract(
    terminal: Terminal, /, *, loan_id: str | None, loan_file: Path | None, example: bool, **where: Any
) -> None:
    """Show the contract in force and the one that waits for a signature, in plain words."""
    if example:
        terminal.result({"example": EXAMPLE}, lambda out: out.print(EXAMPLE, markup=False, highlight=False, end=""))
        return
    if (loan_id is None) == (loan_file is None):
        msg = "loan contract: want LOAN, or --loan-file, or --example"
        raise UsageError(msg)
    connection = from_options(**where) if loan_file is None else from_loan_file(loan_file)[0]
    loan = loan_id if loan_file is None else read_loan_file(loan_file).loan
    with connection as remote:
        answer = remote.get(f"/v1/loans/{segment(loan or '')}/contract")
    shown = {name: _signed(answer, name) for name in ("in_force", "offered")}
    result: Json = {name: None if item is None else _json(item) for name, item in shown.items()}

    def draw(out: Console) -> None:
        for title, item in (("in force", shown["in_force"]), ("waits for the borrower's signature", shown["offered"])):
            if item is not None:
                out.print(terminal.table(("", ""), _rows(Contract.parse(item.payload)), title=title))

    terminal.result(result, draw)


def _json(signed: SignedContract) -> Json:
    found = Contract.parse(signed.payload)
    return {
        "contract": parse_json(signed.payload, what="contract"),
        "digest": found.digest,
        "signed_by": [found.custodian.key_id] + ([] if signed.borrower is None else [_borrower_id(found)]),
        "version": found.version,
    }


def _borrower_id(found: Contract) -> str:
    key = found.terms.clauses.borrower
    return "" if key is None else key.key_id


@click.command(cls=Verb)
@click.option("--loan-file", type=_file, required=True, help="The loan file the custodian gave you.")
@click.option("--key", required=True, metavar="FILE", help="Your key file ('cloister borrower key'), - for stdin.")
@click.option("--yes", is_flag=True, help="Sign without asking.")
@pass_terminal
def accept(terminal: Terminal, /, *, loan_file: Path, key: str, yes: bool) -> None:
    """Sign the contract that the custodian offers (for borrowers). Shows it in plain words, then asks."""
    given = read_loan_file(loan_file)
    signer = read_borrower_key(key)
    with from_loan_file(loan_file)[0] as remote:
        path = f"/v1/loans/{segment(given.loan)}/contract"
        offer = _signed(remote.get(path), "offered")
        if offer is None:
            terminal.result({"signed": False}, lambda out: out.print("nothing waits for your signature"))
            return
        signed = offer.accept(signer, custodian=given.custodian_key)
        found = Contract.parse(signed.payload)
        if found.terms.loan != given.loan:
            msg = f"contract: is about {found.terms.loan}, this is {given.loan}"
            raise UsageError(msg)
        terminal.err.print(terminal.table(("", ""), _rows(found)))
        terminal.confirm("sign this?", yes=yes)
        body: Json = {"signature": dump_b64u(signed.borrower or b""), "version": found.version}
        remote.post(path, body)
    result: Json = {"digest": found.digest, "signed": True, "version": found.version}
    terminal.result(result, lambda out: out.print(f"signed version {found.version}, digest {found.digest}"))


@click.command(cls=Verb)
@click.argument("loan_id", metavar="LOAN")
@clause_options
@click.option("--drop", type=click.Choice(_CLAUSES), multiple=True, help="Take a clause out; repeat for more.")
@remote_options
@pass_terminal
def amend(terminal: Terminal, /, *, loan_id: str, drop: tuple[str, ...], **said: Any) -> None:
    """Offer a changed contract. It counts once the borrower has signed it; enclaves must then attest again."""
    clauses, limits = take_clause_options(said)
    with from_options(**said) as remote:
        path = f"/v1/loans/{segment(loan_id)}"
        before = dict(remote.get(path)["terms"].get("clauses", {}))
        before.pop("budget", None)
        kept = {name: value for name, value in before.items() if name not in drop}
        shown = remote.post(f"{path}/amend", {"clauses": kept | clauses, **limits})
    words = "in force" if shown["in_force"] else "offered; it waits for 'cloister loan accept'"
    terminal.result(shown, lambda out: out.print(f"version {shown['version']} {words}"))


@click.command("roll-out", cls=Verb)
@click.argument("loan_id", metavar="LOAN")
@click.argument("name", metavar="NAME")
@click.argument("digest", metavar="DIGEST")
@remote_options
@pass_terminal
def roll_out(terminal: Terminal, /, *, loan_id: str, name: str, digest: str, **said: Any) -> None:
    """Offer a newer version of the model NAME: running enclaves change over to it without a stop.

    Publish it first, and give the borrower the sealed package. It counts once the borrower has signed the contract
    that names it.
    """
    with from_options(**said) as remote:
        shown = remote.post(f"/v1/loans/{segment(loan_id)}/models", {"digest": digest, "name": name})
    words = "in force" if shown["in_force"] else "offered; it waits for 'cloister loan accept'"
    terminal.result(shown, lambda out: out.print(f"version {shown['version']} {words}"))
