"""What is written out by hand on the request path: the same bytes as canonical JSON, whatever is in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from cloister.lending.messages import Receipt, UsageRecord, UsageReport
from cloister.lending.messages.usage import MINUTE, minute_number, minute_of
from cloister.lending.terms import MAX_UNITS, ConsumerId, InstanceId, LoanId, ModelDigest
from cloister.wire import dump_b64u, dump_json, dump_time

digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
hashes = st.binary(min_size=32, max_size=32)
names = st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", fullmatch=True)
times = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy adds it
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
counts = st.integers(min_value=1, max_value=MAX_UNITS)


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    consumer = draw(st.none() | names)
    return Receipt(
        instance=InstanceId(draw(digests)),
        index=draw(counts),
        loan=LoanId("loan-" + draw(st.from_regex(r"[a-z2-7]{16}", fullmatch=True))),
        model=ModelDigest(draw(digests)),
        consumer=None if consumer is None else ConsumerId(consumer),
        metered=consumer is not None and draw(st.booleans()),
        units=draw(counts),
        request=draw(hashes),
        response=draw(hashes),
        previous=draw(hashes),
        policy_digest=draw(digests),
        issued_at=draw(times),
    )


@given(receipts())
def test_a_receipt_is_canonical_json_and_parses_back(receipt: Receipt) -> None:
    written = receipt.dump()
    assert written == dump_json(
        {
            "consumer": receipt.consumer,
            "index": receipt.index,
            "instance": receipt.instance,
            "issued_at": dump_time(receipt.issued_at),
            "loan": receipt.loan,
            "metered": receipt.metered,
            "model": receipt.model,
            "policy_digest": receipt.policy_digest,
            "previous": dump_b64u(receipt.previous),
            "request": dump_b64u(receipt.request),
            "response": dump_b64u(receipt.response),
            "units": receipt.units,
            "v": 2,
        }
    )
    assert Receipt.parse(written) == receipt


@given(receipts(), st.none() | hashes)
def test_a_usage_record_is_canonical_json(receipt: Receipt, content: bytes | None) -> None:
    record = UsageRecord(
        index=receipt.index,
        model=receipt.model,
        consumer=receipt.consumer,
        units=receipt.units,
        at=minute_of(receipt.issued_at),
        content=content,
    )
    assert record.dump() == dump_json(
        {
            "at": dump_time(record.at),
            "consumer": record.consumer,
            "content": None if content is None else dump_b64u(content),
            "index": record.index,
            "model": record.model,
            "units": record.units,
        }
    )


@given(receipts(), st.lists(st.tuples(receipts(), st.none() | hashes), min_size=1, max_size=6))
def test_a_usage_report_is_canonical_json_and_parses_back(
    whose: Receipt, served: list[tuple[Receipt, bytes | None]]
) -> None:
    records = tuple(
        UsageRecord(
            index=number, model=one.model, consumer=one.consumer, units=one.units, at=minute_of(at), content=content
        )
        for number, ((one, content), at) in enumerate(
            zip(served, sorted(one.issued_at for one, _ in served), strict=True), start=7
        )
        if at >= EPOCH
    )
    if not records:
        return
    report = UsageReport(instance=whose.instance, loan=whose.loan, previous=whose.previous, records=records)
    models = list(dict.fromkeys(record.model for record in records))
    consumers = list(dict.fromkeys(record.consumer for record in records if record.consumer is not None))
    written = report.dump()
    assert written == dump_json(
        {
            "consumers": [str(name) for name in consumers],
            "first": records[0].index,
            "instance": report.instance,
            "loan": report.loan,
            "models": [str(digest) for digest in models],
            "previous": dump_b64u(report.previous),
            "records": [
                [
                    record.minute,
                    models.index(record.model),
                    None if record.consumer is None else consumers.index(record.consumer),
                    record.units,
                    None if record.content is None else dump_b64u(record.content),
                ]
                for record in records
            ],
            "v": 1,
        }
    )
    assert UsageReport.parse(written) == report


@given(times, st.integers(min_value=-1439, max_value=1439))
def test_a_minute_is_the_same_in_every_time_zone(moment: datetime, offset: int) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(minutes=offset)))
    assert minute_of(elsewhere) == minute_of(moment)
    assert minute_of(moment) <= moment < minute_of(moment) + MINUTE
    assert minute_number(minute_of(moment)) == minute_number(moment)
    assert dump_time(elsewhere) == dump_time(moment)
