"""What is shown of loans: to staff everything but secrets, to a borrower its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.policy import Policy
from cloister.custodian.service.standing import loan_row, loan_state
from cloister.custodian.store.blocks import AskRow, list_asks
from cloister.custodian.store.instances import InstanceRow, list_instances, standing_instances
from cloister.custodian.store.keys import released_keys
from cloister.custodian.store.loans import LoanRow, account_balances, balances_of, list_loans
from cloister.lending.ending import block_bound, is_live
from cloister.lending.ledger import ISSUED, OVERDRAFT, SPENT, WITHDRAWN, WRITTEN_OFF
from cloister.lending.terms import LoanId, meters_in
from cloister.wire import Json, dump_time

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from cloister.custodian.config import Config
    from cloister.custodian.service.context import Context
    from cloister.custodian.store.keys import ReleasedKeyRow
    from cloister.lending.state import LoanState

__all__ = ["ask_json", "instance_json", "instance_list", "loan_brief", "loan_list", "loan_summary", "loan_view"]


def loan_list(context: Context) -> Json:
    """Return every loan, shortly."""
    with context.reading() as connection:
        return {"loans": [loan_brief(connection, row, context.config, context.now()) for row in list_loans(connection)]}


def loan_view(context: Context, loan: LoanId) -> Json:
    """Return one loan with terms, policy, meters, instances and requests."""
    with context.reading() as connection:
        row = loan_row(connection, loan)
        return {
            **_summary(context, connection, row),
            "keys_released": [_released_json(item) for item in released_keys(connection, loan)],
            "policy": Policy.parse(row.policy).to_json(),
            "terms": row.terms.to_json(),
        }


def loan_summary(context: Context, loan: LoanId) -> Json:
    """Return what a borrower sees of its own loan: no consumer's token hash, no policy of others."""
    with context.reading() as connection:
        return _summary(context, connection, loan_row(connection, loan))


def _summary(context: Context, connection: Connection, row: LoanRow) -> dict[str, Json]:
    now = context.now()
    instances = list_instances(connection, loan=row.terms.loan)
    return {
        **loan_brief(connection, row, context.config, now),
        "instances": [instance_json(item, now) for item in instances],
        "meters": _meters(connection, row),
        "requests": [ask_json(ask) for ask in list_asks(connection, row.terms.loan)],
    }


def instance_list(context: Context) -> Json:
    """Return the instances: all that may still serve, and the newest of the others."""
    with context.reading() as connection:
        now = context.now()
        return {"instances": [instance_json(row, now) for row in list_instances(connection)]}


def loan_brief(connection: Connection, row: LoanRow, config: Config, now: datetime) -> dict[str, Json]:
    """Return one loan as lists show it."""
    state = loan_state(connection, row, config)
    instances = [item.state for item in standing_instances(connection, loan=row.terms.loan)]
    bound = block_bound(instances, ttl=row.terms.ttl, now=now)
    return {
        "balances": {str(meter): state.balances.get(meter, 0) for meter in meters_in(row.terms)},
        "block_version": state.block_version,
        "blocked_consumers": sorted(state.blocked_consumers),
        "blocked_models": sorted(state.blocked_models),
        "borrower": row.terms.borrower,
        "bound": {"seconds": bound.seconds, "units": bound.units},
        "created_at": dump_time(row.created_at),
        "live_instances": sum(1 for item in instances if is_live(item, now=now)),
        "loan": row.terms.loan,
        "models": [{"digest": model.digest, "name": model.name} for model in row.terms.models],
        "policy_version": row.policy_version,
        "state": _state(state, held=bound.units),
    }


def _state(state: LoanState, *, held: int) -> str:
    """Return the word for a loan: exhausted means that neither allowance nor instances have units left."""
    if state.blocked:
        return "blocked"
    return "active" if held or any(state.balances.values()) else "exhausted"


def _meters(connection: Connection, row: LoanRow) -> Json:
    """Return where every unit of every meter is: granted + owed = balance + held + spent + written off (I2)."""
    loan = row.terms.loan
    sums = account_balances(connection, loan, (ISSUED, OVERDRAFT, WITHDRAWN, SPENT, WRITTEN_OFF))
    balances = balances_of(connection, loan)
    standing = [item.state for item in standing_instances(connection, loan=loan)]
    shown: dict[str, Json] = {}
    for meter in meters_in(row.terms):
        held = sum(item.limits.get(meter, 0) - item.used.get(meter, 0) for item in standing)
        shown[meter] = {
            "balance": balances.get(meter, 0),
            "granted": -sums.get((meter, ISSUED), 0) - sums.get((meter, WITHDRAWN), 0),
            "held": held,
            "owed": -sums.get((meter, OVERDRAFT), 0),
            "spent": sums.get((meter, SPENT), 0),
            "written_off": sums.get((meter, WRITTEN_OFF), 0),
        }
    return shown


def ask_json(ask: AskRow) -> dict[str, Json]:
    """Return a request for more as the API shows it."""
    return {
        "answer": ask.answer,
        "created_at": dump_time(ask.created_at),
        "decided_at": None if ask.decided_at is None else dump_time(ask.decided_at),
        "granted": ask.granted,
        "id": ask.id,
        "meter": ask.meter,
        "reason": ask.reason,
        "state": ask.state.value,
        "units": ask.units,
    }


def _released_json(row: ReleasedKeyRow) -> Json:
    return {
        "at": dump_time(row.at),
        "envelope": row.envelope.hex(),
        "instance": row.instance,
        "kek_id": row.kek_id,
        "key_version": row.key_version,
        "model": row.model,
    }


def instance_json(row: InstanceRow, now: datetime) -> dict[str, Json]:
    """Return an instance as the API shows it."""
    state = row.state
    return {
        "attested_at": dump_time(state.attested_at),
        "clock": {"rule": row.clock, "trusted": state.clock_trusted},
        "committed_at": dump_time(state.committed_at),
        "dead_at": dump_time(state.dead_at),
        "epoch": state.epoch,
        "id": state.id,
        "kem_digest": row.kem_digest.hex(),
        "limits": {str(meter): units for meter, units in state.limits.items()},
        "live": is_live(state, now=now),
        "loan": state.loan,
        "policy_digest": state.policy_digest,
        "seq": state.seq,
        "state": state.status.value,
        "tee": row.tee,
        "tier": row.tier,
        "used": {str(meter): units for meter, units in state.used.items()},
        "voucher_until": None if state.voucher_until is None else dump_time(state.voucher_until),
    }
