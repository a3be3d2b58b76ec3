"""``cloister audit prove``: one entry with its proof in a file, made by asking and verified by nobody's leave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.log_options import (
    custodian_key,
    loan_file_option,
    read_capped,
    remote_or_borrower,
    witness_keys,
    witness_options,
    witnesses_json,
)
from cloister.cli.remote import remote_options
from cloister.cli.terminal import Terminal, Verb, demand_writable, pass_terminal, write_file
from cloister.errors import Rejected, UsageError
from cloister.lending.audit import MAX_ENTRY_BYTES, parse_line
from cloister.lending.pruning import PrunedEntry
from cloister.lending.tlog.checkpoint import log_key
from cloister.lending.tlog.proof import MAX_PROOF_BYTES, LogProof, verify_log_proof
from cloister.wire import Json, parse_json

if TYPE_CHECKING:
    from cloister.lending.tlog.checkpoint import VerifiedCheckpoint
    from cloister.lending.tlog.note import NoteKey

__all__ = ["prove"]

_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.argument("index", type=click.IntRange(min=0), required=False)
@click.option("--out", type=_file, help="File to write (.tlog-proof).")
@click.option("--check", type=_file, help="Verify this file instead, without asking anybody; --key says whose log.")
@click.option("--entry", type=_file, help="With --check: the entry, one line; by default the one in the file.")
@click.option("--key", help="The custodian's public key (base64url), known from elsewhere than the log.")
@click.option("--force", is_flag=True, help="Replace the file.")
@witness_options
@loan_file_option
@remote_options
@pass_terminal
def prove(
    terminal: Terminal,
    /,
    *,
    index: int | None,
    out: Path | None,
    check: Path | None,
    entry: Path | None,
    key: str | None,
    force: bool,
    witness: tuple[str, ...],
    quorum: int | None,
    loan_file: Path | None,
    **where: Any,
) -> None:
    """Write one entry with its proof to a file, or verify such a file offline.

    A borrower gets the entries about its own loan. With --witness the checkpoint in the proof is one that
    enough of them cosigned: nobody can have been shown another log of that size.
    """
    keys, wanted = witness_keys(witness, quorum)
    if check is not None:
        if key is None or index is not None or out is not None:
            msg = "audit prove --check: want --key, and neither INDEX nor --out"
            raise UsageError(msg, hint="the key is in every loan file")
        proof = LogProof.parse(read_capped(check, cap=MAX_PROOF_BYTES))
        line = proof.extra if entry is None else read_capped(entry, cap=MAX_ENTRY_BYTES + 1).removesuffix(b"\n")
        _show(terminal, *_verified(proof, line, log_key(custodian_key(key)), keys, wanted), path=check)
        return
    if index is None or out is None or entry is not None:
        msg = "audit prove: want INDEX and --out, or --check"
        raise UsageError(msg)
    demand_writable([out], force=force)
    connection, pinned = remote_or_borrower(loan_file, where)
    with connection as remote:
        asked = {"witnesses": wanted} if wanted else {}
        data = remote.raw(f"/v1/audit/{index}/proof", **asked)
        told = key or (None if pinned else str(remote.get("/v1/custodian")["key"]))
    custodian = pinned if told is None else custodian_key(told)
    if custodian is None or (pinned is not None and custodian != pinned):
        msg = "audit prove: --key is not the key in the loan file"
        raise UsageError(msg)
    proof = LogProof.parse(data)
    line, verified = _verified(proof, proof.extra, log_key(custodian), keys, wanted)
    if proof.index != index:
        raise Rejected.because("wrong_proof", f"entry {index}", got=f"a proof of entry {proof.index}")
    write_file(out, data, force=force)
    _show(terminal, line, verified, path=out)


def _verified(
    proof: LogProof, line: bytes | None, log: NoteKey, keys: tuple[NoteKey, ...], wanted: int
) -> tuple[bytes, VerifiedCheckpoint]:
    if line is None:
        msg = "audit prove: the file holds no entry"
        raise UsageError(msg, hint="pass the line with --entry")
    return line, verify_log_proof(proof, line, log, witnesses=keys, quorum=wanted)


def _show(terminal: Terminal, line: bytes, verified: VerifiedCheckpoint, *, path: Path) -> None:
    entry = parse_line(line)
    kind = "pruned" if isinstance(entry, PrunedEntry) else entry.kind.value
    result: Json = {
        "entry": parse_json(line, what="audit entry"),
        "file": str(path),
        "index": entry.index,
        "root": verified.root.hex(),
        "size": verified.size,
        "witnesses": witnesses_json(verified),
    }
    seen = ", ".join(sorted(verified.cosigned)) or "no witness asked for"
    text = f"proven: entry {entry.index} ({kind}) in the log of {verified.size} entries; {seen}"
    terminal.result(result, lambda console: console.print(text))
