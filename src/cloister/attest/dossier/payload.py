"""Evidence judged as a release judges it: a payload as attesters make it, by the scheme of its kind.

For kinds that only attesters make (``nvidia-gpu``, ``azure-snp-vtpm``, ``maa``, ...), and for every other where
endorsements are at hand. Nothing is relaxed: whatever the scheme needs must be there.

Not done here: finding endorsements (``attest.endorse``), reading files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.attest.dossier import Case
from cloister.attest.dossier.expectations import refuse_member, rule_of
from cloister.attest.parts import dump_parts, is_parts
from cloister.attest.policy import CLAIM_NAME
from cloister.attest.rats import Evidence
from cloister.attest.rules import Exact
from cloister.attest.tpm.evidence import TPM
from cloister.attest.vocabulary import describe_claim
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.rats import TeeKind, VerifiedClaims
    from cloister.attest.rules import Rule
    from cloister.attest.verifier import Scheme
    from cloister.wire import Json

__all__ = ["PAYLOADS", "Payload", "open_payload"]

_NONCES = frozenset({"challenge", "nonce", "report_data"})
_MEASURED = ("eventlog", "pcrs", "signature_tpmt", "software")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One kind of payload: the role of a file that is no payload yet, and the roles of what goes with it."""

    main: str
    roles: tuple[str, ...] = ()

    def evidence(self, tee: TeeKind, data: bytes, others: Mapping[str, bytes]) -> Evidence:
        """Return evidence: ``data`` as it is where it is a payload, else made one with ``others``.

        Raises ``UsageError`` for others beside a payload, and for a role given twice.
        """
        if tee == TPM or is_parts(data):
            if others:
                msg = f"evidence: a payload already, nothing to do for role {min(others)}"
                raise UsageError(msg)
            return Evidence(tee=tee, payload=data)
        if self.main in others:
            msg = f"evidence: role {self.main} is there already"
            raise UsageError(msg)
        return Evidence(tee=tee, payload=dump_parts({self.main: data, **others}))


PAYLOADS: Mapping[str, Payload] = {
    "azure-snp-vtpm": Payload(main="quote", roles=("hcl_report", *_MEASURED, "intermediate", "leaf")),
    "azure-tdx-vtpm": Payload(main="quote", roles=("hcl_report", *_MEASURED, "td_quote")),
    "cca": Payload(main="token"),
    "confidential-space": Payload(main="token"),
    "gce-vtpm": Payload(main="quote", roles=("ak_public_tpmt", "chain", *_MEASURED)),
    "ita": Payload(main="token"),
    "maa": Payload(main="token"),
    "nitro": Payload(main="document"),
    "nras": Payload(main="token"),
    "nvidia-gpu": Payload(main="report", roles=("chain", "driver_rim", "ocsp", "vbios_rim")),
    "nvidia-switch": Payload(main="report", roles=("chain", "ocsp", "vbios_rim")),
    "psa": Payload(main="token"),
    "sgx": Payload(main="quote"),
    "snp": Payload(main="report", roles=("certs", "crl", "intermediate", "leaf", "root")),
    "tdx": Payload(main="quote", roles=("ccel",)),
    "tpm": Payload(main="evidence"),
}
"""Every kind that a production build verifies."""


def open_payload(
    scheme: Scheme,
    evidence: Evidence,
    endorsements: Mapping[str, bytes],
    expectations: Mapping[str, Json],
    nonce: bytes | None = None,
) -> Case:
    """Return the case of a payload whose ``endorsements`` are at hand.

    By default a claim that every policy must have a rule for is as the vocabulary wants it, where it wants one value
    alone (``debug`` is false). Claims are known once they are proven, and none of evidence that is refused. Raises
    ``Unavailable`` for a member of ``expectations`` that names no claim.
    """
    rules = _default_rules(scheme)
    claims: dict[str, Json] = {}
    case = Case(claims=claims, verify=lambda now: _verify(scheme, evidence, endorsements, now, claims), rules=rules)
    for name, value in expectations.items():
        if name in _NONCES:
            nonce = _bytes(name, value)
        else:
            rules[_claim(name)] = rule_of(name, value)
    return case if nonce is None else replace(case, report_data=nonce.ljust(scheme.report_data_bytes, b"\x00"))


def _default_rules(scheme: Scheme) -> dict[str, Rule]:
    known = {name: describe_claim(scheme.tee, name) for name in sorted(scheme.required)}
    return {name: Exact(info.want) for name, info in known.items() if info.rule == "exact" and info.want is not None}


def _verify(
    scheme: Scheme, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime, claims: dict[str, Json]
) -> VerifiedClaims:
    claims.clear()
    verified = scheme.verify(evidence, endorsements, now)
    claims |= {name: list(value) if isinstance(value, tuple) else value for name, value in verified.claims.items()}
    claims["report_data"] = verified.report_data.hex()
    return verified


def _claim(member: str) -> str:
    name = member[4:] if member.startswith(("min_", "max_")) else member
    return name if CLAIM_NAME.fullmatch(name) else refuse_member(member)


def _bytes(name: str, value: Json) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else refuse_member(name, "want hex")
    except ValueError:
        refuse_member(name, "want hex")
