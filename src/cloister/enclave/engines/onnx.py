"""ONNX models in ONNX Runtime, from memory only.

A model is one ``.onnx`` file, or one ``.onnx`` file with external data beside it (ONNX IR, section
"External Tensor Data"). Weights are used where they lie: what stands beside the graph is handed over as memory, and
so are the weights inside it, once ``onnx_weights`` has named them as external data too (ADR 0025).

What ONNX Runtime's Python interface cannot carry is refused when the model is loaded: 4-bit integers and
floats, complex numbers, sequences, maps, optionals, sparse tensors; and a model that takes strings and
gives BF16 or 8-bit floats. Strings must be UTF-8.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING, Any

import numpy as np

# From the moment it is imported ONNX Runtime (1.29 and later) reports to its maker over the network: names and
# hashes of graphs and weights, under a device id and from a queue that it keeps in the home folder. Its
# ``disable_telemetry_events`` comes too late for the first report; only this variable, set before, stops it all.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from cloister.enclave.engines.onnx_weights import lift_weights, settle
from cloister.enclave.engines.tensor import Datatype, Signature, Tensor, TensorSpec
from cloister.errors import Malformed, Reason, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.enclave.engines import ModelFiles
    from cloister.enclave.engines.tensor import Array

__all__ = ["OnnxEngine", "OnnxModel"]

_NOWHERE = "/proc/self/cloister-no-such-folder"
"""Where ONNX Runtime is told to look for external data that was not handed over: nowhere. By default it
would read files of the host's working folder at a model's wish (T25)."""

_ERRORS = (
    ort_state.EPFail,
    ort_state.EngineError,
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.ModelLoaded,
    ort_state.NoModel,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
)

_SILENT = 4  # ONNX Runtime's log level "fatal": its messages quote node names and values

# Name in ONNX Runtime, our datatype, number in TensorProto.DataType (onnx.proto3).
_TYPES = (
    ("tensor(bool)", Datatype.BOOL, 9),
    ("tensor(uint8)", Datatype.UINT8, 2),
    ("tensor(uint16)", Datatype.UINT16, 4),
    ("tensor(uint32)", Datatype.UINT32, 12),
    ("tensor(uint64)", Datatype.UINT64, 13),
    ("tensor(int8)", Datatype.INT8, 3),
    ("tensor(int16)", Datatype.INT16, 5),
    ("tensor(int32)", Datatype.INT32, 6),
    ("tensor(int64)", Datatype.INT64, 7),
    ("tensor(float16)", Datatype.FP16, 10),
    ("tensor(float)", Datatype.FP32, 1),
    ("tensor(double)", Datatype.FP64, 11),
    ("tensor(bfloat16)", Datatype.BF16, 16),
    ("tensor(float8e4m3fn)", Datatype.FP8_E4M3FN, 17),
    ("tensor(float8e4m3fnuz)", Datatype.FP8_E4M3FNUZ, 18),
    ("tensor(float8e5m2)", Datatype.FP8_E5M2, 19),
    ("tensor(float8e5m2fnuz)", Datatype.FP8_E5M2FNUZ, 20),
    ("tensor(string)", Datatype.BYTES, 8),
)
# Operators whose work a value decides, as NodeProto.op_type (field 4) of onnx.proto3. Looked for in the bytes of the
# whole graph: what else reads so makes a model seem slower than it is, and nothing worse.
_WILFUL = tuple(
    bytes([4 << 3 | 2, len(name)]) + name
    for name in (
        b"ConstantOfShape",
        b"Expand",
        b"Loop",
        b"OneHot",
        b"Pad",
        b"Range",
        b"Resize",
        b"Scan",
        b"SequenceMap",
        b"Tile",
        b"Upsample",
    )
)
_DATATYPES = {name: datatype for name, datatype, _ in _TYPES}
_NUMBERS = {datatype: number for _, datatype, number in _TYPES}


class OnnxEngine:
    """ONNX Runtime on the CPU. ``threads`` work inside one run; 0 leaves the number to the library."""

    kind = "onnxruntime"

    def __init__(self, *, threads: int = 1) -> None:
        """Keep the number of threads."""
        self._threads = threads
        ort.disable_telemetry_events()

    @property
    def version(self) -> str:
        """Version of ONNX Runtime."""
        return str(ort.__version__)

    def load(self, files: ModelFiles, *, prepack: bool = False) -> OnnxModel:
        """Return the model. Raises ``Rejected``: ``no_onnx_file``, ``model_refused``, ``unsupported_type``."""
        graphs = [path for path in files.files if path.endswith(".onnx")]
        if len(graphs) != 1:
            raise Rejected.because("no_onnx_file", "sealed model", got=f"{len(graphs)} .onnx files", want="exactly one")
        options, views = self._options(prepack=prepack), list[memoryview]()
        try:
            graph = _hand_over(files, graphs[0], options, views)
            session = ort.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])
            return OnnxModel(session, views, steady=not any(name in graph for name in _WILFUL))
        except (*_ERRORS, Malformed) as exc:
            # The library's text may quote the graph; its class is enough to look further.
            refused = type(exc).__name__
        del options, views  # a refusal's traceback would hold the model's memory
        raise Rejected.because("model_refused", "onnx runtime", got=refused)

    def _options(self, *, prepack: bool) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
        # Borrowed, not copied; what is not aligned for its type is copied all the same.
        options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")
        # Another layout of the weights is faster to compute with, and is a second copy of them.
        options.add_session_config_entry("session.disable_prepacking", "0" if prepack else "1")
        # Spinning threads would eat the second core of a small machine between requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options


def _hand_over(files: ModelFiles, graph: str, options: Any, views: list[memoryview]) -> bytes:
    """Return the graph without its weights; add to ``views`` what must live as long as the session."""
    folder = graph.rpartition("/")[0]
    prefix = f"{folder}/" if folder else ""
    bare, weights = lift_weights(files.view(graph), location=graph.removeprefix(prefix))
    for weight, place in zip(weights, settle(weights), strict=True):
        files.move(graph, place, weight.start, weight.size)
    holding = [path for path in files.files if path.startswith(prefix) and (path != graph or weights)]
    views += [files.view(path) for path in holding]
    if views:
        options.add_external_initializers_from_files_in_memory(
            [path.removeprefix(prefix) for path in holding], views, [len(view) for view in views]
        )
    return bare


class OnnxModel:
    """One session of ONNX Runtime. Runs from several threads at once are safe in the library."""

    def __init__(self, session: Any, views: Sequence[memoryview] = (), *, steady: bool = False) -> None:
        """Read the signature. Raises ``Rejected`` naming every input and output that cannot be carried."""
        self.steady = steady
        self._session: Any = session
        self._views = tuple(views)  # the session computes with this memory
        bad: list[Reason] = []
        inputs = _specs(session.get_inputs(), "input", bad)
        outputs = _specs(session.get_outputs(), "output", bad)
        if any(spec.datatype is Datatype.BYTES for spec in inputs) and any(spec.datatype.is_raw for spec in outputs):
            bad.append(Reason(code="unsupported_type", subject="onnx runtime", got="strings in, raw floats out"))
        if bad:
            message = "model refused: " + "; ".join(str(reason) for reason in bad)
            raise Rejected(message, reasons=tuple(bad))
        self.signature = Signature(inputs=inputs, outputs=outputs)
        self._outputs = {spec.name: spec for spec in outputs}
        self._has_raw = any(spec.datatype.is_raw for spec in outputs)

    def run(self, inputs: Sequence[Tensor], outputs: Sequence[str]) -> tuple[Tensor, ...]:
        """Return the named outputs. Raises ``Unavailable`` without any text of the library."""
        names = [name for name in outputs if name in self._outputs]
        specs = [self._outputs[name] for name in names]
        try:
            if self._has_raw and any(spec.datatype.is_raw for spec in specs):
                values = self._session.run_with_ort_values(names, {item.name: _ort_value(item) for item in inputs})
                arrays = [_raw_array(value, spec) for value, spec in zip(values, specs, strict=True)]
            else:
                arrays = self._session.run(names, {item.name: _feed(item) for item in inputs})
            return tuple([_tensor(spec, array) for spec, array in zip(specs, arrays, strict=True)])
        except _ERRORS as exc:
            msg = f"onnx runtime: run failed ({type(exc).__name__})"
            raise Unavailable(msg) from None

    def warm_up(self) -> None:
        """Run once on zeros where every shape is fixed but for open dimensions, which are 1 then."""
        if any(spec.shape is None for spec in self.signature.inputs):
            return
        with contextlib.suppress(Unavailable, MemoryError):
            self.run([_zeros(spec) for spec in self.signature.inputs], [spec.name for spec in self.signature.outputs])

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees its memory with it. Then the files' memory is free too."""
        self._session = None
        self._views = ()


