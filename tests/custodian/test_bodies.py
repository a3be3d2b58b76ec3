"""T82: bodies that never end hold no more memory than all of them together may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from starlette.requests import Request

from cloister.custodian.bodies import Bodies
from cloister.custodian.calls import STATEMENT_TYPE, Body
from cloister.custodian.config import MAX_BODY_BYTES
from cloister.errors import Rejected
from cloister.serving.bodies import MAX_WAITING_BYTES, SMALL_BYTES

if TYPE_CHECKING:
    from starlette.types import Message


def request(size: int, goes_on: asyncio.Event | None = None) -> Request:
    """Return a request whose body is there but for its last byte; that one comes once ``goes_on``."""
    parts = [bytes(size - 1), b"x"]

    async def receive() -> Message:
        if len(parts) == 1 and goes_on is not None:
            await goes_on.wait()
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    headers = [(b"content-type", STATEMENT_TYPE.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def test_bodies_that_stay_away_are_bounded_together_and_those_that_end_make_room() -> None:
    async def story() -> None:
        bodies, goes_on = Bodies(within_s=30, waiting_bytes=MAX_WAITING_BYTES), asyncio.Event()
        most = MAX_WAITING_BYTES // (MAX_BODY_BYTES - 1)
        waiting = [
            asyncio.create_task(bodies.read(request(MAX_BODY_BYTES, goes_on), Body.STATEMENT)) for _ in range(most)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Rejected) as refused:
            await bodies.read(request(MAX_BODY_BYTES), Body.STATEMENT)
        assert refused.value.code == "too_many_requests"
        small = await bodies.read(request(SMALL_BYTES), Body.STATEMENT)
        assert len(small) == SMALL_BYTES  # what an enclave sends still gets through
        goes_on.set()
        assert {len(body) for body in await asyncio.gather(*waiting)} == {MAX_BODY_BYTES}
        assert len(await bodies.read(request(MAX_BODY_BYTES), Body.STATEMENT)) == MAX_BODY_BYTES

    asyncio.run(story())


def test_a_body_that_fails_gives_its_room_back() -> None:
    async def story() -> None:
        bodies = Bodies(within_s=30, waiting_bytes=MAX_WAITING_BYTES)
        for _ in range(2 * MAX_WAITING_BYTES // MAX_BODY_BYTES):
            with pytest.raises(Rejected) as refused:
                await bodies.read(request(MAX_BODY_BYTES + 1), Body.STATEMENT)
            assert refused.value.code == "payload_too_large"

    asyncio.run(story())
