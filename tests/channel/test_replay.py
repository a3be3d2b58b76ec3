"""No request twice, whatever the clock does and however many come."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from cloister.channel.ohttp import GatewayKeys, seal_request
from cloister.channel.replay import (
    DATE_SKEW,
    DEFAULT_WINDOW,
    ReplayCache,
    dump_http_date,
    parse_http_date,
    verify_date,
)
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from mutations import mutated

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_t56_a_replayed_request_is_refused() -> None:
    keys, cache = GatewayKeys.generate(), ReplayCache()
    request, _ = seal_request(keys.configs[0], b"\x00\x03GET\x05https\x00\x01/")
    cache.admit(keys.open_request(request)[2], NOW)
    with pytest.raises(Rejected) as caught:
        cache.admit(keys.open_request(request)[2], NOW + SECOND)
    assert caught.value.code == "replayed"
    again, _ = seal_request(keys.configs[0], b"\x00\x03GET\x05https\x00\x01/")
    cache.admit(keys.open_request(again)[2], NOW + SECOND)


def test_t56_no_moment_is_left_in_which_a_replay_passes_both_gates() -> None:
    for made in (-DATE_SKEW, timedelta(), DATE_SKEW):
        headers = (("date", dump_http_date(NOW + made)),)
        cache = ReplayCache()
        verify_date(headers, NOW)
        cache.admit(b"enc", NOW)
        for seconds in range(600):
            later = NOW + seconds * SECOND
            with pytest.raises(Rejected):
                _both_gates(cache, headers, later)


def _both_gates(cache: ReplayCache, headers: tuple[tuple[str, str], ...], now: datetime) -> None:
    verify_date(headers, now)
    cache.admit(b"enc", now)


def test_t56_a_clock_set_back_does_not_open_the_gate_again() -> None:
    headers = (("date", dump_http_date(NOW + DATE_SKEW)),)
    cache = ReplayCache()
    _both_gates(cache, headers, NOW)
    cache.admit(b"other", NOW + DEFAULT_WINDOW + SECOND)
    for back in range(300):
        with pytest.raises((Rejected, Unavailable)):
            _both_gates(cache, headers, NOW + DEFAULT_WINDOW + SECOND - back * SECOND)


def test_what_was_seen_is_forgotten_after_the_window() -> None:
    cache = ReplayCache(capacity=1)
    cache.admit(b"one", NOW)
    with pytest.raises(Rejected):
        cache.admit(b"one", NOW + DEFAULT_WINDOW - SECOND)
    cache.admit(b"two", NOW + DEFAULT_WINDOW)


def test_a_full_cache_is_closed_and_forgets_nothing_early() -> None:
    cache = ReplayCache(capacity=3)
    for enc in (b"one", b"two", b"three"):
        cache.admit(enc, NOW)
    with pytest.raises(Unavailable) as caught:
        cache.admit(b"four", NOW)
    assert caught.value.retry_after_s == 180
    with pytest.raises(Rejected):
        cache.admit(b"one", NOW)


def test_of_many_threads_with_one_request_one_passes() -> None:
    cache, passed = ReplayCache(), []
    barrier = threading.Barrier(8)

    def attempt() -> None:
        barrier.wait()
        try:
            cache.admit(b"enc", NOW)
            passed.append(1)
        except Rejected:
            return

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed == [1]


@pytest.mark.parametrize("window", [timedelta(), DATE_SKEW, 2 * DATE_SKEW])
def test_a_window_with_a_hole_is_our_mistake(window: timedelta) -> None:
    with pytest.raises(UsageError):
        ReplayCache(window=window)
    with pytest.raises(UsageError):
        ReplayCache(capacity=0)


@pytest.mark.parametrize("seconds", [-61, 61, 3600, -3600])
def test_a_date_too_far_away_is_refused(seconds: int) -> None:
    with pytest.raises(Rejected) as caught:
        verify_date((("date", dump_http_date(NOW + seconds * SECOND)),), NOW)
    assert caught.value.code == "date_skewed"


def test_a_missing_date_is_refused_and_two_are_malformed() -> None:
    with pytest.raises(Rejected) as caught:
        verify_date((), NOW)
    assert caught.value.code == "date_missing"
    with pytest.raises(Malformed):
        verify_date((("date", dump_http_date(NOW)),) * 2, NOW)


def test_dates_come_back_as_they_went() -> None:
    assert dump_http_date(datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT") == datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:60 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "sun, 06 nov 1994 08:49:37 gmt",
        "2026-11-21T12:00:00Z",
    ],
)
def test_dates_in_any_other_form_are_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_http_date(text)


def test_mutated_dates_are_malformed_or_dates() -> None:
    for data in mutated(dump_http_date(NOW).encode()):
        text = data.decode("latin-1")
        try:
            assert dump_http_date(parse_http_date(text)) == text
        except Malformed:
            continue
