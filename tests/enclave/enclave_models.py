"""Small real ONNX models for the enclave's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cloister.sealed.memfd import MemoryFile

if TYPE_CHECKING:
    from pathlib import Path

OPSET, IR = 21, 10


def dump(nodes: list[Any], inputs: list[Any], outputs: list[Any], initializers: tuple[Any, ...] = ()) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    return bytes(model.SerializeToString())


def value(name: str, kind: int, shape: list[int | str | None] | None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def identity(kind: int, shape: list[int | str | None] | None) -> bytes:
    """Return a model that gives back what it gets."""
    return dump([helper.make_node("Identity", ["x"], ["y"])], [value("x", kind, shape)], [value("y", kind, shape)])


def doubler() -> bytes:
    """Return ``y = 2 x`` over rows of three numbers, with an open batch dimension."""
    two = numpy_helper.from_array(np.array(2, dtype=np.float32), "two")
    return dump(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        [value("x", TensorProto.FLOAT, ["batch", 3])],
        [value("y", TensorProto.FLOAT, ["batch", 3])],
        (two,),
    )


def adder() -> bytes:
    """Return ``sum = a + b`` and ``product = a * b``: two inputs, two outputs, one symbol for both batches."""
    shape: list[int | str | None] = ["batch", 2]
    return dump(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])],
        [value("a", TensorProto.INT64, shape), value("b", TensorProto.INT64, shape)],
        [value("sum", TensorProto.INT64, shape), value("product", TensorProto.INT64, shape)],
    )


def fragile() -> bytes:
    """Return a model whose run fails for every index but 0 and 1: ``y = table[i]``."""
    table = numpy_helper.from_array(np.array([10.0, 20.0], dtype=np.float32), "table")
    return dump(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        [value("i", TensorProto.INT64, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        (table,),
    )


def spreader(width: int) -> bytes:
    """Return a model whose answer is large: each row of one number becomes ``width`` numbers."""
    ones = numpy_helper.from_array(np.ones((1, width), dtype=np.float32), "ones")
    return dump(
        [helper.make_node("MatMul", ["x", "ones"], ["y"])],
        [value("x", TensorProto.FLOAT, ["batch", 1])],
        [value("y", TensorProto.FLOAT, ["batch", width])],
        (ones,),
    )


def external(folder: Path, *, location: str = "weights/w.bin") -> None:
    """Write ``y = x W`` with its weights beside it, as large models are."""
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    tensor = numpy_helper.from_array(weights, "w")
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    model = dump(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", TensorProto.FLOAT, ["batch", 3])],
        [value("y", TensorProto.FLOAT, ["batch", 2])],
        (tensor,),
    )
    (folder / "weights").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model)
    (folder / "weights" / "w.bin").write_bytes(data)


class FilesInMemory:
    """Plain files as an engine gets them, in memory files of their own."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._memories = {}
        for path, data in files.items():
            memory = self._memories[path] = MemoryFile(len(data))
            memory.write(0, memoryview(data))
            memory.seal()
        self.files = tuple(files)

    def view(self, path: str) -> memoryview:
        """Return the file's memory."""
        return self._memories[path].view()

    def move(self, path: str, to: int, start: int, size: int) -> None:
        """Move bytes within one file."""
        self._memories[path].move(to, start, size)

    def fd_path(self, path: str) -> str:
        """Return a path into memory."""
        return f"/proc/self/fd/{self._memories[path].fd}"

    def close(self) -> None:
        """Give it back."""
        for memory in self._memories.values():
            memory.close()
