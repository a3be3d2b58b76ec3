"""base64url and times have one spelling each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import Malformed, UsageError
from cloister.wire import dump_b64u, dump_time, parse_b64u, parse_time
from mutations import mutated


# RFC 4648 section 10, in the url-safe alphabet without padding
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"f", "Zg"),
        (b"fo", "Zm8"),
        (b"foo", "Zm9v"),
        (b"foob", "Zm9vYg"),
        (b"fooba", "Zm9vYmE"),
        (b"foobar", "Zm9vYmFy"),
        (b"\xfb\xff\xfe", "-__-"),
    ],
)
def test_base64url_examples(data: bytes, text: str) -> None:
    assert dump_b64u(data) == text
    assert parse_b64u(text, what="x") == data


@given(st.binary(max_size=300))
def test_base64url_round_trip(data: bytes) -> None:
    assert parse_b64u(dump_b64u(data), what="x", size=len(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        "Zg==",
        "Zg=",
        "Z",
        "Zh",
        "Zm9",
        "+//+",
        "Zm 9v",
        "Zm9v\n",
        "Zm9v\x00",
        "Zm9vé",
        "\uff3a\uff4d\uff19\uff56",
        "Zm9v.",
        "====",
        "Zm9vY",
    ],
)
def test_a_second_spelling_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_b64u(text, what="x")


@pytest.mark.parametrize("size", [0, 2, 4, 2**63])
def test_another_size_is_refused(size: int) -> None:
    with pytest.raises(Malformed, match=f"3 bytes, want {size}"):
        parse_b64u("Zm9v", what="x", size=size)


def test_base64url_is_capped_before_it_is_decoded() -> None:
    assert parse_b64u("A" * 4, what="x", cap=3) == bytes(3)
    with pytest.raises(Malformed, match="want at most 3"):
        parse_b64u("!" * 6, what="x", cap=3)


def test_ten_thousand_mutations_of_base64url_only_malformed() -> None:
    honest = dump_b64u(bytes(range(200))).encode()
    for data in mutated(honest):
        try:
            value = parse_b64u(data.decode("latin-1"), what="x")
        except Malformed:
            continue
        assert dump_b64u(value).encode("latin-1") == data


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 7, 1, 12, 30, 5, tzinfo=UTC), "2026-07-01T12:30:05Z"),
        (datetime(2026, 7, 1, 12, 30, 5, 7, tzinfo=UTC), "2026-07-01T12:30:05.000007Z"),
        (datetime(1970, 1, 1, tzinfo=UTC), "1970-01-01T00:00:00Z"),
        (datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC), "2038-01-19T03:14:08Z"),
        (datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC), "2106-02-07T06:28:16Z"),
        (datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC), "2024-02-29T23:59:59Z"),
        (datetime(999, 1, 1, tzinfo=UTC), "0999-01-01T00:00:00Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_time_examples(moment: datetime, text: str) -> None:
    assert dump_time(moment) == text
    assert parse_time(text, what="x") == moment


def test_a_time_of_another_zone_is_written_in_utc() -> None:
    zone = timezone(timedelta(hours=-5, minutes=-30))
    assert dump_time(datetime(2026, 1, 1, 0, 0, tzinfo=zone)) == "2026-01-01T05:30:00Z"


def test_a_naive_time_is_our_mistake_not_local_time() -> None:
    with pytest.raises(UsageError, match="naive"):
        dump_time(datetime(2026, 1, 1))  # noqa: DTZ001 - the attack


@given(st.datetimes(timezones=st.just(UTC)))
def test_time_round_trip(moment: datetime) -> None:
    assert parse_time(dump_time(moment), what="x") == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-07-01",
        "2026-07-01T12:30:05",
        "2026-07-01T12:30:05+00:00",
        "2026-07-01t12:30:05z",
        "2026-07-01 12:30:05Z",
        "2026-07-01T12:30:05.5Z",
        "2026-07-01T12:30:05.000000Z",
        "2026-07-01T12:30:60Z",
        "2026-07-01T24:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "-026-01-01T00:00:00Z",
        "٢٠٢٦-07-01T12:30:05Z",
        "2026-07-01T12:30:05Z\n",
        "2026-07-01T12:30:05ZZ",
        "now",
    ],
)
def test_a_time_spelled_otherwise_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_time(text, what="x")


def test_ten_thousand_mutations_of_a_time_only_malformed() -> None:
    for data in mutated(b"2026-07-01T12:30:05.000007Z"):
        text = data.decode("latin-1")
        try:
            moment = parse_time(text, what="x")
        except Malformed:
            continue
        assert dump_time(moment) == text
