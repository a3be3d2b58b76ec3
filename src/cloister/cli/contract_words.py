"""A contract, and a sub-allowance, in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.cli.hours import dump_hours
from cloister.cli.limit_words import limit_rows
from cloister.lending.clauses import RefundRule
from cloister.wire import dump_time

if TYPE_CHECKING:
    from cloister.lending.contract import Contract
    from cloister.lending.sub_allowance import Caveats
    from cloister.lending.terms import Terms

__all__ = ["caveat_rows", "contract_rows"]


def contract_rows(contract: Contract, consumers: tuple[str, ...] | None) -> list[tuple[str, str]]:
    """Return what a contract says, line by line; ``consumers`` are those of now, None for anybody."""
    terms = contract.terms
    clauses = terms.clauses
    hours = "at any time" if clauses.hours is None else ", ".join(dump_hours(clauses.hours)) + " (UTC)"
    budget = "none named" if clauses.budget is None else f"{clauses.budget} units agreed on at the start"
    refund = "units that an ending enclave never served are lost"
    if clauses.refund is RefundRule.UNUSED:
        refund = "unserved units come back when an enclave ends in order, where its memory cannot be copied"
    return [
        ("loan", f"{terms.loan}, version {contract.version} of {dump_time(contract.created_at)}"),
        ("between", f"custodian {contract.custodian.key_id}"),
        ("and", f"{terms.borrower}, " + _key(terms)),
        ("purpose", clauses.purpose or "none named"),
        *(("model", f"{model.name} {model.digest}" + _ticketed(ticketed=model.ticketed)) for model in terms.models),
        ("consumers", _consumers(terms, consumers)),
        ("hours", hours),
        ("precision", _precision(clauses.precision)),
        *limit_rows(clauses, terms.max_instances),
        ("budget", budget),
        ("rate", f"{terms.rate_cap} units per second and instance" if terms.rate_cap else "no cap"),
        ("instances", f"at most {terms.max_instances}, each with at most {terms.max_ceiling} units unserved"),
        ("outage", _outage(terms)),
        ("refund", refund),
        ("policy", contract.policy_digest),
    ]


def _key(terms: Terms) -> str:
    key = terms.clauses.borrower
    return "who signs no contract" if key is None else f"who signs with {key.key_id}"


def _ticketed(*, ticketed: bool) -> str:
    return ", each inference by a signature of the custodian" if ticketed else ""


def _consumers(terms: Terms, consumers: tuple[str, ...] | None) -> str:
    listed = "anybody who reaches the enclave" if consumers is None else ", ".join(consumers) or "nobody by name"
    if not terms.clauses.sub_allowances:
        return listed
    told = ", while its revocation list is in time" if terms.clauses.revocations else ""
    return f"{listed}, and whom the borrower gives a sub-allowance{told}"


def _precision(places: int | None) -> str:
    return "as the model gives them" if places is None else f"floating outputs rounded to {places} decimal places"


def _outage(terms: Terms) -> str:
    term = terms.clauses.offline
    if term is None:
        return f"stops within {terms.ttl.total_seconds():g} s without the custodian"
    beyond = f", and {term.overdraft} beyond it" if term.overdraft else ""
    return f"goes on offline for at most {term.lasts} and {term.units} units by signed vouchers{beyond}"


def caveat_rows(caveats: Caveats) -> list[tuple[str, str]]:
    """Return what one block of a sub-allowance demands, line by line."""
    said = {
        "name": caveats.name,
        "purpose": caveats.purpose,
        "models": None if caveats.models is None else ", ".join(caveats.models) or "none at all",
        "units": None if caveats.units is None else f"at most {caveats.units} from each enclave instance",
        "rate": None if caveats.per_minute is None else f"at most {caveats.per_minute} units in a minute",
        "hours": None if caveats.hours is None else ", ".join(dump_hours(caveats.hours)) + " (UTC)",
        "from": None if caveats.not_before is None else dump_time(caveats.not_before),
        "until": None if caveats.not_after is None else dump_time(caveats.not_after),
        "precision": None if caveats.precision is None else _precision(caveats.precision),
        "instance": caveats.instance,
    }
    return [(name, value) for name, value in said.items() if value]
