"""The contract through all three parties: signed, released on, shown, obeyed; and parts of it handed on."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flow_house import ENCLAVE, TTL_S, House, brightest, open_house, row
from onnx import TensorProto, helper

from cloister.attest.rats import Verdict
from cloister.client import AsyncClient, HeldSubAllowance
from cloister.client.contract import verify_contract
from cloister.crypto.sign import Label, SigningKey
from cloister.enclave import inner
from cloister.enclave.contract import contract_json
from cloister.enclave.media import REVOCATIONS
from cloister.errors import Rejected, Unavailable
from cloister.lending.contract import Contract, SignedContract
from cloister.lending.revocation import RevocationList
from cloister.lending.sub_allowance import Caveats
from cloister.lending.terms import LoanId
from cloister.wire import dump_b64u, dump_json, parse_b64u, parse_json
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

BORROWER, STRANGER = SigningKey(bytes([9]) * 32), SigningKey(bytes([8]) * 32)
SATURDAY_NOON = 12 * 60  # minutes: when the house's time starts
KEY = {"borrower": BORROWER.verify_key.dump()}


def third() -> bytes:
    """Return a model that divides by three."""
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["three"], value_float=3.0),
            helper.make_node("Div", ["image", "three"], ["third"]),
        ],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("third", TensorProto.FLOAT, ["batch", 4])],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )


async def sign(house: House, key: SigningKey = BORROWER) -> SignedContract:
    """Sign what the custodian offers, as the borrower."""
    headers = {"authorization": f"Bearer {house.loan_file['token']}"}
    path = f"/v1/loans/{house.loan}/contract"
    offer = (await house.admin.get(path, headers=headers)).json()["offered"]
    signed = SignedContract.parse(parse_b64u(offer, what="offer")).accept(key, custodian=house.key)
    body = {
        "signature": dump_b64u(signed.borrower or b""),
        "version": Contract.parse(signed.payload).version,
    }
    answer = await house.admin.post(path, json=body, headers=headers)
    assert answer.is_success, answer.text
    return signed


async def lend(house: House, allowance: int = 50, **more: Any) -> SignedContract:
    clauses = KEY | more.pop("clauses", {})
    await house.lend(allowance, clauses=clauses, **more)
    return await sign(house)


def sub(house: House, **members: Any) -> HeldSubAllowance:
    caveats = Caveats(**{"not_after": house.clock.now + timedelta(hours=1), **members})
    return HeldSubAllowance.start(BORROWER, loan=LoanId(house.loan), caveats=caveats)


async def holder(house: House, held: HeldSubAllowance) -> AsyncClient:
    return await AsyncClient.verify(
        ENCLAVE, house.trust(), sub_allowance=held, schemes=house.schemes(), transport=house.wires, clock=house.clock
    )


async def refused(client: AsyncClient, index: int = 0) -> str:
    with pytest.raises(Rejected) as caught:
        await client.infer("digits", row(index))
    return caught.value.code


@asynchronous
async def test_an_enclave_does_not_start_on_a_contract_that_only_one_has_signed(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(5, clauses=KEY)
        with pytest.raises(Rejected) as caught:
            async with house.enclave():
                pass
        assert caught.value.code == "contract_unsigned"
        await sign(house)
        async with house.enclave(), await house.client() as client:
            assert (await client.infer("digits", row(1))).label == "class-1"


@asynchronous
async def test_a_consumer_sees_the_contract_that_both_have_signed_and_evidence_binds(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        signed = await lend(house, clauses={"purpose": "triage", "precision": 2})
        async with house.enclave(), await house.client(borrower=BORROWER.verify_key) as client:
            agreed = await client.contract()
            assert "both signatures verified" in agreed._repr_html_()
            terms = agreed.contract.terms
            plain = replace(terms, clauses=replace(terms.clauses, borrower=None))
            unsigned = replace(agreed, contract=replace(agreed.contract, terms=plain))
            assert "the custodian's signature verified" in unsigned._repr_html_().replace("&#x27;", "'")
        assert agreed.document == signed.dump()
        assert agreed.consumers == ("clinic",)
        assert agreed.contract.terms.clauses.purpose == "triage"
        assert all(check.verdict is Verdict.PASSED for check in agreed.checks)
        assert b"token_sha256" not in agreed.contract.dump()


@asynchronous
async def test_a_consumer_shown_another_contract_than_the_one_served_under_refuses(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        signed = await lend(house, clauses={"purpose": "triage"})
        async with house.enclave(), await house.client() as client:
            trust, enclave = house.trust(), client.enclave
        contract = Contract.parse(signed.payload)
        kinder = replace(contract, terms=replace(contract.terms, rate_cap=1))
        # Even if custodian and borrower had signed it: this instance was not attested with it.
        key = house.service.context.vault.signing_key
        other = SignedContract.offer(kinder, key).accept(BORROWER, custodian=house.key)
        body = dump_json({"consumers": ["clinic"], "contract": dump_b64u(other.dump())})
        with pytest.raises(Rejected, match="contract_mismatch"):
            verify_contract(body, enclave=enclave, trust=trust)
        unbound = replace(enclave, keyset=replace(enclave.keyset, models=()))  # evidence that names no contract at all
        own = dump_json({"consumers": ["clinic"], "contract": dump_b64u(signed.dump())})
        verify_contract(own, enclave=enclave, trust=trust)
        with pytest.raises(Rejected, match="digest of the contract"):
            verify_contract(own, enclave=unbound, trust=trust)
        one_sided = dump_json({"consumers": None, "contract": dump_b64u(SignedContract.offer(kinder, key).dump())})
        with pytest.raises(Rejected, match="contract_unsigned"):
            verify_contract(one_sided, enclave=enclave, trust=trust)
        forged = replace(other, custodian=STRANGER.sign(Label.CONTRACT, other.payload))
        with pytest.raises(Rejected, match="signature_invalid"):
            verify_contract(
                dump_json({"consumers": None, "contract": dump_b64u(forged.dump())}), enclave=enclave, trust=trust
            )


@asynchronous
async def test_a_borrowers_key_that_the_trust_file_does_not_name_is_refused_or_shown_as_unchecked(
    tmp_path: Path,
) -> None:
    async with open_house(tmp_path) as house:
        await lend(house)
        async with house.enclave():
            async with await house.client(borrower=STRANGER.verify_key) as client:
                with pytest.raises(Rejected, match="borrower's key"):
                    await client.contract()
            async with await house.client() as client:
                agreed = await client.contract()
        unchecked = [check.subject for check in agreed.checks if check.verdict is Verdict.NOT_CHECKED]
        assert unchecked == ["borrower's key"]


def digest_of(signed: SignedContract) -> str:
    return Contract.parse(signed.payload).digest


@asynchronous
async def test_an_enclave_under_another_contract_than_the_pinned_one_is_not_verified(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        signed = await lend(house)
        async with house.enclave():
            with pytest.raises(Rejected, match="contract_mismatch"):
                await house.client(contract="ab" * 32)
            async with await house.client(contract=digest_of(signed), borrower=BORROWER.verify_key) as client:
                assert (await client.infer("digits", row(1))).label == "class-1"
            said = {check.subject: check.verdict for check in client.enclave.checks}
        assert said["contract, model digits"] is Verdict.PASSED


@asynchronous
async def test_an_amended_contract_is_not_the_pinned_one_nor_is_an_older_one(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        first = await lend(house, 5000)
        async with house.enclave():
            await house.post(f"/v1/loans/{house.loan}/amend", {"clauses": {**KEY, "precision": 1}})
            second = await sign(house)
            # The instance of the older version lives on for a lease time, and serves nobody who wants the newer one.
            with pytest.raises(Rejected, match="contract_mismatch"):
                await house.client(contract=digest_of(second))
            await (await house.client(contract=digest_of(first))).close()
        async with house.enclave():
            with pytest.raises(Rejected, match="contract_mismatch"):
                await house.client(contract=digest_of(first))
            await (await house.client(contract=digest_of(second))).close()


@asynchronous
async def test_nothing_is_asked_where_another_borrower_has_signed_the_contract(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await lend(house)
        async with house.enclave() as enclave, await house.client(borrower=STRANGER.verify_key) as client:
            assert await refused(client) == "contract_mismatch"
            assert enclave.metering.snapshot().used == {}


SHOWN = {
    "another, signed by both": ("both", "contract_mismatch"),
    "one that only the custodian has signed": ("custodian", "contract_unsigned"),
    "one that nobody has signed": ("nobody", "signature_invalid"),
    "none at all": ("none", "not_found"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_an_enclave_that_shows_another_contract_is_asked_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kind, code = SHOWN[name]

    @asynchronous
    async def body() -> None:
        async with open_house(tmp_path) as house:
            signed = await lend(house)
            key = house.service.context.vault.signing_key
            kinder = replace(Contract.parse(signed.payload), created_at=house.clock.now + timedelta(seconds=1))
            both = SignedContract.offer(kinder, key).accept(BORROWER, custodian=house.key)
            shown = {
                "both": both,
                "custodian": replace(signed, borrower=None),
                "nobody": replace(signed, custodian=bytes(64), borrower=bytes(64)),
                "none": None,
            }[kind]
            monkeypatch.setattr(inner, "contract_json", lambda _, consumers: contract_json(shown, consumers))
            async with house.enclave() as enclave, await house.client(borrower=BORROWER.verify_key) as client:
                assert await refused(client) == code
                assert await refused(client) == code, "and no more the second time"
                assert enclave.metering.snapshot().used == {}

    body()


@asynchronous
async def test_a_consumer_who_joins_later_is_listed_beside_the_contract(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await lend(house)
        async with house.enclave() as enclave, await house.client() as client:
            await house.post(f"/v1/loans/{house.loan}/consumers", {"consumers": [{"id": "ward"}]})
            house.clock.advance(TTL_S / 3)
            await enclave.renewal.once()
            agreed = await client.contract()
        assert agreed.consumers == ("clinic", "ward")
        assert [item.id for item in agreed.contract.terms.consumers or ()] == ["clinic"]


@asynchronous
async def test_a_custodian_that_leaves_the_borrowers_key_out_gets_no_enclave(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(5)  # a loan that nobody countersigns, given to a borrower who was promised a say
        path = tmp_path / "loan.json"
        path.write_bytes(
            dump_json({**parse_json(path.read_bytes(), what="loan"), "borrower_key": KEY["borrower"]})  # type: ignore[dict-item]  # an object
        )
        with pytest.raises(Rejected, match="borrower's key"):
            async with house.enclave():
                pass


@asynchronous
async def test_a_stranger_is_not_shown_the_contract(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await lend(house)
        async with house.enclave(), await house.client("nobody") as client:
            with pytest.raises(Rejected) as caught:
                await client.contract()
        assert caught.value.code == "unauthorized"


@asynchronous
async def test_nothing_is_served_once_the_hours_are_over(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        hours = [{"day": 6, "end": SATURDAY_NOON + 1, "start": 0}]
        await lend(house, clauses={"hours": hours})
        async with house.enclave() as enclave, await house.client() as client:
            await client.infer("digits", row(0), idempotency_key="kept")
            house.clock.advance(TTL_S - 1)
            await enclave.renewal.once()
            await client.infer("digits", row(0))
            house.clock.advance(1)
            assert await refused(client) == "outside_hours"
            with pytest.raises(Rejected) as caught:  # nor is an answer of before given again
                await client.infer("digits", row(0), idempotency_key="kept")
            assert caught.value.code == "outside_hours"


@asynchronous
async def test_outputs_are_rounded_inside_and_the_receipt_commits_to_what_is_sent(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"digits": third()}) as house:
        await lend(house, clauses={"precision": 2, "sub_allowances": True})
        coarse = sub(house, precision=0)
        async with house.enclave():
            async with await house.client() as client:
                answer = await client.infer("digits", row(1, mark=2.0))
            async with await holder(house, coarse) as client:
                coarser = await client.infer("digits", row(1, mark=2.0))
        assert np.asarray(answer.outputs["third"]).tolist() == [[0.0, np.float32(0.67), 0.0, 0.0]]
        assert np.asarray(coarser.outputs["third"]).tolist() == [[0.0, 1.0, 0.0, 0.0]]
        for item in (answer, coarser):
            item.receipt.demand_content(request=item.request, response=item.response)


@asynchronous
async def test_limits_rules_and_watches_go_from_the_contract_to_the_enclave_and_counts_to_the_log(
    tmp_path: Path,
) -> None:
    """Agreed on by both, shown to the consumer, obeyed inside; only how many alarms there were comes back."""
    clauses = {
        "consumer_limits": {"each": {"budgets": [{"units": 300, "window_s": 60}]}},
        "outputs": [{"model": "digits", "output": "third", "show": "label"}],
        "watches": [{"above": 20, "kind": "near"}],
    }
    async with open_house(tmp_path, models={"digits": third()}) as house:
        await lend(house, allowance=500, clauses=clauses, max_instances=1)
        async with house.enclave() as enclave, await house.client() as client:
            agreed = (await client.contract()).contract.terms.clauses.to_json()
            assert {name: agreed[name] for name in clauses} == clauses
            with pytest.raises(Unavailable, match="budget_spent"):  # nothing is earned yet
                await client.infer("digits", row(1))
            for _ in range(4):
                house.clock.advance(15)
                await enclave.renewal.once()
            step = np.linspace(0, 1, 140, dtype=np.float32)[:, None]
            answer = await client.infer("digits", (1 - step) * row(1) + step * row(2))
            assert np.asarray(answer.outputs["third"]).sum(axis=1).tolist() == [1.0] * 140
            assert answer.remaining == 160, "what the budget leaves"
            await enclave.renewal.once()
        entries = (await house.get("/v1/audit?limit=1000"))["entries"]
        told = [entry["details"] for entry in entries if entry["kind"] == "extraction_alarm"]
        assert [(item["codes"], item["alarms"]) for item in told] == [("near", 1)]
        assert "clinic" not in str(told)


@asynchronous
async def test_a_sub_allowance_is_used_and_narrowed_without_a_call_to_the_custodian(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await lend(house, consumers=(), clauses={"sub_allowances": True})
        async with house.enclave():
            first = sub(house, units=3, name="ward-1")
            second = first.narrow(Caveats(units=2, models=("digits",)))
            third_one = first.narrow(Caveats(models=("other",)))
            async with await holder(house, first) as ann, await holder(house, second) as bob:
                house.wires.cut.add(8443)  # the custodian is out of reach, and nobody misses it
                assert (await bob.infer("digits", row(2))).label == "class-2"
                assert (await bob.infer("digits", row(2))).remaining == 0
                assert await refused(bob) == "sub_allowance_exhausted"
                assert (await ann.infer("digits", row(2))).remaining == 0
                assert await refused(ann) == "sub_allowance_exhausted"
                assert (await ann.contract()).consumers == ()
                house.wires.cut.clear()
            async with await holder(house, third_one) as eve:
                assert await refused(eve) == "sub_allowance_scope"


@asynchronous
async def test_a_sub_allowance_in_the_wrong_hands_ends_or_out_of_place_is_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await lend(house, clauses={"sub_allowances": True})
        held = sub(house)
        stolen_chain = HeldSubAllowance(chain=held.narrow(Caveats()).chain, secret=held.secret)
        by_stranger = HeldSubAllowance.start(
            STRANGER, loan=LoanId(house.loan), caveats=Caveats(not_after=house.clock.now + timedelta(hours=1))
        )
        elsewhere = HeldSubAllowance.start(
            BORROWER, loan=LoanId("loan-" + "a" * 16), caveats=Caveats(not_after=house.clock.now + timedelta(hours=1))
        )
        async with house.enclave() as enclave:
            for wrong in (stolen_chain, by_stranger, elsewhere):
                async with await holder(house, wrong) as client:
                    assert await refused(client) == "sub_allowance_invalid"
            other_instance = sub(house, instance="0" * 64)
            async with await holder(house, other_instance) as client:
                assert await refused(client) == "sub_allowance_scope"
            here = sub(house, instance=enclave.metering.instance, not_after=house.clock.now + timedelta(seconds=30))
            async with await holder(house, here) as client:
                await client.infer("digits", row(0))
                house.clock.advance(30)
                await enclave.renewal.once()
                assert await refused(client) == "sub_allowance_expired"


def listed(house: House, *held: HeldSubAllowance, number: int = 1) -> bytes:
    blocks = frozenset(item.chain.ids[-1] for item in held)
    end = house.clock.now + timedelta(hours=1)
    return RevocationList(loan=LoanId(house.loan), number=number, not_after=end, blocks=blocks).sign(BORROWER)


@asynchronous
async def test_a_sub_allowance_that_the_borrower_calls_back_gets_no_answer_not_even_one_of_before(
    tmp_path: Path,
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    async with open_house(tmp_path) as house:
        await lend(house, clauses={"sub_allowances": True, "revocations": True})
        ward = sub(house)
        bed = ward.narrow(Caveats())
        async with house.enclave(settings={"media": media}) as enclave, await holder(house, bed) as client:
            assert enclave.revocations is not None
            assert await refused(client) == "revocations_missing"
            (media / REVOCATIONS).write_bytes(listed(house))
            enclave.revocations.tick()
            await client.infer("digits", row(0), idempotency_key="kept")
            (media / REVOCATIONS).write_bytes(listed(house, ward, number=2))
            enclave.revocations.tick()
            with pytest.raises(Rejected, match="sub_allowance_revoked"):
                await client.infer("digits", row(0), idempotency_key="kept")
            for old in (listed(house), listed(house, number=3), b"{}", b""):  # by whoever can write into the folder
                (media / REVOCATIONS).write_bytes(old)
                enclave.revocations.tick()
            (media / REVOCATIONS).unlink()
            enclave.revocations.tick()
            assert await refused(client) == "sub_allowance_revoked"
        said = [json.loads(line) for line in house.log.getvalue().splitlines()]
        assert [item["code"] for item in said if item["event"] == "revocations_failed"] == [
            "revocations_old", "revocations_shrunk", "malformed", "malformed",
        ]  # fmt: skip


@asynchronous
async def test_a_list_that_lies_there_at_the_start_holds_before_the_first_request(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    async with open_house(tmp_path) as house:
        await lend(house, clauses={"sub_allowances": True})
        ward = sub(house)
        (media / REVOCATIONS).write_bytes(listed(house, ward))
        async with house.enclave(settings={"media": media}), await holder(house, ward) as client:
            assert await refused(client) == "sub_allowance_revoked"


@asynchronous
async def test_a_sub_allowance_lets_nobody_in_where_the_contract_does_not_say_so(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await lend(house)
        async with house.enclave(), await holder(house, sub(house)) as client:
            assert await refused(client) == "sub_allowances_off"


@asynchronous
async def test_parallel_requests_at_the_last_unit_of_a_sub_allowance_get_one_answer(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await lend(house, clauses={"sub_allowances": True})
        async with house.enclave(), await holder(house, sub(house, units=1)) as client:
            await client.model("digits")
            asked = await asyncio.gather(*(client.infer("digits", row(0)) for _ in range(8)), return_exceptions=True)
        served = [item for item in asked if not isinstance(item, BaseException)]
        codes = {item.code for item in asked if isinstance(item, Rejected)}
        assert len(served) == 1
        assert codes == {"sub_allowance_exhausted"}


@asynchronous
async def test_no_secret_of_a_sub_allowance_is_on_the_wire_or_in_a_log(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await lend(house, clauses={"sub_allowances": True})
        held = sub(house)
        async with house.enclave(), await holder(house, held) as client:
            await client.infer("digits", row(0))
        seen = b"".join(bytes(data) for data in house.wires.seen.values()) + house.log.getvalue().encode()
        assert held.token.encode() not in seen
        assert held.field[:64].encode() not in seen
        assert held.secret.seed() not in seen
        assert held.token not in repr(held)


@asynchronous
async def test_t50_unused_units_come_back_from_hardware_that_excludes_copies(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"digits": brightest()}, hardware="snp") as house:
        await lend(house, 50, clauses={"refund": "unused"})
        async with house.enclave() as enclave:
            async with await house.client() as client:
                await client.infer("digits", row(0))
            enclave.wipe()
            await enclave.send_close()
        meter = await house.meter()
        assert (meter["spent"], meter["written_off"], meter["balance"]) == (1, 0, 49)
