"""Synthetic Arm devices: PSA tokens and CCA tokens of any content. They protect nothing.

A device has keys of its own and no authority above it, as Arm has it: whoever trusts it takes its ``anchor``. What a
test wants otherwise it says: ``PsaToken`` and ``CcaToken`` change or leave out any claim by its key, and sign with
what they are told.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.arm.anchors import Anchor
from cloister.attest.cbor import Cbor, dump_cbor
from cloister.attest.cose import COSE_MAC0, COSE_SIGN1, dump_cose_key
from cloister.attest.parts import dump_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.rules import Exact, OneOf, Rule
from cloister.attest.schemes.cca import CCA, CcaScheme
from cloister.attest.schemes.psa import PSA, PsaScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "CLASSIC",
    "RMM_2",
    "SILICON",
    "ArmAttester",
    "CcaPlatform",
    "CcaProfile",
    "CcaToken",
    "Envelope",
    "PsaDevice",
    "PsaToken",
    "component",
    "sign_message",
]

SigningKey: TypeAlias = "ec.EllipticCurvePrivateKey | bytes"
Claims: TypeAlias = "dict[int | str, Cbor]"

_ECDSA: Mapping[str, tuple[int, hashes.HashAlgorithm]] = {
    "secp256r1": (-7, hashes.SHA256()),
    "secp384r1": (-35, hashes.SHA384()),
    "secp521r1": (-36, hashes.SHA512()),
}
_HMAC: Mapping[int, str] = {5: "sha256", 6: "sha384", 7: "sha512"}
IMPLEMENTATION_ID = bytes(range(32))
RIM, REM = b"\x11" * 32, tuple(bytes((0x20 + index,)) * 32 for index in range(4))


def component(type_: str | None = "PRoT", measurement: bytes = b"\x03" * 32, **more: Cbor) -> Claims:
    """Return a software component; ``more`` are ``version``, ``signer`` and ``description``."""
    found: Claims = {2: measurement, 5: more.get("signer", b"\x04" * 32)}
    named = {1: type_, 4: more.get("version"), 6: more.get("description")}
    return found | {key: value for key, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """How a payload is wrapped. None: what fits the key."""

    algorithm: int | None = None
    tag: int | None = None
    tagged: bool = True
    protected: Mapping[int | str, Cbor] = field(default_factory=dict)
    unprotected: Mapping[int | str, Cbor] = field(default_factory=dict)


def sign_message(payload: bytes, key: SigningKey, envelope: Envelope | None = None) -> bytes:
    """Return a COSE_Sign1, or a COSE_Mac0 where the key is a secret."""
    chosen = envelope or Envelope()
    fitting = 5 if isinstance(key, bytes) else _ECDSA[key.curve.name][0]
    algorithm = chosen.algorithm if chosen.algorithm is not None else fitting
    protected = dump_cbor({1: algorithm, **chosen.protected})
    context = "MAC0" if isinstance(key, bytes) else "Signature1"
    covered = dump_cbor([context, protected, b"", payload])
    outer = [protected, dict(chosen.unprotected), payload, _prove(covered, key, algorithm)]
    tag = chosen.tag or (COSE_MAC0 if isinstance(key, bytes) else COSE_SIGN1)
    return cbor2.dumps(cbor2.CBORTag(tag, outer) if chosen.tagged else outer)


def _prove(covered: bytes, key: SigningKey, algorithm: int) -> bytes:
    if isinstance(key, bytes):
        return hmac.digest(key, covered, _HMAC.get(algorithm, "sha256"))
    size = (key.curve.key_size + 7) // 8
    r, s = decode_dss_signature(key.sign(covered, ec.ECDSA(_ECDSA[key.curve.name][1])))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _named_after(key: SigningKey) -> bytes:
    if isinstance(key, bytes):
        return b"\x01" + hashlib.sha256(hashlib.sha256(key).digest()).digest()
    return b"\x01" + hashlib.sha256(_point(key)).digest()


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _changed(claims: Claims, changes: Mapping[int | str, Cbor], left_out: tuple[int, ...]) -> bytes:
    return dump_cbor({key: value for key, value in {**claims, **changes}.items() if key not in left_out})


class ArmAttester:
    """Hands a nonce to a synthetic device and returns its token as evidence."""

    report_data_bytes: Final = 64

    def __init__(self, tee: TeeKind, token: Callable[[bytes], bytes]) -> None:
        """Take the kind of evidence and what makes a token for a nonce."""
        self.tee = tee
        self._token = token

    def collect(self, report_data: bytes) -> Evidence:
        """Return a fresh token with ``report_data`` as its nonce."""
        return Evidence(tee=self.tee, payload=dump_parts({"token": self._token(report_data)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class PsaToken:
    """What is signed and how. ``profile`` names it; ``changes`` and ``left_out`` are by the claim's key."""

    nonce: bytes
    profile: str = "tag:psacertified.org,2023:psa#tfm"
    lifecycle: int = 0x3000
    changes: Mapping[int | str, Cbor] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()
    envelope: Envelope = field(default_factory=Envelope)
    key: SigningKey | None = None


