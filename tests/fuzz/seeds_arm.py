"""Parsers of PSA and CCA evidence to fuzz, and honest inputs to start from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.arm.anchors import parse_anchors, parse_key
from cloister.attest.arm.cca import CcaToken as ParsedCca
from cloister.attest.arm.psa import PsaClaims, parse_claims_set, parse_message
from cloister.attest.cose import parse_cose_key
from cloister.attest.describe.arm import CcaDescriber, PsaDescriber
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.schemes.cca import CCA
from cloister.attest.schemes.psa import PSA, PsaScheme
from cloister.testing.vendors.arm import CLASSIC, RMM_2, SILICON, CcaPlatform, CcaToken, PsaDevice, PsaToken
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS"]

_NOW = datetime(2026, 5, 1, tzinfo=UTC)
_DEVICES = (PsaDevice.generate(), PsaDevice.symmetric())
_PLATFORM = CcaPlatform.generate()
_PROFILES = ("tag:psacertified.org,2023:psa#tfm", "http://arm.com/psa/2.0.0", "PSA_IOT_PROFILE_1")


def _psa_tokens() -> list[bytes]:
    return [device.token(PsaToken(nonce=bytes(64), profile=name)) for device in _DEVICES for name in _PROFILES]


def _cca_tokens() -> list[bytes]:
    shapes = [CcaToken(challenge=bytes(64), profile=profile) for profile in (CLASSIC, SILICON, RMM_2)]
    return [_PLATFORM.token(shape) for shape in (*shapes, CcaToken(challenge=bytes(64), wrapped=True))]


def _anchors() -> list[bytes]:
    numbers = _PLATFORM.key.public_key().public_numbers()
    x, y = (dump_b64u(value.to_bytes(48, "big")) for value in (numbers.x, numbers.y))
    pkey = {"kty": "EC", "crv": "P-384", "x": x, "y": y}
    return [json.dumps([{"pkey": pkey, "instance-id": _PLATFORM.instance_id.hex()}]).encode()]


def _realm_keys() -> list[bytes]:
    found = [ParsedCca.parse(token).realm_claims[44237] for token in _cca_tokens()]
    return [item for item in found if isinstance(item, bytes) and item[:1] != b"\x04"]  # a bare point is no COSE_Key


def _keys() -> list[bytes]:
    pem = _PLATFORM.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return [bytes(32), pem]


def _verify_psa(data: bytes) -> object:
    return PsaScheme([device.anchor for device in _DEVICES]).verify(Evidence(tee=PSA, payload=data), {}, _NOW)


def _verify_cca(data: bytes) -> object:
    return _PLATFORM.scheme().verify(Evidence(tee=CCA, payload=data), {}, _NOW)


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "arm-anchors": (parse_anchors, _anchors),
    "arm-key": (parse_key, _keys),
    "cca-collection": (ParsedCca.parse, _cca_tokens),
    "cca-description": (CcaDescriber().describe, _cca_tokens),
    "cca-evidence": (_verify_cca, lambda: [dump_parts({"token": item}) for item in _cca_tokens()]),
    "cose-key": (lambda data: parse_cose_key(data, what="fuzz"), _realm_keys),
    "psa-claims": (
        lambda data: PsaClaims.parse(parse_claims_set(data)),
        lambda: [parse_message(item).payload for item in _psa_tokens()],
    ),
    "psa-description": (PsaDescriber().describe, _psa_tokens),
    "psa-evidence": (_verify_psa, lambda: [dump_parts({"token": item}) for item in _psa_tokens()]),
}
