"""``cloister audit export``: the whole log on the reader's own disk, in lines or in tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.export_file import frontier_since, manifest_place, write_export
from cloister.cli.log_folder import (
    CHECKPOINT,
    VKEY,
    drop_outgrown,
    read_checkpoint_note,
    write_entries,
    write_tiles,
)
from cloister.cli.log_options import custodian_key
from cloister.cli.remote import from_options, remote_options
from cloister.cli.terminal import Terminal, Verb, demand_writable, pass_terminal, write_file
from cloister.errors import Rejected, UsageError
from cloister.lending.audit import verify_checkpoint
from cloister.lending.exports import FORMATS
from cloister.lending.tlog.advance import Advance
from cloister.lending.tlog.checkpoint import log_key, verify_log_checkpoint
from cloister.lending.tlog.witness import WitnessState, verify_advance
from cloister.wire import Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.cli.remote import Remote
    from cloister.lending.tlog.checkpoint import VerifiedCheckpoint
    from cloister.lending.tlog.note import NoteKey

__all__ = ["export", "log_entries"]

_PAGE = 500
_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)


@click.command(cls=Verb)
@click.option("--out", type=_file, help="File to write, one entry a line; checkpoint and manifest stand beside it.")
@click.option(
    "--format",
    "name",
    metavar="FORMAT",
    type=click.Choice(sorted(FORMATS)),
    default="jsonl",
    show_default=True,
    help="With --out: how a line is written: the log's own JSON, OCSF 1.6.0, CEF, OTLP/JSON.",
)
@click.option("--since", type=_file, help="With --out: only what is behind the export with this manifest.")
@click.option("--resume", is_flag=True, help="With --out: go on with an export that broke off.")
@click.option("--folder", type=_folder, help="Folder to write in the layout of tlog-tiles; goes on where it stopped.")
@click.option("--key", help="The custodian's public key (base64url), known from elsewhere than the log.")
@click.option("--force", is_flag=True, help="Replace the file.")
@remote_options
@pass_terminal
def export(
    terminal: Terminal,
    /,
    *,
    out: Path | None,
    folder: Path | None,
    key: str | None,
    force: bool,
    name: str,
    since: Path | None,
    resume: bool,
    **where: Any,
) -> None:
    """Write the whole log and its signed checkpoint to files that 'audit verify' proves offline.

    --out writes one record for each entry, in the format that a log store wants; out of each the exact entry comes
    back. The manifest beside it lets 'audit verify --manifest' prove that none is missing.

    --folder writes what other implementations read: checkpoint, tiles of hashes, bundles of entries. Asked
    again it fetches what is new; a log that does not hold what is there already is refused.
    """
    if out is None and folder is None:
        msg = "audit export: want --out, --folder or both"
        raise UsageError(msg)
    result: dict[str, Json] = {}
    words: list[str] = []
    with from_options(**where) as remote:
        if folder is not None:
            result |= _write_folder(terminal, remote, folder, key)
            words.append(f"{result['size']} entries in {folder}, {result['fetched']} of them new")
        if out is not None:
            asked = _Asked(out=out, name=name, since=since, resume=resume, force=force, key=key)
            result |= _write_records(terminal, remote, asked)
            words.append(f"{result['entries']} entries in {out}, manifest in {result['manifest']}")
    terminal.result(result, lambda console: console.print("\n".join(words)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What file is wanted."""

    out: Path
    name: str
    since: Path | None
    resume: bool
    force: bool
    key: str | None


def _write_records(terminal: Terminal, remote: Remote, asked: _Asked) -> dict[str, Json]:
    """Write one file of records with its manifest, and the statement about the same log or a longer one."""
    before, side = frontier_since(asked.since), asked.out.with_suffix(asked.out.suffix + ".checkpoint")
    demand_writable([side], force=asked.force)
    custodian = custodian_key(asked.key or str(remote.get("/v1/custodian")["key"]))
    statement = remote.raw("/v1/audit/checkpoint")
    newest = verify_checkpoint(statement, custodian).size
    if newest < before.size:
        raise Rejected.because("log_shrunk", "log", got=f"{newest} entries", want=f"at least {before.size}")
    checkpoint = verify_log_checkpoint(remote.raw("/log/checkpoint", size=newest), log_key(custodian))
    with terminal.progress("export", unit="entries") as report:
        fetched = write_export(
            asked.out,
            name=asked.name,
            before=before,
            checkpoint=checkpoint,
            lines=lambda index: log_entries(remote, after=index - 1, limit=newest - index),
            report=report,
            resume=asked.resume,
            force=asked.force,
        )
    result: dict[str, Json] = {
        "entries": newest - before.size, "first": before.size, "format": asked.name,
        "manifest": str(manifest_place(asked.out)), "out": str(asked.out), "records": fetched, "size": newest,
    }  # fmt: skip
    if asked.name == "jsonl" and asked.since is None:
        write_file(side, statement, force=asked.force)
        result["checkpoint"] = str(side)
    return result


def _write_folder(terminal: Terminal, remote: Remote, folder: Path, key: str | None) -> dict[str, Json]:
    """Bring a folder up to the newest checkpoint. Raises ``Rejected``: as ``verify_advance``, ``audit_changed``."""
    log = log_key(custodian_key(key or str(remote.get("/v1/custodian")["key"])))
    # The newest, not the one that is offered to witnesses: an export is of all there is.
    newest = int(remote.get("/v1/audit", limit=1)["size"])
    before, verified = _newest(remote, folder, log, newest)
    with terminal.progress("export", unit="entries") as report:
        tree, fresh = write_entries(folder, newest, lambda tile: remote.raw(f"/log/{tile.path()}"), report)
    if tree.root() != verified.root:
        for path in fresh:
            path.unlink()
        got, want = tree.root().hex(), verified.root.hex()
        hint = f"what was fetched is gone again; if it stays, {folder} was changed: export to a new folder"
        raise Rejected.because("audit_changed", f"log of {newest}", got=got, want=want, hint=hint)
    write_tiles(folder, tree)
    write_file(folder / VKEY, f"{log.dump()}\n".encode(), force=True)
    write_file(folder / CHECKPOINT, verified.note.dump(), force=True)
    drop_outgrown(folder, newest)
    return {
        "fetched": newest - before,
        "folder": str(folder),
        "log": log.dump(),
        "root": verified.root.hex(),
        "size": newest,
    }


def _newest(remote: Remote, folder: Path, log: NoteKey, newest: int) -> tuple[int, VerifiedCheckpoint]:
    """Return how many entries the folder had, and the newest checkpoint, proven to extend the folder's."""
    state = WitnessState(name="export", log=log)
    if (folder / CHECKPOINT).exists():
        note = read_checkpoint_note(folder)
        last = verify_log_checkpoint(note, log)
        state = replace(state, size=last.size, root=last.root, checkpoint=note)
    if state.size > newest:
        raise Rejected.because("log_shrunk", "log", got=f"{newest} entries", want=f"at least {state.size}")
    data = remote.raw("/log/consistency", old=state.size, size=newest)
    return state.size, verify_advance(state, Advance.parse(data))


def log_entries(remote: Remote, *, after: int, limit: int | None) -> Iterator[bytes]:
    """Yield the exact bytes of entries behind index ``after``, page by page."""
    left = limit
    while left is None or left > 0:
        page = remote.get("/v1/audit", after=after, limit=_PAGE if left is None else min(_PAGE, left))["entries"]
        for entry in page:
            yield dump_json(entry)
            after += 1
        if not page:
            return
        left = None if left is None else left - len(page)
