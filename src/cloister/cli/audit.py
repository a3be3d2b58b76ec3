"""``cloister audit``: read the custodian's log, and prove it without asking the custodian."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.remote import from_options, remote_options
from cloister.cli.terminal import Group, Terminal, pass_terminal, write_file
from cloister.crypto.sign import VerifyKey
from cloister.errors import UsageError
from cloister.lending.audit import AuditEntry, verify_checkpoint, verify_log
from cloister.wire import Json, dump_json, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.cli.remote import Remote

__all__ = ["audit"]

_PAGE = 500
_KEY_BYTES = 32
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def audit() -> None:
    """Read and prove the audit log."""


@audit.command("list")
@click.option("--after", type=click.IntRange(min=-1), default=-1, help="Show entries behind this index.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most.")
@remote_options
@pass_terminal
def list_entries(terminal: Terminal, /, *, after: int, limit: int, **where: Any) -> None:
    """List entries, one a line."""
    with from_options(**where) as remote:
        for line in _entries(remote, after=after, limit=limit):
            entry = AuditEntry.parse(line)
            if terminal.as_json:
                click.echo(line.decode())
            else:
                details = " ".join(f"{key}={value}" for key, value in sorted(entry.details.items()))
                click.echo(
                    f"{entry.index:>6} {entry.at:%Y-%m-%d %H:%M:%S} {entry.kind.value:<22} {entry.actor} {details}"
                )


@audit.command()
@click.option("--out", type=_file, required=True, help="File to write, one entry a line.")
@click.option("--force", is_flag=True, help="Replace the file.")
@remote_options
@pass_terminal
def export(terminal: Terminal, /, *, out: Path, force: bool, **where: Any) -> None:
    """Write the whole log and its signed checkpoint to files that 'audit verify' proves offline."""
    with from_options(**where) as remote:
        lines = list(_entries(remote, after=-1, limit=None))
        checkpoint = remote.raw("/v1/audit/checkpoint")
    side = out.with_suffix(out.suffix + ".checkpoint")
    write_file(out, b"".join(line + b"\n" for line in lines), force=force)
    write_file(side, checkpoint, force=force)
    result: Json = {"checkpoint": str(side), "entries": len(lines), "out": str(out)}
    terminal.result(result, lambda console: console.print(f"{len(lines)} entries in {out}, checkpoint in {side}"))


@audit.command()
@click.argument("log", type=_file, required=False)
@click.option("--checkpoint", "checkpoint_file", type=_file, help="Signed checkpoint to hold the log against.")
@click.option("--key", help="The custodian's public key (base64url), known from elsewhere than the log.")
@remote_options
@pass_terminal
def verify(
    terminal: Terminal, /, *, log: Path | None, checkpoint_file: Path | None, key: str | None, **where: Any
) -> None:
    """Prove that no entry was changed, cut or put in.

    With LOG: from files alone, without asking anybody; --checkpoint and --key say what it must match.
    Without: reads the log and the checkpoint from the custodian.
    """
    if log is not None:
        if checkpoint_file is None or key is None:
            msg = "audit verify: a log from a file is held against --checkpoint and --key"
            raise UsageError(msg, hint="'audit export' writes both files; the key is in every loan file")
        lines = _read(log).splitlines()
        statement = _read(checkpoint_file)
        origin = key
    else:
        with from_options(**where) as remote:
            lines = list(_entries(remote, after=-1, limit=None))
            statement = remote.raw("/v1/audit/checkpoint")
            origin = key or str(remote.get("/v1/custodian")["key"])
        if key is None:
            terminal.say("the key came from the custodian itself; pass --key to hold the log against one you know")
    checkpoint = verify_checkpoint(statement, VerifyKey(parse_b64u(origin, what="custodian key", size=_KEY_BYTES)))
    verified = verify_log(lines, checkpoint)
    result: Json = {
        "at": str(checkpoint.at),
        "entries": len(lines),
        "root": verified.root.hex(),
        "size": checkpoint.size,
    }
    text = f"whole: {len(lines)} entries, {checkpoint.size} of them under the checkpoint\nroot {verified.root.hex()}"
    terminal.result(result, lambda out: out.print(text))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc


def _entries(remote: Remote, *, after: int, limit: int | None) -> Iterator[bytes]:
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
