"""The mark as its specification says, and what it may never touch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from tracing_kit import memory_file, safetensors, weights

from cloister.errors import Malformed, UsageError
from cloister.sealed.directory import PlainTree
from cloister.sealed.formats.places import plain_files
from cloister.sealed.tracing.floats import float_tensors
from cloister.sealed.tracing.mark import FloatKind, Keystream, Mark, convert, values
from cloister.sealed.tracing.marked import MarkedSource, parameter_drift
from cloister.sealed.tracing.record import Variant
from mutations import mutated

VECTORS = Path(__file__).parents[2] / "vectors" / "trace"
MARKS = json.loads((VECTORS / "mark.json").read_text(encoding="utf-8"))
RECORDS = json.loads((VECTORS / "records.json").read_text(encoding="utf-8"))
KEY = bytes(range(32))


@pytest.mark.parametrize("case", MARKS, ids=lambda case: f"{case['kind']}-{case['bits']}")
def test_another_reading_of_the_specification_makes_the_same_mark(case: dict[str, Any]) -> None:
    kind = FloatKind[case["kind"]]
    words = np.frombuffer(bytes.fromhex(case["words"]), kind.words)
    stream = Keystream(bytes.fromhex(case["key"]), case["path"], case["name"]).read(0, len(words))
    assert stream.tobytes().hex() == case["stream"]
    assert Mark(kind, case["bits"]).apply(words, stream).tobytes().hex() == case["marked"]


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: case["name"])
def test_a_record_is_read_or_refused_as_its_vector_says(case: dict[str, Any]) -> None:
    data = case["record"].encode()
    if case["expect"] == "ok":
        assert Variant.parse(data).dump() == data
    else:
        with pytest.raises(Malformed):
            Variant.parse(data)


@pytest.mark.parametrize("kind", [FloatKind.F16, FloatKind.BF16])
@pytest.mark.parametrize("bits", [7, 10, 14])
def test_of_all_halves_only_normal_numbers_move_within_the_bound(kind: FloatKind, bits: int) -> None:
    words = np.arange(1 << 16, dtype="<u2")
    marked = Mark(kind, bits).apply(words, Keystream(KEY, "p", "n").read(0, len(words)))
    before, after = values(words, kind), values(marked, kind)
    moved = words != marked
    bound = max(2.0**-bits, 2.0**-kind.mantissa)
    assert moved.any()
    assert np.isfinite(before[moved]).all()
    assert (np.abs(before[moved]) > 0).all()
    assert (kind.magnitudes(words)[moved] >> kind.mantissa >= 2).all()
    assert np.isfinite(after[moved]).all()
    assert (np.sign(before[moved]) == np.sign(after[moved])).all()
    assert (np.abs(after[moved] / before[moved] - 1) <= bound).all()


def test_the_keystream_is_the_same_from_any_place() -> None:
    stream = Keystream(KEY, "p", "n")
    whole = stream.read(0, 1000)
    assert all((stream.read(at, 37) == whole[at : at + 37]).all() for at in range(0, 900, 7))
    assert (Keystream(KEY, "p", "m").read(0, 1000) != whole).any()
    assert repr(stream) == "Keystream()"
    with pytest.raises(UsageError):
        Keystream(KEY[:31], "p", "n")


def test_rounding_is_that_of_numpy_and_of_halves_of_brain_floats() -> None:
    numbers = np.random.default_rng(3).standard_normal(4096).astype("<f4")
    assert (convert(numbers.view("<u4"), FloatKind.F32, FloatKind.F16) == numbers.astype("<f2").view("<u2")).all()
    brain = values(convert(numbers.view("<u4"), FloatKind.F32, FloatKind.BF16), FloatKind.BF16)
    assert (np.abs(brain - numbers) <= np.abs(numbers) * 2.0**-8).all()


def test_a_marked_source_is_the_same_by_pieces_of_any_size_and_nothing_but_floats_moves(tmp_path: Path) -> None:
    words = weights(5)
    numbers = np.arange(500, dtype="<u4")  # integers, which carry no mark
    data = safetensors(words, FloatKind.F32)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    end = len(data) - 8 - size
    header["steps"] = {"data_offsets": [end, end + numbers.nbytes], "dtype": "U32", "shape": [500]}
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + data[8 + size :] + numbers.tobytes()
    (tmp_path / "model.safetensors").write_bytes(whole)
    tree = PlainTree(tmp_path)
    tensors = float_tensors(plain_files(tree))
    source, entry = MarkedSource(tree, tensors, KEY, 10), tree.files[0]

    def read(piece: int) -> bytes:
        out = bytearray(entry.size)
        for at in range(0, entry.size, piece):
            source.read_into(entry, at, memoryview(out)[at : at + piece])
        return bytes(out)

    marked = read(entry.size)
    assert marked == read(1021) == read(4096 - 32)
    assert marked != whole
    assert marked[: 8 + len(text)] == whole[: 8 + len(text)]
    assert marked.endswith(numbers.tobytes())
    drift = parameter_drift(tensors, KEY, 10)
    assert (drift.tensors, drift.elements) == (3, sum(item.size for item in words.values()))
    assert 2.0**-13 < drift.rms < drift.largest <= 2.0**-10


def test_small_tensors_and_names_used_twice_are_left_alone() -> None:
    small = {"a": np.ones(63, "<u4"), "b": np.arange(64, dtype="<u4")}
    assert [item.name for item in float_tensors([memory_file(safetensors(small, FloatKind.F32))])] == ["b"]


def test_ten_thousand_damaged_records_are_malformed_or_read() -> None:
    honest = next(case["record"] for case in RECORDS if case["expect"] == "ok").encode()
    for data in mutated(honest):
        try:
            Variant.parse(data).dump()
        except Malformed:
            continue


def test_weights_of_onnx_are_found_wherever_they_lie_and_the_marked_model_loads(tmp_path: Path) -> None:
    """Raw, as a list of floats, and in a file beside it; a weight that is tied is marked once."""
    array = weights(4)["hidden.weight"].view("<f4")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["raw"], ["out"])],
        "g",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [64, 64])],
        [
            numpy_helper.from_array(array, "raw"),
            numpy_helper.from_array(array * 2, "beside"),
            helper.make_tensor("listed", TensorProto.FLOAT, (64, 64), array.reshape(-1) * 3),
            numpy_helper.from_array(np.arange(64), "integers"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    external_data_helper.set_external_data(model.graph.initializer[1], "weights.bin")
    onnx.save_model(model, tmp_path / "model.onnx")
    stored = onnx.load_model(tmp_path / "model.onnx", load_external_data=False)
    assert stored.graph.initializer[1].data_location == TensorProto.EXTERNAL
    stored.graph.initializer.add().CopyFrom(stored.graph.initializer[1])
    stored.graph.initializer[-1].name = "tied"
    (tmp_path / "model.onnx").write_bytes(stored.SerializeToString())
    tree = PlainTree(tmp_path)
    tensors = float_tensors(plain_files(tree))
    assert sorted(item.name for item in tensors) == ["beside", "listed", "raw"]
    source, out = MarkedSource(tree, tensors, KEY, 10), tmp_path / "marked"
    out.mkdir()
    for entry in tree.files:
        data = bytearray(entry.size)
        source.read_into(entry, 0, memoryview(data))
        (out / entry.path).write_bytes(data)
    marked = {item.name: numpy_helper.to_array(item) for item in onnx.load_model(out / "model.onnx").graph.initializer}
    for name, plain in (("raw", array), ("beside", array * 2), ("listed", array * 3)):
        assert (marked[name] != plain).mean() > 0.9
        assert (np.abs(marked[name] - plain) <= np.abs(plain) * 2.0**-10).all()
    assert (marked["tied"] == marked["beside"]).all()
    assert (marked["integers"] == np.arange(64)).all()
