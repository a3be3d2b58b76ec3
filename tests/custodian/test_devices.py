"""A software TPM enrols with the custodian over HTTP, attests, and gets the model's key; others do not."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from custodian_kit import SOFTWARE, START, Bench, Toy
from sqlalchemy import delete, update
from starlette.testclient import TestClient

from cloister.attest.chain import parse_certificates
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import Exact, NotChecked
from cloister.attest.schemes.tpm import TpmScheme
from cloister.attest.tpm.enrolment import EnrolProof
from cloister.attest.verifier import Verifier
from cloister.custodian.app import create_app
from cloister.custodian.setup import open_custodian
from cloister.custodian.store.tables import DEVICE
from cloister.enclave.attesters.tpm import BOOT_PCRS, TpmAttester, measure_software
from cloister.enclave.enrol import enrol
from cloister.enclave.loanfile import LoanFile
from cloister.errors import Rejected
from cloister.tpm.transport import SocketTransport
from cloister.wire import dump_json
from swtpm import start_swtpm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from swtpm import Swtpm

pytestmark = pytest.mark.tpm


class Bridge(httpx2.BaseTransport):
    """Carries a sync client's requests into the custodian of this process."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        answer = self._bench.client.request(
            request.method, request.url.raw_path.decode(), content=request.read(), headers=dict(request.headers)
        )
        return httpx2.Response(answer.status_code, stream=httpx2.ByteStream(answer.content))


@pytest.fixture(scope="module")
def swtpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with start_swtpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture
def tpm_bench(place: Path, swtpm: Swtpm) -> Iterator[Bench]:
    """Yield a custodian that accepts this TPM's maker and verifies TPM evidence only."""
    bench = Bench(place)
    (bench.home / "ek.pem").write_bytes(b"".join(_pem(item) for item in (*swtpm.ek_roots, *swtpm.ek_intermediates)))
    bench.close()
    bench.clock.now = max(START, datetime.now(UTC)) + timedelta(hours=1)
    bench.service = open_custodian(
        bench.home,
        bench.unlock,
        make_verifier=lambda site: Verifier([TpmScheme(site.tpm_authorities)]),
        environment={"CLOISTER_CUSTODIAN_EK_ROOTS": "ek.pem"},
        clock=bench.clock,
    )
    bench.client = TestClient(create_app(bench.service), raise_server_exceptions=False)
    yield bench
    bench.close()


def _pem(data: bytes) -> bytes:
    return b"".join(item.pem for item in parse_certificates(data))


def _policy(device: str, *, version: int = 1, **more: Any) -> Any:
    rules: dict[str, Any] = {f"pcr.{index}": NotChecked("a software TPM boots nothing") for index in BOOT_PCRS}
    rules |= {"device": Exact(device), "software": Exact(hashlib.sha256(SOFTWARE.dump()).hexdigest())}
    return Policy(version=version, tees={TeeKind("tpm"): TeePolicy(rules | more)}).to_json()


def test_a_tpm_enrols_attests_and_gets_the_models_key(tpm_bench: Bench, swtpm: Swtpm) -> None:
    bench = tpm_bench
    lent = bench.lend(policy=_policy("0" * 64))
    with SocketTransport(swtpm.socket) as transport:
        chain, device = enrol(transport, LoanFile.parse(dump_json(lent.made["loan_file"])), http=Bridge(bench))
        assert [item["id"] for item in bench.get("/v1/devices").json()["devices"]] == [device]
        assert bench.audit()[-1]["kind"] == "device_enrolled"
        policy = {**_policy(device), "version": 2}
        assert bench.post(f"/v1/loans/{lent.id}/policy", {"policy": policy}).status_code == 200
        digest = hashlib.sha256(SOFTWARE.dump()).digest()
        measure_software(transport, digest)
        toy = Toy(lent)
        certificates = [item.der for item in parse_certificates(chain)]
        toy.attester = TpmAttester(transport, certificates, software=digest)  # type: ignore[assignment]
        answer = lent.attest(toy.attest_statement(toy.take_challenge()))
        assert answer.status_code == 200, answer.text
        toy.accept(answer.content)
        assert toy.released_dek() == bench.dek


def test_a_tpm_of_a_maker_nobody_trusts_is_refused_and_logged(tpm_bench: Bench, swtpm: Swtpm) -> None:
    bench = tpm_bench
    lent = bench.lend(policy=_policy("0" * 64))
    authority = bench.service.device_authority
    assert authority is not None
    object.__setattr__(authority, "ek_roots", ())
    with SocketTransport(swtpm.socket) as transport, pytest.raises(Rejected) as refused:
        enrol(transport, LoanFile.parse(dump_json(lent.made["loan_file"])), http=Bridge(bench))
    assert refused.value.code == "untrusted_root"
    assert bench.audit()[-1]["kind"] == "device_refused"
    assert bench.get("/v1/devices").json() == {"devices": []}


def test_a_wrong_secret_ends_the_enrolment(tpm_bench: Bench, swtpm: Swtpm) -> None:
    """One try: whoever guesses begins again."""
    bench = tpm_bench
    lent = bench.lend(policy=_policy("0" * 64))
    seen: list[str] = []

    class Guessing(Bridge):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("/finish"):
                seen.append(request.url.path)
                guess = EnrolProof(secret=bytes(32)).dump()
                headers = {"authorization": request.headers["authorization"], "content-type": "application/json"}
                request = httpx2.Request("POST", request.url, content=guess, headers=headers)
            return super().handle_request(request)

    loan = LoanFile.parse(dump_json(lent.made["loan_file"]))
    with SocketTransport(swtpm.socket) as transport, pytest.raises(Rejected) as refused:
        enrol(transport, loan, http=Guessing(bench))
    assert refused.value.code == "enrolment_secret_wrong"
    proof = EnrolProof(secret=bytes(32)).dump()
    headers = {**lent.token, "content-type": "application/json"}
    assert bench.client.post(seen[0], content=proof, headers=headers).status_code == 404


