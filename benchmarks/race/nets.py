"""The models that are served: small to large, built by code with random weights, the same bytes every time.

An MLP over 8x8 digits is almost no work, so that what surrounds an inference is what is measured. A light and a
heavy convolutional net over photos are what people serve. ``echo`` gives a photo's tensor back and computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from onnx import NodeProto

    Floats = npt.NDArray[np.float32]

PHOTO = (3, 224, 224)
DIGIT = (64,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """One model: its name, the shape of one input, what it weighs, its ONNX bytes."""

    name: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    @property
    def is_small(self) -> bool:
        """Whether an inference takes less time than the request around it."""
        return self.shape == DIGIT

    def inputs(self, rows: int) -> Floats:
        """Return the inputs of one request."""
        return np.random.default_rng(3).random((rows, *self.shape), dtype=np.float32)


class _Graph:
    """Writes one graph, node after node; every method returns the name of what it computes."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, Floats] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def weight(self, shape: tuple[int, ...], fan_in: int) -> str:
        name = f"w{len(self._weights)}"
        self._weights[name] = self._rng.standard_normal(shape, dtype=np.float32) * np.float32((2 / fan_in) ** 0.5)
        return name

    def dense(self, last: str, into: int, out: int) -> str:
        return self.node("Gemm", last, self.weight((into, out), into), self.weight((out,), out * 100))

    def conv(self, last: str, into: int, out: int, *, side: int = 3, stride: int = 1, groups: int = 1) -> str:
        """Return a convolution with the bias that a folded normalisation leaves."""
        fan_in = into // groups * side * side
        names = (self.weight((out, into // groups, side, side), fan_in), self.weight((out,), out * 100))
        return self.node("Conv", last, *names, strides=[stride] * 2, pads=[side // 2] * 4, group=groups)

    def scores(self, last: str, into: int, out: int) -> str:
        pooled = self.node("Flatten", self.node("GlobalAveragePool", last))
        return self.node("Softmax", self.dense(pooled, into, out))

    def model(self, last: str, shape: tuple[int, ...], out: tuple[int, ...]) -> bytes:
        self._nodes.append(helper.make_node("Identity", [last], ["y"]))
        graph = helper.make_graph(
            self._nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *out])],
            [numpy_helper.from_array(item, name) for name, item in self._weights.items()],
        )
        built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return bytes(built.SerializeToString())


def mlp() -> Net:
    """Return a perceptron of one hidden layer over 64 pixels."""
    graph = _Graph(1)
    hidden = graph.node("Relu", graph.dense("x", 64, 64))
    last = graph.node("Softmax", graph.dense(hidden, 64, 10))
    return Net(name="mlp", shape=DIGIT, data=graph.model(last, DIGIT, (10,)))


def light() -> Net:
    """Return a net of depthwise separable convolutions, as for telephones: half a million weights."""
    graph = _Graph(2)
    last, into = graph.node("Relu", graph.conv("x", 3, 8, stride=2)), 8
    for out, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)):
        deep = graph.node("Relu", graph.conv(last, into, into, stride=stride, groups=into))
        last, into = graph.node("Relu", graph.conv(deep, into, out, side=1)), out
    return Net(name="light", shape=PHOTO, data=graph.model(graph.scores(last, into, 1000), PHOTO, (1000,)))


def heavy() -> Net:
    """Return a residual net of about 6.5 million weights, 25 MB."""
    graph = _Graph(3)
    last, into = graph.node("Relu", graph.conv("x", 3, 32, side=7, stride=4)), 32
    for out, stride in ((64, 2), (128, 2), (256, 2), (256, 1), (512, 2)):
        inner = graph.node("Relu", graph.conv(last, into, out, stride=stride))
        inner = graph.conv(inner, out, out)
        around = last if (into, stride) == (out, 1) else graph.conv(last, into, out, side=1, stride=stride)
        last, into = graph.node("Relu", graph.node("Add", inner, around)), out
    return Net(name="heavy", shape=PHOTO, data=graph.model(graph.scores(last, into, 1000), PHOTO, (1000,)))


def echo() -> Net:
    """Return a model that gives back what it got: 600 KB in and out, nothing computed."""
    return Net(name="echo", shape=PHOTO, data=_Graph(4).model("x", PHOTO, PHOTO))


NETS: dict[str, Callable[[], Net]] = {"mlp": mlp, "light": light, "heavy": heavy}
