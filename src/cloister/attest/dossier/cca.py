"""A CCA token judged from files, with trust anchors beside it (docs/spec/evidence-arm.md section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.arm import platform as on_platform
from cloister.attest.arm import realm as in_realm
from cloister.attest.arm.anchors import Anchor, parse_anchors
from cloister.attest.arm.cca import CcaToken
from cloister.attest.dossier import Bound, Case
from cloister.attest.dossier.expectations import carried, demand_files, refuse_member, rule_of
from cloister.attest.dossier.psa import shown
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.rules import Exact, NotChecked, Rule
from cloister.attest.schemes.cca import CCA, CcaScheme
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.cbor import Cbor
    from cloister.attest.rats import VerifiedClaims
    from cloister.wire import Json

__all__ = ["open_case"]

_SAMPLES = NotChecked("published samples state one hash algorithm and have measurements of another size")
_NONCES = ("challenge", "nonce", "report_data")
_MEASURED = {"rim": in_realm.INITIAL_MEASUREMENT, "measurement": in_realm.INITIAL_MEASUREMENT}
_CLAIMED = {
    "config": "config",
    "debug": "debug",
    "impl": "implementation_id",
    "implementation_id": "implementation_id",
    "inst": "instance_id",
    "instance_id": "instance_id",
    "lifecycle": "lifecycle",
    "lifecycle_secured": "secured",
    "mec_policy": "mec_policy",
    "profile": "profile",
    "realm_profile": "realm_profile",
    "rpv": "rpv",
    "secured": "secured",
    "software": "software",
}
_SECURED = 0x30
_REM_CHARS, _RPV_CHARS = 16, 32  # hex digits that the index keeps of these


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of a ``token`` and the ``trust_anchor`` file that should have its platform.

    Raises ``Malformed`` and ``Unavailable``.
    """
    demand_files(files, ("token", "trust_anchor"))
    token = CcaToken.parse(files["token"])
    anchors = _anchors(files["trust_anchor"])
    evidence = Evidence(tee=CCA, payload=dump_parts({"token": files["token"]}))
    rules: dict[str, Rule] = {"debug": Exact(value=False)}
    bound: list[Bound] = []
    for name, value in expectations.items():
        if name in _CLAIMED:
            rules[_CLAIMED[name]] = rule_of(name, _numbered(value) if name == "lifecycle" else value)
        else:
            bound += _bound(token.realm_claims, name, value)

    def verify(now: datetime) -> VerifiedClaims:
        if not anchors:  # an anchor whose key is none vouches for nothing
            code = "platform_signature_invalid"
            raise Rejected.because(code, "trust anchor", got="no usable key", want="a key on its curve")
        return CcaScheme(anchors, hash_sizes=_SAMPLES).verify(evidence, {}, now)

    return Case(claims=_claims(token), verify=verify, rules=rules, bound=tuple(bound))


def _numbered(value: Json) -> Json:
    """Return a lifecycle as the number it is: the index shows it in hexadecimal."""
    try:
        return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value
    except ValueError:
        refuse_member("lifecycle", "want a number")


def _anchors(data: bytes) -> tuple[Anchor, ...]:
    try:
        return parse_anchors(data)
    except Malformed:
        return ()


def _bound(claims: Mapping[int | str, Cbor], name: str, value: Json) -> list[Bound]:
    if name in _NONCES:
        return [carried("nonce_mismatch", name, value, _bytes(claims.get(in_realm.CHALLENGE)))]
    if name in _MEASURED:
        return [carried("measurement_mismatch", name, value, _bytes(claims.get(_MEASURED[name])))]
    if name not in {"rem", "rems"} or not isinstance(value, list) or len(value) > in_realm.EXTENSIBLE_MEASUREMENTS:
        refuse_member(name)
    found = claims.get(in_realm.MEASUREMENTS)
    have = [*(map(_bytes, found) if isinstance(found, list) else ()), *([None] * len(value))]
    return [carried("measurement_mismatch", f"rem.{i}", item, have[i]) for i, item in enumerate(value)]


def _claims(token: CcaToken) -> dict[str, Json]:
    """Return what the token says in the words of the index, whether or not it is in form."""
    platform, realm = token.platform_claims, token.realm_claims
    lifecycle = platform.get(on_platform.LIFECYCLE)
    components = platform.get(on_platform.COMPONENTS)
    measurements = realm.get(in_realm.MEASUREMENTS)
    return {
        "challenge": shown(realm.get(in_realm.CHALLENGE)),
        "impl": shown(platform.get(on_platform.IMPLEMENTATION_ID)),
        "inst": shown(platform.get(on_platform.INSTANCE_ID)),
        "lifecycle": hex(lifecycle) if isinstance(lifecycle, int) else None,
        "lifecycle_secured": isinstance(lifecycle, int) and lifecycle >> 8 == _SECURED,
        "n_sw": len(components) if isinstance(components, list) else 0,
        "profile": shown(platform.get(on_platform.PROFILE)),
        "rems": [_start(item, _REM_CHARS) for item in measurements] if isinstance(measurements, list) else [],
        "rim": shown(realm.get(in_realm.INITIAL_MEASUREMENT)),
        "rprofile": str(realm.get(in_realm.PROFILE)),
        "rpv": _start(realm.get(in_realm.PERSONALIZATION), _RPV_CHARS),
    }


def _bytes(value: Cbor) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _start(value: Cbor, chars: int) -> Json:
    return value.hex()[:chars] if isinstance(value, bytes) else None
