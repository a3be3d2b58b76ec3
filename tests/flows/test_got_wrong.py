"""What the earlier proof of concept got wrong, and what it got right: one named test for every line of both.

Every test plays all three real parties through the simulator (docs/reference/simulator.md).
"""

from __future__ import annotations

import base64
import itertools
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import NotChecked
from cloister.channel.bhttp import BinaryRequest
from cloister.client import Inference
from cloister.client.plan import drive_async
from cloister.custodian.routes import ROUTES
from cloister.custodian.tokens import Role
from cloister.enclave.engines.tensor import Datatype, Signature, Tensor, TensorSpec
from cloister.enclave.renew import Ending
from cloister.errors import Rejected, Unavailable
from cloister.lending.lease import LeaseState
from cloister.lending.receipt import head_after
from cloister.testing.simulator import (
    SimulatedConsumer,
    SimulatedEnclave,
    SimulatedLoan,
    Simulator,
    ToyEngine,
    toy_model,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloister.enclave.engines import ModelFiles

CANARY = b"the-weights-of-the-model-in-plain-form-0123456789"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(seed=11) as simulator:
        yield simulator


def engine_of(enclave: SimulatedEnclave) -> ToyEngine:
    assert isinstance(enclave.engine, ToyEngine)
    return enclave.engine


def served(outcomes: Sequence[Any]) -> list[Inference]:
    """Return the answers among outcomes; everything else must be a refusal for want of units."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, Rejected), outcome
            assert outcome.code == "allowance_exhausted"
    return [outcome for outcome in outcomes if isinstance(outcome, Inference)]


def balanced(loan: SimulatedLoan, name: str = "loan") -> dict[str, int]:
    """Return where the units are, once none is missing and none is twice there (I2)."""
    meter = dict(loan.meter(name))
    assert meter["granted"] == meter["balance"] + meter["held"] + meter["spent"] + meter["written_off"]
    assert min(meter.values()) >= 0
    return meter


# It ran the model when the budget was zero; only the demo client refused.


def test_the_model_never_runs_when_the_allowance_is_zero(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(allowance=1))
    consumer = sim.consumer(enclave)
    consumer.infer()
    for _ in range(5):
        with pytest.raises(Rejected, match="allowance_exhausted"):
            consumer.infer()
    assert engine_of(enclave).runs == 1
    # Nor for a client of somebody else's making, that knows nothing of allowances.
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}'
    for number in range(5):
        headers = (("idempotency-key", str(number)),) if number % 2 else ()
        raw = BinaryRequest(method="POST", path="/v2/models/toy/infer", headers=headers, body=body)
        client = consumer.client
        answer, _ = sim.run(drive_async(client._session.ask(raw), client._wire.take))
        assert answer.status == 402
    assert engine_of(enclave).runs == 1
    assert enclave.snapshot.used["loan"] == 1


def test_no_key_leaves_for_a_loan_without_units(sim: Simulator) -> None:
    with pytest.raises(Rejected, match="allowance_exhausted"):
        sim.launch(sim.lend(allowance=0))
    assert "key_released" not in sim.custodian.events()


def test_a_batch_that_is_larger_than_what_is_left_does_not_run_at_all(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(allowance=5))
    consumer = sim.consumer(enclave)
    assert consumer.infer(np.ones((3, 2))).units == 3
    with pytest.raises(Rejected, match="allowance_exhausted"):
        consumer.infer(np.ones((3, 2)))
    assert engine_of(enclave).runs == 1
    assert consumer.infer(np.ones((2, 2))).remaining == 0


# Check and charge were two calls on an unlocked file; concurrent calls passed together; a failed run was charged.


def test_concurrent_calls_cannot_pass_together_at_the_last_unit(sim: Simulator) -> None:
    loan = sim.lend(allowance=7)
    enclave = sim.launch(loan, workers=8)
    consumer = sim.consumer(enclave)
    consumer.remaining()
    engine_of(enclave).seconds = 1.0  # so that every call is under way before the first is charged
    answers = served(sim.together(*(consumer.inferring() for _ in range(20))))
    assert len(answers) == engine_of(enclave).runs == 7
    assert sorted(answer.receipt.receipt.index for answer in answers) == list(range(1, 8))
    enclave.stop()
    assert balanced(loan)["spent"] == 7


def test_concurrent_enclaves_cannot_pass_together_at_the_last_unit(sim: Simulator) -> None:
    loan = sim.lend(allowance=5, max_ceiling=2)
    enclaves = [sim.launch(loan) for _ in range(3)]
    consumers = [sim.consumer(enclave) for enclave in enclaves]
    for _ in range(6):
        sim.together(*(consumer.client.model("toy") for consumer in consumers))
    total = 0
    for _ in range(4):
        outcomes = sim.together(*(consumer.inferring() for consumer in consumers for _ in range(3)))
        total += len(served(outcomes))
        sim.advance(21)
    assert total == 5
    assert sum(engine_of(enclave).runs for enclave in enclaves) == 5
    assert balanced(loan)["balance"] == 0


def test_a_failed_run_is_not_charged(sim: Simulator) -> None:
    loan = sim.lend(allowance=3)
    enclave = sim.launch(loan)
    consumer = sim.consumer(enclave)
    engine_of(enclave).failures = 4
    for _ in range(4):
        with pytest.raises(Unavailable, match="engine_failed"):
            consumer.infer()
    assert enclave.snapshot.used.get("loan", 0) == 0
    assert enclave.snapshot.reserved.get("loan", 0) == 0
    for left in (2, 1, 0):
        assert consumer.infer().remaining == left
    enclave.stop()
    assert balanced(loan)["spent"] == 3


def test_asking_again_with_the_same_key_is_not_charged_again(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(allowance=3))
    consumer = sim.consumer(enclave)
    consumer.remaining()
    consumer.link.answers.drop()
    with pytest.raises(Unavailable):
        consumer.infer(key="one")
    again = consumer.infer(key="one")
    assert (again.receipt.receipt.index, again.remaining) == (1, 2)
    assert engine_of(enclave).runs == 1


# Top-up replaced the budget instead of adding; a request for more was written down and read by nobody.


def test_top_up_adds_and_does_not_replace(sim: Simulator) -> None:
    loan = sim.lend(allowance=10)
    assert loan.top_up(5) == 15
    assert loan.top_up(5) == 20
    assert loan.set(4) == 4
    assert loan.top_up(1) == 5
    assert balanced(loan)["balance"] == 5


def test_a_top_up_that_is_sent_twice_adds_once(sim: Simulator) -> None:
    loan = sim.lend(allowance=10)
    sim.network.link("staff", "custodian").requests.duplicate()
    assert loan.top_up(5, once="invoice-17") == 15
    assert loan.top_up(5, once="invoice-17") == 15
    with pytest.raises(Rejected, match="idempotency_mismatch"):
        loan.top_up(6, once="invoice-17")
    assert balanced(loan)["balance"] == 15


def test_a_top_up_reaches_a_running_enclave(sim: Simulator) -> None:
    loan = sim.lend(allowance=1)
    enclave = sim.launch(loan)
    consumer = sim.consumer(enclave)
    consumer.infer()
    loan.top_up(2)
    sim.advance(20)
    assert consumer.infer().remaining == 1
    assert enclave.snapshot.limits["loan"] == 3


def test_a_request_for_more_is_read_and_answered(sim: Simulator) -> None:
    loan = sim.lend(allowance=1)
    consumer = sim.consumer(sim.launch(loan))
    consumer.infer()
    wanted, refused = loan.ask_more(5, "a queue of patients"), loan.ask_more(700)
    waiting = {item["id"]: item for item in loan.show()["requests"]}
    assert waiting[wanted]["reason"] == "a queue of patients"
    loan.approve(wanted, units=4)
    loan.deny(refused, reason="not this month")
    answered = {item["id"]: item for item in loan.summary()["requests"]}
    assert (answered[wanted]["state"], answered[wanted]["granted"]) == ("approved", 4)
    assert (answered[refused]["state"], answered[refused]["answer"]) == ("denied", "not this month")
    with pytest.raises(Rejected, match="already_decided"):
        loan.approve(refused)
    sim.advance(20)
    assert consumer.infer().remaining == 3
    events = sim.custodian.events()
    assert [events.count(kind) for kind in ("more_requested", "more_approved", "more_denied")] == [2, 1, 1]


# Nobody was authenticated on any custodian, upload or delete endpoint.

PUBLIC = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/custodian"),
    ("GET", "/v1/instances/{instance}/status"),
    ("POST", "/v1/instances/{instance}/renewal"),  # both by the instance's own signature
    ("POST", "/v1/instances/{instance}/lease"),  # authenticated by the instance's own signature
    ("POST", "/v1/instances/{instance}/close"),
    ("POST", "/v1/instances/{instance}/issuers"),
    ("GET", "/log/checkpoint"),  # size and hashes; no entry
    ("GET", "/log/consistency"),
    ("GET", "/log/tile/{tile}"),
    ("POST", "/log/cosignatures"),  # authenticated by the signature of a witness in the settings
    ("POST", "/v1/instances/{instance}/usage"),
    ("POST", "/v1/instances/{instance}/ticket"),
    ("POST", "/v1/instances/{instance}/certificate"),
    ("POST", "/v1/certificates/renewal"),  # authenticated by the certificate that the connection shows
    ("GET", "/v1/certificates/authorities"),  # certificates, which are shown to every peer
    ("POST", "/v1/forks"),  # proven by two signatures of the instance
}


def test_every_custodian_endpoint_wants_authentication() -> None:
    settings = {"failures_per_minute": 10_000}
    with Simulator(settings=settings) as sim:
        loan = sim.lend(consumers={"alice": None})
        strangers = (None, "clst_" + "A" * 43, loan.tokens["alice"], sim.custodian.admin_token[:-1])
        for route in ROUTES:
            if route.roles is None:
                assert (route.method, route.path) in PUBLIC
                continue
            path = route.path.replace("{loan}", loan.id)
            for token in strangers:
                assert sim.custodian.call(route.method, path, token=token).status == 401, (route.path, token)
            if Role.BORROWER not in route.roles:
                assert sim.custodian.call(route.method, path, token=loan.token).status == 403, route.path


def test_lease_and_close_want_the_signature_of_the_instance(sim: Simulator) -> None:
    loan = sim.lend(allowance=4, max_ceiling=2)
    first, second = sim.launch(loan, renews=False), sim.launch(loan, renews=False)
    first.renew()
    request = first.link.requests.log[-1]
    forged = replace(request, path=request.path.replace(first.id, second.id))
    assert sim.run(sim.network.deliver(forged)).status == 403
    closing = replace(forged, path=forged.path.replace("/lease", "/close"))
    assert sim.run(sim.network.deliver(closing)).status == 403
    assert second.snapshot.state is LeaseState.ACTIVE


def test_a_borrower_sees_its_own_loan_and_no_trace_of_another(sim: Simulator) -> None:
    mine, other = sim.lend(), sim.lend(operator="Another Hospital")
    for method, rest, body in (
        ("GET", "summary", None),
        ("POST", "requests", {"units": 1}),
        ("POST", "challenge", None),
    ):
        path = f"/v1/loans/{other.id}/{rest}"
        assert sim.custodian.call(method, path, body, token=mine.token).status == 404


def test_the_model_answers_only_consumers_of_the_loan(sim: Simulator) -> None:
    loan, other = sim.lend(consumers={"alice": None}), sim.lend(consumers={"mallory": None})
    enclave = sim.launch(loan)
    for token in (None, "clst_" + "A" * 43, other.tokens["mallory"], loan.token, sim.custodian.admin_token):
        with pytest.raises(Rejected) as caught:
            sim.consumer(enclave, "stranger", token=token).infer()
        assert caught.value.code == "unauthorized"
    assert engine_of(enclave).runs == 0
    sim.consumer(enclave, "alice").infer()


# The quote was taken once at boot without a nonce, so it could be replayed.


def test_evidence_without_a_fresh_nonce_gets_no_key(sim: Simulator) -> None:
    loan = sim.lend()
    enclave = sim.launch(loan)
    attest = next(request for request in enclave.link.requests.log if request.path.endswith("/attest"))
    assert sim.run(sim.network.deliver(attest)).status == 403
    sim.custodian.restart()
    again = sim.run(sim.network.deliver(attest))
    assert (again.status, b"nonce_used" in again.body) == (403, True)
    # Evidence that was held back until its nonce ran out.
    late = sim.machine(loan)
    late.link.requests.watch(lambda request: late.link.delay(61 if request.path.endswith("/attest") else 0))
    task = sim.spawn(late.launch())
    sim.advance(200)
    assert isinstance(task.exception(), Unavailable)
    assert b"nonce_expired" in late.link.answers.log[-1].body
    assert sim.custodian.events().count("key_released") == 1
    assert sim.custodian.events().count("attestation_refused") == 3


def test_a_consumer_takes_no_evidence_but_for_its_own_nonce(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend())
    consumer = sim.consumer(enclave)
    old = consumer.link.answers.log[0]
    consumer.link.answers.replay(old)
    with pytest.raises(Rejected, match="nonce_mismatch"):
        consumer.reverify()
    assert consumer.reverify().instance == enclave.id


# The model travelled in plain form and was never encrypted at rest; no key was released.


def test_the_model_never_travels_or_rests_in_plain_form(sim: Simulator) -> None:
    model = sim.seal("secret", toy_model(2, CANARY))
    loan = sim.lend(models={model: None})
    enclave = sim.launch(loan)
    sim.consumer(enclave).infer(model="secret")
    at_rest = [path for path in sim.folder.rglob("*") if path.is_file()]
    assert [path for path in at_rest if path.is_relative_to(model.folder)]
    everywhere = b"".join(path.read_bytes() for path in at_rest) + sim.network.seen() + enclave.log.encode()
    for secret in (CANARY, model.dek):
        for form in forms(secret):
            assert form not in everywhere
    released = [entry for entry in sim.custodian.audit() if entry.kind.value == "key_released"]
    assert [entry.details["model"] for entry in released] == [model.digest]


def forms(secret: bytes) -> list[bytes]:
    """Return how a secret could look: as it is, in hex, and in both base64 alphabets wherever it begins."""
    found = [secret, secret.hex().encode()]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found += [encode(bytes(shift) + secret)[4:-4] for shift in range(3)]
    return found


def test_what_is_asked_and_answered_never_travels_in_plain_form(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(consumers={"alice": None}))
    rows = np.frombuffer(b"a patient's most private scan...", dtype="<f4").reshape(1, -1)
    answer = sim.consumer(enclave, "alice").infer(rows)
    asked = b"".join(link.seen() for link in sim.network.links if link.source != "staff")
    for secret in (rows.tobytes(), answer.outputs["y"].tobytes(), enclave.loan.tokens["alice"].encode()):
        assert secret not in asked  # staff saw the token once, when the loan was made
        assert secret not in enclave.log.encode()
    for form in forms(rows.tobytes()):
        assert form not in sim.network.seen()


# Stopping the custodian stopped inference by crashing a handler; the client then crashed too.


def test_losing_the_custodian_ends_serving_cleanly_and_the_client_gets_a_clear_error(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(allowance=100))
    consumer = sim.consumer(enclave)
    sim.custodian.crash()
    consumer.infer()  # the lease is good for what is left of T
    sim.advance(60)
    for _ in range(2):
        with pytest.raises(Rejected) as caught:
            consumer.infer()
        assert caught.value.code == "lease_expired"
        assert "cannot reach its custodian" in (caught.value.hint or "")
    assert engine_of(enclave).runs == 1
    assert "internal_error" not in enclave.log
    sim.advance(61)  # 2T without renewal: unloaded, wiped, gone
    assert (enclave.is_up, enclave.ending) == (False, Ending.EXPIRED)
    assert engine_of(enclave).loaded == 0
    with pytest.raises(Unavailable) as gone:
        consumer.infer()
    assert "is the enclave running" in (gone.value.hint or "")


def test_an_outage_shorter_than_the_lease_is_noticed_by_nobody(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(allowance=100))
    consumer = sim.consumer(enclave)
    sim.custodian.crash()
    for _ in range(5):
        sim.advance(10)
        consumer.infer()
    sim.custodian.restart()
    sim.advance(60)
    assert consumer.infer().remaining == 94
    assert enclave.is_up


def test_after_a_longer_outage_an_enclave_ends_and_another_starts(sim: Simulator) -> None:
    loan = sim.lend(allowance=100, max_ceiling=10)
    enclave = sim.launch(loan)
    sim.consumer(enclave).infer()
    sim.custodian.crash()
    sim.advance(70)
    sim.custodian.restart()
    sim.advance(10)
    assert enclave.ending is Ending.STOPPED  # its units were written off when its lease ran out (C8)
    assert sim.consumer(sim.launch(loan)).infer().remaining == 89
    found = balanced(loan)
    assert found["written_off"] + found["spent"] == 10  # sweep or enclave, whoever woke first
    assert found["written_off"] >= 9


# One global counter: not per model, consumer or loan. No receipts, no audit, no tenants, one TEE only.


def test_counts_are_per_loan_model_and_consumer(sim: Simulator) -> None:
    first, second = sim.seal("first"), sim.seal("second")
    loan = sim.lend(allowance=10, models={first: None, second: 2}, consumers={"alice": 3, "bob": None})
    other = sim.lend(allowance=10, models={first: None})
    enclave = sim.launch(loan)
    alice, bob = sim.consumer(enclave, "alice"), sim.consumer(enclave, "bob")
    spend(alice, "first", 3)
    assert bob.remaining("second") == 2
    spend(bob, "second", 2)
    spend(bob, "first", 5)
    assert (alice.remaining("first"), bob.remaining("first")) == (0, 0)
    enclave.stop()
    assert [balanced(loan, name)["spent"] for name in ("loan", "model:second", "consumer:alice")] == [10, 2, 3]
    assert balanced(other)["spent"] == 0
    assert sim.consumer(sim.launch(other)).remaining("first") == 10


def spend(consumer: SimulatedConsumer, model: str, units: int) -> None:
    """Spend exactly ``units``, and find nothing behind them."""
    for _ in range(units):
        consumer.infer(model=model)
    with pytest.raises(Rejected, match="allowance_exhausted"):
        consumer.infer(model=model)


def test_every_answer_comes_with_a_receipt_that_proves_it(sim: Simulator) -> None:
    loan = sim.lend()
    consumer = sim.consumer(sim.launch(loan))
    answers = [consumer.infer([[float(number)]]) for number in range(4)]
    for answer, after in itertools.pairwise(answers):
        receipt = answer.receipt.receipt
        answer.receipt.demand_content(request=answer.request, response=answer.response)
        with pytest.raises(Rejected, match="commitment_mismatch"):
            answer.receipt.demand_content(request=after.request, response=answer.response)
        assert head_after(receipt) == after.receipt.receipt.previous
        assert (receipt.loan, receipt.model) == (loan.id, loan.models["toy"].digest)
    assert sum(answer.receipt.receipt.units for answer in answers) == 4


def test_everything_that_happened_is_in_an_audit_log_that_cannot_be_changed(sim: Simulator) -> None:
    loan = sim.lend(allowance=1)
    enclave = sim.launch(loan)
    sim.custodian.call("GET", "/v1/loans", token=loan.token)
    ask = loan.ask_more(3)
    loan.approve(ask)
    sim.custodian.block("loan", loan.id, reason="end of contract")
    sim.advance(61)
    assert not enclave.is_up
    wanted = ["model_published", "loan_created", "challenge_issued", "key_released", "lease_granted", "access_denied"]
    wanted += ["more_requested", "more_approved", "allowance_added", "blocked", "lease_refused"]
    events = sim.custodian.events()  # proves order, chain and signed root
    assert [kind for kind in wanted if kind not in events] == []


def test_tenants_do_not_share_keys_units_or_blocks(sim: Simulator) -> None:
    ours, theirs = sim.seal("ours", toy_model(2)), sim.seal("theirs", toy_model(3))
    first, second = sim.lend(models={ours: None}), sim.lend(models={theirs: None}, operator="Another Hospital")
    assert ours.dek != theirs.dek
    with pytest.raises(Rejected, match="model_missing"):
        sim.launch(second, models=(ours.folder,))
    one, other = sim.launch(first), sim.launch(second)
    sim.custodian.block("loan", first.id)
    sim.advance(21)
    assert (one.is_up, other.is_up) == (False, True)
    assert sim.consumer(other).infer([[1.0]], model="theirs").outputs["y"].tolist() == [[3.0]]


def test_which_tees_are_good_enough_is_said_by_each_policy(sim: Simulator) -> None:
    rules = {f"pcr.{number}": NotChecked("of another test") for number in range(24)}
    rules |= {name: NotChecked("of another test") for name in ("device", "software", "ak", "firmware_version")}
    policy = Policy(version=1, tees={TeeKind("tpm"): TeePolicy(rules)})
    with pytest.raises(Rejected, match="tee_not_allowed"):
        sim.launch(sim.lend(policy=policy))


# What it got right, and ours keeps.


def test_all_three_parties_can_watch_the_same_loan(sim: Simulator) -> None:
    loan = sim.lend(allowance=10)
    consumer = sim.consumer(sim.launch(loan))
    for _ in range(4):
        consumer.infer()
    sim.advance(21)  # reported with the next renewal
    staff, borrower = loan.show()["meters"]["loan"], loan.summary()["meters"]["loan"]
    assert staff == borrower
    assert (staff["spent"], staff["held"]) == (4, 6)
    assert loan.summary()["instances"][0]["state"] == "active"
    assert consumer.remaining() == 6


def test_the_remaining_count_is_shown_to_the_consumer(sim: Simulator) -> None:
    consumer = sim.consumer(sim.launch(sim.lend(allowance=10, max_ceiling=4)))
    assert consumer.remaining() == 10
    assert consumer.infer(np.ones((3, 1))).remaining == 7
    assert consumer.remaining() == 7


def test_a_client_waits_for_more_and_goes_on_by_itself(sim: Simulator) -> None:
    loan = sim.lend(allowance=1)
    consumer = sim.consumer(sim.launch(loan))
    consumer.infer()
    waiting = sim.spawn(consumer.inferring(wait=timedelta(minutes=5)))
    sim.advance(30)
    assert not waiting.done()
    loan.approve(loan.ask_more(1))
    sim.advance(30)
    assert waiting.result().units == 1
    before = sim.now
    with pytest.raises(Rejected, match="allowance_exhausted"):
        consumer.infer(wait=timedelta(minutes=5))
    assert sim.now - before >= timedelta(minutes=5)


def test_models_are_found_by_name_and_by_hash_and_stored_once(sim: Simulator) -> None:
    model, other = sim.seal("toy", toy_model(2)), sim.seal("toy", toy_model(3))
    loan = sim.lend(models={model: None})
    listed = sim.custodian.call("GET", "/v1/models").demand()["models"]
    assert [item["digest"] for item in listed] == sorted({model.digest, other.digest}, key=listed_order(listed))
    assert sim.custodian.call("GET", f"/v1/models/{model.digest}").demand()["name"] == "toy"
    # The borrower's folder may hold others under the same name: the loan's hash decides.
    enclave = sim.launch(loan, models=(other.folder, model.folder))
    consumer = sim.consumer(enclave)
    assert consumer.infer([[1.0]]).outputs["y"].tolist() == [[2.0]]
    for path, status in ((model.digest, 200), (other.digest, 404)):
        raw = BinaryRequest(method="GET", path=f"/v2/models/toy/versions/{path}")
        answer, _ = sim.run(drive_async(consumer.client._session.ask(raw), consumer.client._wire.take))
        assert answer.status == status


def listed_order(listed: list[Any]) -> Any:
    """Return a key that sorts digests as they are listed."""
    return [item["digest"] for item in listed].index


def test_expected_measurements_decide_who_gets_the_model(sim: Simulator) -> None:
    loan = sim.lend()
    for tampered in (replace(sim.software, code="ab" * 32), replace(sim.software, settings={"debug": True})):
        with pytest.raises(Rejected) as caught:
            sim.launch(loan, software=tampered)
        assert {reason.code for reason in caught.value.reasons} & {"measurement_mismatch", "host_data_mismatch"}
    for claims in ({"debug": True}, {"migratable": True}, {"svn": 0}):
        with pytest.raises(Rejected):
            sim.launch(loan, claims=claims)
    assert "key_released" not in sim.custodian.events()
    sim.launch(loan)


class _Mirror:
    """An engine whose model gives every input back, of whatever type."""

    kind, version = "mirror", "1"
    steady = False

    def load(self, files: ModelFiles, *, prepack: bool = False) -> _Mirror:
        del files, prepack
        return self

    @property
    def signature(self) -> Signature:
        specs = [TensorSpec(name=kind.value.lower(), datatype=kind, shape=("batch", 2)) for kind in Datatype]
        return Signature(inputs=tuple(specs), outputs=tuple(replace(spec, name=f"{spec.name}-back") for spec in specs))

    def run(self, inputs: Sequence[Tensor], outputs: Sequence[str]) -> tuple[Tensor, ...]:
        by_name = {f"{tensor.name}-back": tensor for tensor in inputs}
        return tuple(replace(by_name[name], name=name) for name in outputs)

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_all_tensor_types_go_in_and_come_out(sim: Simulator) -> None:
    consumer = sim.consumer(sim.launch(sim.lend(), engine=_Mirror()))
    inputs: dict[str, Any] = {}
    for kind in Datatype:
        if kind is Datatype.BYTES:
            value: Any = np.array([["a name with \u00e9".encode(), b""]], dtype=object)
        elif kind is Datatype.BF16:
            value = np.array([[1.5, -2.0]], dtype=np.float32)
        else:
            value = np.array([[0, 1]], dtype=kind.dtype)
        inputs[kind.value.lower()] = value
    answer = sim.run(consumer.client.infer("toy", inputs))
    for name, value in inputs.items():
        assert answer.outputs[f"{name}-back"].tolist() == value.tolist(), name
    assert answer.units == 1