class PsaDevice:
    """A device with an initial attestation key."""

    def __init__(self, key: SigningKey) -> None:
        """Take the key: a private one, or a secret for COSE_Mac0."""
        self.key = key
        self.instance_id = _named_after(key)

    @classmethod
    def generate(cls, curve: ec.EllipticCurve | None = None) -> PsaDevice:
        """Return a device with a fresh key, on P-256 unless ``curve`` says otherwise."""
        return cls(ec.generate_private_key(curve or ec.SECP256R1()))

    @classmethod
    def symmetric(cls) -> PsaDevice:
        """Return a device that shares a fresh secret with its verifier."""
        return cls(os.urandom(32))

    @property
    def anchor(self) -> Anchor:
        """What whoever trusts this device is given."""
        key = self.key if isinstance(self.key, bytes) else self.key.public_key()
        return Anchor(key=key, instance_id=self.instance_id, implementation_id=IMPLEMENTATION_ID)

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """Nothing: keys are given as trust anchors."""
        return {}

    def scheme(self) -> PsaScheme:
        """Return the scheme that trusts this device."""
        return PsaScheme([self.anchor])

    def token(self, token: PsaToken) -> bytes:
        """Return a token."""
        legacy = token.profile in {"PSA_IOT_PROFILE_1", "tag:psacertified.org,2019:psa#legacy"}
        claims = self._legacy(token) if legacy else self._current(token)
        return sign_message(_changed(claims, token.changes, token.left_out), token.key or self.key, token.envelope)

    def _current(self, token: PsaToken) -> Claims:
        boot_seed = 268 if token.profile.startswith("tag:") else 2397
        return {
            10: token.nonce,
            256: self.instance_id,
            265: token.profile,
            boot_seed: bytes(8),
            2394: -1,
            2395: token.lifecycle,
            2396: IMPLEMENTATION_ID,
            2398: "1234567890123-12345",
            2399: [component(version="1.0")],
            2400: "https://verifier.example",
        }

    def _legacy(self, token: PsaToken) -> Claims:
        return {
            -75000: token.profile,
            -75001: 1,
            -75002: token.lifecycle,
            -75003: IMPLEMENTATION_ID,
            -75004: bytes(32),
            -75005: "1234567890123",
            -75006: [component("BL"), component("PRoT", b"\x05" * 32)],
            -75008: token.nonce,
            -75009: self.instance_id,
            -75010: "https://verifier.example",
        }

    def evidence(self, token: PsaToken) -> Evidence:
        """Return a token as evidence."""
        return Evidence(tee=PSA, payload=dump_parts({"token": self.token(token)}))

    def attester(self) -> ArmAttester:
        """Return the device's side."""
        return ArmAttester(PSA, lambda nonce: self.token(PsaToken(nonce=nonce)))

    def policy(self, version: int = 1) -> Policy:
        """Return a policy that accepts what the attester makes."""
        return Policy(version=version, tees={PSA: TeePolicy(_sound([b"\x03" * 32]))})


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaProfile:
    """Names of both tokens' profiles, and what goes with them."""

    platform: str
    realm: str | None
    raw_key: bool = False
    platform_claims: Mapping[int | str, Cbor] = field(default_factory=dict)
    realm_claims: Mapping[int | str, Cbor] = field(default_factory=dict)


