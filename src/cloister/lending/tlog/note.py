"""Signed notes: a text, a blank line, and one line for each signature (c2sp.org/signed-note).

Not done here: what a text means, which keys are trusted. A signature by an unknown key is kept and says
nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from cloister.crypto.sign import SigningKey, VerifyKey
from cloister.errors import Malformed, Rejected
from cloister.lending.tlog.text import dump_base64, parse_base64, parse_text

__all__ = [
    "MAX_NOTE_BYTES",
    "MAX_SIGNATURES",
    "NoteKey",
    "NoteSignature",
    "SignatureKind",
    "SignedNote",
    "sign_note",
    "verify_note",
]

MAX_NOTE_BYTES = 64 * 1024  # bytes of one note
MAX_SIGNATURES = 32  # signature lines of one note; readers take at least 16 (signed-note, "Format")
MAX_NAME_CHARS = 200  # characters of a key's name
MAX_SIGNATURE_BYTES = 5 * 1024  # bytes of one signature, of whatever kind
KEY_HASH_BYTES = 4
_PUBLIC_BYTES = 32
_DASH = "\u2014 "


class SignatureKind(IntEnum):
    """The signature type of a key, a part of its id (signed-note, "Signature types")."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


def _demand_name(name: str, *, what: str) -> None:
    """Refuse a name that could not be told from its neighbours on a line. Raises ``Malformed``."""
    fits = 0 < len(name) <= MAX_NAME_CHARS and "+" not in name and name.isprintable() and len(name.split()) == 1
    if not fits or name != name.strip():
        msg = f"{what}: name {name[:40]!r}, want 1 to {MAX_NAME_CHARS} printable characters, no space, no plus"
        raise Malformed(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteKey:
    """Who may sign: a name, a kind of signature and an Ed25519 key. Its id is a hash over all three."""

    name: str
    kind: SignatureKind
    key: VerifyKey

    def __post_init__(self) -> None:
        """Refuse a name that no note can carry. Raises ``Malformed``."""
        _demand_name(self.name, what="note key")

    @property
    def hash(self) -> bytes:
        """The first four bytes of SHA-256 over name, kind and key: an index, not a commitment."""
        material = self.name.encode() + b"\n" + bytes([self.kind]) + self.key.raw
        return hashlib.sha256(material).digest()[:KEY_HASH_BYTES]

    def dump(self) -> str:
        """Return the verifier key as one word: ``name+hash+base64(kind || key)``."""
        return f"{self.name}+{self.hash.hex()}+{dump_base64(bytes([self.kind]) + self.key.raw)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a verifier key. Raises ``Malformed``, also where the hash is not the key's."""
        parts = text.split("+", 2) if len(text) <= MAX_NAME_CHARS + 100 else []
        if len(parts) != 3:  # noqa: PLR2004 - name, hash, key
            msg = "note key: want name+hash+key"
            raise Malformed(msg)
        material = parse_base64(parts[2], what="note key")
        if len(material) != 1 + _PUBLIC_BYTES or material[0] not in set(SignatureKind):
            msg = "note key: want an ed25519 key or a cosigner's"
            raise Malformed(msg)
        key = cls(name=parts[0], kind=SignatureKind(material[0]), key=VerifyKey(material[1:]))
        if parts[1] != key.hash.hex():
            msg = f"note key: hash {parts[1][:16]!r}, want {key.hash.hex()}"
            raise Malformed(msg)
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line, not verified: whose it says it is, and its bytes without the key hash."""

    name: str
    hash: bytes
    signature: bytes

    def is_by(self, key: NoteKey) -> bool:
        """Tell whether name and hash are this key's. Nothing is proven by it."""
        return (self.name, self.hash) == (key.name, key.hash)

    def dump(self) -> str:
        """Return the line, ended by a line feed."""
        return f"{_DASH}{self.name} {dump_base64(self.hash + self.signature)}\n"

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parse one line, without its line feed. Raises ``Malformed``."""
        name, space, text = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            msg = "note: signature line: want dash, name and base64"
            raise Malformed(msg)
        _demand_name(name, what="note: signature line")
        data = parse_base64(text, what="note: signature line")
        if not KEY_HASH_BYTES < len(data) <= KEY_HASH_BYTES + MAX_SIGNATURE_BYTES:
            msg = f"note: signature line: {len(data)} bytes"
            raise Malformed(msg)
        return cls(name=name, hash=data[:KEY_HASH_BYTES], signature=data[KEY_HASH_BYTES:])


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedNote:
    """A text with signature lines, not verified. ``text`` ends in a line feed."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def dump(self) -> bytes:
        """Return the exact bytes."""
        return f"{self.text}\n{''.join(item.dump() for item in self.signatures)}".encode()

    def signed_also(self, signatures: tuple[NoteSignature, ...]) -> SignedNote:
        """Return the same text with further signatures, each line once."""
        return SignedNote(text=self.text, signatures=tuple(dict.fromkeys((*self.signatures, *signatures))))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse. Does not check any signature. Raises ``Malformed``."""
        whole = parse_text(data, what="note", cap=MAX_NOTE_BYTES)
        head, blank, tail = whole.rpartition("\n\n")
        if not blank or not tail.endswith("\n"):
            msg = "note: want a text, a blank line and signature lines"
            raise Malformed(msg)
        lines = tail[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            msg = f"note: {len(lines)} signatures, want at most {MAX_SIGNATURES}"
            raise Malformed(msg)
        return cls(text=head + "\n", signatures=tuple(NoteSignature.parse(line) for line in lines))


def sign_note(key: SigningKey, name: str, text: str) -> NoteSignature:
    """Return the plain Ed25519 signature line of ``key`` under ``name`` over ``text``."""
    public = NoteKey(name=name, kind=SignatureKind.ED25519, key=key.verify_key)
    return NoteSignature(name=name, hash=public.hash, signature=key.sign_text(text.encode()))


def verify_note(note: SignedNote, key: NoteKey) -> None:
    """Prove that ``key`` signed the text of ``note``.

    Raises ``Rejected``: ``unknown_key`` when no line is by this key, ``signature_invalid`` when one is and
    does not verify, another beside it notwithstanding.
    """
    found = [item for item in note.signatures if item.is_by(key)]
    if not found or key.kind is not SignatureKind.ED25519:
        raise Rejected.because("unknown_key", "note", got="no signature by this key", want=key.name)
    for item in found:
        key.key.verify_text(note.text.encode(), item.signature)
