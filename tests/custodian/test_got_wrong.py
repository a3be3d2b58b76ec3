"""What the earlier proof of concept got wrong on the owner's side, line by line (docs/concepts.md)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from custodian_kit import Lent, Toy, bearer

from cloister.custodian.routes import ROUTES
from cloister.errors import Rejected
from cloister.lending.terms import LOAN_METER

if TYPE_CHECKING:
    from custodian_kit import Bench


def test_with_a_budget_of_zero_the_model_does_not_run(bench: Bench) -> None:
    """It ran the model when the budget was zero; only the demo client refused."""
    lent = bench.lend(allowance=1)
    toy = lent.boot()
    toy.renew()
    toy.serve(1)
    with pytest.raises(Rejected) as refused:
        toy.serve(1)
    assert refused.value.code == "allowance_exhausted"
    bench.clock.advance(20)
    assert toy.renew().limits == {LOAN_METER: 1}
    with pytest.raises(Rejected):
        toy.serve(1)


def test_check_and_charge_are_one_transaction(bench: Bench) -> None:
    """Check and charge were two calls on an unlocked file; concurrent calls passed together."""
    lent = bench.lend(allowance=5, max_instances=8, max_ceiling=1)
    toys = [lent.boot() for _ in range(8)]
    limits: list[int] = []
    threads = [threading.Thread(target=lambda toy=toy: limits.append(toy.renew().limits[LOAN_METER])) for toy in toys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(limits) == [0, 0, 0, 1, 1, 1, 1, 1]


def test_a_failed_run_is_not_charged(bench: Bench) -> None:
    """A failed run was charged."""
    lent = bench.lend(allowance=3)
    toy = lent.boot()
    toy.renew()
    assert toy.holder is not None
    toy.holder.refund(toy.holder.reserve("digits", None, 2, bench.clock()))
    bench.clock.advance(20)
    toy.renew()
    assert lent.show()["meters"]["loan"]["spent"] == 0


def test_a_top_up_adds(bench: Bench) -> None:
    """Top-up replaced the budget instead of adding."""
    lent = bench.lend(allowance=10)
    bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1})
    assert lent.balance() == 11


def test_a_request_for_more_reaches_the_running_enclave(bench: Bench) -> None:
    """A request for more was written down and read by nobody."""
    lent = bench.lend(allowance=1)
    toy = lent.boot()
    toy.renew()
    toy.serve(1)
    asked = bench.post(f"/v1/loans/{lent.id}/requests", {"units": 2}, token=lent.token).json()
    bench.post(f"/v1/loans/{lent.id}/requests/{asked['id']}/approve")
    bench.clock.advance(20)
    toy.renew()
    toy.serve(2)
    assert [item["state"] for item in lent.show()["requests"]] == ["approved"]


def test_nobody_gets_in_without_a_token(bench: Bench) -> None:
    """Nobody was authenticated on any custodian, upload or delete endpoint."""
    changing = [route for route in ROUTES if route.method != "GET" and route.roles is not None]
    assert {"/v1/models", "/v1/loans", "/v1/blocks", "/v1/tokens"} <= {route.path for route in changing}
    for path in ("/v1/models", "/v1/loans", "/v1/blocks", "/v1/tokens"):
        assert bench.post(path, token={}).status_code == 401
        assert bench.post(path, token=bearer("clst_" + "A" * 43)).status_code == 401


def test_old_evidence_cannot_be_replayed(bench: Bench) -> None:
    """The quote was taken once at boot without a nonce, so it could be replayed."""
    lent = bench.lend()
    toy = Toy(lent)
    first = toy.take_challenge()
    evidence_of_first = toy.attest_statement(first)
    assert lent.attest(evidence_of_first).status_code == 200
    other = Toy(lent)
    other.key, other.kem, other.kem_pub, other.id = toy.key, toy.kem, toy.kem_pub, toy.id
    second = other.take_challenge()
    stale = toy.attester.collect(bytes(64))
    answer = lent.attest(other.attest_statement(second, evidence=stale))
    assert "report_data_mismatch" in {item["code"] for item in answer.json()["reasons"]}


def test_the_custodian_never_sees_the_model_and_releases_only_its_key(bench: Bench) -> None:
    """The model travelled in plain form and was never encrypted at rest; no key was released."""
    plain = (bench.folder / "digits.plain" / "model.onnx").read_bytes()
    sealed = b"".join(path.read_bytes() for path in (bench.folder / "digits.sealed").rglob("*") if path.is_file())
    assert plain not in sealed
    toy = bench.lend().boot()
    assert toy.released_dek() == bench.dek
    assert not any(plain in path.read_bytes() for path in bench.home.rglob("*") if path.is_file())


def test_a_stopped_custodian_stops_inference_by_time_and_not_by_a_crash(bench: Bench) -> None:
    """Stopping the custodian stopped inference by crashing a handler."""
    toy = bench.lend(allowance=10).boot()
    toy.renew()
    bench.close()
    toy.serve(1)
    bench.clock.advance(61)
    with pytest.raises(Rejected) as refused:
        toy.serve(1)
    assert refused.value.code == "lease_expired"
    bench.open()


def test_counters_are_per_loan_model_and_consumer(bench: Bench) -> None:
    """One global counter: not per model, consumer or loan."""
    first = bench.lend(allowance=5, consumers=[{"id": "a", "allowance": 2}, {"id": "b", "allowance": 4}])
    second: Lent = bench.lend(allowance=5)
    toy = first.boot()
    toy.renew()
    a, b = (first.made["consumer_tokens"][name].encode() for name in ("a", "b"))
    toy.serve(2, token=a)
    with pytest.raises(Rejected) as refused:
        toy.serve(1, token=a)
    assert refused.value.reasons[0].subject == "consumer:a"
    toy.serve(3, token=b)
    with pytest.raises(Rejected) as refused:
        toy.serve(1, token=b)
    assert refused.value.reasons[0].subject == "loan"
    assert second.balance() == 5


def test_what_happened_can_be_proven_afterwards(bench: Bench) -> None:
    """No receipts, no audit."""
    bench.lend().boot().renew()
    assert {"loan_created", "challenge_issued", "key_released", "lease_granted"} <= set(bench.kinds())
