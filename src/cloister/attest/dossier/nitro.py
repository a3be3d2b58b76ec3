"""A Nitro document judged from a file (docs/spec/evidence-nitro.md section 6)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.attest.chain import Certificate, parse_certificates
from cloister.attest.dossier import Bound, Case
from cloister.attest.dossier.expectations import carried, demand_files, refuse_member, rule_of
from cloister.attest.nitro.document import NitroDocument, parse_message
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.roots import vendor_certificate
from cloister.attest.rules import Exact, NotChecked, Rule
from cloister.attest.schemes.nitro import NITRO, NitroScheme
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.rats import VerifiedClaims
    from cloister.wire import Json

__all__ = ["open_case"]

_PCR = re.compile(r"(?:pcr)?[._]?([0-9]|[12][0-9]|3[01])", re.IGNORECASE)
_CARRIED = {
    "challenge": ("nonce_mismatch", "nonce"),
    "nonce": ("nonce_mismatch", "nonce"),
    "public_key": ("key_binding_mismatch", "public_key"),
    "report_data": ("report_data_mismatch", "user_data"),
    "user_data": ("report_data_mismatch", "user_data"),
}
"""Policy members about one field of the document: the code of a mismatch, and the field."""
_CLAIMED = {"debug": "debug", "max_age": "age", "module": "module_id", "module_id": "module_id"}
_ALLOWING = ("allow_debug", "debug_allowed")


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of a ``document``; where a ``root`` is given, it has to be the pinned one.

    Raises ``Malformed``, ``Rejected`` (``unsupported_format``) and ``Unavailable``.
    """
    demand_files(files, ("document",), ("root",))
    document = NitroDocument.parse(parse_message(files["document"]).payload)
    pinned = vendor_certificate("aws-nitro-root-g1")
    given = parse_certificates(files["root"]) if "root" in files else (pinned,)
    evidence = Evidence(tee=NITRO, payload=dump_parts({"document": files["document"]}))
    rules: dict[str, Rule] = {"debug": Exact(value=False)}
    bound: list[Bound] = []
    for name, value in expectations.items():
        if name in _CLAIMED:
            rules[_CLAIMED[name]] = rule_of(name, value)
        elif name in _ALLOWING and isinstance(value, bool):
            rules |= {"debug": NotChecked("allowed by the policy")} if value else {}
        else:
            bound += _bound(document, name, value)

    def verify(now: datetime) -> VerifiedClaims:
        _verify_given(given, pinned)
        return NitroScheme([pinned]).verify(evidence, {}, now)

    return Case(claims=_claims(document), verify=verify, rules=rules, bound=tuple(bound))


def _verify_given(given: tuple[Certificate, ...], pinned: Certificate) -> None:
    for root in given:
        if root.der != pinned.der:
            raise Rejected.because("untrusted_root", root.shown, want=pinned.shown)


def _bound(document: NitroDocument, name: str, value: Json) -> list[Bound]:
    if name in _CARRIED:
        code, field = _CARRIED[name]
        got = {"nonce": document.nonce, "public_key": document.public_key, "user_data": document.user_data}[field]
        if value is None:  # nothing is wanted there
            return [Bound(code=code, subject=name, got=got or b"", want=b"")]
        return [carried(code, name, value, got)]
    if name == "pcrs" and isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    wanted = value if name == "pcrs" and isinstance(value, dict) else {name: value}
    found = [(_PCR.fullmatch(key), item) for key, item in wanted.items()]
    return [
        carried("measurement_mismatch", f"pcr.{match[1]}", item, document.pcrs.get(int(match[1])))
        if match
        else refuse_member(name)
        for match, item in found
    ]


def _claims(document: NitroDocument) -> dict[str, Json]:
    """Return what the document says in the words of the index: PCRs of zeros are left out there."""
    leaf = Certificate.parse(document.certificate).x509
    return {
        "debug": document.debug,
        "digest": document.digest,
        "module": document.module_id,
        "nonce": _hex(document.nonce),
        "pcrs": {str(index): value.hex() for index, value in document.pcrs.items() if any(value)},
        "public_key": _hex(document.public_key),
        "ts": str(document.timestamp),
        "user_data": _hex(document.user_data),
        "window": [str(leaf.not_valid_before_utc), str(leaf.not_valid_after_utc)],
    }


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
