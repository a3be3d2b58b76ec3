"""A witness of a custodian's log, kept by a borrower or a consumer (docs/spec/transparency-log.md section 6).

    folder/  key            the witness's own signing key, mode 0600, made here and never shown
             state.json     what it remembers of the log
             source.json    where the log is asked for
             cosigned.note  the last checkpoint with its cosignature
             evidence/      what a log signed that cannot both be true

A round remembers first and cosigns then. Not done here: the network; whoever calls brings ``fetch``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.merkle import verify_consistency
from cloister.lending.tlog.advance import Advance
from cloister.lending.tlog.checkpoint import verify_log_checkpoint, verify_one_history
from cloister.lending.tlog.cosignature import cosigner_key
from cloister.lending.tlog.witness import MAX_STATE_BYTES, WitnessState, cosign_advance
from cloister.wire import Fields, Json, dump_b64u, dump_json, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from cloister.lending.tlog.checkpoint import VerifiedCheckpoint
    from cloister.lending.tlog.note import NoteKey, SignedNote

__all__ = ["LogSource", "Witness"]

_SEED_BYTES = 32
_MAX_SOURCE_BYTES = 64 * 1024
_CONVICTS = ("split_view", "log_shrunk", "not_consistent")
"""Refusals of which both checkpoints are kept: the custodian signed each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSource:
    """Where a log is asked for. ``ca_pem`` None means the system's trust store."""

    url: str
    ca_pem: str | None

    def dump(self) -> bytes:
        """Return the file."""
        document: dict[str, Json] = {"url": self.url, "v": 1}
        return dump_json(document if self.ca_pem is None else {**document, "ca_pem": self.ca_pem})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse. Raises ``Malformed``."""
        fields = Fields.parse(data, what="log source", cap=_MAX_SOURCE_BYTES)
        fields.literal("v", 1)
        ca_pem = str(fields.take("ca_pem")) if "ca_pem" in fields else None
        source = cls(url=fields.text("url", cap=1024, floor=1), ca_pem=ca_pem)
        fields.end()
        return source


class Witness:
    """One witness of one log, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Open what ``create`` made. Raises ``UsageError`` where it is not there, ``Malformed``."""
        self.folder = folder
        self.source = LogSource.parse(_read(folder / "source.json", cap=_MAX_SOURCE_BYTES))
        self._key = _read_key(folder / "key")
        self.state = self._remembered()
        self.key: NoteKey = cosigner_key(self._key, self.state.name)
        """Whom its cosignatures are by: what custodian and readers are told."""

    @classmethod
    def create(cls, folder: Path, *, name: str, log: NoteKey, source: LogSource) -> Self:
        """Make a witness with a fresh key in the new folder. Raises ``UsageError``, ``Malformed`` for the name."""
        key = SigningKey.generate()
        cosigner_key(key, name)
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as exc:
            msg = f"witness {folder}: {exc.strerror}"
            raise UsageError(msg, hint="choose a folder that is not there yet") from exc
        _write(folder / "key", dump_b64u(key.seed()).encode() + b"\n")
        _write(folder / "source.json", source.dump())
        _write(folder / "state.json", WitnessState(name=name, log=log).dump())
        return cls(folder)

    def round(self, fetch: Callable[[int], bytes], now: datetime) -> SignedNote:
        """Ask for the newest checkpoint, prove that it extends the last, remember it, and return it cosigned.

        ``fetch`` gets the size that is remembered and returns the custodian's answer. Raises ``Malformed``, and
        ``Rejected`` as ``witness.verify_advance``; where the log convicts itself both checkpoints are kept.
        """
        with self._alone():
            self.state = self._remembered()
            data = fetch(self.state.size)
            advance = Advance.parse(data)
            try:
                kept, note = cosign_advance(self.state, advance, self._key, now)
            except Rejected as refusal:
                if refusal.code not in _CONVICTS:
                    raise
                where = self._keep_evidence(self.state.checkpoint, advance.checkpoint, data)
                raise _convicting(refusal, where) from refusal
            _write(self.folder / "state.json", kept.dump())
            self.state = kept
            _write(self.folder / "cosigned.note", note.dump())
            return note

    def compare(self, peer: bytes, fetch: Callable[[int, int], bytes]) -> VerifiedCheckpoint:
        """Prove that another reader was shown the same log: one checkpoint extends the other (T92).

        ``fetch`` gets the smaller and the larger size. Raises as ``round``; ``UsageError`` before the first round.
        """
        theirs, ours = verify_log_checkpoint(peer, self.state.log), self.state.last()
        if ours is None:
            msg = f"witness {self.folder}: no checkpoint yet"
            raise UsageError(msg, hint="ask the custodian first: a round without --peer")
        first, second = sorted((ours, theirs), key=lambda item: item.size)
        try:
            verify_one_history(ours, theirs)
            if first.size < second.size:
                proof = Advance.parse(fetch(first.size, second.size)).proof
                verify_consistency(
                    old_size=first.size, old_root=first.root, size=second.size, root=second.root, proof=proof
                )
        except Rejected as refusal:
            where = self._keep_evidence(self.state.checkpoint, peer, b"")
            raise _convicting(refusal, where) from refusal
        return theirs

    def _remembered(self) -> WitnessState:
        return WitnessState.parse(_read(self.folder / "state.json", cap=MAX_STATE_BYTES))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder: two rounds at once could cosign two histories. Raises ``Unavailable``."""
        with contextlib.ExitStack() as held:
            try:
                file = held.enter_context((self.folder / "lock").open("wb"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                msg = f"witness {self.folder}: another round is running"
                raise Unavailable(msg, retry_after_s=5) from exc
            except OSError as exc:
                msg = f"witness {self.folder}: {exc.strerror}"
                raise Unavailable(msg) from exc
            yield

    def _keep_evidence(self, ours: bytes, theirs: bytes, answer: bytes) -> Path:
        """Write both checkpoints, and the whole answer where there is one; the same ones once."""
        place = self.folder / "evidence" / hashlib.sha256(ours + theirs).hexdigest()[:16]
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            msg = f"{place}: {exc.strerror}: evidence against the log could not be kept"
            raise Unavailable(msg) from exc
        for name, data in (("remembered.note", ours), ("shown.note", theirs), ("answer.txt", answer)):
            if data:
                _write(place / name, data)
        return place


def _convicting(refusal: Rejected, where: Path) -> Rejected:
    hint = f"nothing was handed in; both checkpoints are in {where}: show them to others, ask the custodian why"
    return Rejected(refusal.message, reasons=refusal.reasons, hint=hint)


def _read_key(path: Path) -> SigningKey:
    text = _read(path, cap=256, private=True).decode("ascii", "replace").strip()
    return SigningKey(parse_b64u(text, what="witness key", size=_SEED_BYTES))


def _read(path: Path, *, cap: int, private: bool = False) -> bytes:
    """Return a bounded file. Raises ``UsageError`` where it cannot be read, or others may read a private one."""
    try:
        with path.open("rb") as file:
            if private and os.fstat(file.fileno()).st_mode & 0o077:
                msg = f"{path}: others may read it, want mode 0600"
                raise UsageError(msg, hint=f"chmod 600 {path}")
            data = file.read(cap + 1)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg, hint="'cloister audit witness' makes a new witness in a new folder") from exc
    if len(data) > cap:
        msg = f"{path}: more than {cap} bytes"
        raise Malformed(msg)
    return data


def _write(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, durably, whole or not at all. Raises ``Unavailable``."""
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        msg = f"{path}: {exc.strerror}"
        raise Unavailable(msg) from exc
