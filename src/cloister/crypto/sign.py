"""Signed statements: Ed25519 (RFC 8032) over a DSSE pre-authentication encoding.

Each kind of statement has a label of its own, and the label is part of what is signed (DSSE v1.0
protocol, section "Signature Definition"), so that a receipt can never be offered as a lease. The
payload is carried as exact bytes: what was verified is what is parsed.

Not done here: whether a key may speak for somebody; callers pass the keys they trust.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NewType, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloister.errors import Malformed, Rejected, UsageError
from cloister.wire import Fields, dump_b64u
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_STATEMENT_BYTES", "KeyId", "Label", "SigningKey", "Statement", "VerifyKey", "pae"]

KeyId = NewType("KeyId", str)
"""First 16 bytes of SHA-256 over the raw public key, lower-case hex."""

MAX_STATEMENT_BYTES = 1 << 20  # bytes of one dumped statement
_PREFIX = "application/vnd.cloister."
_PAE_PREFIX = b"DSSEv1 "
_SEED_BYTES = 32
_SIGNATURE_BYTES = 64
_SMALL_ORDER = frozenset(
    bytes.fromhex(y)
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Encodings, sign bit cleared, of points of order 1, 2, 4 and 8: under such a key one signature fits many payloads."""


class Label(StrEnum):
    """What kind of statement a signature is for: the DSSE payload type."""

    CHALLENGE = _PREFIX + "challenge+json"
    ATTEST = _PREFIX + "attest+json"
    GRANT = _PREFIX + "grant+json"
    LEASE_REQUEST = _PREFIX + "lease-request+json"
    LEASE = _PREFIX + "lease+json"
    REFUSAL = _PREFIX + "refusal+json"
    ISSUERS_REQUEST = _PREFIX + "issuers-request+json"
    ISSUERS = _PREFIX + "issuers+json"
    CLOSE = _PREFIX + "close+json"
    VOUCHER_REQUEST = _PREFIX + "voucher-request+json"
    VOUCHER = _PREFIX + "voucher+json"
    CONSUMPTION = _PREFIX + "consumption+json"
    TICKET_REQUEST = _PREFIX + "ticket-request+json"
    TICKET = _PREFIX + "ticket+json"
    CERTIFICATE_REQUEST = _PREFIX + "certificate-request+json"
    CERTIFICATE = _PREFIX + "certificate+json"
    ASK = _PREFIX + "ask+json"
    STATUS = _PREFIX + "status+json"
    RECEIPT = _PREFIX + "receipt+json"
    RECEIPT_TREE = _PREFIX + "receipt-tree+json"
    USAGE_REPORT = _PREFIX + "usage-report+json"
    USAGE_ACK = _PREFIX + "usage-ack+json"
    USAGE_STATEMENT = _PREFIX + "usage-statement+json"
    KEY_STATUS = _PREFIX + "key-status+json"
    MANIFEST = _PREFIX + "manifest+json"
    REFERENCE_VALUES = _PREFIX + "reference-values+json"
    POLICY = _PREFIX + "policy+json"
    LOAN = _PREFIX + "loan+json"
    CONTRACT = _PREFIX + "contract+json"
    SUB_ALLOWANCE = _PREFIX + "sub-allowance+json"
    REVOCATIONS = _PREFIX + "revocations+json"
    PERMIT = _PREFIX + "permit+json"
    VAULT_CHANGE = _PREFIX + "vault-change+json"
    CHECKPOINT = _PREFIX + "checkpoint+json"
    ENDORSEMENTS = _PREFIX + "endorsements+json"
    SIMULATED_EVIDENCE = _PREFIX + "simulated-evidence"


