"""Loans: made, shown, given more units or fewer, more consumers, another policy."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.attest.policy import Policy, verify_successor
from cloister.custodian.service.access import issue_token
from cloister.custodian.service.contracts import demand_lendable, draw_up, take_clauses
from cloister.custodian.service.debts import repay_owed
from cloister.custodian.service.standing import loan_row
from cloister.custodian.store.loans import (
    LoanRow,
    account_balances,
    balances_of,
    insert_loan,
    replace_policy,
    replace_terms,
)
from cloister.custodian.tokens import Role, hash_token, new_token
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.ledger import ISSUED, WITHDRAWN, set_allowance, top_up
from cloister.lending.terms import (
    DIGEST,
    LOAN_METER,
    MAX_CONSUMERS,
    MAX_MODELS,
    MAX_UNITS,
    METER,
    NAME,
    NO_TOKEN,
    Consumer,
    ConsumerId,
    LoanId,
    Meter,
    ModelDigest,
    ModelTerms,
    OutageRule,
    Terms,
    consumer_meter,
    meters_in,
    model_meter,
)
from cloister.wire import Fields, Json, dump_b64u

if TYPE_CHECKING:
    from cloister.custodian.config import Config
    from cloister.custodian.service.context import Transaction
    from cloister.custodian.tokens import Actor
    from cloister.lending.clauses import Clauses

__all__ = ["add_consumers", "add_units", "create_loan", "replace_loan_policy", "set_units", "take_meter"]

_CEILING_SHARE = 10  # N is at most this part of an allowance, unless the loan says otherwise
_SMALLEST_CEILING = 5  # units: below that, serving would wait for a renewal after every few answers
_LOAN_ID_BYTES = 10  # 16 characters of base32
_SIMULATED = "simulated"


def create_loan(transaction: Transaction, actor: Actor, body: Fields, *, url: str, ca_pem: str | None) -> Json:
    """Make a loan from the body of ``POST /v1/loans``.

    The answer holds the loan file with the borrower's token, and the consumers' tokens: each is shown
    this once and stored only as its hash.
    """
    allowances: dict[Meter, int] = {}
    borrower = body.text("borrower", cap=200, floor=1)
    models = tuple(_take_model(transaction, item, allowances) for item in body.items("models", cap=MAX_MODELS))
    allowances[LOAN_METER] = body.integer("allowance", cap=MAX_UNITS)
    consumers, consumer_tokens = _take_consumers(transaction, body, allowances)
    policy = _take_policy(body, transaction.context.config)
    clauses = take_clauses(body, transaction.context.config, budget=allowances[LOAN_METER])
    loan = LoanId("loan-" + base64.b32encode(transaction.context.rng(_LOAN_ID_BYTES)).decode("ascii").lower())
    terms = _take_terms(
        body, transaction.context.config, loan=loan, borrower=borrower, models=models, consumers=consumers,
        allowance=allowances[LOAN_METER], clauses=clauses,
    )  # fmt: skip
    row = LoanRow(terms=terms, policy=policy.dump(), policy_version=policy.version, created_at=transaction.now)
    insert_loan(transaction.connection, row)
    transaction.record(
        EventKind.LOAN_CREATED, actor, loan,
        borrower=borrower, models=len(models), policy_digest=policy.digest, terms_version=terms.version,
    )  # fmt: skip
    draw_up(transaction, actor, terms, row.policy)
    for meter in meters_in(terms):
        _grant_first(transaction, actor, loan, meter, allowances.get(meter, 0))
    token = issue_token(transaction, actor, role=Role.BORROWER, name="borrower", loan=loan)
    key = transaction.context.vault.signing_key.verify_key
    loan_file: dict[str, Json] = {
        "ca_pem": ca_pem, "custodian_key": dump_b64u(key.raw), "custodian_url": url,
        "loan": loan, "token": token, "v": 1,
    }  # fmt: skip
    if clauses.borrower is not None:
        loan_file["borrower_key"] = clauses.borrower.dump()
    return {"consumer_tokens": consumer_tokens, "loan": loan, "loan_file": loan_file, "terms": terms.to_json()}


def _grant_first(transaction: Transaction, actor: Actor, loan: LoanId, meter: Meter, units: int) -> None:
    if units:
        transaction.post([top_up(loan, meter, balance=0, units=units)])
        transaction.record(EventKind.ALLOWANCE_ADDED, actor, loan, meter=meter, units=units)


def _take_model(transaction: Transaction, item: Json, allowances: dict[Meter, int]) -> ModelTerms:
    fields = Fields(item, what="loan: model")
    name = fields.match("name", NAME)
    digest = ModelDigest(fields.match("digest", DIGEST))
    allowance = fields.optional("allowance", lambda member: fields.integer(member, cap=MAX_UNITS))
    ticketed = fields.boolean("ticketed") if "ticketed" in fields else False
    fields.end()
    demand_lendable(transaction.connection, digest)
    if allowance is not None:
        allowances[model_meter(name)] = allowance
    return ModelTerms(name=name, digest=digest, metered=allowance is not None, ticketed=ticketed)


def _take_consumers(
    transaction: Transaction, body: Fields, allowances: dict[Meter, int]
) -> tuple[tuple[Consumer, ...] | None, dict[str, Json]]:
    if "consumers" not in body:
        body.fail("consumers", "missing; null means anybody")
    value = body.take("consumers")
    if value is None:
        return None, {}
    items = Fields({"consumers": value}, what="loan").items("consumers", cap=MAX_CONSUMERS)
    made = [_take_consumer(transaction, item, allowances) for item in items]
    return tuple(consumer for consumer, _ in made), {
        str(consumer.id): token for consumer, token in made if token is not None
    }


def _take_consumer(transaction: Transaction, item: Json, allowances: dict[Meter, int]) -> tuple[Consumer, str | None]:
    """Take ``{"id", "allowance"?, "token"?}``; ``"token": false`` is for who comes by an issuer's word alone."""
    fields = Fields(item, what="loan: consumer")
    name = ConsumerId(fields.match("id", NAME))
    allowance = fields.optional("allowance", lambda member: fields.integer(member, cap=MAX_UNITS))
    wants_token = fields.boolean("token") if "token" in fields else True
    fields.end()
    if allowance is not None:
        allowances[consumer_meter(name)] = allowance
    token = new_token(transaction.context.rng) if wants_token else None
    digest = NO_TOKEN if token is None else hash_token(token)
    return Consumer(id=name, token_sha256=digest, metered=allowance is not None), token


