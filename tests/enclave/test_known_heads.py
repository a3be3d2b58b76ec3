"""Heads that were read before: what comes of them is what reading them again would give, and never anybody else's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from enclave_models import doubler
from enclave_parties import ALICE, BOB, make_world

from cloister.channel.bhttp import BinaryRequest
from cloister.enclave.asker import Asker
from cloister.enclave.engines.tensor import Datatype, Signature, TensorSpec
from cloister.enclave.oip import HEADER_LENGTH, Fitted, KnownHeads, fit, parse_request, units_of
from cloister.errors import CloisterError
from cloister.lending.sub_allowance import BlockId, Caveats, SubAllowance
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", datatype=Datatype.FP32, shape=("batch", 3)),
        TensorSpec(name="n", datatype=Datatype.INT64, shape=("batch",)),
    ),
    outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=("batch", 3)),),
)
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
NUMBERS = np.array([7, 8], dtype=np.int64)


def entry(name: str, datatype: str, array: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": array.nbytes}
    return {"name": name, "datatype": datatype, "shape": array.shape, "parameters": parameters}


def head(**rest: Any) -> bytes:
    """Return JSON whose inputs stand in another order than the model's."""
    inputs = [entry("n", "INT64", NUMBERS), entry("x", "FP32", ROWS)]
    return json.dumps({"inputs": inputs, **rest}).encode()


def read(body: bytes, size: int, signature: Signature = SIGNATURE) -> Fitted:
    asked = parse_request(body, header_bytes=size, json_cap=1 << 20)
    tensors = fit(asked, signature)
    return asked, tensors, units_of(tensors, signature)


def kept(text: bytes, data: bytes, signature: Signature = SIGNATURE) -> KnownHeads:
    heads = KnownHeads()
    heads.keep("me", text + data, len(text), read(text + data, len(text), signature))
    return heads


def test_a_known_head_gives_what_reading_it_again_gives() -> None:
    text = head(parameters={"binary_data_output": True, "timeout": 500})
    heads = kept(text, bytes(16 + 24))
    body = text + NUMBERS.tobytes() + ROWS.tobytes()
    found, again = heads.find("me", body, len(text)), read(body, len(text))
    assert found is not None
    assert found[2] == again[2] == 2
    assert [(one.name, one.datatype) for one in found[1]] == [(one.name, one.datatype) for one in again[1]]
    assert all(np.array_equal(one.array, other.array) for one, other in zip(found[1], again[1], strict=True))
    assert found[0].wants_binary("y")
    assert found[0].parameters == again[0].parameters
    assert not found[1][0].array.flags.writeable


def test_nothing_of_the_data_is_kept() -> None:
    text = head()
    heads = kept(text, NUMBERS.tobytes() + ROWS.tobytes())
    found = heads.find("me", text + bytes(40), len(text))
    assert found is not None
    assert not found[0].inputs
    assert not any(tensor.array.any() for tensor in found[1])


@pytest.mark.parametrize("size", [0, 39, 41])
def test_data_of_another_length_is_read_anew_and_refused_there(size: int) -> None:
    text = head()
    heads = kept(text, bytes(40))
    assert heads.find("me", text + bytes(size), len(text)) is None
    with pytest.raises(CloisterError):
        read(text + bytes(size), len(text))


def test_a_head_is_known_to_who_sent_it_and_to_nobody_else() -> None:
    text = head()
    heads = kept(text, bytes(40))
    assert heads.find("me", text + bytes(40), len(text)) is not None
    assert heads.find("you", text + bytes(40), len(text)) is None
    assert heads.find("me", text + bytes(40), len(text) - 1) is None
    assert heads.find("me", b" " + text + bytes(40), len(text) + 1) is None


