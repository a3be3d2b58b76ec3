"""Asking again against the real enclave and custodian: counted once, refused once the loan is over."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx2
import pytest
from flow_house import CEILING, TTL_S, House, open_house, row

from cloister.client import Retry
from cloister.enclave.renew import Ending
from cloister.errors import Rejected
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance

SOON = Retry(first_pause=timedelta(milliseconds=10))


def lose(house: House, *, answers: int, then: Callable[[], Awaitable[None]] | None = None) -> None:
    """Let the next answers of the enclave get lost on the way; ``then`` happens behind the first."""
    send = house.wires.handle_async_request
    left = [answers]

    async def losing(request: httpx2.Request) -> httpx2.Response:
        answer = await send(request)
        if request.method != "POST" or request.url.port != 8440 or not left[0]:
            return answer
        left[0] -= 1
        if then is not None and left[0] == answers - 1:
            await then()
        msg = "the answer never came"
        raise httpx2.ReadTimeout(msg)

    house.wires.handle_async_request = losing  # type: ignore[method-assign] # the network of this test


@asynchronous
async def test_a_question_whose_answer_was_lost_is_charged_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(5)
        async with house.enclave() as enclave, await house.client(retry=SOON) as client:
            await client.model("digits")
            lose(house, answers=3)
            answer = await client.infer("digits", row(2))
            assert (answer.label, answer.units, answer.remaining, answer.tries) == ("class-2", 1, 4, 4)
            assert answer.receipt.receipt.index == 1
            assert (await client.infer("digits", row(2))).remaining == 3, "the same question anew is another"
            house.clock.advance(TTL_S / 3)
            await enclave.renewal.once()
            assert (await house.meter())["spent"] == 2


@asynchronous
async def test_the_kept_answer_is_refused_once_the_custodian_has_stopped_the_loan(tmp_path: Path) -> None:
    """What was answered, charged and lost is not given to somebody whose loan has ended meanwhile."""
    async with open_house(tmp_path) as house:
        await house.lend(5)
        async with house.enclave() as enclave, await house.client(retry=SOON) as client:
            await client.model("digits")

            async def block() -> None:
                await house.post("/v1/blocks", {"kind": "loan", "reason": "drill", "subject": house.loan})
                house.clock.advance(TTL_S / 3)
                assert await enclave.renewal.until_end() is Ending.STOPPED

            lose(house, answers=1, then=block)
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(2))
            assert caught.value.code == "blocked"


@asynchronous
async def test_another_instance_is_verified_and_not_asked_to_count_again(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, AsyncExitStack() as later:
        await house.lend(2 * CEILING)
        async with house.enclave() as first, await house.client(retry=SOON) as client:
            await client.model("digits")
            second: list[EnclaveInstance] = []

            async def start_anew() -> None:
                second.append(await later.enter_async_context(house.enclave()))

            lose(house, answers=1, then=start_anew)
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(1))
            assert caught.value.code == "instance_changed"
            assert caught.value.reasons[0].want == first.metering.instance
            assert client.enclave.instance == second[0].metering.instance
            answer = await client.infer("digits", row(1))
            assert (answer.units, answer.receipt.receipt.index) == (1, 1), "the second instance had counted nothing"
