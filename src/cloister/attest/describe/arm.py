"""PSA and CCA tokens explained to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.arm.cca import MAX_TOKEN_BYTES as MAX_CCA_BYTES
from cloister.attest.arm.cca import CcaToken
from cloister.attest.arm.lifecycle import Lifecycle
from cloister.attest.arm.platform import PlatformClaims
from cloister.attest.arm.psa import MAX_TOKEN_BYTES as MAX_PSA_BYTES
from cloister.attest.arm.psa import PsaClaims, parse_claims_set, parse_message
from cloister.attest.arm.realm import RealmClaims, RealmKey
from cloister.attest.cose import COSE_MAC0
from cloister.attest.describe import Description, Field
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.attest.arm.software import Component
    from cloister.attest.cose import CoseMessage

__all__ = ["CcaDescriber", "PsaDescriber"]

_STATES = {
    Lifecycle.UNKNOWN: "no state a device should be in",
    Lifecycle.ASSEMBLY_AND_TEST: "still in the factory",
    Lifecycle.ROT_PROVISIONING: "its root of trust is being provisioned",
    Lifecycle.SECURED: "as it should be in the field",
    Lifecycle.NON_ROT_DEBUG: "a debugger may look outside the root of trust: keep no secret there",
    Lifecycle.RECOVERABLE_ROT_DEBUG: "a debugger may look into the root of trust: keep no secret there",
    Lifecycle.DECOMMISSIONED: "out of service",
}
_PSA_STARTS = (b"\xd1\x84", b"\xd2\x84")  # COSE_Mac0 and COSE_Sign1, tagged
_CCA_STARTS = (b"\xd9\x01\x8f\xa2", b"\xd9\x03\x8b\xa2")  # tags 399 and 907, with two members
_PSA_MARKS = (b"\x19\x09\x5c", b"\x3a\x00\x01\x24\xfa")  # keys of the implementation id: 2396, -75003


class PsaDescriber:
    """Explains PSA tokens of every profile."""

    kind: Final = "psa"

    def recognises(self, data: bytes) -> bool:
        """Tell by the tag in front and the key of a claim every token has."""
        return data.startswith(_PSA_STARTS) and len(data) <= MAX_PSA_BYTES and any(mark in data for mark in _PSA_MARKS)

    def describe(self, data: bytes) -> Description:
        """Explain every claim. Raises ``Malformed``."""
        message = parse_message(data)
        try:
            claims = PsaClaims.parse(parse_claims_set(message.payload))
        except Rejected as refusal:
            raise Malformed(refusal.message) from refusal
        return Description(kind=self.kind, title="Arm PSA attestation token", fields=_of_psa(message, claims))


class CcaDescriber:
    """Explains CCA tokens of every profile."""

    kind: Final = "cca"

    def recognises(self, data: bytes) -> bool:
        """Tell by the tag in front."""
        return data.startswith(_CCA_STARTS) and len(data) <= MAX_CCA_BYTES

    def describe(self, data: bytes) -> Description:
        """Explain every claim of both tokens. Raises ``Malformed``."""
        token = CcaToken.parse(data)
        key = RealmKey.parse(token.realm_claims)
        try:
            platform = PlatformClaims.parse(token.platform_claims)
            realm = RealmClaims.parse(token.realm_claims, platform_profile=platform.profile)
            bound = key.digest == platform.challenge
        except Rejected as refusal:
            raise Malformed(refusal.message) from refusal
        fields = (*_of_platform(token.platform, platform, bound=bound), *_of_realm(token.realm, realm, key))
        return Description(kind=self.kind, title="Arm CCA attestation token: platform and realm", fields=fields)


def _of_psa(message: CoseMessage, claims: PsaClaims) -> tuple[Field, ...]:
    by = "shared secret" if message.kind == COSE_MAC0 else "device's key"
    return (
        Field(name="alg", value=str(message.algorithm), meaning=f"Algorithm of the {by}."),
        _text("profile", claims.profile, "Which document says what the claims mean."),
        Field(
            name="nonce", value=claims.nonce.hex(), meaning="Freshness; has to be the one you sent, length included."
        ),
        Field(name="client-id", value=str(claims.client_id), meaning="Who asked: negative in the non-secure world."),
        Field(name="instance-id", value=claims.instance_id.hex(), meaning="This device; look its key up by it."),
        Field(name="implementation-id", value=claims.implementation_id.hex(), meaning="This make of hardware."),
        _lifecycle(claims.lifecycle, claims.state),
        _bytes("boot-seed", claims.boot_seed, "Random since the last boot: other after every boot."),
        _text("certification-reference", claims.certification_reference, "Entry in the PSA Certified database."),
        _text(
            "verification-service", claims.verification_service, "Where it would be verified: a hint, never followed."
        ),
        *_components(claims.components),
        _unread(claims.unread),
    )


def _of_platform(message: CoseMessage, claims: PlatformClaims, *, bound: bool) -> tuple[Field, ...]:
    binding = "is the hash of the realm key below" if bound else "is NOT the hash of the realm key below"
    return (
        Field(name="platform.alg", value=str(message.algorithm), meaning="Algorithm of the platform's key."),
        Field(name="platform.profile", value=claims.profile, meaning="Which document says what the claims mean."),
        Field(name="platform.challenge", value=claims.challenge.hex(), meaning=f"Binds the realm: it {binding}."),
        Field(
            name="platform.instance-id", value=claims.instance_id.hex(), meaning="This platform; its key goes by it."
        ),
        Field(
            name="platform.implementation-id", value=claims.implementation_id.hex(), meaning="This make of hardware."
        ),
        _lifecycle(claims.lifecycle, claims.state),
        Field(
            name="platform.config", value=claims.config.hex(), meaning="Options of memory protection, the maker's own."
        ),
        Field(name="platform.hash-algo-id", value=claims.hash_algorithm, meaning="Hash of the components below."),
        _text("platform.verification-service", claims.verification_service, "Where it would be verified: a hint."),
        _bytes("platform.manufacturing-config", claims.manufacturing_config, "Record of production, the maker's own."),
        *_components(claims.components),
        _unread(claims.unread),
    )


def _of_realm(message: CoseMessage, claims: RealmClaims, key: RealmKey) -> tuple[Field, ...]:
    return (
        Field(name="realm.alg", value=str(message.algorithm), meaning="Algorithm of the realm's key."),
        _text("realm.profile", claims.profile, "Absent where the platform's profile is about both."),
        Field(name="realm.challenge", value=claims.challenge.hex(), meaning="Freshness; has to be the one you sent."),
        Field(name="realm.personalization", value=claims.personalization.hex(), meaning="Set by who made the realm."),
        Field(
            name="realm.initial-measurement", value=claims.initial_measurement.hex(), meaning="What it started with."
        ),
        *(
            Field(name=f"realm.extensible.{index}", value=value.hex(), meaning="Extended by software in the realm.")
            for index, value in enumerate(claims.measurements)
        ),
        Field(name="realm.hash-algo-id", value=claims.hash_algorithm, meaning="Hash of these measurements."),
        Field(
            name="realm.public-key",
            value=key.encoded.hex(),
            meaning="Signs the realm's token; hashed in the platform's.",
        ),
        Field(name="realm.public-key-hash-algo-id", value=key.hash_algorithm, meaning="How that hash is made."),
        _text("realm.mec-policy", claims.mec_policy, "Private: memory is encrypted under a key no other realm has."),
        _bytes("realm.instance-id", claims.instance_id, "This realm."),
        _unread(claims.unread),
    )


def _lifecycle(value: int, state: Lifecycle) -> Field:
    return Field(name="lifecycle", value=f"{value:#06x} {state.name.lower()}", meaning=f"Means: {_STATES[state]}.")


def _components(components: Sequence[Component]) -> tuple[Field, ...]:
    return tuple(
        Field(
            name=f"component.{index}",
            value=f"{item.type or 'unnamed'} {item.version or ''} {item.measurement.hex()}".replace("  ", " "),
            meaning=f"Software that was measured; signed by the key of hash {item.signer.hex()[:16]}.",
        )
        for index, item in enumerate(components)
    )


def _unread(keys: tuple[str, ...]) -> Field:
    return Field(name="unread", value=", ".join(keys) or "none", meaning="Keys of claims that nothing here looks at.")


def _text(name: str, value: str | None, meaning: str) -> Field:
    return Field(name=name, value="absent" if value is None else value, meaning=meaning)


def _bytes(name: str, value: bytes | None, meaning: str) -> Field:
    return Field(name=name, value="absent" if value is None else value.hex(), meaning=meaning)