CLASSIC = CcaProfile(platform="http://arm.com/CCA-SSD/1.0.0", realm=None, raw_key=True)
SILICON = CcaProfile(platform="tag:arm.com,2023:cca_platform#1.0.0", realm="tag:arm.com,2023:realm#1.0.0")
RMM_2 = CcaProfile(
    platform="tag:arm.com,2024:cca_platform#2.0.0",
    realm="tag:arm.com,2024:realm#2.0.0",
    platform_claims={2394: 1},
    realm_claims={44243: "private"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaToken:
    """What is signed and how. ``platform`` and ``realm`` change claims by key; ``binding`` replaces the challenge."""

    challenge: bytes
    profile: CcaProfile = SILICON
    lifecycle: int = 0x3000
    key_hash: str = "sha-256"
    binding: bytes | None = None
    platform: Mapping[int | str, Cbor] = field(default_factory=dict)
    platform_left_out: tuple[int, ...] = ()
    realm: Mapping[int | str, Cbor] = field(default_factory=dict)
    realm_left_out: tuple[int, ...] = ()
    platform_envelope: Envelope = field(default_factory=Envelope)
    realm_envelope: Envelope = field(default_factory=Envelope)
    platform_key: ec.EllipticCurvePrivateKey | None = None
    realm_key: ec.EllipticCurvePrivateKey | None = None
    wrapped: bool = False
    tag: int | None = None
    extra: Mapping[int | str, Cbor] = field(default_factory=dict)


class CcaPlatform:
    """A platform with its attestation key, and one Realm with its own."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, realm_key: ec.EllipticCurvePrivateKey) -> None:
        """Take the platform's key and the Realm's."""
        self.key = key
        self.realm_key = realm_key
        self.instance_id = _named_after(key)

    @classmethod
    def generate(cls, curve: ec.EllipticCurve | None = None) -> CcaPlatform:
        """Return a platform with fresh keys on P-384; ``curve`` is for the platform's."""
        return cls(ec.generate_private_key(curve or ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1()))

    @property
    def anchor(self) -> Anchor:
        """What whoever trusts this platform is given."""
        return Anchor(key=self.key.public_key(), instance_id=self.instance_id, implementation_id=IMPLEMENTATION_ID)

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """Nothing: keys are given as trust anchors."""
        return {}

    def scheme(self) -> CcaScheme:
        """Return the scheme that trusts this platform."""
        return CcaScheme([self.anchor])

    def token(self, token: CcaToken) -> bytes:
        """Return the collection of both tokens."""
        encoded = _point(self.realm_key) if token.profile.raw_key else dump_cose_key(self.realm_key.public_key())
        name = token.key_hash.replace("-", "")
        binding = token.binding if token.binding is not None else hashlib.new(name, encoded).digest()
        platform = _changed(self._platform(token, binding), token.platform, token.platform_left_out)
        realm = _changed(self._realm(token, encoded), token.realm, token.realm_left_out)
        parts: Claims = {
            44234: sign_message(platform, token.platform_key or self.key, token.platform_envelope),
            44241: sign_message(realm, token.realm_key or self.realm_key, token.realm_envelope),
        }
        if token.wrapped:
            parts = {key: [263, value] for key, value in parts.items()}
        return cbor2.dumps(cbor2.CBORTag(token.tag or (907 if token.wrapped else 399), {**parts, **token.extra}))

    def _platform(self, token: CcaToken, binding: bytes) -> Claims:
        return {
            265: token.profile.platform,
            10: binding,
            2396: IMPLEMENTATION_ID,
            256: self.instance_id,
            2401: b"\xcf\xcf\xcf\xcf",
            2395: token.lifecycle,
            2399: [component("RSE_BL2", version="1.0", description="sha-256"), component("RMM", b"\x06" * 32)],
            2400: "https://verifier.example",
            2402: "sha-256",
            **token.profile.platform_claims,
        }

    def _realm(self, token: CcaToken, encoded: bytes) -> Claims:
        profile: Claims = {} if token.profile.realm is None else {265: token.profile.realm}
        return {
            **profile,
            10: token.challenge,
            44235: bytes(64),
            44236: "sha-256",
            44237: encoded,
            44238: RIM,
            44239: list[Cbor](REM),
            44240: token.key_hash,
            **token.profile.realm_claims,
        }

    def evidence(self, token: CcaToken) -> Evidence:
        """Return a token as evidence."""
        return Evidence(tee=CCA, payload=dump_parts({"token": self.token(token)}))

    def attester(self, token: CcaToken | None = None) -> ArmAttester:
        """Return the Realm's side; ``token`` is what it has otherwise."""
        chosen = token or CcaToken(challenge=b"")
        return ArmAttester(CCA, lambda challenge: self.token(replace(chosen, challenge=challenge)))

    def policy(self, version: int = 1) -> Policy:
        """Return a policy that accepts what the attester makes."""
        rules = {**_sound([b"\x03" * 32, b"\x06" * 32]), "rim": OneOf((RIM.hex(),))}
        return Policy(version=version, tees={CCA: TeePolicy(rules)})


def _sound(measurements: list[bytes]) -> dict[str, Rule]:
    return {
        "debug": Exact(value=False),
        "implementation_id": OneOf((IMPLEMENTATION_ID.hex(),)),
        "secured": Exact(value=True),
        "software": OneOf(tuple(item.hex() for item in measurements)),
    }
