"""``cloister audit resolve``, ``forget``, ``open``: what the log hides, shown to who may see it, or destroyed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.log_options import custodian_key, read_capped, witness_keys, witness_options
from cloister.cli.remote import from_options, remote_options, segment
from cloister.cli.terminal import Terminal, Verb, demand_writable, pass_terminal, write_file
from cloister.errors import Rejected, UsageError
from cloister.lending.commitment import MAX_FIELD_PROOF_BYTES, FieldProof, verify_field_proof
from cloister.lending.tlog.checkpoint import log_key

if TYPE_CHECKING:
    from cloister.lending.tlog.note import NoteKey
    from cloister.wire import Json

__all__ = ["forget", "open_field", "resolve"]

_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.argument("subject")
@remote_options
@pass_terminal
def resolve(terminal: Terminal, /, *, subject: str, **where: Any) -> None:
    """Show whose the pseudonym SUBJECT is, or the pseudonym of the person SUBJECT.

    For admin and auditor; that it was asked is an entry of the log.
    """
    with from_options(**where) as remote:
        found = remote.send_json("/v1/audit/resolve", {"subject": subject})
    name = found["name"] or "(forgotten)"
    terminal.result(dict(found), lambda out: out.print(f"{found['pseudonym']} {name}", markup=False))


@click.command(cls=Verb)
@click.argument("subject")
@click.option("--yes", is_flag=True, help="Do not ask: nobody can bring it back.")
@remote_options
@pass_terminal
def forget(terminal: Terminal, /, *, subject: str, yes: bool, **where: Any) -> None:
    """Destroy the key of the person SUBJECT, by name or pseudonym: nobody can tell any more who it was.

    Entries stay, and prove what they proved. Values that its entries commit to can be opened no more. A legal hold
    wins. Loans, usage records and copies of others are not touched.
    """
    terminal.confirm(f"The key of {subject} will be gone for ever. Go on?", yes=yes)
    with from_options(**where) as remote:
        found = remote.post("/v1/audit/forget", {"subject": subject})
    said = "forgotten" if found["forgotten"] else "was forgotten already"
    text = f"{found['pseudonym']} {said}; {found['salts']} committed values can be opened no more"
    terminal.result(dict(found), lambda out: out.print(text, markup=False))


@click.command("open", cls=Verb)
@click.argument("entry", type=click.IntRange(min=0), required=False)
@click.argument("field", required=False)
@click.option("--out", type=_file, help="File to write: the value with its proof.")
@click.option("--check", type=_file, help="Verify this file instead, without asking anybody; --key says whose log.")
@click.option("--key", help="The custodian's public key (base64url), known from elsewhere than the log.")
@click.option("--force", is_flag=True, help="Replace the file.")
@witness_options
@remote_options
@pass_terminal
def open_field(
    terminal: Terminal,
    /,
    *,
    entry: int | None,
    field: str | None,
    out: Path | None,
    check: Path | None,
    key: str | None,
    force: bool,
    witness: tuple[str, ...],
    quorum: int | None,
    **where: Any,
) -> None:
    """Write the value that ENTRY commits to under FIELD to a file, with its proof; or verify such a file offline.

    What else the entry commits to stays closed. For admin and auditor; that it was opened is an entry of the log.
    """
    keys, wanted = witness_keys(witness, quorum)
    if check is not None:
        if key is None or entry is not None or out is not None:
            msg = "audit open --check: want --key, and neither ENTRY nor --out"
            raise UsageError(msg, hint="the key is in every loan file")
        data, log = read_capped(check, cap=MAX_FIELD_PROOF_BYTES), log_key(custodian_key(key))
        _show(terminal, data, log, keys=keys, wanted=wanted, path=check)
        return
    if entry is None or field is None or out is None:
        msg = "audit open: want ENTRY, FIELD and --out, or --check"
        raise UsageError(msg)
    demand_writable([out], force=force)
    asked = f"?witnesses={wanted}" if wanted else ""
    with from_options(**where) as remote:
        told = key or str(remote.get("/v1/custodian")["key"])
        path = f"/v1/audit/{entry}/fields/{segment(field)}{asked}"
        data = remote.send(path, b"{}", media_type="application/json")
    proof = FieldProof.parse(data)
    if (proof.entry.index, proof.opening.name) != (entry, field):
        got = f"{proof.opening.name} of entry {proof.entry.index}"
        raise Rejected.because("wrong_proof", f"{field} of entry {entry}", got=got)
    write_file(out, data, force=force, private=True)
    _show(terminal, data, log_key(custodian_key(told)), keys=keys, wanted=wanted, path=out)


def _show(terminal: Terminal, data: bytes, log: NoteKey, *, keys: tuple[NoteKey, ...], wanted: int, path: Path) -> None:
    proof = FieldProof.parse(data)
    entry, verified = verify_field_proof(proof, log, witnesses=keys, quorum=wanted)
    closed = sorted(set(entry.committed) - {proof.opening.name})
    result: Json = {
        "closed": closed, "field": proof.opening.name, "file": str(path), "index": entry.index,
        "kind": entry.kind.value,
        "root": verified.root.hex(), "size": verified.size, "value": proof.opening.value,
    }  # fmt: skip
    text = f"proven: entry {entry.index} ({entry.kind.value}) committed to {proof.opening.name}={proof.opening.value}"
    terminal.result(result, lambda out: out.print(text, markup=False))
