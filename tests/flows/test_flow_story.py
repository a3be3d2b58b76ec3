"""The whole story: lend, attest, release, verify, ask, run out, ask for more, block, expire, prove the log."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from flow_house import ENCLAVE, OPERATOR, TTL_S, open_house, row
from PIL import Image

from cloister.client.plan import Pause, drive_async
from cloister.enclave.renew import Ending
from cloister.errors import Rejected, Unavailable
from cloister.lending.audit import verify_checkpoint, verify_log
from cloister.wire import dump_json
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path


@asynchronous
async def test_lend_ask_run_out_ask_for_more_block_and_prove_the_log(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(3)
        async with house.enclave() as enclave, await house.client() as client:
            assert client.enclave.operator == OPERATOR
            assert client.enclave.instance == enclave.metering.instance
            # Three answers, the count goes down, each with a receipt that follows the one before.
            answers = [await client.infer("digits", row(index)) for index in range(3)]
            assert [answer.label for answer in answers] == ["class-0", "class-1", "class-2"]
            assert [answer.remaining for answer in answers] == [2, 1, 0]
            assert [answer.receipt.receipt.index for answer in answers] == [1, 2, 3]
            # The fourth is refused by the enclave, and costs nothing.
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(0))
            assert caught.value.code == "allowance_exhausted"
            # The borrower asks for more, the custodian approves, the enclave renews, work goes on.
            asked = await house.admin.post(
                f"/v1/loans/{house.loan}/requests",
                json={"units": 5, "reason": "more patients"},
                headers={"authorization": f"Bearer {house.loan_file['token']}"},
            )
            assert asked.is_success, asked.text
            await house.post(f"/v1/loans/{house.loan}/requests/{asked.json()['id']}/approve", {})
            house.clock.advance(TTL_S / 3)
            await enclave.renewal.once()
            assert (await client.infer("digits", row(3))).remaining == 4
            # Blocked: the next renewal is a signed stop, the instance ends, consumers are refused.
            blocked = await house.post("/v1/blocks", {"kind": "loan", "reason": "drill", "subject": house.loan})
            assert blocked["bound"]["seconds"] >= TTL_S
            house.clock.advance(TTL_S / 3)
            assert await enclave.renewal.until_end() is Ending.STOPPED
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(0))
            assert caught.value.code == "blocked"
            with pytest.raises(Rejected) as caught:
                await client.reverify()
            assert "instance_not_active" in {reason.code for reason in caught.value.reasons}
            enclave.wipe()
            await enclave.send_close()
        # Every unit is somewhere: granted = balance + held + spent + written off.
        counts = await house.meter()
        assert counts["granted"] == 8
        assert counts["spent"] >= 4
        assert sum(counts[part] for part in ("balance", "held", "spent", "written_off")) == 8
        lines = [dump_json(entry) for entry in (await house.get("/v1/audit?limit=1000"))["entries"]]
        statement = (await house.admin.get("/v1/audit/checkpoint")).content
        verified = verify_log(lines, verify_checkpoint(statement, house.key))
        assert verified.root


@asynchronous
async def test_an_image_file_becomes_the_models_input(tmp_path: Path) -> None:
    image = Image.new("L", (40, 40), 0)
    image.paste(255, (20, 0, 40, 20))  # the top right quarter
    image.save(tmp_path / "scan.png")
    async with open_house(tmp_path) as house:
        await house.lend(3)
        async with house.enclave(), await house.client() as client:
            answer = await client.infer("digits", image=tmp_path / "scan.png")
            assert answer.label == "class-1"
            assert answer.outputs["label"].tolist() == [1]


@asynchronous
async def test_waiting_goes_on_when_units_are_freed(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(1)
        async with house.enclave() as enclave, await house.client() as client:
            await client.infer("digits", row(0))
            question = client._question("digits", row(2), None, None, wait=timedelta(minutes=5))

            async def take(step: object) -> object:
                if isinstance(step, Pause):
                    house.clock.advance(step.duration.total_seconds())
                    if (await house.meter())["granted"] == 1:
                        await house.post(f"/v1/loans/{house.loan}/top-up", {"units": 4})
                    await enclave.renewal.once()
                    return None
                return await client._wire.take(step)  # type: ignore[arg-type] # a step

            answer = await drive_async(client._infer(question), take)
            assert answer.label == "class-2"
            assert answer.units == 1


@asynchronous
async def test_the_same_key_gives_the_same_answer_and_costs_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(2)
        async with house.enclave(), await house.client() as client:
            first = await client.infer("digits", row(1), idempotency_key="visit-1")
            again = await client.infer("digits", row(1), idempotency_key="visit-1")
            assert again.receipt == first.receipt
            assert (await client.model("digits")).remaining == 1
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(2), idempotency_key="visit-1")
            assert caught.value.code == "request_id_reused"


@asynchronous
async def test_a_tampered_enclave_is_refused_by_custodian_and_consumer(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(2)
        with pytest.raises(Rejected) as caught:
            async with house.enclave(debug=True):
                pass
        assert "debug_enabled" in {reason.code for reason in caught.value.reasons}
        async with house.enclave() as enclave:
            with pytest.raises(Rejected) as caught:
                await house.client(operators=("Another Hospital",))
            assert caught.value.code == "operator_mismatch"
            # Consumers' own evidence, not the custodian's word: a chip that turned debug after release.
            enclave.publisher._source.attester._flags |= 1  # type: ignore[attr-defined] # the simulated chip's own switch
            with pytest.raises(Rejected) as caught:
                await house.client()
            assert "debug_enabled" in {reason.code for reason in caught.value.reasons}


@asynchronous
async def test_a_killed_custodian_stops_inference_at_the_deadline_and_breaks_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(10)
        async with house.enclave() as enclave, await house.client() as client:
            house.wires.cut.add(8443)
            with pytest.raises(Unavailable):
                await enclave.renewal.once()
            house.clock.advance(TTL_S - 5)
            assert (await client.infer("digits", row(1))).label == "class-1"  # the lease still lives
            house.clock.advance(6)
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(1))
            assert caught.value.code == "lease_expired"
            house.clock.advance(TTL_S)
            assert await enclave.renewal.until_end() is Ending.EXPIRED
            enclave.wipe()
            with pytest.raises((Rejected, Unavailable)):
                await client.infer("digits", row(1))


@asynchronous
async def test_a_restarted_enclave_is_a_new_instance_and_the_client_finds_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(10, max_ceiling=2)
        async with house.enclave():
            client = await house.client()
            first = (await client.infer("digits", row(1))).receipt.receipt
        async with house.enclave(), client:
            second = (await client.infer("digits", row(1))).receipt.receipt
            assert second.instance != first.instance
            assert second.index == 1
            assert str(client.url) == ENCLAVE
