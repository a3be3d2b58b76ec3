"""Disputes settled from files: one test for each way to cheat by leaving out or altering one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from dispute_kit import (
    CUSTODIAN,
    KEPT,
    OTHER,
    RECORDS,
    START,
    TRUE,
    a_status,
    claims,
    head_behind,
    receipts,
    report,
    stated,
    with_span,
)

from cloister.crypto.sign import Label, Statement
from cloister.errors import Malformed, Rejected
from cloister.lending.dispute import Guilt, Outcome, settle, verify_statement
from cloister.lending.messages import UsageStatement
from cloister.lending.receipt import record_of
from cloister.lending.terms import ConsumerId, LoanId
from mutations import mutated


def codes(outcome: Outcome) -> set[tuple[str, Guilt]]:
    return {(item.code, item.guilt) for item in outcome.findings}


def test_honest_files_settle_with_nobody_convicted() -> None:
    outcome = settle(TRUE, [report(RECORDS)], claims(KEPT))
    assert (outcome.settled, outcome.convictions, outcome.matched, outcome.without_receipt) == (True, (), 4, 0)


def test_honest_files_settle_also_in_several_reports_and_a_part_of_the_time() -> None:
    first, second = report(RECORDS[:2]), report(RECORDS[2:], head_behind(RECORDS[:2]))
    part = replace(
        with_span(TRUE, after=2, previous=head_behind(RECORDS[:2]), units=7),
        start=START + timedelta(minutes=3),
        lines=stated(RECORDS[2:]).lines,
    )
    outcome = settle(part, [second, first], claims(KEPT))
    assert outcome.settled
    assert (outcome.matched, codes(outcome)) == (2, {("outside", Guilt.NOBODY)})


# The custodian cheats


def test_a_custodian_that_leaves_a_record_out_of_its_sums_is_convicted_by_the_enclave_s_signature() -> None:
    short = with_span(replace(TRUE, lines=stated(RECORDS[:3]).lines), units=6)
    outcome = settle(short, [report(RECORDS)], [])
    assert codes(outcome) == {("sum_wrong", Guilt.CUSTODIAN)}


def test_a_custodian_that_charges_one_consumer_for_another_is_convicted() -> None:
    swapped = replace(
        TRUE, lines=tuple(replace(line, consumer=ConsumerId("bob")) for line in TRUE.lines[:1]) + TRUE.lines[1:]
    )
    outcome = settle(swapped, [report(RECORDS)], [])
    assert codes(outcome) == {("sum_wrong", Guilt.CUSTODIAN)}


def test_a_custodian_that_invents_units_is_convicted() -> None:
    more = with_span(replace(TRUE, lines=(replace(TRUE.lines[0], units=99), *TRUE.lines[1:])), units=105, itemised=105)
    assert codes(settle(more, [report(RECORDS)], claims(KEPT))) == {("sum_wrong", Guilt.CUSTODIAN)}


def test_a_custodian_that_names_another_chain_head_is_convicted() -> None:
    assert codes(settle(with_span(TRUE, head=bytes(32)), [report(RECORDS)], [])) == {("head_wrong", Guilt.CUSTODIAN)}


def test_a_custodian_that_keeps_its_reports_back_proves_nothing_and_settles_nothing() -> None:
    outcome = settle(TRUE, [], claims(KEPT))
    assert not outcome.settled
    assert outcome.convictions == ()
    assert ("reports_missing", Guilt.NOBODY_YET) in codes(outcome)


def test_a_custodian_that_leaves_out_an_inference_beyond_what_it_granted_is_convicted_by_the_receipt() -> None:
    """The statement ends early, and what it admits to have granted does not cover the receipts."""
    short = stated(RECORDS[:3], granted=6)
    outcome = settle(short, [report(RECORDS[:3])], claims(KEPT))
    assert ("left_out", Guilt.CUSTODIAN) in codes(outcome)


def test_a_custodian_that_moves_a_record_out_of_its_period_is_convicted_by_the_receipt() -> None:
    short = with_span(replace(TRUE, lines=stated(RECORDS[:3]).lines), upto=3, head=head_behind(RECORDS[:3]), units=6)
    outcome = settle(short, [report(RECORDS)], claims(KEPT))
    assert ("range_wrong", Guilt.CUSTODIAN) in codes(outcome)


def test_a_custodian_that_puts_a_record_of_another_time_into_its_period_is_convicted() -> None:
    narrow = replace(TRUE, start=START + timedelta(minutes=2))
    assert ("range_wrong", Guilt.CUSTODIAN) in codes(settle(narrow, [report(RECORDS)], []))


def test_a_custodian_that_leaves_out_a_whole_instance_is_convicted_by_its_own_status() -> None:
    empty = replace(TRUE, lines=(), spans=())
    outcome = settle(empty, [], claims(KEPT, a_status(CUSTODIAN)))
    assert codes(outcome) == {("instance_left_out", Guilt.CUSTODIAN)}


def test_units_written_off_without_a_record_cover_a_receipt_and_convict_nobody() -> None:
    killed = stated(RECORDS[:3], granted=100)
    outcome = settle(killed, [report(RECORDS[:3])], claims(KEPT))
    assert outcome.settled
    assert codes(outcome) == {("not_itemised", Guilt.NOBODY)}
    assert killed.not_itemised == 94


def test_what_a_live_instance_has_not_reported_yet_is_open() -> None:
    early = stated(RECORDS[:3], granted=100, ended=False)
    outcome = settle(early, [report(RECORDS[:3])], claims(KEPT))
    assert codes(outcome) == {("not_reported", Guilt.NOBODY_YET)}
    assert early.not_itemised == 0


# The consumer cheats


def test_a_consumer_that_leaves_receipts_out_takes_nothing_off_the_count() -> None:
    outcome = settle(TRUE, [report(RECORDS)], claims(KEPT[:1]))
    assert outcome.settled
    assert (outcome.matched, outcome.without_receipt, outcome.statement.units) == (1, 3, 10)


def test_a_consumer_that_shows_one_receipt_twice_counts_it_once() -> None:
    outcome = settle(TRUE, [report(RECORDS)], claims([*KEPT, *KEPT]))
    assert (outcome.settled, outcome.matched) == (True, 4)


@pytest.mark.parametrize(
    "status",
    [None, a_status(OTHER, OTHER), a_status(CUSTODIAN), a_status(CUSTODIAN, OTHER, LoanId("loan-" + "b" * 16))],
)
def test_a_consumer_that_makes_up_an_instance_convicts_nobody(status: bytes | None) -> None:
    """A key of its own signs anything; the custodian's word on it is missing, another's, or on another loan."""
    outcome = settle(TRUE, [report(RECORDS)], claims(receipts(key=OTHER), status))
    assert codes(outcome) == {("instance_unknown", Guilt.NOBODY_YET)}


# The enclave's memory was copied


def test_a_receipt_that_contradicts_the_record_convicts_the_instance() -> None:
    outcome = settle(TRUE, [report(RECORDS)], claims(receipts(salt=b"b")[:1]))
    assert codes(outcome) == {("record_fork", Guilt.INSTANCE)}


def test_two_receipts_that_contradict_each_other_convict_the_instance() -> None:
    outcome = settle(TRUE, [report(RECORDS)], claims([*KEPT, receipts(salt=b"b")[0]]))
    assert codes(outcome) == {("receipt_fork", Guilt.INSTANCE)}


def test_a_borrower_that_frames_the_custodian_with_reports_of_a_copy_convicts_its_own_instance() -> None:
    """As soon as the custodian shows the reports that it was given."""
    framed = [record_of(item) for item in receipts(salt=b"b")]
    assert codes(settle(TRUE, [report(framed)], [])) == {("head_wrong", Guilt.CUSTODIAN)}
    outcome = settle(TRUE, [report(framed), report(RECORDS)], [])
    assert codes(outcome) == {("report_fork", Guilt.INSTANCE)}


def test_leaving_out_any_one_file_of_a_cheated_set_acquits_the_wrong_side_nowhere() -> None:
    """Whoever drops a report or a receipt gets at most "not settled", never a conviction of the other."""
    files = [report(RECORDS[:2]), report(RECORDS[2:], head_behind(RECORDS[:2]))]
    for dropped in range(3):
        kept = [item for number, item in enumerate(files) if number != dropped]
        for missing in range(5):
            mine = [item for number, item in enumerate(KEPT) if number != missing]
            outcome = settle(TRUE, kept, claims(mine))
            assert outcome.convictions == ()
            assert outcome.settled == (len(kept) == 2)


# Forms


def test_a_statement_by_another_key_or_altered_counts_for_nothing() -> None:
    signed = Statement.sign(CUSTODIAN, Label.USAGE_STATEMENT, TRUE.dump()).dump()
    assert verify_statement(signed, CUSTODIAN.verify_key) == TRUE
    with pytest.raises(Rejected, match="unknown_key"):
        verify_statement(signed, OTHER.verify_key)
    for data in mutated(signed, count=500):
        if data != signed:
            with pytest.raises((Malformed, Rejected)):
                verify_statement(data, CUSTODIAN.verify_key)


@pytest.mark.parametrize(
    ("member", "value"),
    [("units", 11), ("not_itemised", 0), ("lines", []), ("spans", []), ("v", 2), ("from", "2026-07-01")],
)
def test_a_statement_whose_totals_are_not_the_sum_of_its_parts_is_malformed(member: str, value: object) -> None:
    members = json.loads(TRUE.dump())
    assert members[member] != value
    with pytest.raises(Malformed):
        UsageStatement.parse(json.dumps({**members, member: value}, sort_keys=True, separators=(",", ":")).encode())


def test_a_statement_names_each_line_and_each_instance_once_and_ranges_that_can_be() -> None:
    bad = [
        replace(TRUE, lines=(*TRUE.lines, replace(TRUE.lines[0], units=0))),
        replace(TRUE, spans=(*TRUE.spans, replace(TRUE.spans[0], units=0, ended=False))),
        with_span(TRUE, upto=5),
        with_span(TRUE, after=5),
    ]
    for statement in bad:
        with pytest.raises(Malformed):
            UsageStatement.parse(statement.dump())