class Machine:
    """A machine with a TPM, and the enclave software on it."""

    def __init__(self, bench: Bench, lent: Any, transport: SocketTransport) -> None:
        self.bench, self.lent, self.transport = bench, lent, transport
        self.chain: bytes = b""
        self.device = ""

    def enrol(self) -> None:
        """Enrol, and let the loan's policy name this device."""
        loan = LoanFile.parse(dump_json(self.lent.made["loan_file"]))
        self.chain, self.device = enrol(self.transport, loan, http=Bridge(self.bench))

    def attest(self, chain: bytes | None = None) -> tuple[Toy, Any]:
        """Attest a new instance; return it and the custodian's answer."""
        digest = hashlib.sha256(SOFTWARE.dump()).digest()
        measure_software(self.transport, digest)
        toy = Toy(self.lent)
        certificates = [item.der for item in parse_certificates(self.chain if chain is None else chain)]
        toy.attester = TpmAttester(self.transport, certificates, software=digest)  # type: ignore[assignment]
        return toy, self.lent.attest(toy.attest_statement(toy.take_challenge()))


@pytest.fixture
def machine(tpm_bench: Bench, swtpm: Swtpm) -> Iterator[Machine]:
    lent = tpm_bench.lend(policy=_policy("0" * 64))
    with SocketTransport(swtpm.socket) as transport:
        found = Machine(tpm_bench, lent, transport)
        found.enrol()
        policy = _policy(found.device, version=2)
        assert tpm_bench.post(f"/v1/loans/{lent.id}/policy", {"policy": policy}).status_code == 200
        yield found


def _codes(answer: Any) -> list[str]:
    return [reason["code"] for reason in answer.json()["reasons"]]


def test_a_retired_machine_gets_no_key_and_what_runs_on_it_stops(machine: Machine) -> None:
    bench, device = machine.bench, machine.device
    toy, answer = machine.attest()
    assert answer.status_code == 200, answer.text
    toy.accept(answer.content)
    assert bench.get(f"/v1/devices/{device}").json()["instances"] == [toy.id]
    retired = bench.post(f"/v1/devices/{device}/retire", {"reason": "lost in the post"}).json()
    assert [item["instance"] for item in retired["instances"]] == [toy.id]
    assert retired["instances"][0]["stops"]["bound"]["seconds"] > 0
    assert [entry["kind"] for entry in bench.audit()[-2:]] == ["device_retired", "blocked"]
    assert _codes(machine.attest()[1]) == ["device_retired"]
    with pytest.raises(Rejected) as refused:
        machine.enrol()
    assert refused.value.code == "device_retired"
    shown = bench.get("/v1/devices").json()["devices"]
    assert [(item["id"], item["state"], item["reason"]) for item in shown] == [(device, "retired", "lost in the post")]
    assert bench.post(f"/v1/devices/{device}/retire", {"reason": "again"}).status_code == 200


def test_a_readmitted_machine_enrols_anew_and_its_old_key_stays_void(machine: Machine) -> None:
    bench, device, old = machine.bench, machine.device, machine.chain
    bench.post(f"/v1/devices/{device}/retire", {"reason": ""})
    assert bench.post(f"/v1/devices/{device}/readmit", {}).json()["state"] == "awaited"
    assert _codes(machine.attest(old)[1]) == ["device_not_enrolled"]
    machine.enrol()
    assert machine.device == device
    assert machine.attest()[1].status_code == 200
    assert bench.post(f"/v1/devices/{device}/readmit", {}).status_code == 404


def test_a_key_that_a_later_enrolment_replaced_is_refused(machine: Machine) -> None:
    first, bench = machine.chain, machine.bench
    other = bytes(32)
    with bench.service.context.store.writing() as connection:
        connection.execute(update(DEVICE).values(ak_sha256=other))  # what an enrolment of another key writes
    assert _codes(machine.attest(first)[1]) == ["device_superseded"]


def test_a_machine_that_a_restored_database_does_not_know_gets_nothing(machine: Machine) -> None:
    with machine.bench.service.context.store.writing() as connection:
        connection.execute(delete(DEVICE))
    assert _codes(machine.attest()[1]) == ["device_not_enrolled"]


def test_a_machine_that_booted_something_else_gets_nothing(machine: Machine) -> None:
    """Tampered: a PCR that the policy pins is not what it was."""
    bench, lent = machine.bench, machine.lent
    policy = _policy(machine.device, version=3, **{"pcr.4": Exact("11" * 32)})
    made = bench.post(f"/v1/loans/{lent.id}/policy", {"policy": policy})
    assert made.status_code == 200, made.text
    answer = machine.attest()[1]
    assert answer.status_code == 403
    assert "pcr.4" in answer.text


def test_a_device_is_named_for_people_and_nobody_else_is_found(machine: Machine) -> None:
    bench, device = machine.bench, machine.device
    assert bench.post(f"/v1/devices/{device}/label", {"label": "rack 7"}).status_code == 200
    assert bench.get(f"/v1/devices/{device}").json()["label"] == "rack 7"
    machine.enrol()
    assert bench.get(f"/v1/devices/{device}").json()["label"] == "rack 7"
    for nobody in ("0" * 64, "..", "x" * 64):
        assert bench.get(f"/v1/devices/{nobody}").status_code == 404
