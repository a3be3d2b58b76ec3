"""The publisher's signature over a manifest: detached, beside it in ``manifest.sig``.

Detached, so that the manifest stays readable and its digest is that of a plain file. What is signed
is the DSSE pre-authentication encoding under the label of manifests (``crypto.sign``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.crypto.sign import KeyId, Label, SigningKey, VerifyKey
from cloister.errors import Rejected
from cloister.sealed.manifest import Manifest, model_digest
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_SIGNATURE_BYTES", "ManifestSignature", "VerifiedManifest", "verify_digest", "verify_manifest"]

MAX_SIGNATURE_BYTES = 4096  # bytes of manifest.sig
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSignature:
    """The content of ``manifest.sig``, not yet verified."""

    key_id: KeyId
    signature: bytes

    @classmethod
    def sign(cls, key: SigningKey, manifest_bytes: bytes) -> ManifestSignature:
        """Return the signature of ``key`` over exact manifest bytes."""
        return cls(key_id=key.key_id, signature=key.sign(Label.MANIFEST, manifest_bytes))

    def dump(self) -> bytes:
        """Return the canonical bytes."""
        return dump_json({"keyid": self.key_id, "sig": dump_b64u(self.signature), "v": 1})

    @classmethod
    def parse(cls, data: bytes) -> ManifestSignature:
        """Parse. Raises ``Malformed``."""
        fields = Fields.parse(data, what="manifest signature", cap=MAX_SIGNATURE_BYTES, canonical=True)
        fields.literal("v", 1)
        parsed = cls(
            key_id=KeyId(fields.hex("keyid", size=16).hex()), signature=fields.b64u("sig", size=_SIGNATURE_BYTES)
        )
        fields.end()
        return parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedManifest:
    """A manifest one of the trusted publishers signed. Only ``verify_manifest`` makes one."""

    manifest: Manifest
    digest: str
    publisher: VerifyKey


def verify_manifest(manifest_bytes: bytes, signature_bytes: bytes, publishers: Iterable[VerifyKey]) -> VerifiedManifest:
    """Return the manifest once one of ``publishers`` is proven to have signed exactly these bytes.

    Does not prove that it is the model somebody asked for: see ``verify_digest``. Raises ``Malformed``,
    or ``Rejected`` (``unknown_key``, ``signature_invalid``).
    """
    signature = ManifestSignature.parse(signature_bytes)
    for key in publishers:
        if key.key_id == signature.key_id:
            key.verify(Label.MANIFEST, manifest_bytes, signature.signature)
            return VerifiedManifest(
                manifest=Manifest.parse(manifest_bytes), digest=model_digest(manifest_bytes), publisher=key
            )
    raise Rejected.because("unknown_key", "manifest signature", got=signature.key_id)


def verify_digest(verified: VerifiedManifest, want: str) -> VerifiedManifest:
    """Return ``verified`` once it is proven to be the model with digest ``want``.

    Another model of the same publisher, or an older version, is ``Rejected`` (``wrong_model``).
    """
    if verified.digest != want:
        raise Rejected.because("wrong_model", f"model {verified.manifest.name}", got=verified.digest, want=want[:64])
    return verified
