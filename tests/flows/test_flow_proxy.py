"""The proxy between a real enclave and the clients that people have: tritonclient, curl, the examples of its page."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx2
import pytest
import uvicorn
from flow_house import ENCLAVE, START, House, brightest, open_house
from google.protobuf.descriptor_pb2 import DescriptorProto
from onnx import TensorProto, helper
from proxy_kit import ANY_PORT, LOCAL, Door, open_door

from cloister.attest.rules import NotChecked
from cloister.client.proxy.grpc import messages
from cloister.client.proxy.grpc.contents import HOLDERS
from cloister.client.proxy.grpc.messages import message
from cloister.client.proxy.upstream import Upstream
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = Path(__file__).parent
TRITON = Path(sys.prefix) / "triton" / "bin" / "python"  # made by 'make test'
KINDS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


def mirror(*kinds: str) -> bytes:
    """Return a model that gives back one input of each type."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"x_{kind}"], [f"y_{kind}"]) for kind in kinds],
        "g",
        [helper.make_tensor_value_info(f"x_{kind}", KINDS[kind], ["batch", 2]) for kind in kinds],
        [helper.make_tensor_value_info(f"y_{kind}", KINDS[kind], ["batch", 2]) for kind in kinds],
    )
    opset = helper.make_opsetid("", 21)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString())


@asynccontextmanager
async def open_proxy(folder: Path, *, now: datetime = START, **options: Any) -> AsyncIterator[tuple[House, Door]]:
    """Run a custodian, an enclave with four models, and a proxy in front of it."""
    numbers = mirror(*(kind for kind in KINDS if kind != "BYTES"))  # the engine carries no BF16 beside strings
    typed = mirror(*(kind for kind in HOLDERS if kind != "BYTES"))
    models = {"digits": brightest(), "numbers": numbers, "texts": mirror("BYTES"), "typed": typed}
    async with open_house(folder, models=models) as house:
        house.clock.now = now
        await house.lend(100)
        async with house.enclave():
            upstream = await Upstream.verify(
                ENCLAVE,
                house.trust(),
                token=house.tokens["clinic"],
                schemes=house.schemes(),
                transport=house.wires,
                clock=house.clock,
            )
            async with open_door(upstream, **options) as door:
                yield house, door