def _specs(args: Sequence[Any], what: str, bad: list[Reason]) -> tuple[TensorSpec, ...]:
    specs = []
    for arg in args:
        datatype = _DATATYPES.get(arg.type)
        if datatype is None:
            bad.append(
                Reason(code="unsupported_type", subject=f"{what} {arg.name}", got=str(arg.type), want="a dense tensor")
            )
            continue
        # ONNX Runtime shows a missing shape and a scalar's shape both as []: a tensor of open rank must be
        # let through, so [] for an input is checked by the engine itself.
        shape = tuple(arg.shape) or None
        specs.append(TensorSpec(name=arg.name, datatype=datatype, shape=shape))
    return tuple(specs)


def _zeros(spec: TensorSpec) -> Tensor:
    shape = [dim if isinstance(dim, int) else 1 for dim in spec.shape or ()]
    array = np.zeros(shape, dtype=spec.datatype.dtype)
    if spec.datatype is Datatype.BYTES:
        array.fill(b"")
    return Tensor(name=spec.name, datatype=spec.datatype, array=array)


def _ort_value(tensor: Tensor) -> Any:
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(tensor.array, _NUMBERS[tensor.datatype])


def _feed(tensor: Tensor) -> Any:
    if tensor.datatype is Datatype.BYTES:
        texts = np.empty(tensor.array.shape, dtype=object)
        # Validated as UTF-8 by the protocol before; given bytes, the library would quote them as Python does.
        texts.reshape(-1)[:] = [item.decode("utf-8") for item in tensor.array.reshape(-1)]
        return texts
    return _ort_value(tensor) if tensor.datatype.is_raw else tensor.array


def _raw_array(value: Any, spec: TensorSpec) -> Array:
    if not spec.datatype.is_raw:
        array: Array = value.numpy()
        return array
    shape = tuple(value.shape())
    size = int(np.prod(shape, dtype=np.int64)) * spec.datatype.size
    # The library has no NumPy type for these; the bits are copied while ``value`` keeps them alive.
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(raw, dtype=spec.datatype.dtype).reshape(shape)


def _tensor(spec: TensorSpec, array: Array) -> Tensor:
    if spec.datatype is Datatype.BYTES:
        encoded = np.empty(array.shape, dtype=object)
        encoded.reshape(-1)[:] = [str(item).encode("utf-8") for item in array.reshape(-1)]
        return Tensor(name=spec.name, datatype=spec.datatype, array=encoded)
    return Tensor(name=spec.name, datatype=spec.datatype, array=np.asarray(array, dtype=spec.datatype.dtype, order="C"))
