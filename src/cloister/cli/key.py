"""``cloister key``: rotate the keys that wrap model keys, and prove that every lease has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloister.cli.duration import parse_duration
from cloister.cli.pending import settled, wait_option
from cloister.cli.remote import from_options, remote_options
from cloister.cli.terminal import EXIT_REJECTED, Group, Terminal, pass_terminal
from cloister.crypto.sign import Statement, VerifyKey
from cloister.errors import Rejected, UsageError
from cloister.lending.messages.keys import KeyStatus
from cloister.wire import dump_time, parse_b64u

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from cloister.cli.remote import Remote
    from cloister.wire import Json

__all__ = ["key"]

_MAX_DAYS = 3650


@click.group(cls=Group)
def key() -> None:
    """Rotate the keys that wrap model keys, and see who still serves by an older one."""


@key.command()
@click.option("--now", is_flag=True, help="Rotate now.")
@click.option("--every", metavar="TIME", help="Let the custodian rotate by itself, such as every 90d.")
@click.option("--never", is_flag=True, help="Rotate by hand only from now on.")
@click.option("--incident", metavar="REASON", help="Rotate now and destroy retired keys at once; REASON is logged.")
@wait_option
@remote_options
@pass_terminal
def rotate(
    terminal: Terminal,
    /,
    *,
    now: bool,
    every: str | None,
    never: bool,
    incident: str | None,
    wait: bool,
    home: Path | None,
    url: str | None,
    ca: Path | None,
    token_file: str | None,
) -> None:
    """Wrap every model's key under a new key: now, or by itself from now on.

    Sealed models stay as they are, and nobody who is served notices. Leases count as moved once they are renewed.
    A second person may have to approve what destroys keys, and any change of the schedule.
    """
    if sum((now, every is not None, never, incident is not None)) != 1:
        msg = "key rotate: want one of --now, --every, --never and --incident"
        raise UsageError(msg)
    path, body = "/v1/keys/rotate", _rotation(incident)
    if every is not None or never:
        seconds = 0 if every is None else int(parse_duration(every, days=_MAX_DAYS).total_seconds())
        path, body = "/v1/keys/schedule", {"every_s": seconds}
    with from_options(home=home, url=url, ca=ca, token_file=token_file) as remote:
        with terminal.working("wrapping models' keys anew"):
            answer = remote.post(path, body)
        shown = settled(terminal, remote, answer, wait=wait)
    terminal.result(dict(shown), lambda out: _draw_rotation(terminal, shown, out))


def _rotation(incident: str | None) -> dict[str, Json]:
    return {} if incident is None else {"incident": True, "reason": incident}


def _draw_rotation(terminal: Terminal, shown: Any, out: Console) -> None:
    if "rewrapped" in shown:
        out.print(f"key epoch {shown['key_epoch']}: {shown['kek_id']}")
        out.print(f"{shown['rewrapped']} models wrapped anew, {shown['destroyed']} retired keys destroyed")
        if shown["stuck"]:
            out.print(
                f"{len(shown['stuck'])} models stay under older keys, {shown['kept']} of which are kept for them:"
            )
            out.print(terminal.table(("model", "cause"), [(item["model"], item["cause"]) for item in shown["stuck"]]))
    else:
        out.print(f"next rotation: {shown['next_at'] or 'by hand only'}")


@key.command()
@remote_options
@pass_terminal
def status(
    terminal: Terminal, /, *, home: Path | None, url: str | None, ca: Path | None, token_file: str | None
) -> int:
    """Prove that every live lease and model's key is of the newest key epoch, or list those that are not.

    The statement is signed by the custodian; --json has it as it was signed. Exits with 4 where one has not moved.
    """
    with from_options(home=home, url=url, ca=ca, token_file=token_file) as remote:
        data = remote.raw("/v1/keys/status")
        told = _verified(remote, data)
    shown: dict[str, Json] = {
        "behind": [item.to_json() for item in told.behind],
        "behind_count": told.behind_count,
        "issued_at": dump_time(told.issued_at),
        "key_epoch": told.key_epoch,
        "keys": [item.to_json() for item in told.keys],
        "live": told.live,
        "models": told.models,
        "moved": told.moved,
        "stuck": [item.to_json() for item in told.stuck],
        "stuck_count": told.stuck_count,
        "statement": data.decode("ascii"),
    }
    terminal.result(shown, lambda out: _draw_status(terminal, told, out))
    return 0 if told.moved else EXIT_REJECTED


def _verified(remote: Remote, data: bytes) -> KeyStatus:
    """Return the statement, signed by the custodian that this address says it is."""
    custodian = VerifyKey(parse_b64u(str(remote.get("/v1/custodian")["key"]), what="custodian's key"))
    told = KeyStatus.parse(Statement.parse(data, label=KeyStatus.LABEL).verify([custodian]))
    if told.custodian != custodian:
        raise Rejected.because("wrong_custodian", "key status")
    return told


def _draw_status(terminal: Terminal, told: KeyStatus, out: Console) -> None:
    rows = [
        (
            str(item.key_epoch),
            item.kek_id,
            "in use" if item.retired_at is None else "retired" if item.destroyed_at is None else "destroyed",
        )
        for item in told.keys
    ]
    out.print(terminal.table(("epoch", "key", "state"), rows))
    if told.stuck_count:
        out.print(f"{told.stuck_count} models' keys are not under the key in use; publish these models again:")
        out.print(terminal.table(("model", "cause"), [(item.model, item.cause.value) for item in told.stuck]))
    if not told.behind_count:
        out.print(f"all {told.live} live leases are of key epoch {told.key_epoch}")
        return
    out.print(f"{told.behind_count} of {told.live} live leases are of an older key epoch:")
    late = [(item.instance[:16], item.loan, str(item.key_epoch), dump_time(item.dead_at)) for item in told.behind]
    out.print(terminal.table(("instance", "loan", "epoch", "ends by"), late))