async def run(program: str, *given: str) -> Any:
    """Run a program of the clients' own environment and return the JSON it wrote."""
    process = await asyncio.create_subprocess_exec(
        str(TRITON),
        str(HERE / program),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate("\n".join(given).encode())
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@asynchronous
async def test_the_unmodified_tritonclient_asks_everything_over_http(tmp_path: Path) -> None:
    async with open_proxy(tmp_path) as (house, door):
        found = await run("triton_http.py", door.address.removeprefix("http://"), LOCAL)
    assert found["ready"] == [True, True, True]
    assert found["unready"] is False
    assert found["server"]["extensions"] == ["binary_tensor_data", "classification"]
    assert found["metadata"]["versions"] == [house.digests["digits"]]
    assert found["of the version"] is True
    assert found["async"] == [2, 2, 2, 2]
    assert found["classes"] == [["2:0:class-0"], ["2:0:class-0"]]
    for form in ("binary", "json", "mixed"):
        assert found[form] == sorted(KINDS), form
    assert found["plain"] == {
        "id": "seven",
        "model_name": "digits",
        "model_version": house.digests["digits"],
        "outputs": [{"data": [2], "datatype": "INT64", "name": "label", "shape": [1]}],
        "parameters": {"cloister_ignored": "priority,note"},
    }
    wanted = {
        "compressed": "415: request: content_encoding",
        "region": "422: input image: parameter_refused (got shared_memory_",
        "sequence": "422: request: parameter_refused (got sequence_id",
        "shape": "422: input image: input (got shape [1, 5], want [batch, 4])",
        "token": "401: authorization: local_token",
        "unknown model": "400: ",
        "unknown version": "404: ",
    }
    for name, start in wanted.items():
        assert found["refused"][name].startswith(start), found["refused"][name]


@asynchronous
async def test_the_unmodified_tritonclient_asks_everything_over_grpc(tmp_path: Path) -> None:
    async with open_proxy(tmp_path, grpc=ANY_PORT) as (house, door):
        found = await run("triton_grpc.py", str(door.grpc), LOCAL)
    version = house.digests["digits"]
    assert found["ready"] == [True, True, True]
    assert found["unready"] is False
    assert found["server"]["extensions"] == ["binary_tensor_data", "classification"]
    assert found["metadata"]["versions"] == [version]
    assert found["metadata"]["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert (found["label"], found["plain"]["id"], found["plain"]["model_version"]) == (2, "seven", version)
    ignored = found["plain"]["parameters"]["cloister_ignored"]["string_param"]
    assert sorted(ignored.split(",")) == ["note", "priority"]  # a message's parameters have no order
    assert found["raw"] == sorted(KINDS)
    assert found["typed"] == sorted(HOLDERS)
    assert found["stream"][:2] == [1, 3]
    assert "want [batch, 4]" in found["stream"][2]
    wanted = {
        "sequence": "StatusCode.INVALID_ARGUMENT: request: parameter_refused (got sequence_id",
        "shape": "StatusCode.INVALID_ARGUMENT: input image: input (got shape [1, 5], want [batch, 4])",
        "token": "StatusCode.UNAUTHENTICATED: authorization: local_token",
        "unknown version": "StatusCode.NOT_FOUND: ",
    }
    for name, start in wanted.items():
        assert found["refused"][name].startswith(start), found["refused"][name]
    theirs, ours = found["fields"], our_fields()
    assert {name: theirs[name] for name in ours} == ours


def our_fields() -> dict[str, list[Any]]:
    """Return every field of every message of our interface, as ``triton_grpc`` does of the client's."""
    found: dict[str, list[Any]] = {}

    def walk(kind: Any) -> None:
        said = DescriptorProto()
        kind.CopyToProto(said)
        found[kind.full_name] = [[one.name, one.number, one.type, one.label] for one in said.field]
        for inner in kind.nested_types:
            walk(inner)

    for name in ("ModelInferRequest", "ModelStreamInferResponse", "ModelMetadataResponse", "InferTensorContents"):
        walk(message(name).DESCRIPTOR)
    for name in ("ModelInferResponse", "InferParameter", "ServerLiveResponse", "ServerReadyResponse"):
        walk(message(name).DESCRIPTOR)
    for name in ("ModelReadyRequest", "ModelReadyResponse", "ServerMetadataResponse", "ModelMetadataRequest"):
        walk(message(name).DESCRIPTOR)
    return found


def test_the_compiled_interface_is_the_one_that_people_read(tmp_path: Path) -> None:
    source = Path(messages.__file__).parent
    compiler = [str(TRITON), "-m", "grpc_tools.protoc", f"-I{source}", f"--descriptor_set_out={tmp_path / 'out'}"]
    subprocess.run([*compiler, "inference.proto"], check=True, timeout=60)  # noqa: S603 - our own file
    assert (tmp_path / "out").read_bytes() == (source / "inference.binpb").read_bytes()


def example(language: str, door: Door) -> str:
    """Return the examples of the proxy's page in one language, asking at this proxy."""
    page = (HERE.parents[1] / "docs" / "reference" / "proxy.md").read_text(encoding="utf-8")
    found = "".join(re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL))
    assert "127.0.0.1:8470" in found
    found = found.replace("127.0.0.1:8471", str(door.grpc))
    return found.replace("127.0.0.1:8470", door.address.removeprefix("http://"))


async def play(home: Path, *words: str, given: str) -> str:
    """Run a script, with a home folder that has the local token, and return what it printed."""
    token = home / ".local" / "state" / "cloister" / "proxy.token"
    token.parent.mkdir(parents=True, exist_ok=True)
    token.touch(mode=0o600)
    token.write_text(f"{LOCAL}\n")
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
    )
    out, _ = await process.communicate(given.encode())
    assert process.returncode == 0, out.decode()
    return out.decode()


