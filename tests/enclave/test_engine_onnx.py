"""ONNX Runtime from memory: every tensor type, external data, hostile models."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from enclave_models import FilesInMemory, adder, doubler, dump, external, fragile, identity, value
from onnx import TensorProto, helper, numpy_helper

from cloister.enclave.engines.onnx import OnnxEngine, OnnxModel
from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENGINE = OnnxEngine(threads=1)
OPENED: list[FilesInMemory] = []


def load(files: bytes | dict[str, bytes]) -> OnnxModel:
    memory = FilesInMemory({"model.onnx": files} if isinstance(files, bytes) else files)
    OPENED.append(memory)
    return ENGINE.load(memory)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Give the memory back that models computed with."""
    yield
    while OPENED:
        OPENED.pop().close()


def strings(*items: bytes) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(-1, 1)


@pytest.mark.parametrize(
    ("kind", "datatype", "array"),
    [
        (TensorProto.BOOL, Datatype.BOOL, np.array([[True], [False]])),
        (TensorProto.UINT8, Datatype.UINT8, np.array([[0], [255]], dtype="u1")),
        (TensorProto.UINT16, Datatype.UINT16, np.array([[0], [65535]], dtype="<u2")),
        (TensorProto.UINT32, Datatype.UINT32, np.array([[0], [2**32 - 1]], dtype="<u4")),
        (TensorProto.UINT64, Datatype.UINT64, np.array([[0], [2**64 - 1]], dtype="<u8")),
        (TensorProto.INT8, Datatype.INT8, np.array([[-128], [127]], dtype="i1")),
        (TensorProto.INT16, Datatype.INT16, np.array([[-(2**15)], [2**15 - 1]], dtype="<i2")),
        (TensorProto.INT32, Datatype.INT32, np.array([[-(2**31)], [2**31 - 1]], dtype="<i4")),
        (TensorProto.INT64, Datatype.INT64, np.array([[-(2**63)], [2**63 - 1]], dtype="<i8")),
        (TensorProto.FLOAT16, Datatype.FP16, np.array([[0.5], [65504]], dtype="<f2")),
        (TensorProto.FLOAT, Datatype.FP32, np.array([[0.1], [3e38]], dtype="<f4")),
        (TensorProto.DOUBLE, Datatype.FP64, np.array([[0.1], [1e308]], dtype="<f8")),
        (TensorProto.BFLOAT16, Datatype.BF16, np.array([[0x3F80], [0x7F7F]], dtype="<u2")),
        (TensorProto.FLOAT8E4M3FN, Datatype.FP8_E4M3FN, np.array([[0x01], [0x7E]], dtype="u1")),
        (TensorProto.FLOAT8E4M3FNUZ, Datatype.FP8_E4M3FNUZ, np.array([[0x01], [0x7F]], dtype="u1")),
        (TensorProto.FLOAT8E5M2, Datatype.FP8_E5M2, np.array([[0x01], [0x7B]], dtype="u1")),
        (TensorProto.FLOAT8E5M2FNUZ, Datatype.FP8_E5M2FNUZ, np.array([[0x01], [0x7F]], dtype="u1")),
        (TensorProto.STRING, Datatype.BYTES, strings(b"", "prüfung\x00".encode())),
    ],
    ids=lambda item: item.value if isinstance(item, Datatype) else "",
)
def test_every_tensor_type_goes_through_unchanged(kind: int, datatype: Datatype, array: np.ndarray) -> None:
    model = load(identity(kind, ["batch", 1]))
    assert [(spec.name, spec.datatype, spec.shape) for spec in model.signature.inputs] == [
        ("x", datatype, ("batch", 1))
    ]
    (output,) = model.run([Tensor(name="x", datatype=datatype, array=array)], ["y"])
    assert (output.datatype, output.shape) == (datatype, (2, 1))
    assert np.array_equal(output.array, array)
    model.close()


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.STRING])
def test_an_empty_batch_goes_through(kind: int) -> None:
    model = load(identity(kind, ["batch", 1]))
    spec = model.signature.inputs[0]
    empty = Tensor(name="x", datatype=spec.datatype, array=np.empty((0, 1), dtype=spec.datatype.dtype))
    (output,) = model.run([empty], ["y"])
    assert output.shape == (0, 1)


def test_a_scalar_stays_a_scalar() -> None:
    model = load(identity(TensorProto.FLOAT, []))
    (output,) = model.run([Tensor(name="x", datatype=Datatype.FP32, array=np.array(3, dtype="<f4"))], ["y"])
    assert output.shape == ()


def test_several_inputs_and_chosen_outputs_in_the_order_asked_for() -> None:
    model = load(adder())
    a = Tensor(name="a", datatype=Datatype.INT64, array=np.array([[1, 2]], dtype="<i8"))
    b = Tensor(name="b", datatype=Datatype.INT64, array=np.array([[3, 4]], dtype="<i8"))
    product, total = model.run([b, a], ["product", "sum"])
    assert (product.name, product.array.tolist()) == ("product", [[3, 8]])
    assert (total.name, total.array.tolist()) == ("sum", [[4, 6]])


def test_external_data_is_handed_over_from_memory(tmp_path: Path) -> None:
    external(tmp_path)
    files = {
        "m/model.onnx": (tmp_path / "model.onnx").read_bytes(),
        "m/weights/w.bin": (tmp_path / "weights" / "w.bin").read_bytes(),
    }
    model = load(files)
    (output,) = model.run([Tensor(name="x", datatype=Datatype.FP32, array=np.ones((1, 3), dtype="<f4"))], ["y"])
    assert output.array.tolist() == [[6.0, 9.0]]


