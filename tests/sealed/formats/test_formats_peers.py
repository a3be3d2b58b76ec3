"""Files that the formats' own libraries write are taken, and our tables say what theirs say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np
import onnx
import pytest
import safetensors.numpy
from enclave_models import external, identity
from formats_kit import model_files
from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto, helper, numpy_helper

from cloister.errors import Rejected
from cloister.sealed.directory import PlainTree
from cloister.sealed.formats import parse_model
from cloister.sealed.formats.gguf_types import BLOCKS
from cloister.sealed.formats.onnx_tables import ELEMENT_NAMES, TABLE
from cloister.sealed.formats.places import plain_files
from cloister.sealed.formats.protobuf import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.descriptor import Descriptor

    from cloister.sealed.formats import FileSummary

_PACKED = {"float_data", "int32_data", "int64_data", "double_data", "uint64_data"}
_TYPES = {
    FieldDescriptor.TYPE_STRING: {Kind.TEXT},
    FieldDescriptor.TYPE_BYTES: {Kind.BYTES},
    FieldDescriptor.TYPE_MESSAGE: {Kind.MESSAGE},
    FieldDescriptor.TYPE_FLOAT: {Kind.FIXED32},
    FieldDescriptor.TYPE_DOUBLE: {Kind.FIXED64},
}
_VARINTS = {Kind.VARINT}


def summary(data: bytes) -> FileSummary:
    return parse_model(model_files({"model.onnx": data})).files[0]


def tables_of(message: Descriptor, name: str, seen: set[str]) -> None:
    """Hold one message's table, and those of the messages in it, to onnx.proto."""
    if name in seen:
        return
    seen.add(name)
    table = TABLE[name]
    assert {number: entry.name for number, entry in table.items()} == {
        number: found.name for number, found in message.fields_by_number.items()
    }, message.full_name
    for number, entry in table.items():
        found = message.fields_by_number[number]
        assert entry.repeated == found.is_repeated, found.full_name
        if entry.name in _PACKED:
            assert entry.kind is Kind.BYTES, "only as it is written: packed"
        else:
            assert entry.kind in _TYPES.get(found.type, _VARINTS), found.full_name
        if found.message_type is not None:
            tables_of(found.message_type, entry.message, seen)


def test_the_tables_have_every_field_of_onnx_and_no_other() -> None:
    seen: set[str] = set()
    tables_of(onnx.ModelProto.DESCRIPTOR, "Model", seen)
    assert seen == set(TABLE)
    left_out = {"UNDEFINED", "FLOAT6E2M3", "FLOAT6E3M2"}
    assert {name: number for number, name in ELEMENT_NAMES.items()} == {
        name: number for name, number in TensorProto.DataType.items() if name not in left_out
    }


@pytest.mark.parametrize("kind", [*ELEMENT_NAMES], ids=[*ELEMENT_NAMES.values()])
@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_tensors_of_every_type_are_taken_as_onnx_writes_them(kind: int, *, raw: bool) -> None:
    if kind == TensorProto.STRING:
        tensor = helper.make_tensor("w", kind, [5], [b"a", b"", b"c", b"d", b"e"])
    else:
        array = np.arange(5).astype(helper.tensor_dtype_to_np_dtype(kind))
        tensor = numpy_helper.from_array(array, "w") if raw else helper.make_tensor("w", kind, [5], array)
    node = helper.make_node("Identity", ["w"], ["y"])
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", kind, [5])], [tensor])
    found = summary(helper.make_model(graph).SerializeToString())
    assert [(entry.name, entry.shape) for entry in found.tensors] == [("w", (5,))]
    assert [(port.name, port.dtype, port.shape) for port in found.outputs] == [("y", ELEMENT_NAMES[kind], (5,))]


def test_what_a_model_takes_and_gives_is_shown() -> None:
    found = summary(identity(TensorProto.INT64, ["batch", 3, None]))
    assert [(port.name, port.dtype, port.shape) for port in found.inputs] == [("x", "INT64", ("batch", 3, None))]
    assert found.facts["operators"] == ["ai.onnx.Identity"]


def test_external_data_on_a_disk_is_followed_within_the_model_only(tmp_path: Path) -> None:
    external(tmp_path / "good")
    (tmp_path / "good" / "README.md").write_text("hello")
    found = parse_model(plain_files(PlainTree(tmp_path / "good")))
    assert found.formats == ("onnx",)
    assert found.files[1].tensors[0].file == "weights/w.bin"
    external(tmp_path / "bad", location="../w.bin")
    with pytest.raises(Rejected) as refused:
        parse_model(plain_files(PlainTree(tmp_path / "bad")))
    assert refused.value.code == "outside_package"


def test_a_forest_of_trees_is_read_in_blocks() -> None:
    """Trees are lists of numbers, one field each: the runs reach over many blocks."""
    numbers = list(range(0, 1 << 40, 1 << 24))
    attributes = {"ints": numbers, "floats": [0.5] * 70000, "strings": [b"BRANCH_LEQ"] * 1000}
    node = helper.make_node("T", ["x"], ["y"], domain="test", **attributes)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([node, helper.make_node("Relu", ["y"], ["z"])], "g", [value], [])
    found = summary(helper.make_model(graph).SerializeToString())
    assert found.facts["operators"] == ["ai.onnx.Relu", "test.T"]


def test_what_safetensors_and_gguf_write_is_taken(tmp_path: Path) -> None:
    arrays = {"a": np.ones((3, 4), dtype="<f4"), "b": np.ones(5, dtype="i1"), "c": np.array(1.0)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "np"})
    writer = gguf.GGUFWriter(str(tmp_path / "model.gguf"), "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5, 2.5])
    writer.add_custom_alignment(64)
    for name, array in arrays.items():
        writer.add_tensor(name, array.reshape(-1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = parse_model(plain_files(PlainTree(tmp_path)))
    assert ours.formats == ("gguf", "safetensors")
    assert {(entry.name, entry.dtype, entry.size) for entry in ours.files[0].tensors} == {
        ("a", "F32", 48), ("b", "I8", 5), ("c", "F64", 8),
    }  # fmt: skip
    assert {(entry.name, entry.dtype, entry.shape) for entry in ours.files[1].tensors} == {
        ("a", "F32", (3, 4)), ("b", "I8", (5,)), ("c", "F64", ()),
    }  # fmt: skip


def test_block_sizes_are_those_of_gguf() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: tuple(block) for number, block in BLOCKS.items()} == {number: theirs[number] for number in BLOCKS}
    assert {theirs[number][0] for number in set(theirs) - set(BLOCKS)} == {"Q8_1", "Q8_K"}
