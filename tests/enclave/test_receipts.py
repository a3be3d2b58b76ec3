"""Receipts of one turn of the event loop: one signature, and each consumer has its own, whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
from enclave_models import doubler
from enclave_parties import ALICE, ConsumerSide, infer_body, make_world, receipt_of

from cloister.enclave.receipts import Receipts
from cloister.enclave.web.exchange import Answer, Head, Outcome
from cloister.errors import Rejected
from cloister.lending.receipt import verify_chain, verify_receipt
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance

SIGNATURES = "cloister_receipt_signatures_total"


def charged(enclave: EnclaveInstance, count: int) -> list[bytes]:
    """Charge ``count`` inferences; return their receipts, not signed yet."""
    found = []
    for at in range(count):
        reservation = enclave.metering.reserve("m", ALICE, 1)
        found.append(enclave.metering.charge(reservation, 1, bytes([at]) * 32, bytes(32)))
    return found


@asynchronous
async def test_what_is_ready_in_one_turn_has_one_signature_and_stays_a_chain(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    async with world.enclave() as enclave:
        receipts = Receipts(enclave.metering, enclave.metrics)
        signed = await asyncio.gather(*map(receipts.signed, charged(enclave, 7)))
        assert enclave.metrics.value(SIGNATURES) == 1
        key = (await ConsumerSide(enclave, world.clock).keyset()).receipt_keys[0]
        verify_chain([verify_receipt(one, key) for one in signed])
        assert await receipts.signed(charged(enclave, 1)[0])
        assert enclave.metrics.value(SIGNATURES) == 2


@asynchronous
async def test_an_instance_that_ends_before_it_signs_gives_no_receipt(tmp_path: Path) -> None:
    async with make_world(tmp_path, {"m": doubler()}).enclave() as enclave:
        receipts = Receipts(enclave.metering, enclave.metrics)
        waiting = [asyncio.ensure_future(receipts.signed(payload)) for payload in charged(enclave, 3)]
        enclave.metering.close()
        for one in waiting:
            with pytest.raises(Rejected, match="lease_expired"):
                await one
        assert enclave.metrics.value(SIGNATURES) == 0


@asynchronous
async def test_whatever_goes_wrong_with_signing_is_told_to_who_waits(tmp_path: Path) -> None:
    async with make_world(tmp_path, {"m": doubler()}).enclave() as enclave:
        receipts = Receipts(enclave.metering, enclave.metrics)
        first = charged(enclave, 1)[0]
        damaged = receipts.signed(cast("bytes", object()))
        async with asyncio.timeout(5):
            found = await asyncio.gather(receipts.signed(first), damaged, return_exceptions=True)
        assert all(isinstance(one, TypeError | AttributeError) for one in found)
        assert await receipts.signed(first), "and the next is signed"


@asynchronous
async def test_who_leaves_before_its_receipt_is_signed_takes_no_other_with_it(tmp_path: Path) -> None:
    async with make_world(tmp_path, {"m": doubler()}).enclave() as enclave:
        receipts = Receipts(enclave.metering, enclave.metrics)
        gone, stays = (asyncio.ensure_future(receipts.signed(payload)) for payload in charged(enclave, 2))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays
        assert await gone, "what was charged has its receipt"


@asynchronous
async def test_t44_who_leaves_at_any_moment_and_asks_again_under_the_same_key_pays_once(tmp_path: Path) -> None:
    async with make_world(tmp_path, {"m": doubler()}).enclave() as enclave:

        async def ask(key: int) -> int:
            headers = (("authorization", f"Bearer {ALICE.decode()}"), ("idempotency-key", str(key)))
            head = Head(method="POST", target="/v2/models/m/infer", headers=headers, pinned=True)
            begun = enclave.direct.begin(head)
            assert not isinstance(begun, Answer)
            try:
                return (await begun.answer(infer_body([[1.0, 2.0, 3.0]]))).status
            finally:
                begun.end(Outcome.FAILED)

        assert await ask(1000) == 200
        for turns in range(12):
            leaving = asyncio.ensure_future(ask(turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            assert await ask(turns) == 200
            assert enclave.metering.snapshot().served == turns + 2


@asynchronous
async def test_consumers_who_ask_at_once_have_receipts_of_their_own(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        bodies = [infer_body([[float(at), 0.0, 0.0]]) for at in range(12)]
        keyset = await consumer.keyset()
        answers = await asyncio.gather(
            *(consumer.send(consumer.request("POST", "/v2/models/m/infer", body)) for body in bodies)
        )
        found = [receipt_of(answer, keyset, body) for answer, body in zip(answers, bodies, strict=True)]
        assert sorted(receipt.index for receipt in found) == list(range(1, 13))
        assert 1 <= enclave.metrics.value(SIGNATURES) <= 12