@pytest.mark.parametrize("location", ["weights/w.bin", "../w.bin", "/etc/passwd", "w.bin"])
def test_a_hostile_model_reads_no_file_of_the_host(tmp_path: Path, location: str) -> None:
    """T25: by itself ONNX Runtime reads external data from the working folder."""
    external(tmp_path, location=location)
    (tmp_path / "w.bin").write_bytes((tmp_path / "weights" / "w.bin").read_bytes())
    model = (tmp_path / "model.onnx").read_bytes()
    before = os.getcwd()  # noqa: PTH109 - the working folder is the point
    os.chdir(tmp_path)
    try:
        for files in ({"model.onnx": model}, {"model.onnx": model, "readme.txt": b"beside"}):
            with pytest.raises(Rejected) as refused:
                load(files)
            assert refused.value.code == "model_refused"
            assert "w.bin" not in str(refused.value)
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    "files",
    [
        {"readme.txt": b"no model"},
        {"a.onnx": doubler(), "b.onnx": doubler()},
    ],
)
def test_there_is_exactly_one_onnx_file(files: dict[str, bytes]) -> None:
    with pytest.raises(Rejected) as refused:
        load(files)
    assert refused.value.code == "no_onnx_file"


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, doubler()[:-10], b"\x08\x0a" + os.urandom(256)])
def test_what_is_no_model_is_refused_without_the_librarys_text(data: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        load(data)
    assert refused.value.code in {"model_refused", "unsupported_type"}
    assert refused.value.__cause__ is None


def test_every_type_that_cannot_be_carried_is_named() -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x"], ["s"]),
        helper.make_node("Cast", ["q"], ["c"], to=TensorProto.FLOAT),
    ]
    model = dump(
        nodes,
        [value("x", TensorProto.FLOAT, ["n"]), value("q", TensorProto.INT4, ["n"])],
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None), value("c", TensorProto.FLOAT, ["n"])],
    )
    with pytest.raises(Rejected) as refused:
        load(model)
    assert [(reason.subject, reason.got) for reason in refused.value.reasons] == [
        ("input q", "tensor(int4)"),
        ("output s", "seq(tensor(float))"),
    ]


def test_strings_in_and_raw_floats_out_do_not_go_together() -> None:
    nodes = [
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("Identity", ["h"], ["k"]),
    ]
    shape: list[int | str | None] = ["n"]
    model = dump(
        nodes,
        [value("s", TensorProto.STRING, shape), value("h", TensorProto.BFLOAT16, shape)],
        [value("t", TensorProto.STRING, shape), value("k", TensorProto.BFLOAT16, shape)],
    )
    with pytest.raises(Rejected) as refused:
        load(model)
    assert refused.value.code == "unsupported_type"


def test_raw_inputs_mix_with_others() -> None:
    shape: list[int | str | None] = ["n"]
    nodes = [
        helper.make_node("Cast", ["h"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["f", "g"], ["y"]),
        helper.make_node("Identity", ["s"], ["t"]),
    ]
    model = load(
        dump(
            nodes,
            [
                value("h", TensorProto.BFLOAT16, shape),
                value("g", TensorProto.FLOAT, shape),
                value("s", TensorProto.STRING, shape),
            ],
            [value("y", TensorProto.FLOAT, shape), value("t", TensorProto.STRING, shape)],
        )
    )
    texts = np.empty(1, dtype=object)
    texts[0] = b"text"
    y, t = model.run(
        [
            Tensor(name="h", datatype=Datatype.BF16, array=np.array([0x3F80], dtype="<u2")),
            Tensor(name="g", datatype=Datatype.FP32, array=np.array([1], dtype="<f4")),
            Tensor(name="s", datatype=Datatype.BYTES, array=texts),
        ],
        ["y", "t"],
    )
    assert (y.array.tolist(), t.array.tolist()) == ([2.0], [b"text"])


def test_a_failing_run_says_nothing_of_the_data() -> None:
    model = load(fragile())
    with pytest.raises(Unavailable) as failed:
        model.run([Tensor(name="i", datatype=Datatype.INT64, array=np.array([424242], dtype="<i8"))], ["y"])
    assert "424242" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_tensors_never_print_their_values() -> None:
    tensor = Tensor(name="x", datatype=Datatype.INT64, array=np.array([424242], dtype="<i8"))
    assert repr(tensor) == "Tensor(INT64[1])"


def test_a_large_initializer_loads_from_memory() -> None:
    weights = numpy_helper.from_array(np.ones((1024, 1024), dtype=np.float32), "w")
    shape: list[int | str | None] = ["n", 1024]
    model = load(
        dump(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            [value("x", TensorProto.FLOAT, shape)],
            [value("y", TensorProto.FLOAT, shape)],
            (weights,),
        )
    )
    (output,) = model.run([Tensor(name="x", datatype=Datatype.FP32, array=np.ones((1, 1024), dtype="<f4"))], ["y"])
    assert output.array.max() == 1024


def test_onnx_runtime_reports_nothing_to_its_maker(tmp_path: Path) -> None:
    """It would leave a device id, a queue of reports and a session file, also where the operator wants it to."""
    program = (
        "import time\n"
        "from enclave_models import FilesInMemory, doubler\n"
        "from cloister.enclave.engines.onnx import OnnxEngine\n"
        "OnnxEngine().load(FilesInMemory({'model.onnx': doubler()}))\n"
        "time.sleep(0.5)\n"
    )
    environment = {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "ORT_DISABLE_TELEMETRY": "0",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # no CI=...: that silences ONNX Runtime by itself
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*")) == []
