"""Weights are used where they lie: moved to where they are aligned, never copied, and gone with their memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from enclave_models import FilesInMemory, doubler, dump, value
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cloister.enclave.engines.onnx import OnnxEngine, OnnxModel
from cloister.enclave.engines.onnx_weights import ALIGNMENT, Weight, lift_weights, settle
from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.errors import Malformed, Rejected, UsageError
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE = OnnxEngine(threads=1)
WIDTH = 64
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "loading.py"


def weight(index: int, dtype: str = "<f4") -> np.ndarray:
    return np.random.default_rng(index).integers(-3, 4, (WIDTH, WIDTH)).astype(dtype)


def chain(*names: str) -> bytes:
    """Return ``y = x w1 w2 ...`` in one file; the length of a name shifts what comes behind it."""
    nodes = [helper.make_node("MatMul", [f"h{at}", name], [f"h{at + 1}"]) for at, name in enumerate(names)]
    return dump(
        nodes,
        [value("h0", TensorProto.FLOAT, ["n", WIDTH])],
        [value(f"h{len(names)}", TensorProto.FLOAT, ["n", WIDTH])],
        tuple(numpy_helper.from_array(weight(at), name) for at, name in enumerate(names)),
    )


def beside() -> dict[str, bytes]:
    model = ModelProto.FromString(chain("w"))
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "w.bin"), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=text)
    return {"model.onnx": model.SerializeToString(), "w.bin": data}


def run(model: OnnxModel) -> np.ndarray:
    rows = np.eye(2, WIDTH, dtype="<f4")
    (output,) = model.run([Tensor(name="h0", datatype=Datatype.FP32, array=rows)], [model.signature.outputs[0].name])
    return output.array


@pytest.mark.parametrize("length", range(1, 17))
def test_weights_at_every_offset_give_what_numpy_gives(length: int) -> None:
    memory = FilesInMemory({"model.onnx": chain("a" * length, "b" * 3, "c" * (17 - length))})
    model = ENGINE.load(memory)
    want = weight(0)[:2].astype("f8") @ weight(1) @ weight(2)
    assert np.array_equal(run(model), want)
    model.close()
    memory.close()


@pytest.mark.parametrize("files", [{"m/model.onnx": chain("w")}, beside()], ids=["one file", "external data"])
def test_a_session_computes_with_the_memory_file_itself(files: dict[str, bytes]) -> None:
    """Zeroed weights give zeros: there is no second copy anywhere."""
    memory = FilesInMemory(files)
    model = ENGINE.load(memory)
    assert np.array_equal(run(model), weight(0)[:2])
    memory.close()
    assert not run(model).any()
    model.close()


def test_a_prepacked_session_has_a_copy_of_its_own() -> None:
    memory = FilesInMemory({"model.onnx": chain("w")})
    model = ENGINE.load(memory, prepack=True)
    memory.close()
    assert np.array_equal(run(model), weight(0)[:2])
    model.close()


def test_weights_that_are_folded_into_others_are_right() -> None:
    """Constant folding reads weights while the session is made."""
    model = dump(
        [helper.make_node("Transpose", ["w"], ["t"]), helper.make_node("MatMul", ["h0", "t"], ["y"])],
        [value("h0", TensorProto.FLOAT, ["n", WIDTH])],
        [value("y", TensorProto.FLOAT, ["n", WIDTH])],
        (numpy_helper.from_array(weight(0), "w"),),
    )
    memory = FilesInMemory({"model.onnx": model})
    assert np.array_equal(run(ENGINE.load(memory)), weight(0).T[:2])
    memory.close()


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"])
def test_weights_of_every_element_type_are_lifted_and_right(dtype: str) -> None:
    array = weight(5, dtype)
    tensor = numpy_helper.from_array(array, "w")
    model = dump(
        [helper.make_node("Identity", ["w"], ["y"])], [], [value("y", tensor.data_type, [WIDTH, WIDTH])], (tensor,)
    )
    bare, (found,) = lift_weights(memoryview(model), location="m")
    assert (found.size, found.element) == (array.nbytes, array.itemsize)
    assert len(bare) < 500
    memory = FilesInMemory({"model.onnx": model})
    (output,) = ENGINE.load(memory).run([], ["y"])
    assert np.array_equal(output.array, array)
    memory.close()


def test_the_bare_graph_is_the_model_but_for_where_its_weights_lie() -> None:
    data = chain("first", "second")
    bare, weights = lift_weights(memoryview(data), location="model.onnx")
    model, was = ModelProto.FromString(bare), ModelProto.FromString(data)
    for tensor, before, item, place in zip(
        model.graph.initializer, was.graph.initializer, weights, settle(weights), strict=True
    ):
        assert data[item.start : item.start + item.size] == before.raw_data
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert entries == {"location": "model.onnx", "offset": str(place), "length": str(item.size)}
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = before.raw_data
    assert model == was


def test_small_weights_and_those_outside_stay_as_they_are() -> None:
    for data in (doubler(), beside()["model.onnx"]):
        assert lift_weights(memoryview(data), location="m") == (data, ())


def test_weights_settle_below_where_they_were_and_never_on_one_another() -> None:
    weights = (
        Weight(start=131, size=100, element=4),
        Weight(start=240, size=64, element=4),
        Weight(start=305, size=8, element=8),  # only one byte between them: no room for an aligned place
        Weight(start=400, size=8, element=2),
    )
    places = settle(weights)
    assert places[0] == 128
    assert places[0] % ALIGNMENT == 0
    free = 0
    for item, place in zip(weights, places, strict=True):
        assert free <= place <= item.start
        free = place + item.size
    assert settle((Weight(start=3, size=8, element=4), Weight(start=11, size=8, element=8))) == (0, 8)
    assert settle((Weight(start=0, size=9, element=1), Weight(start=10, size=8, element=4))) == (0, 10)  # no room


def test_hostile_files_are_malformed_or_leave_no_weight_outside_the_file() -> None:
    data = chain("w")
    short = data[:200] + data[-80:]
    for damaged in (*mutated(short), *mutated(data, count=500)):
        try:
            _, weights = lift_weights(memoryview(damaged), location="m")
        except Malformed:
            continue
        for item, place in zip(weights, settle(weights), strict=True):
            assert 0 <= place <= item.start <= item.start + item.size <= len(damaged)


def _two_graphs(data: bytes) -> bytes:
    return data + data


@pytest.mark.parametrize(
    "damage",
    [
        _two_graphs,
        lambda data: data[:-1],
        lambda data: data + b"\x80" * 11,  # a number without an end
        lambda data: data + b"\x3b",  # a group, older than ONNX
        lambda data: data + b"\x02\x00",  # field number zero
        lambda data: data + b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 2**64 - 1 bytes follow
    ],
)
def test_a_hostile_message_is_refused(damage: Callable[[bytes], bytes]) -> None:
    memory = FilesInMemory({"model.onnx": damage(chain("w"))})
    with pytest.raises(Rejected) as refused:
        ENGINE.load(memory)
    assert refused.value.code == "model_refused"
    memory.close()


def test_a_weight_that_claims_another_shape_than_its_bytes_is_refused() -> None:
    model = ModelProto.FromString(chain("w"))
    model.graph.initializer[0].dims[0] = 1 << 40
    memory = FilesInMemory({"model.onnx": model.SerializeToString()})
    with pytest.raises(Rejected) as refused:
        ENGINE.load(memory)
    assert refused.value.code == "model_refused"
    memory.close()


def test_nothing_is_moved_outside_a_memory_file() -> None:
    memory = FilesInMemory({"a": b"0123456789"})
    memory.move("a", 0, 4, 6)
    assert bytes(memory.view("a")) == b"4567896789"
    for to, start, size in ((0, 5, 6), (5, 0, 6), (-1, 0, 1), (0, -1, 1), (0, 0, -1)):
        with pytest.raises(UsageError):
            memory.move("a", to, start, size)
    memory.close()
    with pytest.raises(UsageError):
        memory.move("a", 0, 0, 1)


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_opening_and_loading_takes_one_times_the_model(tmp_path: Path) -> None:
    """Of each format, as the benchmark measures it; with prepacking, twice."""
    words = [sys.executable, str(BENCHMARK), "--mib", "128", "--folder", str(tmp_path), "--json"]
    rows = {row["row"]: row for row in json.loads(subprocess.check_output(words))}  # noqa: S603 - our own program
    assert len(rows) >= 8
    for name, row in rows.items():
        if row.get("skipped") or ("by its path" in name and "ONNX" in name):
            continue
        most = 2.2 if "prepacked" in name else 1.15
        assert row["peak"] <= most, (name, row)
