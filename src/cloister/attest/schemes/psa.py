"""Arm PSA: a token signed by a device's initial attestation key (docs/spec/evidence-arm.md).

What it proves: the device whose key the anchor is booted this software, in this lifecycle state, and was asked with
this nonce. What it does not: that memory is encrypted; TrustZone separates worlds on one chip.

Not done here: comparing report data (``verifier``), reference values (``appraise``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.arm.anchors import IMPLEMENTATION_ID_BYTES, find_anchor
from cloister.attest.arm.psa import (
    MAX_TOKEN_BYTES,
    PsaClaims,
    parse_claims_set,
    parse_message,
    profile_of,
    take_instance_id,
)
from cloister.attest.arm.software import component_claims
from cloister.attest.cbor import CborMap
from cloister.attest.cose import ES256, ES384, ES512, HMAC_256, HMAC_384, HMAC_512, verify_message
from cloister.attest.findings import Findings
from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.arm.anchors import Anchor
    from cloister.attest.cbor import Cbor
    from cloister.attest.cose import CoseKey
    from cloister.attest.rats import ClaimValue, Evidence

__all__ = ["PSA", "PSA_CAPS", "PsaScheme"]

PSA = TeeKind("psa")
PSA_CAPS: Mapping[str, int] = {"token": MAX_TOKEN_BYTES}
"""Parts of the evidence and the most bytes of each."""

_ALGORITHMS = (ES256, ES384, ES512, HMAC_256, HMAC_384, HMAC_512)  # RFC 9783 section 5.2.1


class PsaScheme:
    """Verifies tokens against the keys of known devices."""

    tee: Final = PSA
    report_data_bytes: Final = 64
    software_claims: Final = frozenset[str]()
    required: Final = frozenset({"debug", "implementation_id", "secured", "software"})

    def __init__(self, anchors: Sequence[Anchor]) -> None:
        """Trust these keys; there is no default. None at all is a ``UsageError``."""
        self._anchors = tuple(anchors)
        if not self._anchors:
            msg = "psa scheme: no trust anchor"
            raise UsageError(msg, hint="give the attestation keys of the devices")

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return nothing: keys are trust anchors, given beforehand."""
        del evidence
        return ()

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that a known device signed this token. The token has no time: freshness is the nonce's alone.

        Raises ``Malformed``; ``Rejected``: ``unsupported_format``, ``untrusted_root`` (no anchor for the device),
        ``algorithm_not_allowed``, ``signature_invalid``.
        """
        del endorsements, now
        # 1. The envelope parses to its end (RFC 9783 section 5.2.1).
        parts = parse_parts(evidence.payload, what="psa evidence", caps=PSA_CAPS, required=PSA_CAPS)
        message = parse_message(parts["token"])
        unproven = parse_claims_set(message.payload)
        # 2. The key of the device it says it is (section 7.2) signed it.
        key = self._key(unproven)
        verify_message(message, key, algorithms=_ALGORITHMS, subject="psa token signature")
        # 3. Only then are claims read: every mandatory one, in its form (section 4).
        claims = PsaClaims.parse(unproven)
        findings = Findings("psa token")
        findings.expect(holds=True, code="untrusted_root", subject="trust anchor", got=claims.instance_id.hex())
        findings.expect(holds=True, code="signature_invalid", subject="psa token signature")
        return VerifiedClaims(tee=PSA, claims=_claims(claims, key), report_data=claims.nonce, checks=findings.settle())

    def _key(self, claims: Mapping[int | str, Cbor]) -> CoseKey:
        keys, fields = profile_of(claims).keys, CborMap(dict(claims), what="psa token")
        implementation_id = fields.data(keys["implementation_id"], (IMPLEMENTATION_ID_BYTES,))
        instance_id = take_instance_id(fields, keys["instance_id"])
        anchor = find_anchor(self._anchors, instance_id, implementation_id)
        if anchor is None:
            raise Rejected.because("untrusted_root", "psa instance", got=instance_id.hex(), want="a known device")
        return anchor.key


def is_named_after(instance_id: bytes, key: CoseKey) -> bool:
    """Tell whether an instance id is made of its key (RFC 9783 section 4.2.1: recommended, and no more).

    The hash is SHA-256 over the point, uncompressed; of a shared secret it is taken twice.
    """
    if isinstance(key, bytes):
        digest = hashlib.sha256(hashlib.sha256(key).digest()).digest()
    else:
        digest = hashlib.sha256(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)).digest()
    return instance_id[1:] == digest


def _claims(claims: PsaClaims, key: CoseKey) -> dict[str, ClaimValue]:
    found: dict[str, ClaimValue] = {
        "client_id": claims.client_id,
        "debug": claims.state.debug,
        "implementation_id": claims.implementation_id.hex(),
        "instance_id": claims.instance_id.hex(),
        "key_named": is_named_after(claims.instance_id, key),
        "lifecycle": claims.lifecycle,
        "profile": claims.profile or "PSA_IOT_PROFILE_1",
        "secured": claims.state.secured,
        "unread": claims.unread,
        **component_claims(claims.components),
    }
    if claims.boot_seed is not None:
        found["boot_seed"] = claims.boot_seed.hex()
    if claims.certification_reference is not None:
        found["certification"] = claims.certification_reference
    return found
