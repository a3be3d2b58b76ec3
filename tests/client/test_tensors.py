"""Arrays in, arrays out: every element type, tensors of torch by their looks, hostile answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cloister.client.datatypes import as_array, decode, encode
from cloister.client.inference import _label
from cloister.client.model_info import ModelInfo, TensorInfo, parse_metadata
from cloister.client.tensors import dump_inputs, name_inputs, parse_outputs
from cloister.enclave.engines.tensor import Datatype, Signature, TensorSpec
from cloister.enclave.oip import fit, parse_request
from cloister.errors import Malformed, UsageError
from mutations import mutated

VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], dtype="u1"),
    "UINT16": np.array([[0, 65535]], dtype="u2"),
    "UINT32": np.array([[0, 2**32 - 1]], dtype="u4"),
    "UINT64": np.array([[0, 2**64 - 1]], dtype="u8"),
    "INT8": np.array([[-128, 127]], dtype="i1"),
    "INT16": np.array([[-(2**15), 2**15 - 1]], dtype="i2"),
    "INT32": np.array([[-(2**31), 2**31 - 1]], dtype="i4"),
    "INT64": np.array([[-(2**63), 2**63 - 1]], dtype="i8"),
    "FP16": np.array([[0.5, -65504.0]], dtype="f2"),
    "FP32": np.array([[1e-30, np.inf]], dtype="f4"),
    "FP64": np.array([[1e-300, -1e300]], dtype="f8"),
    "BF16": np.array([[1.0, -2.5]], dtype="f4"),
    "FP8_E4M3FN": np.array([[0x38, 0x01]], dtype="u1"),
    "BYTES": np.array([["ä", ""]], dtype=object),
}


def info(datatype: str, shape: tuple[int, ...] = (-1, 2)) -> ModelInfo:
    tensor = TensorInfo(name="x", datatype=datatype, shape=shape)
    return ModelInfo(
        name="m",
        digest="ab" * 32,
        platform="onnxruntime_onnx",
        inputs=(tensor,),
        outputs=(),
        task="",
        description="",
        images={},
        labels={},
        remaining=None,
    )


@pytest.mark.parametrize("datatype", VALUES)
def test_every_type_fits_the_enclaves_own_reader_and_comes_back(datatype: str) -> None:
    body = dump_inputs(info(datatype), {"x": VALUES[datatype]})
    request = parse_request(body.data, header_bytes=body.head_bytes, json_cap=1 << 20)
    signature = Signature(inputs=(TensorSpec(name="x", datatype=Datatype(datatype), shape=(None, 2)),), outputs=())
    tensor = fit(request, signature)[0]
    assert request.parameters.binary_output
    data = encode(VALUES[datatype], datatype, name="x")
    back = decode(memoryview(data), datatype, (1, 2), name="x")
    if datatype == "BYTES":
        assert tensor.array.tolist() == [["ä".encode(), b""]]
        assert back.tolist() == tensor.array.tolist()
    else:
        assert back.tolist() == VALUES[datatype].tolist()
        assert back.flags.writeable


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (np.array([1.5]), "INT64"),
        (np.array([300]), "UINT8"),
        (np.array([-1]), "UINT64"),
        (np.array([1 + 2j]), "FP32"),
        (np.array(["a"], dtype=object), "FP32"),
        (np.array([1.0]), "BYTES"),
        (np.array([1.0]), "FP8_E5M2"),
        (np.array([1.0]), "BOOL"),
    ],
)
def test_nothing_is_converted_that_would_change_its_meaning(value: Any, datatype: str) -> None:
    with pytest.raises(UsageError):
        encode(value, datatype, name="x")


def test_precision_may_be_given_up_and_nothing_else() -> None:
    assert np.frombuffer(encode(np.array([0.1]), "FP32", name="x"), "<f4")[0] == np.float32(0.1)
    assert encode(np.array([7]), "UINT8", name="x") == b"\x07"
    assert encode(np.array([3]), "FP32", name="x") == np.float32(3).tobytes()
    nan = np.frombuffer(encode(np.array([np.nan, 3.14159]), "BF16", name="x"), "<u2")
    assert nan.tolist() == [0x7FC0, 0x4049]


class Tensor:
    """Looks like a torch tensor on a device that tracks gradients."""

    def __init__(self, array: np.ndarray, dtype: str = "torch.float32") -> None:
        self.array, self.dtype, self.steps = array, dtype, []

    def detach(self) -> Tensor:
        self.steps.append("detach")
        return self

    def cpu(self) -> Tensor:
        self.steps.append("cpu")
        return self

    def float(self) -> Tensor:
        self.steps.append("float")
        return self

    def numpy(self) -> np.ndarray:
        assert self.dtype != "torch.bfloat16" or "float" in self.steps
        return self.array


def test_torch_tensors_are_taken_by_their_looks() -> None:
    assert as_array(Tensor(np.ones((1, 2))), "FP32", name="x").shape == (1, 2)
    assert as_array(Tensor(np.ones((1, 2)), "torch.bfloat16"), "FP32", name="x").shape == (1, 2)
    assert as_array([[1, 2], [3, 4]], "FP32", name="x").shape == (2, 2)
    with pytest.raises(UsageError):
        as_array([[1], [2, 3]], "FP32", name="x")


def test_inputs_are_named_or_the_one() -> None:
    one = info("FP32")
    assert name_inputs(one, [1.0], None) == {"x": [1.0]}
    assert name_inputs(one, {"x": 1}, None) == {"x": 1}
    with pytest.raises(UsageError, match="made from images"):
        name_inputs(one, None, "a.png")
    two = ModelInfo(**{field: getattr(one, field) for field in one.__dataclass_fields__} | {"inputs": one.inputs * 2})
    with pytest.raises(UsageError, match="2 inputs"):
        name_inputs(two, [1.0], None)
    with pytest.raises(UsageError, match="missing x"):
        dump_inputs(one, {})
    with pytest.raises(UsageError, match="card"):
        dump_inputs(one, {"x": "picture.png"})


def response(**changes: Any) -> tuple[bytes, int]:
    entry = {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}} | changes
    head = json.dumps({"model_name": "m", "outputs": [entry]}).encode()
    return head + np.array([1.0, 2.0], dtype="<f4").tobytes(), len(head)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [3]},
        {"shape": [-1]},
        {"shape": [2, 2]},
        {"datatype": "FP64"},
        {"datatype": "FLOAT"},
        {"datatype": "BYTES"},
        {"parameters": {"binary_data_size": 9}},
        {"parameters": {"binary_data_size": 4}},
        {"parameters": {"binary_data_size": "8"}},
        {"name": ""},
    ],
)
def test_answers_that_do_not_fit_themselves_are_malformed(change: dict[str, Any]) -> None:
    data, size = response(**change)
    with pytest.raises(Malformed):
        parse_outputs(data, head_bytes=size)


@pytest.mark.parametrize("datatype", ["FP32", "BF16", "BYTES"])
def test_a_zero_does_not_hide_dimensions_that_no_array_has(datatype: str) -> None:
    shape = [0, *[2**31 - 1] * 4]
    entry = {"name": "y", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": 0}}
    head = json.dumps({"outputs": [entry]}).encode()
    with pytest.raises(Malformed, match="elements"):
        parse_outputs(head, head_bytes=len(head))


def test_answers_in_json_are_read_too() -> None:
    data = json.dumps({"outputs": [{"name": "y", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}]}).encode()
    assert parse_outputs(data, head_bytes=None)["y"].tolist() == [[1, 2]]
    bad = json.dumps({"outputs": [{"name": "y", "datatype": "INT64", "shape": [3], "data": [1, "x"]}]}).encode()
    with pytest.raises(Malformed):
        parse_outputs(bad, head_bytes=None)
    with pytest.raises(Malformed):
        parse_outputs(b"{}", head_bytes=5)


def test_ten_thousand_mutated_answers_raise_malformed_only() -> None:
    data, size = response()
    for bad in mutated(data, count=10_000, seed=5):
        try:
            parse_outputs(bad, head_bytes=min(size, len(bad)))
        except Malformed:
            continue


METADATA = json.dumps(
    {
        "name": "m",
        "versions": ["ab" * 32],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
        "parameters": {"card": {"labels": {"y": ["a", "b"]}, "task": "t"}, "remaining": 4},
    }
).encode()


def test_ten_thousand_mutated_metadata_raise_malformed_only() -> None:
    assert parse_metadata(METADATA).labels == {"y": ("a", "b")}
    for bad in mutated(METADATA, count=10_000, seed=6):
        try:
            parse_metadata(bad)
        except Malformed:
            continue


def test_labels_come_from_numbers_names_and_scores() -> None:
    names = ("cat", "dog")
    assert _label(names, np.array([1, 0])) == ("dog", "cat")
    assert _label(names, np.array([[0.1, 0.9], [0.8, 0.2]], dtype="f4")) == ("dog", "cat")
    assert _label(names, np.array([b"cat"], dtype=object)) == ("cat",)
    assert _label(names, np.array([7])) == ("7",)
