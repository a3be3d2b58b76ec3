"""ONNX: one ``.onnx`` file, with its weights inside or in files beside it.

Format: onnx.proto and "ONNX IR". The file is walked once, front to back; weights are passed over. Proven here is what
an engine would otherwise take on trust: that weights lie where they are said to, with the sizes they are said to
have, that shapes are shapes, and that nesting and functions stay bounded. Not proven: that the operators exist, fit
together, or come to an end with the memory there is; that is the engine's.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.sealed.formats.extents import MAX_RANK
from cloister.sealed.formats.onnx_functions import Calls, Operator, demand_bounded
from cloister.sealed.formats.onnx_tables import ELEMENT_NAMES, TABLE
from cloister.sealed.formats.onnx_weights import Weights
from cloister.sealed.formats.protobuf import Message, ProtoReader, signed
from cloister.sealed.formats.summary import FileSummary, Port, Shape, TensorEntry
from cloister.sealed.formats.window import ModelFile, Window, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = ["MAX_ONNX_BYTES", "parse_onnx"]

MAX_ONNX_BYTES = (1 << 31) - 1  # protobuf reads no more; larger models keep their weights in files beside it
_MAX_SUBGRAPHS = 16  # graphs in one another
_MAX_OPERATORS = 4096  # different ones
_OPEN = -1  # a dimension of an input or output: not ONNX's way to say open, but Paddle's, and ONNX Runtime takes it so
_WHAT = "onnx"


def parse_onnx(file: ModelFile, files: Mapping[str, int]) -> FileSummary:
    """Return what the file holds; ``files`` are all files of the package with their sizes.

    Raises ``Malformed``, or ``Rejected``: what ``Weights.add`` does, ``overlap``, ``duplicate_name``, ``too_deep``,
    ``unsupported_type``, ``unbounded_calls``.
    """
    return _Onnx(file, files).parse()


class _Onnx:
    """One reading of one file."""

    def __init__(self, file: ModelFile, files: Mapping[str, int]) -> None:
        self._file = file
        self._subject = f"{_WHAT} {shown(file.path)}"
        self._weights = Weights(file, files, self._subject)
        self._window = Window(file, what=_WHAT)
        self._reader = ProtoReader(self._window, TABLE, self._done)
        self._tensors: list[TensorEntry] = []
        self._initializers: dict[int, set[str]] = {}
        self._main: Calls = Counter()
        self._inner: Calls = Counter()
        self._functions: dict[Operator, Calls] = {}

    def parse(self) -> FileSummary:
        if self._file.size > MAX_ONNX_BYTES:
            self._window.fail(f"{self._file.size} bytes, want at most {MAX_ONNX_BYTES}, weights in files beside it")
        model = self._reader.read("Model")
        graphs = model.messages.get("graph", [])
        if not graphs or not model.number("ir_version"):
            self._window.fail("no ir_version, or no graph")
        self._weights.demand_apart()
        demand_bounded(self._main, self._functions, subject=self._subject)
        return FileSummary(
            path=self._file.path,
            size=self._file.size,
            format="onnx",
            tensors=tuple(self._tensors),
            inputs=self._ports(graphs[0], "input"),
            outputs=self._ports(graphs[0], "output"),
            facts=self._facts(model),
        )

    def _facts(self, model: Message) -> dict[str, Json]:
        opsets = model.messages.get("opset_import", ())
        return {
            "external_files": sorted(self._weights.extents),
            "functions": len(self._functions),
            "ir_version": model.number("ir_version"),
            "nodes": sum(self._main.values()),
            "operators": sorted({f"{domain or 'ai.onnx'}.{name}" for domain, name in self._main}),
            "opsets": {entry.text("domain") or "ai.onnx": entry.number("version") for entry in opsets},
            "producer": " ".join(filter(None, (model.text("producer_name"), model.text("producer_version")))),
        }

    def _done(self, name: str, message: Message) -> None:
        """Look at one message, all inside it being done."""
        match name:
            case "Tensor":
                self._tensor(message)
            case "SparseTensor":
                raise Rejected.because("unsupported_type", self._subject, got="a sparse tensor", want="dense tensors")
            case "Node":
                self._node(message)
            case "Function":
                self._function(message)
            case "Graph":
                self._initializers.pop(len(self._reader.path), None)
                if self._reader.path.count("Graph") > _MAX_SUBGRAPHS:
                    want = f"at most {_MAX_SUBGRAPHS} graphs in one another"
                    raise Rejected.because("too_deep", self._subject, want=want)
            case "TensorType":
                self._type(message)
            case _:
                pass

    def _tensor(self, tensor: Message) -> None:
        entry = self._weights.add(tensor)
        path = self._reader.path
        if path[-2] != "Graph":
            return
        names = self._initializers.setdefault(len(path) - 1, set())
        if entry.name in names:
            raise Rejected.because("duplicate_name", self._subject, got=shown(entry.name), want="each tensor once")
        names.add(entry.name)
        self._tensors.append(entry)

    def _node(self, node: Message) -> None:
        calls = self._inner if "Function" in self._reader.path else self._main
        calls[(node.text("domain"), node.text("op_type"))] += 1
        if len(calls) > _MAX_OPERATORS:
            self._window.fail(f"more than {_MAX_OPERATORS} different operators")

    def _function(self, function: Message) -> None:
        name = (function.text("domain"), function.text("name"))
        # Overloads of one name are taken together: what they come to is then never less than what one does.
        self._functions[name] = self._functions.get(name, Counter()) + self._inner
        self._inner = Counter()

    def _type(self, message: Message) -> None:
        kind = message.number("elem_type")
        if kind and kind not in ELEMENT_NAMES:
            raise Rejected.because("unknown_type", self._subject, got=str(kind))
        for shape in message.messages.get("shape", ()):
            dims = shape.messages.get("dim", ())
            worst = min((signed(dim.number("dim_value")) for dim in dims), default=0)
            if len(dims) > MAX_RANK or worst < _OPEN:
                got = f"{len(dims)} dimensions" if worst >= _OPEN else f"dimension {worst}"
                raise Rejected.because("bad_shape", self._subject, got=got, want=f"at most {MAX_RANK}, none negative")

    def _ports(self, graph: Message, name: str) -> tuple[Port, ...]:
        """Return inputs or outputs. A default value of an input stands among the initializers of that name."""
        ports = tuple(_port(info) for info in graph.messages.get(name, ()))
        if len({port.name for port in ports}) != len(ports):
            raise Rejected.because("duplicate_name", self._subject, got=f"an {name} twice")
        given = {entry.name for entry in self._tensors} if name == "input" else set()
        return tuple(port for port in ports if port.name not in given)


def _port(info: Message) -> Port:
    for kind in info.messages.get("type", ()):
        for tensor in kind.messages.get("tensor_type", ()):
            shapes = tensor.messages.get("shape")
            dtype = ELEMENT_NAMES.get(tensor.number("elem_type"), "UNDEFINED")
            return Port(name=info.text("name"), dtype=dtype, shape=_shape(shapes[0]) if shapes else None)
    return Port(name=info.text("name"), dtype="no tensor", shape=None)


def _shape(shape: Message) -> Shape:
    return tuple(map(_dimension, shape.messages.get("dim", ())))


def _dimension(dim: Message) -> int | str | None:
    value = signed(dim.number("dim_value"))
    if "dim_value" in dim.numbers and value != _OPEN:
        return value
    return dim.text("dim_param") or None
