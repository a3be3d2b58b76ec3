"""``cloister audit witness``: a borrower or a consumer watches that the custodian has one log."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.attest.rules import NotChecked
from cloister.cli.log_options import custodian_key, loan_file_option, read_capped
from cloister.cli.remote import Remote, from_token
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.client.trust_file import Trust
from cloister.client.witness import LogSource, Witness
from cloister.enclave.loanfile import read_loan_file
from cloister.errors import Rejected, UsageError
from cloister.lending.tlog.advance import Advance
from cloister.lending.tlog.checkpoint import LogCheckpoint, log_key
from cloister.lending.tlog.note import MAX_NOTE_BYTES

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["witness"]

_MAX_CA_BYTES = 64 * 1024
_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", help="First time: the witness's name, as others shall know it (hospital.example/log).")
@loan_file_option
@click.option(
    "--trust", "trust_file", type=_file, help="First time: a trust file that pins the custodian (for consumers)."
)
@click.option("--url", help="First time: base URL of the custodian's API.")
@click.option("--ca", type=_file, help="First time, with --url: PEM file of the custodian's TLS authority.")
@click.option("--key", help="First time, with --url: the custodian's public key (base64url).")
@click.option("--peer", type=_file, multiple=True, help="A checkpoint that another reader was shown; repeat it.")
@click.option("--no-submit", is_flag=True, help="Keep the cosignature here; do not hand it to the custodian.")
@pass_terminal
def witness(
    terminal: Terminal,
    /,
    *,
    folder: Path,
    name: str | None,
    loan_file: Path | None,
    trust_file: Path | None,
    url: str | None,
    ca: Path | None,
    key: str | None,
    peer: tuple[Path, ...],
    no_submit: bool,
) -> None:
    """Prove that the log extends what FOLDER remembers, cosign its checkpoint, and hand that in.

    The first time FOLDER is made, with a signing key of its own, for the custodian that --loan-file, --trust or
    --url with --key names. A log that shrank or forked is refused, and both checkpoints are kept as evidence.
    """
    first = _First(name=name, loan_file=loan_file, trust_file=trust_file, url=url, ca=ca, key=key)
    if not folder.exists():
        _create(folder, first)
    elif any(item is not None for item in astuple(first)):
        msg = f"witness {folder}: is there already; it knows its custodian"
        raise UsageError(msg, hint="leave the options of the first time out, or choose another folder")
    held = Witness(folder)
    with from_token(url=held.source.url, ca_pem=held.source.ca_pem, token=None) as remote:
        before = held.state.size
        note = held.round(lambda old: _ask(remote, old), datetime.now(UTC))
        for path in peer:
            held.compare(
                read_capped(path, cap=MAX_NOTE_BYTES),
                lambda old, size: remote.raw("/log/consistency", old=old, size=size),
            )
        kept = False if no_submit else _submit(terminal, remote, held, note.dump())
    checkpoint = LogCheckpoint.parse(note.text)
    result: Json = {
        "before": before,
        "key": held.key.dump(),
        "log": held.state.log.dump(),
        "note": str(folder / "cosigned.note"),
        "peers": len(peer),
        "root": checkpoint.root.hex(),
        "size": checkpoint.size,
        "submitted": kept,
    }
    text = f"cosigned: {checkpoint.size} entries, {checkpoint.size - before} of them new\nwitness {held.key.dump()}"
    terminal.result(result, lambda out: out.print(text))


def _ask(remote: Remote, old: int) -> bytes:
    """Return the custodian's answer to a witness that remembers ``old`` entries."""
    try:
        return remote.raw("/log/consistency", old=old)
    except Rejected as refusal:
        if refusal.code != "not_found":
            raise
        # It says that it never had so many. Let it sign what it has: that is the evidence.
        return Advance(old=old, proof=(), checkpoint=remote.raw("/log/checkpoint")).dump()


@dataclass(frozen=True, slots=True, kw_only=True)
class _First:
    """What only the first round is told."""

    name: str | None
    loan_file: Path | None
    trust_file: Path | None
    url: str | None
    ca: Path | None
    key: str | None


def _create(folder: Path, first: _First) -> None:
    """Make the witness for the one custodian that the options name. Raises ``UsageError``."""
    if first.name is None or sum(item is not None for item in (first.loan_file, first.trust_file, first.url)) != 1:
        msg = "audit witness: the first time want --name, and one of --loan-file, --trust, --url"
        raise UsageError(msg)
    if (first.url is None) != (first.key is None) or (first.ca is not None and first.url is None):
        msg = "audit witness: --url, --key and --ca belong together"
        raise UsageError(msg)
    if first.loan_file is not None:
        given = read_loan_file(first.loan_file)
        source, custodian = LogSource(url=given.custodian_url, ca_pem=given.ca_pem), given.custodian_key
    elif first.trust_file is not None:
        pin = Trust.load(first.trust_file).custodian
        if isinstance(pin, NotChecked):
            msg = f"{first.trust_file}: pins no custodian"
            raise UsageError(msg, hint="'cloister trust new --custodian-url --custodian-key' does")
        source, custodian = LogSource(url=pin.url, ca_pem=pin.ca_pem), pin.key
    else:
        ca_pem = None if first.ca is None else read_capped(first.ca, cap=_MAX_CA_BYTES).decode("ascii", "replace")
        source, custodian = LogSource(url=str(first.url), ca_pem=ca_pem), custodian_key(str(first.key))
    Witness.create(folder, name=first.name, log=log_key(custodian), source=source)


def _submit(terminal: Terminal, remote: Remote, held: Witness, note: bytes) -> bool:
    """Hand the cosignature in; a custodian that does not know this witness is no fault of the log."""
    try:
        remote.post_text("/log/cosignatures", note)
    except Rejected as refusal:
        if refusal.code != "unknown_key":
            raise
        terminal.warn(f"the custodian does not know this witness; its setting 'witnesses' wants {held.key.dump()}")
        return False
    return True
