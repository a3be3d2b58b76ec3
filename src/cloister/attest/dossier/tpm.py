"""Quotes as files: ``ak_public_tpmt``, ``quote``, ``signature_tpmt``; what explains them: ``pcrs``, ``eventlog``.

The index gives the attestation key and nothing about who vouches for it: the check that would be a chain says that it
was not made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.attest.dossier import Case
from cloister.attest.dossier.expectations import carried, demand_files, refuse_member, rule_of
from cloister.attest.findings import Findings
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.tpm.quoted import Quoted, find_quoted, parse_key, parse_pcrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.dossier import Bound
    from cloister.attest.rats import ClaimValue
    from cloister.attest.rules import Rule
    from cloister.attest.tpm.quoted import BareKey, Explained
    from cloister.attest.tpm.structures import Public
    from cloister.wire import Json

__all__ = ["NONCES", "is_pcr", "open_case", "pcr_rules"]

TPM_FILES = TeeKind("tpm")
NONCES = {"challenge": "nonce_mismatch", "nonce": "nonce_mismatch", "report_data": "report_data_mismatch"}
"""Policy members about the extra data of a quote, and the code of a mismatch."""

_PCR = re.compile(r"pcr[._]?([0-9]|1[0-9]|2[0-3])")


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Open a quote. Raises ``Malformed``, ``Unavailable``."""
    demand_files(files, ("ak_public_tpmt", "quote", "signature_tpmt"), ("pcrs", "eventlog"))
    key = parse_key(files["ak_public_tpmt"])
    pcrs = parse_pcrs(files["pcrs"]) if "pcrs" in files else {}
    quoted = Quoted.parse(files["quote"], files["signature_tpmt"], pcrs, files.get("eventlog", b""))
    rules: dict[str, Rule] = {}
    bound: list[Bound] = []
    for name, value in expectations.items():
        if name in NONCES:
            bound.append(carried(NONCES[name], name, value, quoted.quote.extra_data))
        elif name == "secure_boot":
            rules[name] = rule_of(name, value)
        else:
            rules |= pcr_rules(name, value)
    return Case(claims=_claims(quoted), verify=lambda now: _verify(quoted, key, now), rules=rules, bound=tuple(bound))


def is_pcr(name: str) -> bool:
    """Tell whether a policy member is about PCRs: ``pcrs`` or one of them."""
    return name == "pcrs" or _PCR.fullmatch(name) is not None


def pcr_rules(name: str, value: Json) -> dict[str, Rule]:
    """Return rules for ``pcrs`` by index, or for one member ``pcr4``. Raises ``Unavailable`` for any other member."""
    if name == "pcrs" and isinstance(value, dict):
        members = {f"pcr{index}": item for index, item in value.items()}
    else:
        members = {name: value}
    rules: dict[str, Rule] = {}
    for member, item in members.items():
        found = _PCR.fullmatch(member) or refuse_member(name)
        rules[f"pcr.{found[1]}"] = rule_of(member, item)
    return rules


def _claims(quoted: Quoted) -> dict[str, Json]:
    quote = quoted.quote
    claims: dict[str, Json] = {"extraData": quote.extra_data.hex()}
    if not quoted.pcrs:
        selected: Json = [[item.bank.name.lower(), list(item.pcrs)] for item in quote.selections]
        return claims | {"pcrSelect": selected}
    claims |= {
        "fw": f"{quote.firmware_version:#x}",
        "pcr_alg": ",".join(item.bank.name.lower() for item in quote.selections if item.pcrs),
        "resetCount": quote.reset_count,
    }
    return claims if quoted.event_log is None else claims | {"events": len(quoted.event_log.events)}


def _verify(quoted: Quoted, key: Public | BareKey, now: datetime) -> VerifiedClaims:
    del now  # nothing here has a window
    findings = Findings("tpm quote")
    why = "the key was given; nobody vouches that a tpm holds it"
    findings.skip("untrusted_root", "attestation key certificate", why)
    explained = find_quoted(findings, quoted, key)
    checks = findings.settle()
    claims = _verified(quoted, explained)
    return VerifiedClaims(tee=TPM_FILES, claims=claims, report_data=quoted.quote.extra_data, checks=checks)


def _verified(quoted: Quoted, explained: Explained) -> dict[str, ClaimValue]:
    claims: dict[str, ClaimValue] = {f"pcr.{index}": value.hex() for index, value in quoted.pcrs.items()}
    claims |= {"firmware_version": f"{quoted.quote.firmware_version:016x}", "reset_count": quoted.quote.reset_count}
    return claims if explained.secure_boot is None else claims | {"secure_boot": explained.secure_boot}
