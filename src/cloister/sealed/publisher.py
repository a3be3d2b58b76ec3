"""The publisher's signature over a manifest: detached, beside it in ``manifest.sig``.

Detached, so that the manifest stays readable and its digest is that of a plain file. What is signed
is the DSSE pre-authentication encoding under the label of manifests (``crypto.sign``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.crypto.mldsa import SIGNATURE_BYTES as SECOND_BYTES
from cloister.crypto.mldsa import SecondKey, SecondSigner
from cloister.crypto.sign import KeyId, Label, SigningKey, VerifyKey
from cloister.errors import Rejected
from cloister.sealed.manifest import Manifest, model_digest
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.wire import Json

__all__ = ["MAX_SIGNATURE_BYTES", "ManifestSignature", "VerifiedManifest", "verify_digest", "verify_manifest"]

MAX_SIGNATURE_BYTES = 8192  # bytes of manifest.sig, with two signatures
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSignature:
    """The content of ``manifest.sig``, not yet verified."""

    key_id: KeyId
    signature: bytes
    second: bytes | None = None
    """By the manifest's ``second_key``, where it names one."""

    @classmethod
    def sign(cls, key: SigningKey, manifest_bytes: bytes, second: SecondSigner | None = None) -> ManifestSignature:
        """Return the signatures of both keys over exact manifest bytes."""
        return cls(
            key_id=key.key_id,
            signature=key.sign(Label.MANIFEST, manifest_bytes),
            second=None if second is None else second.sign(Label.MANIFEST, manifest_bytes),
        )

    def dump(self) -> bytes:
        """Return the canonical bytes."""
        second: dict[str, Json] = {} if self.second is None else {"second": dump_b64u(self.second)}
        return dump_json({"keyid": self.key_id, "sig": dump_b64u(self.signature), "v": 1, **second})

    @classmethod
    def parse(cls, data: bytes) -> ManifestSignature:
        """Parse. Raises ``Malformed``."""
        fields = Fields.parse(data, what="manifest signature", cap=MAX_SIGNATURE_BYTES, canonical=True)
        fields.literal("v", 1)
        parsed = cls(
            key_id=KeyId(fields.hex("keyid", size=16).hex()),
            signature=fields.b64u("sig", size=_SIGNATURE_BYTES),
            second=fields.optional("second", lambda name: fields.b64u(name, size=SECOND_BYTES)),
        )
        fields.end()
        return parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedManifest:
    """A manifest one of the trusted publishers signed. Only ``verify_manifest`` makes one."""

    manifest: Manifest
    digest: str
    publisher: VerifyKey


def verify_manifest(
    manifest_bytes: bytes,
    signature_bytes: bytes,
    publishers: Iterable[VerifyKey],
    *,
    second: SecondKey | None = None,
) -> VerifiedManifest:
    """Return the manifest once one of ``publishers`` is proven to have signed exactly these bytes.

    A second signature is proven wherever the manifest names its key. ``second`` pins that key: then it has to be
    there, and this one's. Does not prove that it is the model somebody asked for: see ``verify_digest``. Raises
    ``Malformed``, or ``Rejected`` (``unknown_key``, ``signature_invalid``, ``second_signature_missing``).
    """
    signature = ManifestSignature.parse(signature_bytes)
    for key in publishers:
        if key.key_id == signature.key_id:
            key.verify(Label.MANIFEST, manifest_bytes, signature.signature)
            manifest = Manifest.parse(manifest_bytes)
            _verify_second(manifest_bytes, signature.second, manifest.second_key, second)
            return VerifiedManifest(manifest=manifest, digest=model_digest(manifest_bytes), publisher=key)
    raise Rejected.because("unknown_key", "manifest signature", got=signature.key_id)


def _verify_second(
    manifest_bytes: bytes, signature: bytes | None, named: SecondKey | None, pinned: SecondKey | None
) -> None:
    """Prove the second signature: by the key that is pinned, else by the one that the first signature covers."""
    what, key = "manifest, second signature", named if pinned is None else pinned
    if pinned is not None and named is not None and named != pinned:
        raise Rejected.because("unknown_key", what, got=named.fingerprint, want=pinned.fingerprint)
    if signature is None:
        if key is not None:
            raise Rejected.because("second_signature_missing", what, want=key.fingerprint)
        return
    if named is None:  # under a pin it would hold: but the manifest must say so, or it could be stripped elsewhere
        raise Rejected.because("unknown_key", what, got="a key that the manifest does not name")
    named.verify(Label.MANIFEST, manifest_bytes, signature)


def verify_digest(verified: VerifiedManifest, want: str) -> VerifiedManifest:
    """Return ``verified`` once it is proven to be the model with digest ``want``.

    Another model of the same publisher, or an older version, is ``Rejected`` (``wrong_model``).
    """
    if verified.digest != want:
        raise Rejected.because("wrong_model", f"model {verified.manifest.name}", got=verified.digest, want=want[:64])
    return verified
