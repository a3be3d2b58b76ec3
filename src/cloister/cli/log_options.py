"""What commands about the log share: whose log it is, which witnesses must have seen it, who is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.remote import from_loan_file, from_options
from cloister.crypto.sign import VerifyKey
from cloister.enclave.loanfile import read_loan_file
from cloister.errors import Malformed, UsageError
from cloister.lending.tlog.note import NoteKey, SignatureKind
from cloister.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloister.cli.remote import Remote
    from cloister.lending.tlog.checkpoint import VerifiedCheckpoint
    from cloister.wire import Json

__all__ = [
    "custodian_key",
    "demand_witnesses",
    "loan_file_option",
    "log_lines",
    "read_capped",
    "remote_or_borrower",
    "witness_keys",
    "witness_options",
    "witnesses_json",
]

MAX_FILE_BYTES = 1 << 30  # bytes of one copy of a log
_file = click.Path(path_type=Path, dir_okay=False)

loan_file_option = click.option("--loan-file", type=_file, help="The loan file the custodian gave you (for borrowers).")


def witness_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say who must have cosigned: the command gets ``witness`` and ``quorum``."""
    for option in (
        click.option(
            "--quorum", type=click.IntRange(0, 16), help="How many of the witnesses must have cosigned; all by default."
        ),
        click.option(
            "--witness",
            multiple=True,
            metavar="KEY",
            help="Key of a witness (name+hash+key) that you trust; repeat it.",
        ),
    ):
        command = option(command)
    return command


def witness_keys(witness: tuple[str, ...], quorum: int | None) -> tuple[tuple[NoteKey, ...], int]:
    """Return the witnesses and how many must have cosigned. Raises ``UsageError``."""
    try:
        keys = tuple(NoteKey.parse(text) for text in witness)
    except Malformed as exc:
        msg = f"--witness: {exc.message}"
        raise UsageError(msg, hint="'cloister audit witness' prints it") from exc
    if any(key.kind is not SignatureKind.COSIGNATURE for key in keys) or len({key.name for key in keys}) < len(keys):
        msg = "--witness: want keys of cosigners, each name once"
        raise UsageError(msg)
    wanted = len(keys) if quorum is None else quorum
    demand_witnesses(keys, wanted)
    return keys, wanted


def demand_witnesses(keys: tuple[NoteKey, ...], wanted: int) -> None:
    """Refuse a quorum that these witnesses cannot make."""
    if wanted > len(keys):
        msg = f"--quorum: {wanted} of {len(keys)} witnesses"
        raise UsageError(msg, hint="name each witness with --witness")


def custodian_key(text: str) -> VerifyKey:
    """Return the custodian's public key. Raises ``Malformed``."""
    return VerifyKey.take(Fields({"--key": text}, what="audit"), "--key")


def remote_or_borrower(loan_file: Path | None, where: Mapping[str, Any]) -> tuple[Remote, VerifyKey | None]:
    """Return a connection by the loan file, with the key that it pins, else by the other options."""
    if loan_file is None:
        return from_options(**where), None
    if any(value is not None for value in where.values()):
        msg = "--loan-file: it says where the custodian is; leave --home, --url, --ca and --token-file out"
        raise UsageError(msg)
    return from_loan_file(loan_file)[0], read_loan_file(loan_file).custodian_key


def read_capped(path: Path, *, cap: int = MAX_FILE_BYTES) -> bytes:
    """Return a file. Raises ``UsageError`` where it cannot be read, ``Malformed`` where it is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(cap + 1)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if len(data) > cap:
        msg = f"{path}: more than {cap} bytes"
        raise Malformed(msg)
    return data


def log_lines(data: bytes) -> list[bytes]:
    """Return the lines of a copy of a log, each ended by a line feed and by nothing else. Raises ``Malformed``."""
    if data and not data.endswith(b"\n"):
        msg = "log: its last line has no end"
        raise Malformed(msg, hint="it was cut: fetch it again")
    return data.split(b"\n")[:-1]


def witnesses_json(verified: VerifiedCheckpoint) -> Json:
    """Return who cosigned, and when."""
    return {name: _time(at) for name, at in sorted(verified.cosigned.items())}


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
