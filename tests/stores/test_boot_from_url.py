"""An enclave whose model lies behind a URL: it streams into memory, and is the loan's or is refused."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest
from enclave_models import doubler, identity
from enclave_parties import ConsumerSide, World, make_world, seal
from hostile_server import HostileServer
from onnx import TensorProto
from stores_kit import parts_of

from cloister.enclave.config import load_config
from cloister.errors import Rejected, Unavailable, UsageError
from cloister.stores import parse_place
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, {"m": doubler()})


@asynchronous
async def test_an_enclave_boots_from_a_url_with_a_token_and_needs_no_folder(world: World, tmp_path: Path) -> None:
    parts = parts_of(world.custodian.lent[0].root)
    place = tmp_path / "token"
    place.touch(mode=0o600)
    place.write_text("a-token\n")
    with HostileServer(parts, token="a-token") as server:  # noqa: S106 - no secret
        models = (parse_place(server.url),)
        async with world.enclave(models=models, model_token_file=place) as instance:
            assert (await ConsumerSide(instance, world.clock).infer([[1.0, 2.0, 3.0]])).status == 200
        with pytest.raises(Unavailable, match="not let in"):
            async with world.enclave(models=models):
                pass
    assert {request.name for request in server.seen} == set(parts) - {"envelope.json"}


@asynchronous
async def test_t23_another_validly_sealed_model_behind_the_url_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    other = seal(tmp_path / "sub", "m", identity(TensorProto.FLOAT, ["n"]), world.custodian.publisher)
    with HostileServer(parts_of(other.root)) as server, pytest.raises(Rejected, match="model_missing"):
        async with world.enclave(models=(parse_place(server.url),)):
            pass


@asynchronous
async def test_t21_a_server_that_alters_one_byte_on_the_way_stops_the_boot(world: World) -> None:
    parts = parts_of(world.custodian.lent[0].root)
    (blob,) = [name for name in parts if name.startswith("blobs/") and not name.endswith(".leaves")]
    parts[blob] = parts[blob][:-1] + bytes([parts[blob][-1] ^ 1])
    with HostileServer(parts) as server, pytest.raises(Rejected, match="digest_mismatch"):
        async with world.enclave(models=(parse_place(server.url),)):
            pass


@asynchronous
async def test_a_server_far_away_is_asked_for_several_segments_at_once(tmp_path: Path) -> None:
    """No segment of the big file is answered before five of them have been asked for."""
    source = tmp_path / "plain"
    source.mkdir()
    (source / "model.onnx").write_bytes(doubler())
    (source / "notes.txt").write_bytes(bytes(8 << 20))
    world = make_world(tmp_path, {"m": source})
    parts = parts_of(world.custodian.lent[0].root)
    big = max(parts, key=lambda name: len(parts[name]))
    meet, waited = threading.Condition(), []

    def hold(_: int) -> None:
        def asked() -> int:
            return sum(one.name == big for one in server.seen) - 1  # the first asks for the size

        with meet:
            meet.notify_all()
            if asked() > 0:
                waited.append(meet.wait_for(lambda: asked() >= 5, timeout=20))

    with HostileServer(parts, watch=hold) as server:
        async with world.enclave(models=(parse_place(server.url),)):
            pass
    assert len(waited) > 5
    assert all(waited)


def test_settings_take_urls_beside_folders(tmp_path: Path) -> None:
    path = tmp_path / "enclave.toml"
    path.write_text('loan = "l"\nmodels = ["m", "https://host:8443/m"]\nmodel_ca = "ca.pem"\n')
    config = load_config(path, env={})
    assert [str(item) for item in config.models] == [str(tmp_path / "m"), "https://host:8443/m"]
    assert config.model_ca == tmp_path / "ca.pem"
    env = {"CLOISTER_ENCLAVE_MODELS": "https://host:8443/m a b"}
    places = load_config(path, env=env).models
    assert [str(item) for item in places] == ["https://host:8443/m", str(tmp_path / "a"), str(tmp_path / "b")]
    assert "https" not in json.dumps(config.measured())


def test_a_secret_in_a_url_of_the_settings_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "enclave.toml"
    path.write_text('loan = "l"\nmodels = ["https://me:s3cret@host/m"]\n')
    with pytest.raises(UsageError) as caught:
        load_config(path, env={})
    assert "s3cret" not in str(caught.value)


def test_a_token_is_shown_to_one_server_only(tmp_path: Path) -> None:
    path = tmp_path / "enclave.toml"
    path.write_text('loan = "l"\nmodels = ["https://one/m", "https://one/n", "s3://bucket/m"]\n')
    environment = {"CLOISTER_MODEL_TOKEN": "a-token"}
    assert load_config(path, env={}).access(environment).token == "a-token"  # noqa: S105 - no secret
    path.write_text('loan = "l"\nmodels = ["https://one/m", "oci://two/m:v1"]\n')
    with pytest.raises(UsageError, match="2 servers"):
        load_config(path, env={}).access(environment)
    assert load_config(path, env={}).access({}).token is None


def test_an_airgapped_enclave_takes_no_url(tmp_path: Path) -> None:
    path = tmp_path / "enclave.toml"
    path.write_text('loan = "l"\nmodels = ["https://one/m"]\nairgapped = true\nmedia = "media"\n')
    with pytest.raises(UsageError, match="airgapped"):
        load_config(path, env={})
