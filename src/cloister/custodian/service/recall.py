"""Recall: every past release judged again, by what is known now (docs/reference/endorsements.md section 4).

A release is asked one question: knowing the endorsements and the policy of today, would its keys still leave? What
was right on its day and has only grown old since is no reason: a certificate of three hours is over by now whoever
it was given to. So a release is verified

    1. as of the time of the recall: whoever was revoked, or fell below a level, by then falls;
    2. where only age speaks against it, as of its own time, with the same endorsements and policy: what stood then
       stands; where those endorsements did not exist then, it is undecided, and said to be.

An answer that could not be had (no endorsement, bytes that no longer parse) is undecided too, never a yes.

Not done here: stopping (``blocks``), which a recall asks for only by its own word or by a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cloister.attest.binding import ReleaseBinding
from cloister.attest.endorse import FirstOf, Given
from cloister.attest.endorse.gather import gather
from cloister.attest.endorse.names import LASTING, parse_name
from cloister.attest.policy import Policy
from cloister.custodian.service.blocks import block
from cloister.custodian.service.standing import loan_row
from cloister.custodian.store.instances import find_instance
from cloister.custodian.store.releases import read_release, releases_after
from cloister.errors import CloisterError, Reason, Rejected, UsageError
from cloister.lending.ending import is_live
from cloister.lending.events import EventKind
from cloister.wire import Fields, Json, dump_time, reason_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.endorse import Endorsements
    from cloister.attest.rats import TeeKind
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.service.endorsements import HomeBundle
    from cloister.custodian.store.releases import ReleaseRow
    from cloister.custodian.tokens import Actor
    from cloister.lending.terms import InstanceId, LoanId

__all__ = ["MAX_JUDGED", "recall"]

MAX_JUDGED = 20  # releases of one page: a chassis of GPUs each stays within a client's patience
_MAX_REASONS = 16  # reasons shown of one release
_MAX_REASON_CHARS = 160  # characters of a block's reason
_AGE = frozenset({"age_mismatch", "cert_expired", "collateral_expired", "rim_cert_expired", "token_expired"})
"""Reasons that time alone makes: at the release they were not there, and nothing was found out since. Collateral that
was fetched is of today, so what expired came along in the evidence."""
_NOT_YET = frozenset({"collateral_not_yet_valid", "cert_not_yet_valid"})


class Verdict(Enum):
    """What a recall says of one release."""

    STANDS = "stands"
    FALLS = "falls"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One release, judged again; its bytes are not kept in memory."""

    number: int
    instance: InstanceId
    loan: LoanId
    at: datetime
    tee: TeeKind
    verdict: Verdict
    reasons: tuple[Reason, ...]
    live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """By what releases are judged. ``policy`` None: by the policy that each one's loan has now."""

    policy: Policy | None
    endorsements: Endorsements
    at: datetime


def recall(context: Context, home: HomeBundle, actor: Actor, body: Fields) -> Json:
    """Judge a page of releases: ``{"policy"?, "bundle"?, "at"?, "stop"?, "after"?, "limit"?}``; block those that fall.

    Nothing is fetched or verified inside a transaction. Raises ``Malformed``, ``Rejected`` (a bundle that is refused),
    ``UsageError`` (to stop by another time than now).
    """
    now = context.now()
    question = _take_question(context, home, body, now)
    stop = body.boolean("stop") if "stop" in body else context.config.stop_on_recall
    after = body.optional("after", body.integer) or 0
    limit = body.integer("limit", floor=1, cap=MAX_JUDGED) if "limit" in body else MAX_JUDGED
    body.end()
    if stop and question.at != now:
        msg = "recall: instances are stopped by how things stand now, not by what was or will be"
        raise UsageError(msg, hint="leave out stop, or at")
    with context.reading() as connection:
        numbers = releases_after(connection, after, limit=limit)
    judged = [found for number in numbers if (found := _judge(context, number, question, now)) is not None]

    def work(transaction: Transaction) -> list[InstanceId]:
        stopped = [_stop(transaction, actor, item) for item in judged if stop and _is_to_stop(item)]
        _record(transaction, actor, judged, question=question, stop=stop)
        return stopped

    stopped = context.transact(work)
    return _report(judged, stopped=stopped, after=numbers[-1] if len(numbers) == limit else None)


def _take_question(context: Context, home: HomeBundle, body: Fields, now: datetime) -> _Question:
    policy = body.optional("policy", lambda name: Policy.from_json(body.take(name)))
    bundle = body.optional("bundle", body.b64u)
    at = body.optional("at", body.time) or now
    # A bundle that is sent is no older than the custodian's own; it is asked here and accepted nowhere.
    source = context.endorsements if bundle is None else home.verify(bundle, now)
    return _Question(policy=policy, endorsements=source, at=at)


