"""The contract of the loan that an enclave serves, proven to a consumer (docs/spec/contract.md, section 6).

The enclave hands over the signed document, and attested evidence binds its digest: an enclave cannot show one
contract and run under another. Who the borrower's key belongs to is the trust file's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.attest.rats import Check, Verdict
from cloister.attest.rules import NotChecked
from cloister.channel.bhttp import BinaryRequest
from cloister.client.inference import refusal
from cloister.errors import Reason, Rejected
from cloister.lending.contract import MAX_CONTRACT_BYTES, SignedContract
from cloister.lending.terms import MAX_CONSUMERS, NAME
from cloister.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.channel.fields import FieldLines
    from cloister.client.exchange import Answer
    from cloister.client.plan import Plan
    from cloister.client.session import Session
    from cloister.client.trust import VerifiedEnclave
    from cloister.client.trust_file import Trust
    from cloister.lending.contract import Contract

__all__ = ["CONTRACT_PATH", "AgreedContract", "contract", "take_contract", "verify_contract"]

CONTRACT_PATH = "/v2/contract"
_OK = 200
_TICKETS = {False: "none", True: "one for each answer"}
_MAX_BODY_BYTES = 2 * MAX_CONTRACT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedContract:
    """A contract whose signatures hold and which the enclave's evidence binds. Made by ``verify_contract`` only.

    ``consumers`` are those whom the enclave serves now, as the attested enclave says; None means anybody.
    ``document`` are the signed bytes, to keep. ``checks`` has every comparison, also those that were not made.
    """

    contract: Contract
    consumers: tuple[str, ...] | None
    document: bytes = field(repr=False)
    checks: tuple[Check, ...] = field(repr=False)

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it."""
        from cloister.client.notebook.models import contract_html  # noqa: PLC0415 - of notebooks alone

        return contract_html(self)


def contract(session: Session, headers: FieldLines) -> Plan[AgreedContract]:
    """Return the proven contract of the loan that the enclave serves.

    Raises ``Malformed``; ``Rejected`` with every mismatch (``contract_unsigned``, ``contract_mismatch``), or as the
    enclave refuses (``unauthorized``, ``not_found``); ``Unavailable``.
    """
    answer, enclave = yield from session.ask(BinaryRequest(method="GET", path=CONTRACT_PATH, headers=headers))
    return take_contract(answer, enclave=enclave, trust=session.trust)


def take_contract(answer: Answer, *, enclave: VerifiedEnclave, trust: Trust) -> AgreedContract:
    """Return the contract that the enclave answered with. Raises as ``contract``."""
    if answer.status != _OK:
        raise refusal(answer)
    return verify_contract(answer.body, enclave=enclave, trust=trust)


def verify_contract(body: bytes, *, enclave: VerifiedEnclave, trust: Trust) -> AgreedContract:
    """Return the contract once it is proven to be signed, and to be the one that ``enclave`` serves under."""
    fields = Fields.parse(body, what="contract answer", cap=_MAX_BODY_BYTES)
    document = fields.b64u("contract", cap=MAX_CONTRACT_BYTES)
    consumers = _consumers(fields)
    fields.end()
    found = SignedContract.parse(document).verify(enclave.keyset.custodian)
    checks = tuple(_checks(found, enclave, trust))
    reasons = tuple(
        Reason(code=check.code, subject=check.subject, got=check.got, want=check.want)
        for check in checks
        if check.verdict is Verdict.FAILED
    )
    if reasons:
        raise Rejected("; ".join(map(str, reasons)), reasons=reasons)
    return AgreedContract(contract=found, consumers=consumers, document=document, checks=checks)


def _consumers(fields: Fields) -> tuple[str, ...] | None:
    if "consumers" not in fields:
        fields.fail("consumers", "missing; null means anybody")
    value = fields.take("consumers")
    if value is None:
        return None
    ids = Fields({"consumers": value}, what="contract answer").texts("consumers", cap=MAX_CONSUMERS, item_cap=64)
    if not all(NAME.fullmatch(name) for name in ids):
        fields.fail("consumers", "want ids of consumers")
    return ids


def _checks(found: Contract, enclave: VerifiedEnclave, trust: Trust) -> Iterator[Check]:
    """Yield every comparison of the contract with what evidence binds, and with the trust."""
    keyset = enclave.keyset
    yield _compared("custodian's signature", got=found.custodian.key_id, want=keyset.custodian.key_id)
    yield _compared("loan", got=found.terms.loan, want=keyset.loan)
    yield _compared("policy", got=found.policy_digest, want=keyset.policy_digest)
    if not keyset.models:  # then evidence binds no contract at all
        yield _compared("digest of the contract", got=found.digest, want="")
    for model in keyset.models:
        lent = found.terms.model(model.name)
        yield _compared(f"model {model.name}", got="" if lent is None else lent.digest, want=model.digest)
        yield _compared(f"digest of the contract, model {model.name}", got=found.digest, want=model.loan_digest)
        tickets = lent is not None and lent.ticketed
        yield _compared(f"tickets, model {model.name}", got=_TICKETS[tickets], want=_TICKETS[model.ticketed])
    if enclave.status is not None:
        yield _compared("operator", got=found.terms.borrower, want=enclave.operator)
    named = found.terms.clauses.borrower
    if isinstance(trust.borrower, NotChecked):
        got, note = "" if named is None else named.key_id, trust.borrower.why
        yield Check(code="contract_mismatch", subject="borrower's key", verdict=Verdict.NOT_CHECKED, got=got, note=note)
    else:
        yield _compared("borrower's key", got="" if named is None else named.key_id, want=trust.borrower.key_id)


def _compared(subject: str, *, got: str, want: str) -> Check:
    verdict = Verdict.PASSED if got == want else Verdict.FAILED
    return Check(code="contract_mismatch", subject=subject, verdict=verdict, got=got, want=want)