def _take_policy(body: Fields, config: Config) -> Policy:
    policy = Policy.from_json(body.take("policy"))
    if config.is_production and _SIMULATED in policy.tees:
        raise Rejected.because(
            "insecure_refused", "policy", got=_SIMULATED, hint="profile production accepts real TEEs only"
        )
    return policy


def _take_terms(
    body: Fields,
    config: Config,
    *,
    loan: LoanId,
    borrower: str,
    models: tuple[ModelTerms, ...],
    consumers: tuple[Consumer, ...] | None,
    allowance: int,
    clauses: Clauses,
) -> Terms:
    """Return the terms, each limit from the body or from the settings; their own parser has the last word.

    N defaults to a tenth of the allowance, within bounds: leased whole to one instance, a small loan would
    be lost whole with it.
    """
    members: dict[str, Json] = {
        "ttl_s": config.lease_ttl_s,
        "rate_cap": 0,
        "max_ceiling": min(config.max_ceiling, max(_SMALLEST_CEILING, allowance // _CEILING_SHARE)),
        "max_instances": config.max_instances,
    }
    for name in members:
        if name in body:
            members[name] = body.integer(name)
    if "untrusted_ceiling" in body:
        members["untrusted_ceiling"] = body.integer("untrusted_ceiling")
    body.end()
    return Terms.from_json(
        {
            **members,
            "borrower": borrower,
            "clauses": clauses.to_json(),
            "consumers": None if consumers is None else [consumer.to_json() for consumer in consumers],
            "loan": loan,
            "models": [model.to_json() for model in models],
            "outage": (OutageRule.STOP if clauses.offline is None else OutageRule.OFFLINE).value,
            "v": 1,
            "version": 1,
        }
    )


def take_meter(body: Fields, terms: Terms) -> Meter:
    """Return the meter in member ``meter``, the loan's own where none is named."""
    meter = Meter(body.match("meter", METER)) if "meter" in body else LOAN_METER
    if meter not in meters_in(terms):
        raise Rejected.because("not_found", "meter", got=meter)
    return meter


def add_units(transaction: Transaction, actor: Actor, loan: LoanId, body: Fields) -> Json:
    """Add ``{"units", "meter"?}`` to an allowance: a top-up adds, it never replaces."""
    terms = loan_row(transaction.connection, loan).terms
    meter, units = take_meter(body, terms), body.integer("units", floor=1, cap=MAX_UNITS)
    body.end()
    balance = top_up_units(transaction, loan, meter, units)
    transaction.record(EventKind.ALLOWANCE_ADDED, actor, loan, meter=meter, units=units)
    return {"balance": balance, "loan": loan, "meter": meter}


def top_up_units(transaction: Transaction, loan: LoanId, meter: Meter, units: int) -> int:
    """Post a top-up, pay an overdraft from it, and return the balance. Raises ``Rejected`` (``too_many_units``)."""
    balance = balances_of(transaction.connection, loan).get(meter, 0)
    _demand_countable(transaction, loan, meter, units)
    transaction.post([top_up(loan, meter, balance=balance, units=units)])
    repay_owed(transaction, loan)
    return balances_of(transaction.connection, loan).get(meter, 0)


def _demand_countable(transaction: Transaction, loan: LoanId, meter: Meter, units: int) -> None:
    """Prove that all that was granted and not withdrawn, with ``units`` more, is a number that JSON keeps exactly."""
    sums = account_balances(transaction.connection, loan, (ISSUED, WITHDRAWN))
    room = MAX_UNITS + sums.get((meter, ISSUED), 0) + sums.get((meter, WITHDRAWN), 0)
    if units > room:
        raise Rejected.because("too_many_units", meter, got=str(units), want=f"at most {room}")


def set_units(transaction: Transaction, actor: Actor, loan: LoanId, body: Fields) -> Json:
    """Set what an allowance still holds to ``{"units", "meter"?}``; instances keep what they hold."""
    terms = loan_row(transaction.connection, loan).terms
    meter, units = take_meter(body, terms), body.integer("units", cap=MAX_UNITS)
    body.end()
    balance = balances_of(transaction.connection, loan).get(meter, 0)
    _demand_countable(transaction, loan, meter, units - balance)
    transaction.post(set_allowance(loan, meter, balance=balance, units=units))
    transaction.record(EventKind.ALLOWANCE_SET, actor, loan, meter=meter, units=units)
    return {"balance": units, "loan": loan, "meter": meter}


def add_consumers(transaction: Transaction, actor: Actor, loan: LoanId, body: Fields) -> Json:
    """Add ``{"consumers": [{"id", "allowance"?}]}``; running enclaves learn them with their next lease."""
    terms = loan_row(transaction.connection, loan).terms
    allowances: dict[Meter, int] = {}
    added, tokens = _take_consumers(transaction, body, allowances)
    body.end()
    if terms.consumers is None or not added:
        raise Rejected.because(
            "consumers_open", "loan", hint="this loan serves anybody; make a new one to name consumers"
        )
    known = {consumer.id for consumer in terms.consumers}
    double = next((consumer.id for consumer in added if consumer.id in known), None)
    if double is not None:
        raise Rejected.because("already_exists", "consumer", got=double)
    changed = replace(terms, consumers=(*terms.consumers, *added), version=terms.version + 1)
    replace_terms(transaction.connection, Terms.from_json(changed.to_json()))
    for consumer in added:
        transaction.record(EventKind.CONSUMER_ADDED, actor, loan, consumer=consumer.id, terms_version=changed.version)
    for meter, units in allowances.items():
        _grant_first(transaction, actor, loan, meter, units)
    return {"consumer_tokens": tokens, "loan": loan, "terms_version": changed.version}


def replace_loan_policy(transaction: Transaction, actor: Actor, loan: LoanId, body: Fields) -> Json:
    """Replace the policy by ``{"policy"}`` of a higher version (T18); instances must attest again.

    It counts at once, and changes the contract: where a borrower's key is named no key is released before the
    borrower has signed the new version.
    """
    row = loan_row(transaction.connection, loan)
    policy = _take_policy(body, transaction.context.config)
    body.end()
    verify_successor(policy, Policy.parse(row.policy))
    replace_policy(transaction.connection, loan, policy.dump(), policy.version)
    draw_up(transaction, actor, row.terms, policy.dump())
    transaction.record(EventKind.POLICY_CHANGED, actor, loan, policy_digest=policy.digest, version=str(policy.version))
    return {"loan": loan, "policy_digest": policy.digest, "version": policy.version}
