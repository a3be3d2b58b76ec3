"""What a witness adds to a checkpoint: a timestamped signature (c2sp.org/tlog-cosignature, Ed25519).

It says: of all trees of this log that I was shown, all consistent with one another, this one is the
largest, as of this time. It says nothing about the entries.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Rejected
from cloister.lending.tlog.note import NoteKey, NoteSignature, SignatureKind

if TYPE_CHECKING:
    from cloister.crypto.sign import SigningKey
    from cloister.lending.tlog.note import SignedNote

__all__ = ["cosign", "cosigned_at", "cosigner_key"]

_TIME_BYTES = 8
_SIGNATURE_BYTES = 64
_MAX_TIME = 253_402_300_799  # seconds since 1970: the last of the year 9999


def cosigner_key(key: SigningKey, name: str) -> NoteKey:
    """Return whom cosignatures by ``key`` are by, to be given to those who shall count them."""
    return NoteKey(name=name, kind=SignatureKind.COSIGNATURE, key=key.verify_key)


def _message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def cosign(key: SigningKey, name: str, text: str, now: datetime) -> NoteSignature:
    """Return the cosignature of a checkpoint's text, as of ``now``. Whether it may be given is ``witness``'s to say."""
    seconds = int(now.timestamp())
    signature = seconds.to_bytes(_TIME_BYTES, "big") + key.sign_text(_message(text, seconds))
    return NoteSignature(name=name, hash=cosigner_key(key, name).hash, signature=signature)


def cosigned_at(note: SignedNote, witness: NoteKey) -> datetime | None:
    """Return when ``witness`` cosigned the text of ``note``, None where it did not; the last time, if often.

    Raises ``Malformed`` for a line of this witness that is no cosignature, ``Rejected``
    (``signature_invalid``) for one that does not verify, ``unknown_key`` for a key of another kind.
    """
    if witness.kind is not SignatureKind.COSIGNATURE:
        raise Rejected.because("unknown_key", f"witness {witness.name}", got="a plain key", want="a cosigner's key")
    times = [_verified(note.text, item, witness) for item in note.signatures if item.is_by(witness)]
    return max(times, default=None)


def _verified(text: str, item: NoteSignature, witness: NoteKey) -> datetime:
    seconds = int.from_bytes(item.signature[:_TIME_BYTES], "big")
    if len(item.signature) != _TIME_BYTES + _SIGNATURE_BYTES or seconds > _MAX_TIME:
        msg = f"cosignature of {witness.name}: want a time and 64 bytes"
        raise Malformed(msg)
    witness.key.verify_text(_message(text, seconds), item.signature[_TIME_BYTES:])
    return datetime.fromtimestamp(seconds, UTC)
