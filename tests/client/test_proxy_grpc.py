"""The gRPC form of the proxy: calls, refusals, bytes in messages, typed tensors, its own places."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from client_town import Town, scan
from proxy_kit import ANY_PORT, LOCAL, Door, open_door, upstream_of
from test_proxy import another_answer, without_receipt

from cloister.client.proxy.address import Address
from cloister.client.proxy.grpc.contents import HOLDERS, dump_contents, fill_contents
from cloister.client.proxy.grpc.messages import SERVICE, message
from cloister.client.proxy.grpc.raw import join_raw, split_raw
from cloister.client.proxy.grpc.translate import parse_call
from cloister.client.proxy.limits import Limits
from cloister.client.proxy.serve import demand_grpc
from cloister.errors import Malformed, Unavailable, UsageError
from loops import asynchronous
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AUTHORIZED = (("authorization", f"Bearer {LOCAL}"),)


@pytest.fixture
def town() -> Town:
    return Town()


@asynccontextmanager
async def open_calls(
    town: Town, where: Address | Path = ANY_PORT, **options: Any
) -> AsyncIterator[tuple[Door, grpc.aio.Channel]]:
    """Run a proxy with the gRPC form, and a channel to it."""
    async with (
        open_door(await upstream_of(town), grpc=where, **options) as door,
        grpc.aio.insecure_channel(str(door.grpc)) as channel,
    ):
        yield door, channel


async def call(channel: grpc.aio.Channel, name: str, data: bytes, metadata: Any = AUTHORIZED) -> bytes:
    """Call one method with the bytes of a message."""
    return bytes(await channel.unary_unary(f"/{SERVICE}/{name}")(data, metadata=metadata, timeout=30))


def asked(brightest: int = 3, *, raw: bool = True, **changes: Any) -> Any:
    """Return a request about one picture."""
    request = message("ModelInferRequest")(model_name="digits", **changes)
    item = request.inputs.add(name="image", datatype="FP32", shape=[1, 64])
    pixels = scan(brightest).astype("<f4")
    if raw:
        request.raw_input_contents.append(pixels.tobytes())
    else:
        item.contents.fp32_contents.extend(pixels.reshape(-1).tolist())
    return request


def response(data: bytes, name: str = "ModelInferResponse") -> Any:
    return message(name).FromString(data)


@asynchronous
async def test_raw_tensors_are_answered_raw_and_typed_ones_typed(town: Town) -> None:
    async with open_calls(town) as (_, channel):
        raw = response(await call(channel, "ModelInfer", asked(7).SerializeToString()))
        assert np.frombuffer(raw.raw_output_contents[0], dtype="<i8").tolist() == [7]
        assert not raw.outputs[0].HasField("contents")
        typed = response(await call(channel, "ModelInfer", asked(8, raw=False).SerializeToString()))
        assert list(typed.outputs[0].contents.int64_contents) == [8]
        assert not typed.raw_output_contents
        assert (typed.model_name, typed.model_version) == ("digits", town.enclave.digest)


@asynchronous
async def test_an_answer_says_units_and_receipt_beside_itself(town: Town) -> None:
    async with open_calls(town) as (_, channel):
        asking = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        calling = asking(asked().SerializeToString(), metadata=(*AUTHORIZED, ("idempotency-key", "k")))
        await calling
        trailing = dict(await calling.trailing_metadata())
    assert (trailing["cloister-units"], trailing["cloister-remaining"]) == ("1", "9")
    assert trailing["cloister-receipt"] == f"{town.enclave.instance}/1"
    assert dict(town.enclave.seen[-1].headers)["idempotency-key"] == "k"


@pytest.mark.parametrize(
    ("left_us", "own", "want"),
    [(None, None, None), (1500, None, 1500), (-5, None, 1), (10**18, None, 86400 * 10**6), (1500, 7, 7)],
)
def test_the_deadline_of_a_call_is_the_timeout_of_the_inference(
    left_us: int | None, own: int | None, want: int | None
) -> None:
    request = asked()
    if own is not None:
        request.parameters["timeout"].int64_param = own
    call = parse_call(request.SerializeToString(), left_us=left_us)
    head = json.loads(call.body[: int(dict(call.headers)["inference-header-content-length"])])
    assert head["parameters"].get("timeout") == want


@asynchronous
async def test_a_call_with_a_deadline_says_so_to_the_enclave(town: Town) -> None:
    async with open_calls(town) as (_, channel):
        await call(channel, "ModelInfer", asked().SerializeToString())
    assert b'"timeout":' in town.enclave.seen[-1].body


@pytest.mark.parametrize("metadata", [(), (("authorization", f"Bearer {LOCAL}x"),), (*AUTHORIZED, *AUTHORIZED)])
@asynchronous
async def test_another_user_of_this_machine_without_the_token_calls_nothing(town: Town, metadata: Any) -> None:
    async with open_calls(town) as (_, channel):
        for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(channel, name, asked().SerializeToString(), metadata)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(metadata=metadata)))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as refused:  # told before a message was sent, so none is held
            await channel.stream_unary(f"/{SERVICE}/ModelInfer")(metadata=metadata, timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert town.enclave.seen == []


def test_without_the_extra_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(UsageError) as refused:
        demand_grpc()
    assert refused.value.hint == "pip install 'cloister[grpc]'"


@asynchronous
async def test_what_the_enclave_refuses_has_its_code_and_its_words(town: Town) -> None:
    town.enclave.allowance = 0
    async with open_calls(town) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel, "ModelInfer", asked().SerializeToString())
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(refused.value.trailing_metadata() or ())["cloister-code"] == "allowance_exhausted"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel, "ModelMetadata", message("ModelMetadataRequest")(name="other").SerializeToString())
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "other" in str(refused.value.details())


@pytest.mark.parametrize("change", [without_receipt, another_answer])
@asynchronous
async def test_an_answer_whose_receipt_does_not_hold_is_not_given(town: Town, change: Any) -> None:
    town.enclave.change = change
    async with open_calls(town) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel, "ModelInfer", asked(9).SerializeToString())
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@asynchronous
async def test_a_stream_answers_in_order_and_goes_on_after_a_refusal(town: Town) -> None:
    async with open_calls(town) as (_, channel):
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(metadata=AUTHORIZED)
        said = []
        for data in (asked(1), asked(2, model_version="x"), asked(3)):
            await stream.write(data.SerializeToString())
            said.append(response(await stream.read(), "ModelStreamInferResponse"))
        await stream.write(b"\xff")
        said.append(response(await stream.read(), "ModelStreamInferResponse"))
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    labels = [one.infer_response.raw_output_contents for one in said]
    assert [np.frombuffer(one[0], dtype="<i8").tolist() for one in labels if one] == [[1], [3]]
    assert [bool(one.error_message) for one in said] == [False, True, False, True]


WRONG: list[tuple[str, Any]] = [
    ("more bytes than inputs", lambda request: request.raw_input_contents.append(b"")),
    ("fewer bytes than inputs", lambda request: request.inputs.add(name="b", datatype="FP32", shape=[1])),
    ("bytes and contents", lambda request: request.inputs[0].contents.fp32_contents.append(1)),
    ("a parameter without a value", lambda request: request.parameters["note"].SetInParent()),
    ("a number that is none", lambda request: request.parameters["note"].__setattr__("double_param", float("nan"))),
    ("of the http form", lambda request: request.parameters["binary_data_output"].__setattr__("bool_param", False)),
]
WRONG_TYPED: list[tuple[str, Any]] = [
    ("another field", lambda item: item.contents.int_contents.append(1)),
    ("an integer too large", lambda item: (setattr(item, "datatype", "INT8"), _only(item, "int_contents", 128))),
    ("an integer below zero", lambda item: (setattr(item, "datatype", "INT16"), _only(item, "int_contents", -40000))),
    ("a type without contents", lambda item: setattr(item, "datatype", "FP16")),
    ("no type", lambda item: setattr(item, "datatype", "float")),
]


def _only(item: Any, holder: str, *values: Any) -> None:
    item.contents.Clear()
    getattr(item.contents, holder).extend(values)


@pytest.mark.parametrize("change", [case[1] for case in WRONG], ids=[case[0] for case in WRONG])
@asynchronous
async def test_a_call_that_cannot_be_meant_is_refused_before_anything_is_asked(town: Town, change: Any) -> None:
    request = asked()
    change(request)
    async with open_calls(town) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel, "ModelInfer", request.SerializeToString())
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert town.enclave.seen == []


@pytest.mark.parametrize("change", [case[1] for case in WRONG_TYPED], ids=[case[0] for case in WRONG_TYPED])
def test_typed_tensors_that_do_not_fit_their_type_are_malformed(change: Any) -> None:
    request = asked(raw=False)
    change(request.inputs[0])
    with pytest.raises(Malformed):
        parse_call(request.SerializeToString())


@asynchronous
async def test_bytes_that_are_no_message_are_the_programs_fault(town: Town) -> None:
    async with open_calls(town) as (_, channel):
        for name in ("ModelInfer", "ModelReady", "ModelMetadata"):
            for data in (b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xff"):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call(channel, name, data)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (name, data)
    assert town.enclave.seen == []


@asynchronous
async def test_a_message_beyond_the_cap_is_refused(town: Town) -> None:
    async with open_calls(town, limits=Limits(max_request_bytes=2000)) as (_, channel):
        request = asked()
        request.raw_input_contents[0] = bytes(3 << 20)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel, "ModelInfer", request.SerializeToString())
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert town.enclave.seen == []


@asynchronous
async def test_a_port_for_calls_is_not_shared(town: Town) -> None:
    async with open_calls(town) as (door, _):
        port = int(str(door.grpc).rpartition(":")[2])
        with pytest.raises(Unavailable, match="listen"):
            async with open_calls(town, Address("127.0.0.1", port)):
                pass
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))


@asynchronous
async def test_a_socket_for_calls_is_for_its_owner_alone_and_needs_no_token(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "calls.sock"
    async with open_calls(town, path) as (_, channel):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert response(await call(channel, "ModelInfer", asked(7).SerializeToString(), ())).raw_output_contents
        with pytest.raises(UsageError, match="listens there already"):
            async with open_calls(town, path):
                pass
        assert response(await call(channel, "ModelInfer", asked(7).SerializeToString(), ())).raw_output_contents
    assert not path.exists()


@asynchronous
async def test_an_address_for_calls_wants_a_token_too(town: Town, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="local token"):
        async with open_door(await upstream_of(town), tmp_path / "http.sock", token=None, grpc=ANY_PORT):
            pass


@asynchronous
async def test_too_many_calls_at_once_are_told_to_come_back(town: Town) -> None:
    async with open_calls(town, limits=Limits(max_exchanges=1)) as (door, channel):
        waiting = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(metadata=AUTHORIZED)
        await waiting.write(asked().SerializeToString())
        await waiting.read()
        own = [("grpc.use_local_subchannel_pool", 1)]  # another connection, as another program has
        async with grpc.aio.insecure_channel(str(door.grpc), options=own) as other:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(other, "ServerLive", b"")
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        waiting.cancel()


@pytest.mark.parametrize("datatype", HOLDERS)
def test_every_typed_tensor_comes_back_as_it_was(datatype: str) -> None:
    holder, kind = HOLDERS[datatype]
    values: list[Any] = [b"", "ü".encode(), bytes(3)]
    if kind == "?":
        values = [True, False]
    elif kind:
        dtype = np.dtype(kind)
        ends = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        values = [dtype.type(ends.min).item(), dtype.type(ends.max).item(), 1]
    contents = message("InferTensorContents")()
    getattr(contents, holder).extend(values)
    data = dump_contents(contents, datatype, what="x")
    back = message("InferTensorContents")()
    fill_contents(back, datatype, memoryview(data), what="x")
    assert back == contents


@pytest.mark.parametrize(
    ("datatype", "data"), [("INT32", b"\x00" * 3), ("BYTES", b"\x00\x00"), ("BYTES", b"\x05\x00\x00\x00abcd")]
)
def test_bytes_that_are_no_typed_tensor_are_malformed(datatype: str, data: bytes) -> None:
    with pytest.raises(Malformed):
        fill_contents(message("InferTensorContents")(), datatype, memoryview(data), what="x")


def test_bytes_are_taken_out_of_a_message_wherever_they_stand() -> None:
    request = asked(4, id="seven")
    request.raw_input_contents.append(b"second")
    data = request.SerializeToString()
    raw = list(request.raw_input_contents)
    more = message("ModelInferRequest")(id="eight", raw_input_contents=[b""]).SerializeToString()
    rest, found = split_raw(data + more)
    assert [bytes(part) for part in found] == [*raw, b""]
    request.ClearField("raw_input_contents")
    request.id = "eight"
    assert message("ModelInferRequest").FromString(rest) == request
    unknown = b"\xa8\x06\x01" + b"\xad\x06" + bytes(4) + b"\xa9\x06" + bytes(8)  # a varint, four bytes, eight bytes
    assert split_raw(unknown + data)[1] == [memoryview(part) for part in raw]


def test_bytes_put_into_a_message_are_what_the_library_would_write() -> None:
    head = message("ModelInferResponse")(model_name="m")
    parts = [b"", b"x" * 127, b"y" * 128, b"z" * 70000]
    whole = message("ModelInferResponse")(model_name="m", raw_output_contents=parts)
    assert join_raw(head.SerializeToString(), [memoryview(part) for part in parts]) == whole.SerializeToString()


def test_mutated_calls_raise_malformed_only() -> None:
    request = asked(4, id="seven")
    request.parameters["priority"].uint64_param = 3
    request.outputs.add(name="label").parameters["classification"].int64_param = 2
    typed = asked(4, raw=False)
    for data in (request.SerializeToString(), typed.SerializeToString()):
        for damaged in mutated(data, seed=11):
            try:
                parse_call(damaged)
            except Malformed:
                continue


@asynchronous
async def test_the_state_of_server_and_models_is_told(town: Town) -> None:
    async with open_calls(town) as (_, channel):
        found = response(
            await call(channel, "ModelMetadata", message("ModelMetadataRequest")(name="digits").SerializeToString()),
            "ModelMetadataResponse",
        )
        assert (found.name, list(found.versions), list(found.inputs[0].shape)) == (
            "digits",
            [town.enclave.digest],
            [-1, 64],
        )
        town.restart()
        town.enclave.debug = True
        for name, member in (("ServerLive", "live"), ("ServerReady", "ready"), ("ModelReady", "ready")):
            assert getattr(response(await call(channel, name, b""), f"{name}Response"), member) is False
    await asyncio.sleep(0)


@asynchronous
async def test_connections_are_bounded(town: Town) -> None:
    async with open_calls(town, limits=Limits(max_connections=2)) as (door, channel):
        assert response(await call(channel, "ModelInfer", asked(7).SerializeToString())).raw_output_contents
        own = [("grpc.use_local_subchannel_pool", 1)]
        async with (
            grpc.aio.insecure_channel(str(door.grpc), options=own) as second,
            grpc.aio.insecure_channel(str(door.grpc), options=own) as third,
        ):
            await call(second, "ServerLive", b"")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(third, "ServerLive", b"")
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