@asynchronous
async def test_the_examples_of_the_page_run_as_they_stand(tmp_path: Path) -> None:
    async with open_proxy(tmp_path, grpc=ANY_PORT) as (house, door):
        said = await play(tmp_path, "/bin/sh", "-eu", given=example("sh", door))
        metadata, rest = json.JSONDecoder().raw_decode(said)
        answer, rest = json.JSONDecoder().raw_decode(said[rest:])
        assert metadata["versions"] == [house.digests["digits"]]
        assert answer["outputs"][0]["data"] == [2]
        assert '"verified":true' in said
        assert await play(tmp_path, str(TRITON), "-", given=example("python", door)) == "[2]\n[2]\n"


@asynccontextmanager
async def on_a_port(house: House) -> AsyncIterator[str]:
    """Serve the enclave of a house on a real port of this machine."""
    config = uvicorn.Config(house.wires.apps[8440].app, port=0, lifespan="off", log_config=None, ws="none")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - the server tells in no other way
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def tokens(folder: Path) -> dict[str, str]:
    """Return every token below a folder by the name of its file."""
    return {path.name: path.read_text().strip() for path in folder.rglob("*.token")}


async def proxy_command(folder: Path, url: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the command until it ends, or until it is ready and was told to end; return exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cloister", "proxy", url, "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0"),
        *("--trust", "trust.json", "--token-file", "clinic.token", "--insecure-simulated-root", "root.json"),
        *("--json", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {"HOME": str(folder)},
    )
    while process.returncode is None and not (folder / "ready.json").exists():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    if process.returncode is None:
        said = json.loads((folder / "ready.json").read_text())
        token = tokens(folder)["proxy.token"]
        async with httpx2.AsyncClient(base_url=said["address"], timeout=30) as program:
            status = await program.get("/status", headers={"authorization": f"Bearer {token}"})
            assert status.json()["verified"] is True
        async with grpc.aio.insecure_channel(said["grpc"]) as channel:
            known = (("authorization", f"Bearer {token}"),)
            live = await channel.unary_unary(f"/{messages.SERVICE}/ServerLive")(b"", metadata=known, timeout=30)
            assert message("ServerLiveResponse").FromString(live).live is True
        process.send_signal(signal.SIGTERM)
    out, err = await process.communicate()
    assert not [token for token in tokens(folder).values() if token.encode() in out + err]
    assert process.returncode is not None
    return process.returncode, json.loads(out)


@pytest.mark.timeout(260)
@asynchronous
async def test_the_command_verifies_serves_and_ends_and_does_not_start_unverified(tmp_path: Path) -> None:
    async with open_proxy(tmp_path, now=datetime.now(UTC)) as (house, _), on_a_port(house) as url:
        folder = tmp_path / "consumer"
        folder.mkdir()
        house.root.save_public(folder / "root.json")
        unasked = NotChecked("the custodian of this test has no port")
        trust = house.trust(custodian=unasked, operators=unasked)
        (folder / "clinic.token").touch(mode=0o600)
        (folder / "clinic.token").write_text(house.tokens["clinic"])
        (folder / "trust.json").write_bytes(trust.dump())
        code, said = await proxy_command(folder, url, "--ready-file", "ready.json", "--receipts", "kept")
        assert (code, said.get("receipts")) == (0, "kept"), said
        assert said["enclave"]["models"] == house.digests
        (folder / "ready.json").unlink()
        (folder / "trust.json").write_bytes(replace(trust, models={"digits": "00" * 32}).dump())
        code, said = await proxy_command(folder, url, "--ready-file", "ready.json")
        assert (code, said["error"]["code"]) == (4, "model_mismatch")
        assert not (folder / "ready.json").exists()
    code, said = await proxy_command(folder, url, "--ready-file", "ready.json")
    assert (code, said["error"]["fault"]) == (5, "unavailable")