@pytest.mark.parametrize(
    "rest", [{"id": "7"}, {"parameters": {"customer": "anna"}}, {"pad": None}, {"parameters": {"x" * 100: "y" * 1000}}]
)
def test_what_may_be_of_one_request_alone_is_not_kept(rest: dict[str, Any]) -> None:
    text = head(**{name: value for name, value in rest.items() if name != "pad"}) + b" " * 1100 * ("pad" in rest)
    heads = kept(text, bytes(40))
    assert heads.find("me", text + bytes(40), len(text)) is None


@pytest.mark.parametrize(("datatype", "data"), [("BOOL", b"\x01"), ("BYTES", b"\x01\x00\x00\x00a")])
def test_data_that_must_be_looked_at_is_looked_at_each_time(datatype: str, data: bytes) -> None:
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype=Datatype(datatype), shape=(1,)),), outputs=SIGNATURE.outputs
    )
    parameters = {"binary_data_size": len(data)}
    asked = {"name": "x", "datatype": datatype, "shape": [1], "parameters": parameters}
    text = json.dumps({"inputs": [asked]}).encode()
    assert kept(text, data, signature).find("me", text + data, len(text)) is None


def test_json_beside_binary_data_is_read_each_time() -> None:
    asked = [entry("x", "FP32", ROWS), {"name": "n", "datatype": "INT64", "shape": [2], "data": [7, 8]}]
    text = json.dumps({"inputs": asked}).encode()
    assert kept(text, ROWS.tobytes()).find("me", text + ROWS.tobytes(), len(text)) is None


def test_whoever_sends_ever_new_heads_fills_no_memory() -> None:
    text = head()
    heads = kept(text, bytes(40))
    body = text + bytes(40)
    fitted = read(body, len(text))
    for at in range(1024):
        heads.keep(("flood", at), body, len(text), fitted)
    assert heads.find("me", body, len(text)) is None, "the oldest has gone"
    assert heads.find(("flood", 0), body, len(text)) is not None


async def answer(enclave: EnclaveInstance, token: bytes, row: list[float], **rest: Any) -> tuple[int, bytes]:
    data = np.array([row], dtype=np.float32)
    text = json.dumps({"inputs": [entry("x", "FP32", data)], "parameters": {"binary_data_output": True}, **rest})
    headers = ((HEADER_LENGTH, str(len(text))), ("authorization", f"Bearer {token.decode()}"))
    body = text.encode() + data.tobytes()
    request = BinaryRequest(method="POST", path="/v2/models/m/infer", headers=headers, body=body)
    found = (await enclave.api.answer(request, enclave.api.asker(request))).response
    start = int(dict(found.headers)[HEADER_LENGTH])
    return int(dict(found.headers)["cloister-units"]), found.body[start:]


@asynchronous
async def test_every_request_with_a_known_head_is_run_and_counted_with_its_own_data(tmp_path: Path) -> None:
    async with make_world(tmp_path, {"m": doubler()}).enclave() as enclave:
        for at in range(4):
            for token in (ALICE, BOB):
                row = [float(at), 1.0, 2.0 if token == ALICE else 3.0]
                units, data = await answer(enclave, token, row)
                assert units == 1
                assert np.frombuffer(data, np.float32).tolist() == [2 * number for number in row]
        assert enclave.metering.snapshot().served == 8


@asynchronous
async def test_guests_who_are_counted_as_one_do_not_share_what_is_known(tmp_path: Path) -> None:
    data = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    text = json.dumps({"inputs": [entry("x", "FP32", data)]}).encode()
    request = BinaryRequest(
        method="POST", path="/v2/models/m/infer", headers=((HEADER_LENGTH, str(len(text))),), body=text + data.tobytes()
    )
    async with make_world(tmp_path, {"m": doubler()}).enclave() as enclave:
        inference, model = enclave.api._inference, enclave.pool.models[0]
        for name in ("first", "second"):
            guest = SubAllowance(ids=(BlockId("borrower"), BlockId(name)), caveats=(Caveats(), Caveats()))
            withheld = enclave.metering.withholding(model, guest)
            await inference._fitted(model, request, withheld, Asker.by_token(b"token", guest))
        assert len(inference._heads._known) == 2
