"""``cloister receipt``: what a consumer can prove with the receipts it kept, offline."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.exits import EXIT_REJECTED, error_json
from cloister.cli.receipt_files import kept_content, parse_key, receipt_in
from cloister.cli.remote import as_anybody
from cloister.cli.terminal import Group, Terminal, pass_terminal
from cloister.errors import CloisterError, Rejected, UsageError
from cloister.lending.receipt import fork_evidence, head_after
from cloister.wire import Json, dump_b64u, dump_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from cloister.client.receipts import VerifiedReceipt
    from cloister.crypto.sign import VerifyKey

__all__ = ["receipt"]

_file = click.Path(path_type=Path, dir_okay=False)
_FAULTS = {
    "chain_broken": "the enclave's memory was copied",
    "receipt_fork": "the enclave's memory was copied",
    "ticket_reused": "one ticket was given for two answers",
}
_NOT_PROVEN = "not proven: that the answer is right, when it was given, that the keys were attested"


@click.group(cls=Group)
def receipt() -> None:
    """Prove what a consumer was answered, and that an enclave was copied."""


@receipt.command()
@click.argument("file", type=_file)
@pass_terminal
def show(terminal: Terminal, /, *, file: Path) -> None:
    """Show what FILE says, its signature proven."""
    kept = receipt_in(file)
    members = _receipt_json(kept)
    terminal.result(members, lambda out: out.print(terminal.table(("", ""), [(k, str(v)) for k, v in members.items()])))


@receipt.command()
@click.argument("files", metavar="FILE...", type=_file, nargs=-1, required=True)
@click.option("--key", help="The custodian's public key, base64url: prove the tickets kept in receipts.")
@pass_terminal
def verify(terminal: Terminal, /, *, files: tuple[Path, ...], key: str | None) -> int:
    """Verify receipts: signatures, commitments, the chain among them, forks among them.

    Commitments are opened where the content lies beside a receipt, as FILE.request and FILE.response
    ('infer --keep-content' keeps it). Tickets are proven by the custodian's key; without it they are shown as not
    checked. Exit code 4 where anything does not hold.
    """
    custodian = None if key is None else parse_key(key)
    kept: dict[Path, VerifiedReceipt] = {}
    shown: list[dict[str, Json]] = []
    for path in dict.fromkeys(files):
        try:
            kept[path] = receipt_in(path)
            shown.append(_verified(path, kept[path], custodian))
        except CloisterError as exc:
            shown.append({"file": str(path), "error": error_json(exc)})
    faults, links = _among(kept)
    paid = {str(item["file"]) for item in shown if item.get("ticket") == "proven"}
    faults += _reused({path: item for path, item in kept.items() if str(path) in paid})
    failed = bool(faults) or any("error" in item for item in shown)
    result: Json = {
        "faults": [*faults],
        "links": links,
        "receipts": [*shown],
        "verdict": "fails" if failed else "holds",
    }
    terminal.result(result, lambda out: _draw(shown, faults, links, out))
    return EXIT_REJECTED if failed else 0


@receipt.command()
@click.argument("first", metavar="A", type=_file)
@click.argument("second", metavar="B", type=_file, required=False)
@click.option("--submit", is_flag=True, help="Send the proof to the custodian, who stops the instance.")
@click.option("--url", help="With --submit: base URL of the custodian's API.")
@click.option("--ca", type=_file, help="With --submit: PEM file of the custodian's TLS authority.")
@pass_terminal
def fork(
    terminal: Terminal, /, *, first: Path, second: Path | None, submit: bool, url: str | None, ca: Path | None
) -> None:
    """Prove by receipts A and B of one index that an enclave's memory was copied.

    With A alone and --submit the custodian holds it against the usage record of the same index. No token is
    needed: the receipts are the proof.
    """
    kept = [receipt_in(path) for path in (first, second) if path is not None]
    if len(kept) == 1 and not submit:
        msg = "receipt fork: one receipt alone proves no fork"
        raise UsageError(msg, hint="pass two, or --submit to hold it against the custodian's record")
    one = kept[0].receipt
    if len(kept) > 1 and fork_evidence(one, kept[1].receipt) is None:
        raise Rejected.because("no_fork", f"receipt {one.index}", want="two different receipts of one index")
    result: dict[str, Json] = {"fork": len(kept) > 1, "index": one.index, "instance": one.instance, "submitted": submit}
    if submit:
        if url is None:
            msg = "receipt fork: --submit needs --url"
            raise UsageError(msg)
        with as_anybody(url=url, ca=ca) as remote:
            body: Json = {"instance": one.instance, "receipts": [dump_b64u(item.statement) for item in kept]}
            result |= remote.send_json("/v1/forks", body)
    text = f"fork: instance {one.instance} signed two words on index {one.index}: its memory was copied"
    terminal.result(result, lambda out: out.print(text))


def _receipt_json(kept: VerifiedReceipt) -> dict[str, Json]:
    said = kept.receipt
    return {
        "consumer": said.consumer,
        "index": said.index,
        "instance": said.instance,
        "issued_at": dump_time(said.issued_at),
        "loan": said.loan,
        "model": said.model,
        "policy_digest": said.policy_digest,
        "ticket": _ticket(kept, None),
        "units": said.units,
    }


def _verified(path: Path, kept: VerifiedReceipt, custodian: VerifyKey | None) -> dict[str, Json]:
    """Return what was proven of one receipt. Raises ``Rejected`` where content or ticket are not its own."""
    content, ticket = _content(path, kept), _ticket(kept, custodian)
    return {"file": str(path), **_receipt_json(kept), "content": content, "ticket": ticket}


def _ticket(kept: VerifiedReceipt, custodian: VerifyKey | None) -> str:
    """Say whether the kept ticket is the custodian's, for this answer. Raises ``TicketNotProven`` where it is not."""
    if kept.ticket is None:
        return "none"
    if custodian is None:
        return "not checked"
    kept.prove_ticket(custodian)
    return "proven"


