"""Boot: only the loan's own models open, only for the attested instance, only in memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from enclave_models import doubler, external, identity
from enclave_parties import ConsumerSide, World, make_world, seal
from onnx import TensorProto

from cloister.attest.binding import ChannelBinding
from cloister.attest.rats import Evidence, Nonce, TeeKind
from cloister.attest.verifier import Verifier
from cloister.channel.keyset import Keyset
from cloister.crypto.sign import SigningKey
from cloister.enclave.measure import measure_software
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.telemetry.exposition import openmetrics_text
from cloister.testing.simulated import SimulatedAttester, SimulatedScheme, simulated_policy
from loops import asynchronous

if TYPE_CHECKING:
    from cloister.channel.keyset import EvidenceDocument

ROW = [1.0, 2.0, 3.0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, {"m": doubler()})


async def refused(world: World, **how: object) -> Rejected:
    with pytest.raises(Rejected) as caught:
        async with world.enclave(**how):  # type: ignore[arg-type]
            pass
    return caught.value


@asynchronous
async def test_another_validly_sealed_model_in_its_place_is_refused(world: World, tmp_path: Path) -> None:
    """T23: the borrower swaps the folder for another good model of the same publisher and name."""
    lent = world.custodian.lent[0]
    (tmp_path / "sub").mkdir()
    other = seal(tmp_path / "sub", "m", identity(TensorProto.FLOAT, ["n"]), world.custodian.publisher)
    shutil.rmtree(lent.root)
    shutil.copytree(other.root, lent.root)
    error = await refused(world)
    assert [(one.code, one.want) for one in error.reasons] == [("model_missing", lent.terms.digest)]


@asynchronous
async def test_an_older_version_put_back_is_refused(world: World, tmp_path: Path) -> None:
    """T24: the loan names the exact digest; a withdrawn version is not in it."""
    old = world.custodian.lent[0]
    (tmp_path / "new").mkdir()
    new = seal(tmp_path / "new", "m", doubler(), world.custodian.publisher)
    assert new.terms.digest != old.terms.digest
    async with world.enclave() as enclave:
        assert enclave.metering.terms.models[0].digest == old.terms.digest
    world.custodian.lent = [new]
    world.custodian.lend(replace(world.custodian.state().terms, models=(new.terms,)), 10, world.custodian.policy)
    new.root = old.root
    error = await refused(world)
    assert error.code == "model_missing"


@asynchronous
async def test_a_manifest_signed_by_somebody_else_is_refused(world: World) -> None:
    world.custodian.publisher = SigningKey.generate()
    assert (await refused(world)).code == "unknown_key"


@pytest.mark.parametrize("part", ["blob", "leaves"])
@asynchronous
async def test_an_altered_blob_is_refused(tmp_path: Path, part: str) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    blobs = sorted((world.custodian.lent[0].root / "blobs").iterdir(), key=lambda path: path.suffix)
    path = blobs[0 if part == "blob" else 1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    assert (await refused(world)).code == "digest_mismatch"


@asynchronous
async def test_a_key_for_another_model_does_not_open_this_one(world: World) -> None:
    """T20: the released key is bound to model, loan and instance."""
    world.custodian.lent[0].dek = os.urandom(32)
    assert (await refused(world)).code == "wrong_key"


@pytest.mark.parametrize("claims", [{"debug": True}, {"migratable": True}, {"svn": 0}])
@asynchronous
async def test_the_custodians_reasons_reach_the_borrower(tmp_path: Path, claims: dict[str, object]) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    error = await refused(world, claims=claims)
    assert error.reasons[0].subject == next(iter(claims))


@asynchronous
async def test_one_changed_setting_is_another_digest_and_refused(world: World) -> None:
    """T10."""
    assert (await refused(world, known=False, engine_threads=2)).code == "host_data_mismatch"
    assert (await refused(world, known=False, limits={"keyset_lifetime_s": 10**9})).code == "host_data_mismatch"


@asynchronous
async def test_another_custodian_is_not_believed(world: World) -> None:
    document = json.loads(world.loan_path.read_bytes())
    document["custodian_key"] = SigningKey.generate().verify_key.dump()
    world.loan_path.write_text(json.dumps(document))
    assert (await refused(world)).code == "unknown_key"


@asynchronous
async def test_a_blocked_loan_does_not_boot(world: World) -> None:
    world.custodian.block(loan=True)
    assert (await refused(world)).code == "blocked"


@asynchronous
async def test_a_model_blocked_at_boot_is_not_opened_and_the_others_are(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler(), "other": doubler()})
    world.custodian.block(model=world.custodian.lent[1].terms.digest)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).status == 200
        assert (await consumer.infer([ROW], model="other")).json["code"] == "blocked"


@asynchronous
async def test_a_model_with_external_data_boots_and_answers(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    external(tmp_path / "big")
    world = make_world(tmp_path, {"m": tmp_path / "big"})
    async with world.enclave() as enclave:
        answer = await ConsumerSide(enclave, world.clock).infer([[1.0, 1.0, 1.0]])
        assert answer.json["outputs"][0]["data"] == [6.0, 9.0]


@asynchronous
async def test_a_folder_of_packages_is_searched_by_digest(world: World, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    world.custodian.lent[0].root.rename(shelf / "whatever-it-is-called")
    seal(shelf, "decoy", doubler(), world.custodian.publisher)
    world.custodian.lent[0].root = shelf
    async with world.enclave() as enclave:
        assert (await ConsumerSide(enclave, world.clock).infer([ROW])).status == 200


@asynchronous
async def test_a_place_without_a_model_is_named(world: World, tmp_path: Path) -> None:
    world.custodian.lent[0].root = tmp_path / "nowhere"
    with pytest.raises(UsageError, match="nowhere"):
        async with world.enclave():
            pass


@asynchronous
async def test_a_custodians_nonsense_is_malformed(world: World) -> None:
    class Nonsense(type(world.custodian)):  # type: ignore[misc]
        """Answers with bytes that are no statement."""

        def _answer(self, _: bytes) -> object:
            return super()._answer(b"\x00nonsense")

    world.custodian.__class__ = Nonsense
    with pytest.raises(Malformed):
        async with world.enclave():
            pass


@asynchronous
async def test_evidence_binds_the_keyset_to_the_consumers_own_nonce(world: World) -> None:
    policy = simulated_policy(measure_software(world.config()))
    verifier = Verifier([SimulatedScheme(world.custodian.root.public)])

    def verify(document: EvidenceDocument, nonce: bytes) -> Keyset:
        binding = ChannelBinding(nonce=Nonce(nonce), keyset=document.keyset, devices=document.devices)
        evidence = Evidence(tee=TeeKind(document.tee), payload=document.evidence)
        result = verifier.verify(evidence, binding, policy, world.clock.wall())
        return Keyset.parse(result.bound["keyset"])

    async with world.enclave(service="radiology") as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        nonce = os.urandom(32)
        keyset = verify(await consumer.document(nonce), nonce)
        assert keyset.instance == enclave.metering.instance
        assert (keyset.service, keyset.loan) == ("radiology", "loan-abcdefghijklmnop")
        assert [model.digest for model in keyset.models] == [world.custodian.lent[0].terms.digest]
        assert keyset.custodian == world.custodian.key.verify_key
        assert verify(await consumer.document(), bytes(32)).dump() == keyset.dump()
        with pytest.raises(Rejected):
            verify(await consumer.document(nonce), os.urandom(32))
        with pytest.raises(Rejected):
            verify(await consumer.document(), nonce)
        for query in ("?nonce=short", "?nonce=" + "A" * 43, "?other=1", "?nonce=a&nonce=b", "?nonce=" + "!" * 43):
            assert (await consumer.plain("/.well-known/attested-keyset" + query)).status_code == 400


@asynchronous
async def test_keysets_are_published_an_hour_and_accepted_five_minutes_longer(world: World) -> None:
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        first = await consumer.keyset()
        assert (first.exp - first.nbf).total_seconds() == 3900
        sealed = []
        for _ in range(3):
            sealed.append(await consumer.seal(consumer.request("GET", "/v2/health/live")))
            await enclave.publisher.tick()
        assert (await consumer.keyset()).ohttp_keys == first.ohttp_keys
        world.clock.advance(3600)
        await enclave.publisher.tick()
        second = await consumer.keyset()
        assert second.ohttp_keys != first.ohttp_keys
        assert second.instance == first.instance
        assert (await consumer.post(sealed[0][0])).status_code == 200, "old keys are accepted for a while"
        world.clock.advance(299)
        await enclave.publisher.tick()
        assert (await consumer.post(sealed[1][0])).status_code == 200
        world.clock.advance(1)
        await enclave.publisher.tick()
        gone = await consumer.post(sealed[2][0])
        assert gone.json()["type"].endswith("#ohttp-key")


@asynchronous
async def test_keys_past_their_end_are_dropped_even_when_no_new_evidence_comes(world: World) -> None:
    class Moody(SimulatedAttester):
        """A chip that can be silent."""

        silent = False

        def collect(self, report_data: bytes) -> Evidence:
            """Collect, or not."""
            if self.silent:
                msg = "tee: no answer"
                raise Unavailable(msg)
            return super().collect(report_data)

    chip = Moody(world.custodian.root, measure_software(world.config()), os.urandom(32))
    world.chip = chip
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, _ = await consumer.seal(consumer.request("GET", "/v2/health/live"))
        chip.silent = True
        world.clock.advance(3600)
        with pytest.raises(Unavailable):
            await enclave.publisher.tick()
        assert (await consumer.post(sealed)).status_code == 200
        assert (await consumer.plain("/.well-known/attested-keyset?nonce=" + "B" * 42 + "A")).status_code == 503
        world.clock.advance(300)
        with pytest.raises(Unavailable):
            await enclave.publisher.tick()
        assert (await consumer.post(sealed)).status_code == 503
        assert "no_keyset" in enclave.not_ready()
        chip.silent = False
        await enclave.publisher.tick()
        sealed, _ = await consumer.seal(consumer.request("GET", "/v2/health/live"))
        assert (await consumer.post(sealed)).status_code == 200


@asynchronous
async def test_an_answer_under_way_survives_a_rotation(world: World) -> None:
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, opener = await consumer.seal(consumer.request("GET", "/v2/health/live"))
        world.clock.advance(3600)
        await enclave.publisher.tick()
        answer = (await consumer.post(sealed)).content
        _ = [*opener.feed(answer), opener.end()]


@asynchronous
async def test_nothing_decrypted_touches_a_disk_and_nothing_of_a_request_either(tmp_path: Path) -> None:
    """T27 and R19: canaries in the model, the input, the token and the key; then look everywhere."""
    weights = b"CANARY-IN-THE-WEIGHTS-0123456789"
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model.onnx").write_bytes(identity(TensorProto.STRING, ["n"]))
    (plain / "weights.bin").write_bytes(weights)
    (tmp_path / "w").mkdir()
    world = make_world(tmp_path / "w", {"m": plain})
    shutil.rmtree(plain)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = {path: path.stat().st_mtime_ns for path in _writable_files(tmp_path)}
    os.environ["TMPDIR"] = str(scratch)
    canary = "CANARY-IN-THE-INPUT"
    try:
        async with world.enclave() as enclave:
            consumer = ConsumerSide(enclave, world.clock)
            body = json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [canary]}]}).encode()
            answer = await consumer.send(consumer.request("POST", "/v2/models/m/infer", body))
            assert answer.json["outputs"][0]["data"] == [canary]
            bad = await consumer.send(consumer.request("POST", "/v2/models/m/infer", body.replace(b"[1]", b"[2]")))
            assert bad.status == 422
            enclave.measure()
            metrics = openmetrics_text(enclave.metrics)
            on_disk = [path for path in _open_files() if "memfd:" not in path and str(tmp_path) in path]
            assert on_disk == []
            said = (
                bad.json,
                metrics,
                world.log.getvalue(),
                answer.body.decode("latin-1"),
                (await consumer.document()).dump(),
            )
    finally:
        del os.environ["TMPDIR"]
    assert list(scratch.iterdir()) == []
    after = {path: path.stat().st_mtime_ns for path in _writable_files(tmp_path)}
    assert after == before, "an enclave writes no file"
    secrets = [canary, weights.decode(), "alice-token", world.token, world.custodian.lent[0].dek.hex()]
    for secret in secrets:
        assert secret not in repr(said)
        for path in after:
            assert secret.encode() not in path.read_bytes() or path == world.loan_path, path
    for message in world.custodian.wire:
        assert world.custodian.lent[0].dek not in message
        assert canary.encode() not in message


def _writable_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _open_files() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("tokenizer", b"cbuiltins\nprint\n(S'loaded'\ntR.", "pickle"),
        ("pytorch_model.bin", pickle.dumps({"weights": [1.0]}), "pickle"),
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "needs_conversion"),
        ("more.safetensors", (10**9).to_bytes(8, "little") + b"{", "model_malformed"),
        ("more.gguf", b"GGUF" + b"\xff" * 40, "model_malformed"),
    ],
)
@asynchronous
async def test_t25_hostile_files_beside_a_good_model_are_refused_before_the_engine(
    tmp_path: Path, name: str, data: bytes, code: str
) -> None:
    """The engine would take the model: only the readers look at what lies beside it."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "model.onnx").write_bytes(doubler())
    (tmp_path / "plain" / name).write_bytes(data)
    error = await refused(make_world(tmp_path, {"m": tmp_path / "plain"}))
    assert [(reason.code, reason.subject, reason.got) for reason in error.reasons] == [(code, "model m", "")]


@asynchronous
async def test_t25_a_model_that_points_into_the_engines_memory_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime takes this location for an address. The refusal names nothing that is in the model."""
    external(tmp_path / "plain", location="*/_ORT_MEM_ADDR_/*")
    error = await refused(make_world(tmp_path, {"m": tmp_path / "plain"}))
    assert str(error) == "model m: outside_package"
