"""The contract of a loan: drawn up, signed by the borrower, amended (docs/spec/contract.md, section 5).

The newest offer counts, and an offer is no contract before the borrower has signed it: until then the version in
force stays, with its terms. A loan that names no borrower's key has the custodian's signature alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.custodian.service.standing import loan_row
from cloister.custodian.store.contracts import (
    ContractRow,
    agree_on,
    agreed_contract,
    insert_contract,
    newest_contract,
)
from cloister.custodian.store.loans import replace_terms
from cloister.custodian.store.models import find_model
from cloister.errors import Rejected
from cloister.lending.clauses import Clauses
from cloister.lending.contract import Contract, SignedContract
from cloister.lending.events import EventKind
from cloister.lending.terms import DIGEST, MAX_VERSIONS, NAME, ModelDigest, OutageRule, Terms
from cloister.wire import Fields, Json, dump_b64u

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from cloister.custodian.config import Config
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.store.loans import LoanRow
    from cloister.custodian.tokens import Actor
    from cloister.lending.terms import LoanId

__all__ = [
    "accept",
    "amend",
    "contract_in_force",
    "contract_view",
    "demand_lendable",
    "draw_up",
    "roll_out",
    "take_clauses",
]

_SIGNATURE_BYTES = 64
_NUMBERS = ("max_ceiling", "max_instances", "rate_cap", "ttl_s", "untrusted_ceiling")


def take_clauses(body: Fields, config: Config, *, budget: int | None) -> Clauses:
    """Return the clauses in member ``clauses``, none where it is absent; ``budget`` is the custodian's to set.

    Raises ``Malformed``; ``Rejected`` (``borrower_key_wanted``) where this custodian lends on countersigned
    contracts only.
    """
    given = Clauses.from_json(body.take("clauses")) if "clauses" in body else Clauses()
    if given.budget is not None:
        body.fail("clauses", "budget: set by the allowance")
    if given.borrower is None and config.is_production and not config.unsigned_contracts:
        raise Rejected.because(
            "borrower_key_wanted", "contract", hint="name the borrower's key, or allow 'unsigned_contracts'"
        )
    return replace(given, budget=budget)


def draw_up(transaction: Transaction, actor: Actor, terms: Terms, policy: bytes) -> SignedContract:
    """Offer these terms as the next version of the loan's contract; in force at once where nobody countersigns."""
    newest = newest_contract(transaction.connection, terms.loan)
    version = terms.version if newest is None else max(terms.version, newest.version + 1)
    key = transaction.context.vault.signing_key
    contract = Contract.of(
        replace(terms, version=version),
        custodian=key.verify_key,
        policy_digest=hashlib.sha256(policy).hexdigest(),
        created_at=transaction.now,
    )
    signed = SignedContract.offer(contract, key)
    row = ContractRow(
        loan=terms.loan,
        version=version,
        document=signed.dump(),
        created_at=transaction.now,
        agreed_at=None if terms.clauses.borrower is not None else _since(transaction, contract),
    )
    insert_contract(transaction.connection, row)
    transaction.record(EventKind.CONTRACT_OFFERED, actor, terms.loan, contract=contract.digest, terms_version=version)
    return signed


def accept(transaction: Transaction, actor: Actor, loan: LoanId, body: Fields) -> Json:
    """Take ``{"signature", "version"}``: the borrower's signature over the newest version puts it in force.

    Raises ``Rejected``: ``contract_version_old`` for another version than the newest, ``already_decided`` for one in
    force, ``signature_invalid``.
    """
    version, signature = body.integer("version", floor=1), body.b64u("signature", size=_SIGNATURE_BYTES)
    body.end()
    row = loan_row(transaction.connection, loan)
    offer = newest_contract(transaction.connection, loan)
    if offer is None or offer.version != version:
        want = "none" if offer is None else str(offer.version)
        raise Rejected.because("contract_version_old", "contract", got=str(version), want=want)
    if offer.agreed_at is not None:
        raise Rejected.because("already_decided", "contract", got=str(version))
    signed = replace(SignedContract.parse(offer.document), borrower=signature)
    contract = signed.verify(transaction.context.vault.signing_key.verify_key)
    since = _since(transaction, contract)
    agree_on(transaction.connection, loan, version, document=signed.dump(), since=since)
    transaction.record(EventKind.CONTRACT_SIGNED, actor, loan, contract=contract.digest, terms_version=version)
    _put_in_force(transaction, actor, row, contract.terms)
    return {"contract": dump_b64u(signed.dump()), "loan": loan, "version": version}


