"""What nobody foresaw, on every way into the dashboard: written to the journal by its class, and shown to nobody."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import Bench
from desk_kit import Person, person_token

from cloister.custodian.admitting import Limits
from cloister.custodian.dashboard import live
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = "what a person wrote"


@pytest.fixture
def bench(place: Path) -> Iterator[Bench]:
    with Bench(place) as opened:
        yield opened


def broken(*_args: Any, **_kwargs: Any) -> Any:
    raise ZeroDivisionError(WORDS)


def told(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Return route and class of every error that was written down; no line has anything else."""
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    errors = [line for line in lines if line["event"] == "internal_error"]
    assert all(line.keys() == {"at", "event", "route", "error"} for line in errors)
    return [(line["route"], line["error"]) for line in errors]


WAYS = [
    ("GET /sign-in", "signing.is_page", "sign_in_page"),
    ("POST /sign-in", "signing.demand_ours", "sign_in"),
    ("GET /live", "live.signed_in", "live"),
    ("GET /loans", "gate.signed_in", "loan_list"),
    ("GET /nowhere", "app.signed_in", "unrouted"),
]


@pytest.mark.parametrize("way", WAYS)
def test_a_bug_on_any_way_in_is_written_down_by_its_class(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: tuple[str, str, str]
) -> None:
    asked, bug, route = way
    method, path = asked.split()
    person = Person(bench)
    monkeypatch.setattr(f"cloister.custodian.dashboard.{bug}", broken)
    answer = person.client.request(method, f"/ui{path}")
    assert (answer.status_code, answer.text) == (500, "internal error\n")
    assert told(capsys) == [(route, "ZeroDivisionError")]


def stream(bench: Bench, demand: Any) -> list[bytes]:
    """Return what a stream sends until it ends by itself."""
    desk: Any = SimpleNamespace(service=bench.service, limits=Limits(bench.service))

    async def read() -> list[bytes]:
        found = live._changes(desk, demand)
        sent = [await anext(found)]
        person_token(bench, "alice")  # news
        return [*sent, *[part async for part in found]]

    return asyncio.run(asyncio.wait_for(read(), 60))


def test_a_bug_behind_an_open_stream_ends_it_and_is_written_down(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stream(bench, broken) == [b"retry: 2000\n\n"]
    assert told(capsys) == [("live", "ZeroDivisionError")]


def test_a_stream_over_a_store_that_does_not_answer_ends_quietly_and_is_asked_for_again(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    def away() -> None:
        raise Unavailable(WORDS)

    assert stream(bench, away) == [b"retry: 2000\n\n"]
    assert told(capsys) == []
