"""Who made a model, in the enclave: proven over what the engine gets, pinned by settings that are measured (T98)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import oms_kit as kit
import pytest
from enclave_models import doubler, identity
from enclave_parties import START, ConsumerSide, World, make_world, seal
from onnx import TensorProto

from cloister.client.model_info import MakerInfo, parse_metadata
from cloister.crypto.mldsa import SecondSigner
from cloister.enclave.config import load_config
from cloister.enclave.measure import measure_software
from cloister.errors import Rejected, UsageError
from cloister.lending.terms import ModelDigest
from cloister.sealed.manifest import MakerClaim, Manifest, model_digest
from cloister.sealed.publisher import ManifestSignature
from cloister.sealed.signed import SIGNATURE_PATH, signed_tree
from cloister.testing.simulated import simulated_policy
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from enclave_parties import Lent

MAKER = kit.maker(kit.key())
OTHER = kit.maker(kit.key(2))


def signed_model(folder: Path) -> Path:
    """Return a model with its maker's signature beside it."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(doubler())
    statement = kit.statement({"model.onnx": doubler()})
    (folder / "model.sig").write_bytes(kit.text(kit.bundle(kit.text(statement), kit.key())))
    return folder


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world that lends a signed model."""
    world = make_world(tmp_path, {"m": doubler()})
    source = signed_model(tmp_path / "signed")
    signed = signed_tree(source, source / "model.sig", [MAKER], START)
    lend(world, seal(tmp_path, "m", source, world.custodian.publisher, signed=signed))
    return world


def lend(world: World, lent: Lent) -> None:
    """Lend this model and no other."""
    state = world.custodian.state()
    world.custodian.lent = [lent]
    terms = replace(state.terms, models=(lent.terms,))
    world.custodian.lend(terms, 1000, simulated_policy(measure_software(world.config())))


async def refused(world: World, **settings: object) -> str:
    """Return why it does not boot."""
    with pytest.raises(Rejected) as caught:
        async with world.enclave(**settings):  # type: ignore[arg-type]
            pass
    return caught.value.code


@asynchronous
async def test_a_signed_model_runs_and_says_who_made_it(world: World) -> None:
    async with world.enclave(require_model_signature=True, model_makers=(OTHER, MAKER)) as instance:
        consumer = ConsumerSide(instance, world.clock)
        assert (await consumer.infer([[1.0, 2.0, 3.0]])).json["outputs"][0]["data"] == [2.0, 4.0, 6.0]
        answer = await consumer.get("/v2/models/m")
        assert answer.inner is not None
        info = parse_metadata(answer.inner.body)
        signer = f"key {MAKER.fingerprint}"
        assert info.maker == MakerInfo(kind="key", fingerprint=MAKER.fingerprint, signer=signer)


@asynchronous
async def test_t98_a_model_of_another_maker_is_refused_where_makers_are_pinned(world: World) -> None:
    assert await refused(world, model_makers=(OTHER,)) == "unknown_key"


@asynchronous
async def test_t98_a_model_that_nobody_signed_is_refused_where_a_signature_is_wanted(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    assert await refused(world, require_model_signature=True) == "model_unsigned"
    assert await refused(world, model_makers=(MAKER,)) == "model_unsigned"
    async with world.enclave() as instance:
        answer = await ConsumerSide(instance, world.clock).get("/v2/models/m")
        assert answer.inner is not None
        assert parse_metadata(answer.inner.body).maker is None


@asynchronous
async def test_t98_a_custodian_that_seals_other_weights_beside_the_signature_is_refused(
    world: World, tmp_path: Path
) -> None:
    source = tmp_path / "signed"
    (source / "model.onnx").write_bytes(identity(TensorProto.FLOAT, ["n"]))
    lent = seal(tmp_path, "m", source, world.custodian.publisher)  # it need not look, and can sign what it likes
    manifest = Manifest.parse((lent.root / "manifest.json").read_bytes())
    claim = MakerClaim(signature=SIGNATURE_PATH, trusted=(MAKER,))
    data = replace(manifest, maker=claim).dump()
    (lent.root / "manifest.json").write_bytes(data)
    (lent.root / "manifest.sig").write_bytes(ManifestSignature.sign(world.custodian.publisher, data).dump())
    lend(world, replace(lent, terms=replace(lent.terms, digest=ModelDigest(model_digest(data)))))
    assert await refused(world) == "signed_otherwise"
    assert await refused(world, model_makers=(MAKER,)) == "signed_otherwise"


@asynchronous
async def test_t99_an_enclave_that_pins_the_second_key_wants_its_signature(world: World) -> None:
    second = SecondSigner(bytes(range(32)))
    assert await refused(world, second_publisher=second.public) == "second_signature_missing"
    (lent,) = world.custodian.lent
    manifest = Manifest.parse((lent.root / "manifest.json").read_bytes())
    data = replace(manifest, second_key=second.public).dump()
    (lent.root / "manifest.json").write_bytes(data)
    signature = ManifestSignature.sign(world.custodian.publisher, data, second)
    (lent.root / "manifest.sig").write_bytes(signature.dump())
    lend(world, replace(lent, terms=replace(lent.terms, digest=ModelDigest(model_digest(data)))))
    other = SecondSigner(bytes(range(1, 33)))
    assert await refused(world, second_publisher=other.public) == "unknown_key"
    async with world.enclave(second_publisher=second.public) as instance:
        assert (await ConsumerSide(instance, world.clock).infer([[1.0, 2.0, 3.0]])).status == 200


def test_a_pinned_second_key_is_read_and_measured(tmp_path: Path) -> None:
    key = SecondSigner(bytes(range(32))).public
    (tmp_path / "second.key").write_bytes(key.raw)
    (tmp_path / "short.key").write_bytes(key.raw[:-1])
    base = 'loan = "loan.json"\nmodels = ["m"]\n'
    (tmp_path / "plain.toml").write_text(base)
    (tmp_path / "pinned.toml").write_text(base + 'second_publisher = "second.key"\n')
    (tmp_path / "short.toml").write_text(base + 'second_publisher = "short.key"\n')
    plain, pinned = (load_config(tmp_path / name, env={}) for name in ("plain.toml", "pinned.toml"))
    assert pinned.second_publisher == key
    assert measure_software(plain).digest != measure_software(pinned).digest
    with pytest.raises(UsageError, match="1951 bytes"):
        load_config(tmp_path / "short.toml", env={})


def test_wanted_makers_are_measured_by_what_they_are_and_not_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(kit.public_pem(kit.key()))
    (tmp_path / "b.pem").write_bytes(kit.public_pem(kit.key()))
    (tmp_path / "c.pem").write_bytes(kit.pem(kit.ROOT))
    base = 'loan = "loan.json"\nmodels = ["m"]\n'

    def digest(more: str) -> str:
        (tmp_path / "enclave.toml").write_text(base + more)
        return measure_software(load_config(tmp_path / "enclave.toml", env={})).digest

    alone = digest('model_makers = ["a.pem"]\n')
    assert alone == digest('model_makers = ["b.pem"]\n') == digest('model_makers = ["a.pem", "b.pem"]\n')
    others = {digest(""), digest("require_model_signature = true\n"), digest('model_makers = ["c.pem"]\n'), alone}
    assert len(others) == 4
    env = {"CLOISTER_ENCLAVE_MODEL_MAKERS": f"{tmp_path}/a.pem:{tmp_path}/c.pem"}
    config = load_config(tmp_path / "enclave.toml", env=env)
    assert config.model_makers == (MAKER, kit.root_maker(kit.ROOT))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("model_makers = []", "model_makers"),
        ('model_makers = ["not-there.pem"]', "not-there.pem"),
        ('model_makers = ["loan.json"]', "certificate"),
        ('model_makers = ["."]', "cannot be read"),
        ('model_makers = ["large"]', "more than"),
        ('model_makers = "a.pem"', "model_makers"),
        ("require_model_signature = 1", "require_model_signature"),
    ],
)
def test_makers_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "loan.json").write_text(json.dumps({}))
    (tmp_path / "large").write_bytes(bytes(300_000))
    (tmp_path / "enclave.toml").write_text(f'loan = "loan.json"\nmodels = ["m"]\n{text}\n')
    with pytest.raises(UsageError) as caught:
        load_config(tmp_path / "enclave.toml", env={})
    assert named in caught.value.message
