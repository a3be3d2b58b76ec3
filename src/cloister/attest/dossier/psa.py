"""A PSA token judged from files, with the device's key beside it (docs/spec/evidence-arm.md section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.arm.anchors import Anchor, is_instance_id, parse_key
from cloister.attest.arm.psa import parse_claims_set, parse_message, profile_of
from cloister.attest.dossier import Bound, Case
from cloister.attest.dossier.expectations import carried, demand_files, refuse_member, rule_of
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.rules import Exact, Rule
from cloister.attest.schemes.psa import PSA, PsaScheme
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.cbor import Cbor
    from cloister.attest.rats import VerifiedClaims
    from cloister.wire import Json

__all__ = ["open_case", "shown"]

_NONCES = ("challenge", "nonce", "report_data")
_CLAIMED = {
    "certification_reference": "certification",
    "client_id": "client_id",
    "debug": "debug",
    "implementation_id": "implementation_id",
    "instance_id": "instance_id",
    "lifecycle": "lifecycle",
    "lifecycle_secured": "secured",
    "profile": "profile",
    "secured": "secured",
    "software": "software",
}


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of a ``token`` and the ``key`` of its device.

    Raises ``Malformed``, ``Rejected`` (``unsupported_format``) and ``Unavailable``.
    """
    demand_files(files, ("token", "key"))
    claims = parse_claims_set(parse_message(files["token"]).payload)
    keys = profile_of(claims).keys
    instance_id, nonce = claims.get(keys["instance_id"]), claims.get(keys["nonce"])
    if not isinstance(instance_id, bytes) or not is_instance_id(instance_id):
        msg = "psa token: no instance id"
        raise Malformed(msg)
    scheme = PsaScheme([Anchor(key=parse_key(files["key"]), instance_id=instance_id)])
    evidence = Evidence(tee=PSA, payload=dump_parts({"token": files["token"]}))
    rules: dict[str, Rule] = {"debug": Exact(value=False)}
    bound: list[Bound] = []
    for name, value in expectations.items():
        if name in _NONCES:
            bound.append(carried("nonce_mismatch", name, value, nonce if isinstance(nonce, bytes) else None))
        elif name in _CLAIMED:
            rules[_CLAIMED[name]] = rule_of(name, value)
        else:
            refuse_member(name)

    def verify(now: datetime) -> VerifiedClaims:
        return scheme.verify(evidence, {}, now)

    return Case(claims=_claims(claims, keys), verify=verify, rules=rules, bound=tuple(bound))


def _claims(claims: Mapping[int | str, Cbor], keys: Mapping[str, int]) -> dict[str, Json]:
    """Return what the token says in the words of the index, whether or not it is in form."""
    names = ("client_id", "implementation_id", "instance_id", "lifecycle", "nonce", "profile")
    components = claims.get(keys["software_components"])
    found: dict[str, Json] = {name: shown(claims.get(keys[name])) for name in names}
    return found | {"n_sw": len(components) if isinstance(components, list) else 0}


def shown(value: Cbor) -> Json:
    """Return a claim as the index has it: bytes as hex."""
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int) else None
