"""Arm CCA: a Realm's token, bound to the token of the platform it runs on (docs/spec/evidence-arm.md).

What it proves: the platform whose key the anchor is runs a Realm with these measurements, which was asked with this
challenge. What it does not: anything of devices assigned to the Realm.

Not done here: comparing report data (``verifier``), reference values (``appraise``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.arm.anchors import find_anchor
from cloister.attest.arm.cca import MAX_TOKEN_BYTES, CcaToken
from cloister.attest.arm.platform import CHALLENGE, PlatformClaims, platform_ids
from cloister.attest.arm.realm import HASHES, RealmClaims, RealmKey
from cloister.attest.arm.software import HASH_SIZES, component_claims
from cloister.attest.cbor import CborMap
from cloister.attest.cose import ES256, ES384, ES512, verify_message
from cloister.attest.findings import Findings
from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.errors import Malformed, Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.arm.anchors import Anchor
    from cloister.attest.rats import ClaimValue, Evidence
    from cloister.attest.rules import NotChecked

__all__ = ["CCA", "CCA_CAPS", "CcaScheme"]

CCA = TeeKind("cca")
CCA_CAPS: Mapping[str, int] = {"token": MAX_TOKEN_BYTES}
"""Parts of the evidence and the most bytes of each."""

_ALGORITHMS = (ES256, ES384, ES512)
_PLATFORM, _REALM = "platform token signature", "realm token signature"


class CcaScheme:
    """Verifies tokens against the keys of known platforms."""

    tee: Final = CCA
    report_data_bytes: Final = 64
    software_claims: Final = frozenset[str]()
    required: Final = frozenset({"debug", "implementation_id", "rim", "secured", "software"})

    def __init__(self, anchors: Sequence[Anchor], *, hash_sizes: NotChecked | None = None) -> None:
        """Trust these keys; there is no default. None at all is a ``UsageError``.

        The Realm's measurements have to be as long as its hash algorithm makes them; ``hash_sizes`` says why not
        (samples that nobody's silicon made).
        """
        self._anchors = tuple(anchors)
        self._hash_sizes = hash_sizes
        if not self._anchors:
            msg = "cca scheme: no trust anchor"
            raise UsageError(msg, hint="give the attestation keys of the platforms")

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return nothing: keys are trust anchors, given beforehand."""
        del evidence
        return ()

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that a known platform vouches for this Realm. Tokens have no time: freshness is the challenge's alone.

        Raises ``Malformed``; ``Rejected``: ``platform_signature_invalid``, ``untrusted_root`` (no anchor for the
        platform), ``signature_invalid`` (the Realm's), ``key_binding_mismatch``, ``algorithm_not_allowed``,
        ``unsupported_format``, ``measurement_mismatch`` (sizes).
        """
        del endorsements, now
        # 1. Both envelopes parse to their ends.
        parts = parse_parts(evidence.payload, what="cca evidence", caps=CCA_CAPS, required=CCA_CAPS)
        token = CcaToken.parse(parts["token"])
        findings = Findings("cca token")
        # 2. A known platform's key signed the platform's claims.
        self._verify_platform(token, findings)
        # 3. The Realm's own key signed the Realm's claims, and its hash is what the platform signed.
        _verify_realm(token, findings)
        findings.settle()
        # 4. Only then are claims read: every mandatory one, in its form.
        platform = PlatformClaims.parse(token.platform_claims)
        realm = RealmClaims.parse(token.realm_claims, platform_profile=platform.profile)
        self._verify_sizes(realm, findings)
        return VerifiedClaims(
            tee=CCA, claims=_claims(platform, realm), report_data=realm.challenge, checks=findings.settle()
        )

    def _verify_platform(self, token: CcaToken, findings: Findings) -> None:
        instance_id, implementation_id = platform_ids(token.platform_claims)
        anchor = find_anchor(self._anchors, instance_id, implementation_id)
        if anchor is None:  # nobody's key: neither is the signature anybody's
            findings.expect(holds=False, code="platform_signature_invalid", subject=_PLATFORM, want="by a known key")
            got = instance_id.hex()
            findings.expect(holds=False, code="untrusted_root", subject="cca platform", got=got, want="a known one")
            return
        code = "platform_signature_invalid"
        try:
            verify_message(token.platform, anchor.key, algorithms=_ALGORITHMS, subject=_PLATFORM, code=code)
            findings.expect(holds=True, code=code, subject=_PLATFORM, got=instance_id.hex())
        except Rejected as refusal:
            findings.refused(refusal)

    def _verify_sizes(self, realm: RealmClaims, findings: Findings) -> None:
        subject, code = "size of realm measurements", "measurement_mismatch"
        if self._hash_sizes is not None:
            findings.skip(code, subject, self._hash_sizes.why)
            return
        got = sorted({len(item) for item in (realm.initial_measurement, *realm.measurements)})
        want = HASHES.get(realm.hash_algorithm)
        shown = f"{want} of {realm.hash_algorithm}" if want else " or ".join(HASHES)
        findings.expect(got == [want], code, subject, got=", ".join(map(str, got)), want=shown)


def _verify_realm(token: CcaToken, findings: Findings) -> None:
    """Prove the Realm's signature by the key in its claims, and that the platform's challenge is the key's hash."""
    key = RealmKey.parse(token.realm_claims)
    try:
        verify_message(token.realm, key.public_key(), algorithms=_ALGORITHMS, subject=_REALM)
        findings.expect(holds=True, code="signature_invalid", subject=_REALM)
    except Rejected as refusal:
        findings.refused(refusal)
    except Malformed as exc:  # a key that is none signed nothing
        findings.expect(holds=False, code="signature_invalid", subject=_REALM, got=exc.message[:120], want="a key")
    challenge = CborMap(dict(token.platform_claims), what="cca platform token").data(CHALLENGE, HASH_SIZES)
    try:
        findings.equal(challenge, key.digest, "key_binding_mismatch", "realm key in the platform's challenge")
    except Rejected as refusal:
        findings.refused(refusal)


def _claims(platform: PlatformClaims, realm: RealmClaims) -> dict[str, ClaimValue]:
    found: dict[str, ClaimValue] = {f"rem.{index}": item.hex() for index, item in enumerate(realm.measurements)}
    found |= {
        "config": platform.config.hex(),
        "debug": platform.state.debug,
        "implementation_id": platform.implementation_id.hex(),
        "instance_id": platform.instance_id.hex(),
        "lifecycle": platform.lifecycle,
        "profile": platform.profile,
        "rim": realm.initial_measurement.hex(),
        "rpv": realm.personalization.hex(),
        "secured": platform.state.secured,
        "unread": tuple(
            sorted({f"platform {key}" for key in platform.unread} | {f"realm {key}" for key in realm.unread})
        ),
        **component_claims(platform.components),
    }
    if realm.profile is not None:
        found["realm_profile"] = realm.profile
    if realm.mec_policy is not None:
        found["mec_policy"] = realm.mec_policy
    if platform.manufacturing_config is not None:
        found["manufacturing"] = platform.manufacturing_config.hex()
    return found
