"""The envelope of a sealed model: the wrapped DEK for each recipient, outside the manifest's signature.

Rotating a key rewrites this small file and nothing else. Not done here: wrapping itself, which is the
vault's; it authenticates ``wrap_info`` so that a wrapped key fits one model, version and recipient.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cloister.errors import Malformed, UsageError
from cloister.wire import Fields, Json, dump_b64u, dump_json, lp

__all__ = ["MAX_ENVELOPE_BYTES", "MAX_RECIPIENTS", "Envelope", "Recipient", "wrap_info"]

VERSION = 1
MAX_RECIPIENTS = 64
MAX_WRAPPED_BYTES = 4096  # bytes; HPKE MLKEM768-X25519 needs 1,168
MAX_KEY_VERSION = 1 << 32
MAX_ENVELOPE_BYTES = 512 << 10
_WRAP_LABEL = b"cloister/sealed-model/v1/dek"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,254}")


def wrap_info(*, manifest_digest: str, key_version: int, kid: str, kek_id: str) -> bytes:
    """Return what every wrapping of a DEK must authenticate: model, key version and recipient."""
    version = key_version.to_bytes(8, "big")
    return lp(_WRAP_LABEL, bytes.fromhex(manifest_digest), version, kid.encode("utf-8"), kek_id.encode("utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One wrapped DEK: who can unwrap it (``kid``), with which key of theirs (``kek_id``)."""

    kid: str
    key_version: int
    kek_id: str
    wrapped: bytes

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {
            "kek_id": self.kek_id,
            "key_version": self.key_version,
            "kid": self.kid,
            "wrapped": dump_b64u(self.wrapped),
        }

    @classmethod
    def from_json(cls, value: Json) -> Recipient:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="envelope: recipient")
        recipient = cls(
            kid=fields.match("kid", _ID),
            key_version=fields.integer("key_version", floor=1, cap=MAX_KEY_VERSION),
            kek_id=fields.match("kek_id", _ID),
            wrapped=fields.b64u("wrapped", cap=MAX_WRAPPED_BYTES),
        )
        fields.end()
        return recipient


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """All recipients of one sealed model's DEK. It proves nothing: what it holds must unwrap."""

    manifest_digest: str
    recipients: tuple[Recipient, ...]

    def recipient(self, kid: str) -> Recipient:
        """Return the entry of ``kid`` with the highest key version. Raises ``UsageError`` where there is none."""
        found = [entry for entry in self.recipients if entry.kid == kid]
        if not found:
            msg = f"envelope: no recipient {kid}"
            raise UsageError(msg)
        return max(found, key=lambda entry: entry.key_version)

    def dump(self) -> bytes:
        """Return the canonical bytes. Raises ``UsageError`` for what a reader would refuse."""
        data = dump_json(
            {
                "manifest": self.manifest_digest,
                "recipients": [entry.to_json() for entry in self.recipients],
                "v": VERSION,
            }
        )
        try:
            Envelope.parse(data)
        except Malformed as exc:
            raise UsageError(exc.message) from exc
        return data

    @classmethod
    def parse(cls, data: bytes) -> Envelope:
        """Parse. Raises ``Malformed``."""
        fields = Fields.parse(data, what="envelope", cap=MAX_ENVELOPE_BYTES, canonical=True)
        fields.version(VERSION)
        envelope = cls(
            manifest_digest=fields.match("manifest", _DIGEST),
            recipients=tuple(Recipient.from_json(item) for item in fields.items("recipients", cap=MAX_RECIPIENTS)),
        )
        fields.end()
        names = {(entry.kid, entry.key_version, entry.kek_id) for entry in envelope.recipients}
        if len(names) != len(envelope.recipients):
            fields.fail("recipients", "one is there twice")
        return envelope