def amend(transaction: Transaction, actor: Actor, loan: LoanId, body: Fields) -> Json:
    """Offer other clauses (``clauses``, all of them) and limits; in force once the borrower has signed.

    Where no borrower's key is named, neither before nor after, they are in force at once. Budget and a borrower's
    key that is there stay. Instances that attested before must attest again.
    """
    row = loan_row(transaction.connection, loan)
    terms = row.terms
    clauses = terms.clauses
    if "clauses" in body:
        clauses = take_clauses(body, transaction.context.config, budget=clauses.budget)
    if terms.clauses.borrower not in (None, clauses.borrower):
        raise Rejected.because("borrower_key_fixed", "contract", hint="another borrower's key takes another loan")
    limits: dict[str, Json] = {name: body.integer(name) for name in _NUMBERS if name in body}
    body.end()
    outage = OutageRule.STOP if clauses.offline is None else OutageRule.OFFLINE
    members = {**replace(terms, clauses=clauses, outage=outage, version=terms.version + 1).to_json(), **limits}
    return _offer(transaction, actor, row, Terms.from_json(members))


def _since(transaction: Transaction, contract: Contract) -> datetime:
    """Return since when instances must have attested under this contract: now, or since the one before it.

    Where nothing differs but versions of models, whoever runs goes on, and attests again for the newer version.
    """
    before = agreed_contract(transaction.connection, contract.terms.loan)
    if before is None or before.agreed_at is None:
        return transaction.now
    old = Contract.parse(SignedContract.parse(before.document).payload)
    rolled = old.terms.models != contract.terms.models and old.terms.differs_in_versions_only(contract.terms)
    return before.agreed_at if rolled and old.policy_digest == contract.policy_digest else transaction.now


def roll_out(transaction: Transaction, actor: Actor, loan: LoanId, body: Fields) -> Json:
    """Offer ``{"digest", "name"}``: a newer version of one lent model; running instances change over by themselves.

    In force once the borrower has signed, at once where no key is named. Allowance and all else stay. Raises
    ``Rejected``: ``not_found``, ``model_withdrawn``, ``already_exists`` for a version that was lent before (T24),
    ``too_many_versions``.
    """
    name, digest = body.match("name", NAME), ModelDigest(body.match("digest", DIGEST))
    body.end()
    row = loan_row(transaction.connection, loan)
    before = row.terms.model(name)
    if before is None:
        raise Rejected.because("not_found", "model", got=name)
    demand_lendable(transaction.connection, digest)
    if digest in before.versions:
        raise Rejected.because("already_exists", "model", got=digest, hint="seal it anew: no version comes back")
    if len(before.versions) >= MAX_VERSIONS:
        raise Rejected.because("too_many_versions", "model", want=f"at most {MAX_VERSIONS}", hint="make a new loan")
    after = replace(before, digest=digest, replaces=before.versions)
    models = tuple(after if model.name == name else model for model in row.terms.models)
    return _offer(transaction, actor, row, replace(row.terms, models=models, version=row.terms.version + 1))


def _offer(transaction: Transaction, actor: Actor, row: LoanRow, terms: Terms) -> Json:
    """Offer changed terms, and put them in force where nobody countersigns."""
    changed = Terms.from_json(terms.to_json())
    signed = draw_up(transaction, actor, changed, row.policy)
    in_force = changed.clauses.borrower is None
    if in_force:
        _put_in_force(transaction, actor, row, changed)
    return {
        "contract": dump_b64u(signed.dump()),
        "in_force": in_force,
        "loan": changed.loan,
        "version": Contract.parse(signed.payload).version,
    }


def demand_lendable(connection: Connection, digest: ModelDigest) -> None:
    """Prove that a model is published and not withdrawn."""
    row = find_model(connection, digest)
    if row is None:
        raise Rejected.because("not_found", "model", hint="publish the model first")
    if row.withdrawn_at is not None:
        raise Rejected.because("model_withdrawn", "model")


def _put_in_force(transaction: Transaction, actor: Actor, row: LoanRow, agreed: Terms) -> None:
    """Write what was agreed on into the loan; its consumers stay who they are."""
    same = replace(agreed, consumers=row.terms.consumers, version=row.terms.version)
    if same == row.terms:
        return
    changed = replace(same, version=max(agreed.version, row.terms.version + 1))
    replace_terms(transaction.connection, changed)
    transaction.record(EventKind.TERMS_CHANGED, actor, row.terms.loan, terms_version=changed.version)


def contract_in_force(connection: Connection, row: LoanRow) -> bytes | None:
    """Return the contract in force if it says what the loan says now; None where it must be signed anew first.

    Empty for a loan that is older than contracts and names no borrower's key.
    """
    found = agreed_contract(connection, row.terms.loan)
    if found is None:
        return b"" if row.terms.clauses.borrower is None else None
    try:
        contract = Contract.parse(SignedContract.parse(found.document).payload)
        contract.demand_covers(row.terms, policy_digest=hashlib.sha256(row.policy).hexdigest())
    except Rejected:
        return None
    return found.document


def contract_view(context: Context, loan: LoanId) -> Json:
    """Return the signed contract in force, and the newest offer where that is not agreed on; null where none is."""
    with context.reading() as connection:
        loan_row(connection, loan)
        newest, agreed = newest_contract(connection, loan), agreed_contract(connection, loan)
    offered = newest if newest is not None and newest.agreed_at is None else None
    return {
        "in_force": None if agreed is None else dump_b64u(agreed.document),
        "loan": loan,
        "offered": None if offered is None else dump_b64u(offered.document),
    }
