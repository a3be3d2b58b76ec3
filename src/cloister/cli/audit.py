"""``cloister audit``: read the custodian's log, and prove it without asking the custodian."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.audit_export import export, log_entries
from cloister.cli.audit_gaps import gaps
from cloister.cli.audit_keep import hold, prune, retention
from cloister.cli.audit_persons import forget, open_field, resolve
from cloister.cli.audit_prove import prove
from cloister.cli.audit_witness import witness
from cloister.cli.export_file import read_manifest, records_of
from cloister.cli.log_folder import read_checkpoint_note, read_log
from cloister.cli.log_options import (
    custodian_key,
    log_lines,
    read_capped,
    witness_keys,
    witness_options,
    witnesses_json,
)
from cloister.cli.remote import from_options, remote_options
from cloister.cli.terminal import Group, Terminal, pass_terminal
from cloister.errors import UsageError
from cloister.lending.audit import parse_line, verify_checkpoint, verify_log
from cloister.lending.exports import verify_export
from cloister.lending.pruning import PrunedEntry
from cloister.lending.tlog.checkpoint import VerifiedCheckpoint, demand_quorum, log_key, verify_log_checkpoint

if TYPE_CHECKING:
    from cloister.cli.remote import Remote
    from cloister.crypto.sign import VerifyKey
    from cloister.lending.audit import Checkpoint
    from cloister.lending.tlog.note import NoteKey
    from cloister.wire import Json

__all__ = ["audit"]

_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def audit() -> None:
    """Read and prove the audit log."""


for _verb in (export, forget, gaps, hold, open_field, prove, prune, resolve, retention, witness):
    audit.add_command(_verb)


@audit.command("list")
@click.option("--after", type=click.IntRange(min=-1), default=-1, help="Show entries behind this index.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most.")
@remote_options
@pass_terminal
def list_entries(terminal: Terminal, /, *, after: int, limit: int, **where: Any) -> None:
    """List entries, one a line."""
    with from_options(**where) as remote:
        for line in log_entries(remote, after=after, limit=limit):
            click.echo(line.decode() if terminal.as_json else _in_words(line))


def _in_words(line: bytes) -> str:
    """Return a line for a person; what it commits to is named, not shown."""
    entry = parse_line(line)
    if isinstance(entry, PrunedEntry):
        return f"{entry.index:>6} (pruned)"
    shown = {**entry.details, **dict.fromkeys(entry.committed, "(committed)")}
    details = " ".join(f"{key}={value}" for key, value in sorted(shown.items()))
    return f"{entry.index:>6} {entry.at:%Y-%m-%d %H:%M:%S} {entry.kind.value:<22} {entry.actor} {details}"


@audit.command()
@click.argument("log", type=click.Path(path_type=Path), required=False)
@click.option("--checkpoint", "checkpoint_file", type=_file, help="Signed checkpoint to hold the log against.")
@click.option("--manifest", type=_file, help="LOG is a file of 'audit export --out' with this manifest.")
@click.option("--key", help="The custodian's public key (base64url), known from elsewhere than the log.")
@witness_options
@remote_options
@pass_terminal
def verify(
    terminal: Terminal,
    /,
    *,
    log: Path | None,
    checkpoint_file: Path | None,
    manifest: Path | None,
    key: str | None,
    witness: tuple[str, ...],
    quorum: int | None,
    **where: Any,
) -> None:
    """Prove that no entry was changed, cut or put in.

    With LOG, a file or a folder of 'audit export': without asking anybody; --key says whose log it must be, and
    --checkpoint what it must match (a folder has one of its own), or --manifest what an export of any format must
    hold. Without: reads log and checkpoint from the
    custodian. With --witness the checkpoint must be one that enough of them cosigned.
    """
    keys, wanted = witness_keys(witness, quorum)
    if manifest is not None:
        if log is None or key is None or checkpoint_file is not None:
            msg = "audit verify --manifest: want LOG and --key, and no --checkpoint"
            raise UsageError(msg, hint="the key is in every loan file")
        _show_export(terminal, log, manifest, custodian_key(key), witnesses=keys, quorum=wanted)
        return
    if log is not None:
        lines, data, origin = _from_files(log, checkpoint_file, key)
    else:
        if checkpoint_file is not None:
            msg = "audit verify: --checkpoint is for a LOG from files"
            raise UsageError(msg)
        with from_options(**where) as remote:
            # The checkpoint first: the log may grow meanwhile, and what is behind the checkpoint does no harm.
            data = remote.raw("/log/checkpoint", witnesses=wanted) if wanted else remote.raw("/v1/audit/checkpoint")
            lines = _read_all(terminal, remote)
            origin = key or str(remote.get("/v1/custodian")["key"])
        if key is None:
            terminal.say("the key came from the custodian itself; pass --key to hold the log against one you know")
    checkpoint = _checkpoint(data, origin, keys, wanted)
    with terminal.working(f"proving {len(lines):,} entries"):
        verified = verify_log(lines, checkpoint)
    result: Json = {
        "at": None if isinstance(checkpoint, VerifiedCheckpoint) else str(checkpoint.at),
        "entries": len(lines),
        "pruned": verified.pruned,
        "root": verified.root.hex(),
        "size": checkpoint.size,
        "witnesses": witnesses_json(checkpoint) if isinstance(checkpoint, VerifiedCheckpoint) else {},
    }
    pruned = f", {verified.pruned} of them pruned" if verified.pruned else ""
    text = f"whole: {len(lines)} entries{pruned}, {checkpoint.size} under the checkpoint\nroot {verified.root.hex()}"
    terminal.result(result, lambda out: out.print(text))


def _read_all(terminal: Terminal, remote: Remote) -> list[bytes]:
    """Return the whole log. It may grow meanwhile: what comes behind its size is read too."""
    size = int(remote.get("/v1/audit", after=-1, limit=1)["size"])
    lines = []
    with terminal.progress("reading the log", unit="entries") as report:
        for line in log_entries(remote, after=-1, limit=None):
            lines.append(line)
            report(len(lines), max(size, len(lines)))
    return lines


def _show_export(
    terminal: Terminal, log: Path, manifest: Path, custodian: VerifyKey, *, witnesses: tuple[NoteKey, ...], quorum: int
) -> None:
    """Prove one export and say what it is."""
    read = read_manifest(manifest)
    with terminal.working("proving the export"):
        found = verify_export(records_of(log), read, log_key(custodian), witnesses=witnesses, quorum=quorum)
    result: Json = {
        "entries": found.size - found.first, "first": found.first, "format": read.format, "pruned": found.pruned,
        "root": found.root.hex(), "size": found.size, "witnesses": witnesses_json(found.checkpoint),
    }  # fmt: skip
    text = f"whole: entries {found.first} to {found.size - 1} as {read.format}\nroot {found.root.hex()}"
    terminal.result(result, lambda out: out.print(text))


def _from_files(log: Path, checkpoint_file: Path | None, key: str | None) -> tuple[list[bytes], bytes, str]:
    """Return lines, checkpoint and key of a copy. Raises ``UsageError``, ``Malformed``, ``Rejected``."""
    if key is None or (checkpoint_file is None and not log.is_dir()):
        msg = "audit verify: a log from a file is held against --checkpoint and --key"
        raise UsageError(msg, hint="'audit export' writes both files; the key is in every loan file")
    if not log.is_dir():
        return log_lines(read_capped(log)), read_capped(checkpoint_file or log), key
    own = read_checkpoint_note(log)
    size = verify_log_checkpoint(own, log_key(custodian_key(key))).size
    return read_log(log, size), own if checkpoint_file is None else read_capped(checkpoint_file), key


def _checkpoint(
    data: bytes, origin: str, witnesses: tuple[NoteKey, ...], quorum: int
) -> Checkpoint | VerifiedCheckpoint:
    """Return the verified checkpoint: a signed note, or the statement with the ledger's figures."""
    key = custodian_key(origin)
    if not data.startswith(b"{"):
        verified = verify_log_checkpoint(data, log_key(key), witnesses)
        demand_quorum(verified, witnesses, quorum)
        return verified
    if quorum:
        msg = "audit verify: this checkpoint is a statement, which no witness cosigns"
        raise UsageError(msg, hint="pass the note: 'audit export --folder' writes it, 'audit witness' cosigns it")
    return verify_checkpoint(data, key)
