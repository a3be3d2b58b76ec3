"""Ticket mode through the real parties: one signature per answer, proven by the consumer, stopped at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from flow_house import open_house, row

from cloister.client import TicketNotProven
from cloister.client.receipts import VerifiedReceipt
from cloister.errors import Rejected, Unavailable
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flow_house import House

    from cloister.enclave.instance import EnclaveInstance
    from cloister.enclave.tickets import Tickets
    from cloister.lending.lease import Reservation


async def _lend(house: House, allowance: int) -> None:
    models = [{"digest": digest, "name": name, "ticketed": True} for name, digest in house.digests.items()]
    await house.lend(allowance, models=models)


@asynchronous
async def test_each_answer_takes_one_ticket_and_the_count_is_exact(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await _lend(house, 3)
        async with house.enclave(), await house.client() as client:
            assert await house.meter() == {
                "balance": 3, "granted": 3, "held": 0, "owed": 0, "spent": 0, "written_off": 0,
            }  # fmt: skip
            answers = await asyncio.gather(*(client.infer("digits", row(index)) for index in range(3)))
            assert [answer.label for answer in answers] == ["class-0", "class-1", "class-2"]
            assert sorted(answer.receipt.receipt.index for answer in answers) == [1, 2, 3]
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(0))
            assert caught.value.code == "allowance_exhausted"
            meter = await house.meter()
            assert (meter["balance"], meter["spent"]) == (0, 3)


@asynchronous
async def test_a_cut_network_and_a_block_stop_at_once_and_nothing_is_served(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await _lend(house, 9)
        async with house.enclave() as enclave, await house.client() as client:
            await client.infer("digits", row(0))
            house.wires.cut.add(8443)
            with pytest.raises(Unavailable):
                await client.infer("digits", row(1))
            house.wires.cut.clear()
            await client.infer("digits", row(1))  # what was pending is sent again first
            bound = (await house.post("/v1/blocks", {"kind": "loan", "reason": "drill", "subject": house.loan}))[
                "bound"
            ]
            assert bound["units"] == 0
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(2))
            assert caught.value.code == "blocked"
            assert enclave.metering.must_end()


@dataclass
class Tampering:
    """What an enclave that is not ours would do: it takes its tickets, and shows the consumer something else."""

    real: Tickets
    change: Callable[[bytes], bytes | None]

    async def take(self, reservation: Reservation, commitment: bytes) -> bytes | None:
        return self.change(await self.real.take(reservation, commitment))

    @classmethod
    def into(cls, enclave: EnclaveInstance, change: Callable[[bytes], bytes | None]) -> None:
        """Put it in the place of an enclave's tickets."""
        runs = enclave.inference._runs
        runs._tickets = cls(runs._tickets, change)  # type: ignore[assignment] # on purpose


@asynchronous
async def test_the_consumer_proves_and_keeps_the_ticket_of_its_answer(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await _lend(house, 5)
        async with house.enclave() as enclave, await house.client() as client:
            assert [model.ticketed for model in client.enclave.keyset.models] == [True]
            assert all(model.ticketed for model in (await client.contract()).contract.terms.models)
            answer = await client.infer("digits", row(2))
            assert answer.ticket is not None
            assert (answer.ticket.instance, answer.ticket.units) == (enclave.metering.instance, answer.units)
            answer.receipt.save(tmp_path / "kept.receipt")
    kept = VerifiedReceipt.parse((tmp_path / "kept.receipt").read_bytes())
    assert kept.prove_ticket(house.key) == answer.ticket


@asynchronous
async def test_an_enclave_that_shows_no_ticket_or_another_is_refused_by_the_consumer(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await _lend(house, 9)
        async with house.enclave() as enclave, await house.client() as client:
            first = await client.infer("digits", row(0))
            older = first.receipt.ticket
            assert older is not None
            for change, code in (
                (lambda _: None, "ticket_missing"),
                (lambda _: older, "ticket_mismatch"),
                (lambda ticket: ticket[:-1], "ticket_malformed"),
            ):
                Tampering.into(enclave, change)
                with pytest.raises(TicketNotProven) as caught:
                    await client.infer("digits", row(0))
                assert caught.value.code == code
        async with house.enclave() as second, await house.client() as client:
            Tampering.into(second, lambda _: older)
            with pytest.raises(TicketNotProven) as caught:
                await client.infer("digits", row(0))
            assert {reason.subject for reason in caught.value.reasons} == {"ticket: instance", "ticket: request"}


@asynchronous
async def test_an_enclave_whose_keyset_hides_that_a_model_is_ticketed_contradicts_its_contract(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await _lend(house, 3)
        async with house.enclave() as enclave:
            booted = enclave.booted
            assert booted is not None
            hidden = (replace(model, terms=replace(model.terms, ticketed=False)) for model in enclave.pool.models)
            enclave.publisher._describe = enclave._describing(booted.grant.terms, booted.contract, tuple(hidden))
            enclave.publisher.wipe()
            await enclave.publisher.tick()
            async with await house.client() as client:
                with pytest.raises(Rejected) as caught:
                    await client.contract()
        assert [reason.subject for reason in caught.value.reasons] == ["tickets, model digits"]
