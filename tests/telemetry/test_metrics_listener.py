"""The address of its own that metrics are shown at: loopback or a token, one request, nothing for anybody slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from cloister.errors import UsageError
from cloister.telemetry import listener as room
from cloister.telemetry.listener import MetricsListener, MetricsPlace, parse_metrics_place, read_metrics_token
from cloister.telemetry.registry import Registry, counter
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "scraper-0123456789"  # noqa: S105 - for a test


def registry() -> Registry:
    return Registry({"cloister_asks_total": counter("Asked.")})


def place(**changes: Any) -> MetricsPlace:
    return MetricsPlace(**{"host": "127.0.0.1", "port": 0, "token": None, **changes})


async def get(shown: MetricsListener, path: str = "/metrics", **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.get(shown.url.replace("/metrics", path), headers=headers)


@asynchronous
async def test_what_is_counted_is_shown_after_gauges_were_brought_up_to_date() -> None:
    counts = registry()

    async def measure() -> None:
        counts.add("cloister_asks_total")

    async with MetricsListener(place(), counts, measure) as shown:
        first = await get(shown)
        second = await get(shown, Accept="application/openmetrics-text")
    assert (first.status_code, first.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "cloister_asks_total 1\n" in first.text
    assert "cloister_asks_total 2\n" in second.text
    assert second.text.endswith("# EOF\n")
    assert first.headers["cache-control"] == "no-store"


@asynchronous
async def test_nothing_else_is_there_and_nothing_else_is_understood() -> None:
    async with MetricsListener(place(), registry()) as shown, httpx2.AsyncClient(trust_env=False) as client:
        for path in ("/", "/metrics/", "/v2", "/healthz", "/metricsx"):
            assert (await get(shown, path)).status_code == 404
        assert (await client.post(shown.url, content=b"x" * 10)).status_code == 405
        assert (await client.head(shown.url)).content == b""


@asynchronous
async def test_a_token_is_demanded_where_there_is_one() -> None:
    async with MetricsListener(place(token=TOKEN), registry()) as shown:
        for wrong in ({}, {"Authorization": TOKEN}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}):
            answer = await get(shown, **wrong)
            assert answer.status_code == 401
            assert "cloister" not in answer.text
            assert (await get(shown, "/other", **wrong)).status_code == 401
        assert (await get(shown, Authorization=f"Bearer {TOKEN}")).status_code == 200


@asynchronous
async def test_bytes_that_are_no_request_are_refused_and_slow_ones_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PATIENCE_S", 0.2)
    async with MetricsListener(place(), registry()) as shown:
        host, port = "127.0.0.1", int(shown.url.split(":")[2].split("/")[0])
        for sent, said in ((b"\x16\x03\x01\x00\x00\r\n\r\n", b" 400 "), (b"GET /metrics HTTP/1.1\r\n", b"")):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(sent)
            found = await asyncio.wait_for(reader.read(), 5)
            assert said in found
            assert bool(found) is bool(said)
            writer.close()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /metrics HTTP/1.1\r\nx: " + b"a" * 20_000)
        assert b"cloister" not in await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert (await get(shown)).status_code == 200


@asynchronous
async def test_connections_are_few_and_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PATIENCE_S", 0.3)
    async with MetricsListener(place(), registry()) as shown:
        host, port = "127.0.0.1", int(shown.url.split(":")[2].split("/")[0])
        idle = [await asyncio.open_connection(host, port) for _ in range(8)]
        reader, writer = await asyncio.open_connection(host, port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await asyncio.sleep(0.5)
        assert (await get(shown)).status_code == 200
        for _, one in idle:
            one.close()


@asynchronous
async def test_what_cannot_be_measured_is_an_error_without_a_word() -> None:
    async def measure() -> None:
        raise RuntimeError("canary")

    async with MetricsListener(place(), registry(), measure) as shown:
        answer = await get(shown)
    assert answer.status_code == 500
    assert "canary" not in answer.text


@pytest.mark.parametrize("text", ["", "9100", ":9100", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", "localhost"])
def test_a_place_has_a_host_and_a_port(text: str) -> None:
    with pytest.raises(UsageError):
        parse_metrics_place(text, None)


def test_beyond_loopback_a_token_is_demanded() -> None:
    for text in ("0.0.0.0:9100", "[::]:9100", "metrics.example:9100", "10.0.0.1:9100"):
        with pytest.raises(UsageError):
            parse_metrics_place(text, None)
        assert parse_metrics_place(text, TOKEN).port == 9100
    assert parse_metrics_place("[::1]:0", None).host == "::1"
    assert TOKEN not in repr(parse_metrics_place("0.0.0.0:9100", TOKEN))


def test_a_token_comes_from_a_file_of_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o644)
    with pytest.raises(UsageError):
        read_metrics_token(path)
    path.chmod(0o600)
    assert read_metrics_token(path) == TOKEN
    for bad in ("short", "x" * 600, "a token with blanks", "tokén-0123456789012"):
        path.write_text(bad)
        with pytest.raises(UsageError) as caught:
            read_metrics_token(path)
        assert bad not in str(caught.value)


def test_a_taken_port_is_said_at_once() -> None:
    first = MetricsListener(place(), registry())
    try:
        port = int(first.url.split(":")[2].split("/")[0])
        first._socket.listen()
        with pytest.raises(UsageError):
            MetricsListener(place(port=port), registry())
    finally:
        first.close()