def pae(label: Label, payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE PAE over label and payload."""
    kind = label.encode("ascii")  # of the string that it is: ``value`` of an enumeration costs more than the rest
    return _PAE_PREFIX + b"%d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """An Ed25519 public key, 32 bytes."""

    raw: bytes

    @property
    def key_id(self) -> KeyId:
        """The short name of this key."""
        return KeyId(hashlib.sha256(self.raw).hexdigest()[:32])

    def verify(self, label: Label, payload: bytes, signature: bytes) -> None:
        """Prove that the owner of this key signed ``payload`` as ``label``.

        Raises ``Rejected`` (``signature_invalid``) otherwise, also for a key that is no point or one of
        small order.
        """
        if self._of_small_order():
            raise Rejected.because("signature_invalid", label.value, got="key of small order")
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, pae(label, payload))
        except (InvalidSignature, ValueError) as exc:
            raise Rejected.because("signature_invalid", label.value) from exc

    @classmethod
    def take(cls, fields: Fields, name: str) -> Self:
        """Return the key in member ``name`` (base64url, 32 bytes). Raises ``Malformed``."""
        key = cls(fields.b64u(name, size=_SEED_BYTES))
        if key._of_small_order():
            fields.fail(name, "key of small order")
        return key

    def verify_text(self, text: bytes, signature: bytes) -> None:
        """Prove that the owner of this key signed the plain ``text`` (docs/spec/transparency-log.md).

        Raises ``Rejected`` (``signature_invalid``) as ``verify`` does, also for what could be a statement.
        """
        if self._of_small_order() or text.startswith(_PAE_PREFIX):
            raise Rejected.because("signature_invalid", "text", got="key of small order, or a statement")
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, text)
        except (InvalidSignature, ValueError) as exc:
            raise Rejected.because("signature_invalid", "text") from exc

    def _of_small_order(self) -> bool:
        """Tell whether this is a key that nobody can own (RFC 8032 section 5.1.7 does not refuse it)."""
        return self.raw[:31] + bytes((self.raw[31] & 0x7F,)) in _SMALL_ORDER if len(self.raw) == _SEED_BYTES else False

    def dump(self) -> str:
        """Return the raw key as base64url."""
        return dump_b64u(self.raw)


class SigningKey:
    """An Ed25519 private key. It never prints itself."""

    __slots__ = ("_key", "key_id", "verify_key")

    def __init__(self, seed: bytes | bytearray) -> None:
        """Take the 32-byte seed of RFC 8032 section 5.1.5. The caller may wipe its copy afterwards."""
        if len(seed) != _SEED_BYTES:
            msg = f"signing key: seed is {len(seed)} bytes, want {_SEED_BYTES}"
            raise Malformed(msg)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verify_key = VerifyKey(self._key.public_key().public_bytes_raw())
        self.key_id = self.verify_key.key_id
        """The short name of the public half."""

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def seed(self) -> bytes:
        """Return the seed, for a vault to wrap. Never log, store or send it."""
        return self._key.private_bytes_raw()

    def sign(self, label: Label, payload: bytes) -> bytes:
        """Return the 64-byte signature; deterministic (RFC 8032 section 5.1.6)."""
        return self._key.sign(pae(label, payload))

    def sign_text(self, text: bytes) -> bytes:
        """Return the signature of a plain text, for formats of others that have no label.

        Raises ``UsageError`` for a text that begins as what ``sign`` signs: no text is ever a statement.
        """
        if text.startswith(_PAE_PREFIX):
            msg = "signing key: a text that could be a signed statement"
            raise UsageError(msg)
        return self._key.sign(text)

    def __repr__(self) -> str:
        """Show the public name only."""
        return f"SigningKey({self.key_id})"


@hot_value
class Statement:
    """A DSSE envelope with one signature, not yet verified.

    ``payload`` may be read only after ``verify``; that is why it is returned from there.
    """

    label: Label
    payload: bytes
    key_id: KeyId
    signature: bytes

    @classmethod
    def sign(cls, key: SigningKey, label: Label, payload: bytes) -> Self:
        """Return ``payload`` signed by ``key``."""
        return cls(label=label, payload=payload, key_id=key.key_id, signature=key.sign(label, payload))

    def dump(self) -> bytes:
        """Return the envelope as canonical JSON with the member names of DSSE v1.0.

        By hand, for it is on the way of every answer: no value in it has a character that JSON escapes.
        """
        return (
            f'{{"payload":"{dump_b64u(self.payload)}","payloadType":"{self.label}",'
            f'"signatures":[{{"keyid":"{self.key_id}","sig":"{dump_b64u(self.signature)}"}}]}}'
        ).encode("ascii")

    @classmethod
    def parse(cls, data: bytes, *, label: Label) -> Self:
        """Return the envelope of a statement that must be a ``label``.

        Does not check the signature. Raises ``Malformed``; another label is ``Rejected``
        (``wrong_statement``), for it may be a well-formed statement used out of place.
        """
        what = f"{label.name.lower()} statement"
        fields = Fields.parse(data, what=what, cap=MAX_STATEMENT_BYTES, canonical=True)
        kind = fields.text("payloadType", cap=128)
        payload = fields.b64u("payload")
        signatures = fields.items("signatures", cap=1)
        fields.end()
        if len(signatures) != 1:
            fields.fail("signatures", "want exactly one")
        entry = Fields(signatures[0], what=f"{what}: signatures")
        key_id = KeyId(entry.hex("keyid", size=16).hex())
        signature = entry.b64u("sig", size=_SIGNATURE_BYTES)
        entry.end()
        if kind != label.value:
            raise Rejected.because("wrong_statement", what, got=kind[:80], want=label.value)
        return cls(label=label, payload=payload, key_id=key_id, signature=signature)

    def verify(self, keys: Iterable[VerifyKey]) -> bytes:
        """Return the payload once one of ``keys`` is proven to have signed it.

        Raises ``Rejected``: ``unknown_key`` when no key has this id, ``signature_invalid`` when it
        does not verify.
        """
        for key in keys:
            if key.key_id == self.key_id:
                key.verify(self.label, self.payload, self.signature)
                return self.payload
        raise Rejected.because("unknown_key", self.label.value, got=self.key_id)