def _judge(context: Context, number: int, question: _Question, now: datetime) -> Judged | None:
    """Return the verdict on one release, None where it was forgotten meanwhile."""
    with context.reading() as connection:
        row = read_release(connection, number)
        if row is None:
            return None
        policy = question.policy or Policy.parse(loan_row(connection, row.loan).policy)
        found = find_instance(connection, row.instance)
    live = found is not None and is_live(found.state, now=now)
    verdict, reasons = _verdict(context, row, policy, question, now)
    return Judged(
        number=number, instance=row.instance, loan=row.loan, at=row.at, tee=row.evidence.tee,
        verdict=verdict, reasons=reasons, live=live,
    )  # fmt: skip


def _verdict(
    context: Context, row: ReleaseRow, policy: Policy, question: _Question, now: datetime
) -> tuple[Verdict, tuple[Reason, ...]]:
    try:
        given: Mapping[str, bytes] = {}
        if row.evidence.tee in policy.tees:  # else it falls by its name, whoever answers or does not
            source = FirstOf(question.endorsements, _lasting(row))
            given = gather(context.verifier, source, row.evidence, row.devices, now)
        # 1. As of the recall.
        reasons = _reasons(context, row, policy, given, question.at)
        if not reasons:
            return Verdict.STANDS, ()
        new = tuple(reason for reason in reasons if reason.code not in _AGE)
        if new:
            return Verdict.FALLS, new
        # 2. Only age speaks against it: as of its own time.
        then = _reasons(context, row, policy, given, row.at)
    except Rejected as exc:
        return Verdict.FALLS, exc.reasons  # a tee that this custodian verifies no more
    except CloisterError as exc:
        return Verdict.UNDECIDED, (Reason(code=exc.fault, subject=exc.message),)
    if not then:
        return Verdict.STANDS, ()
    return (Verdict.UNDECIDED, reasons) if _codes(then) <= _AGE | _NOT_YET else (Verdict.FALLS, then)


def _lasting(row: ReleaseRow) -> Given:
    """Return those endorsements of the release that never change: a chip's certificate is the same on every day."""
    return Given({name: data for name, data in row.endorsements.items() if parse_name(name).kind in LASTING})


def _reasons(
    context: Context, row: ReleaseRow, policy: Policy, given: Mapping[str, bytes], at: datetime
) -> tuple[Reason, ...]:
    """Return every reason to refuse this release at a time; none where it is accepted."""
    binding = ReleaseBinding(
        nonce=row.nonce,
        custodian=row.custodian,
        instance_pub=row.instance_pub,
        kem_pub=row.kem_pub,
        software=row.software,
        devices=row.devices,
    )
    try:
        context.verifier.verify(row.evidence, binding, policy, at, given)
    except Rejected as exc:
        return exc.reasons
    return ()


def _codes(reasons: Sequence[Reason]) -> frozenset[str]:
    return frozenset(reason.code for reason in reasons)


def _is_to_stop(item: Judged) -> bool:
    return item.verdict is Verdict.FALLS and item.live


def _stop(transaction: Transaction, actor: Actor, item: Judged) -> InstanceId:
    """Block the instance as anybody would; the block's reason says what fell."""
    why = f"recall: {', '.join(sorted(_codes(item.reasons)))}"[:_MAX_REASON_CHARS]
    order: Json = {"kind": "instance", "reason": why, "subject": item.instance}
    block(transaction, actor, Fields(order, what="recall"))
    return item.instance


def _record(
    transaction: Transaction, actor: Actor, judged: Sequence[Judged], *, question: _Question, stop: bool
) -> None:
    policy = {} if question.policy is None else {"policy_digest": question.policy.digest}
    transaction.record(
        EventKind.RECALLED, actor, "custodian", judged=len(judged), stop=stop,
        fallen=_count(judged, Verdict.FALLS), undecided=_count(judged, Verdict.UNDECIDED), **policy,
    )  # fmt: skip


def _count(judged: Sequence[Judged], verdict: Verdict) -> int:
    return sum(1 for item in judged if item.verdict is verdict)


def _report(judged: Sequence[Judged], *, stopped: Sequence[InstanceId], after: int | None) -> Json:
    """Return what the caller reads: what did not stand, whom it concerns, and where the next page starts."""
    found = [item for item in judged if item.verdict is not Verdict.STANDS]
    fallen = [item for item in found if item.verdict is Verdict.FALLS]
    return {
        "fallen": len(fallen),
        "instances": sorted({str(item.instance) for item in fallen}),
        "judged": len(judged),
        "loans": sorted({str(item.loan) for item in fallen}),
        "next": after,
        "releases": [_release_json(item, stopped=item.instance in stopped) for item in found],
        "undecided": len(found) - len(fallen),
    }


def _release_json(item: Judged, *, stopped: bool) -> Json:
    reasons: list[Json] = [reason_json(reason) for reason in item.reasons[:_MAX_REASONS]]
    return {
        "at": dump_time(item.at),
        "instance": item.instance,
        "live": item.live,
        "loan": item.loan,
        "reasons": reasons,
        "release": item.number,
        "stopped": stopped,
        "tee": item.tee,
        "verdict": item.verdict.value,
    }