def _content(path: Path, kept: VerifiedReceipt) -> str:
    """Say whether the content beside a receipt is what it is about. Raises ``Rejected`` where it is not."""
    content = kept_content(path)
    if content is None:
        return "not given"
    kept.demand_content(request=content[0], response=content[1])
    return "proven"


def _among(kept: dict[Path, VerifiedReceipt]) -> tuple[list[Json], int]:
    """Return what contradicts among receipts, and how many neighbours were proven to follow each other."""
    order = sorted(kept.items(), key=lambda item: (item[1].receipt.instance, item[1].receipt.index))
    faults: list[Json] = []
    links = 0
    for (path, one), (other_path, other) in pairwise(order):
        before, after = one.receipt, other.receipt
        if before.instance != after.instance:
            continue
        code = None
        if fork_evidence(before, after) is not None:
            code = "receipt_fork"
        elif after.index == before.index + 1:
            code = None if head_after(before) == after.previous else "chain_broken"
            links += code is None
        if code is not None:
            faults.append({"code": code, "files": [str(path), str(other_path)], "index": after.index,
                           "instance": after.instance})  # fmt: skip
    return faults, links


def _reused(paid: dict[Path, VerifiedReceipt]) -> list[Json]:
    """Return the proven tickets that lie in receipts of different answers: one payment, served twice."""
    seen: dict[bytes | None, tuple[Path, VerifiedReceipt]] = {}
    faults: list[Json] = []
    for path, item in paid.items():
        other_path, other = seen.setdefault(item.ticket, (path, item))
        if other.receipt != item.receipt:
            faults.append({"code": "ticket_reused", "files": [str(other_path), str(path)], "index": item.receipt.index,
                           "instance": item.receipt.instance})  # fmt: skip
    return faults


def _draw(shown: Iterable[dict[str, Json]], faults: list[Json], links: int, out: Console) -> None:
    for item in shown:
        error = item.get("error")
        if isinstance(error, dict):
            out.print(f"{item['file']}: refused: {error.get('message')}")
        else:
            ticket = "" if item["ticket"] == "none" else f", ticket {item['ticket']}"
            out.print(
                f"{item['file']}: index {item['index']}, {item['units']} units, content {item['content']}{ticket}"
            )
    for fault in faults:
        if isinstance(fault, dict):
            what = _FAULTS[str(fault["code"])]
            out.print(f"{fault['code']}: index {fault['index']}: {what}; {fault['files']}")
    out.print(f"proven: signatures; {links} neighbours follow each other. {_NOT_PROVEN}")
