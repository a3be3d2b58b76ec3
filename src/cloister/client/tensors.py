"""Bodies of the Open Inference Protocol as a consumer writes and reads them, always with binary tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cloister.client.datatypes import as_array, decode, element_type, encode, fit
from cloister.client.images import as_picture, image_to_array, is_image
from cloister.client.tables import column_array, is_column, is_table, table_array, table_inputs
from cloister.errors import Malformed, UsageError
from cloister.wire import Fields, Json, dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloister.client.datatypes import Array
    from cloister.client.model_info import ModelInfo, TensorInfo

__all__ = ["HEADER_LENGTH", "InferBody", "array_inputs", "dump_inputs", "name_inputs", "parse_outputs"]

HEADER_LENGTH = "inference-header-content-length"
MAX_HEAD_BYTES = 1 << 20  # bytes of JSON in front of the binary data
MAX_OUTPUTS = 256
MAX_DIM = (1 << 31) - 1
MAX_ELEMENTS = 1 << 40  # elements of a shape that NumPy can describe, whatever their size
_OPEN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class InferBody:
    """A request body, and how many bytes of it are JSON."""

    data: bytes = field(repr=False)
    head_bytes: int


def name_inputs(info: ModelInfo, inputs: object, image: object) -> dict[str, object]:
    """Return what was given as one value for each input of the model.

    ``inputs`` is a mapping by name, a table of pandas, or one value where the model has one input; ``image`` goes to
    the one input that the card makes from pictures. Raises ``UsageError``.
    """
    if (inputs is None) == (image is None):
        msg = "infer: want inputs or an image, and not both"
        raise UsageError(msg)
    names = [tensor.name for tensor in info.inputs]
    if image is not None:
        pictured = [name for name in names if name in info.images]
        if len(pictured) != 1:
            msg = f"model {info.name}: {len(pictured)} inputs are made from images, want one for image="
            raise UsageError(msg, hint="pass inputs={NAME: ARRAY}; the inputs are " + ", ".join(names))
        return {pictured[0]: as_picture(image)}
    if is_table(inputs):
        return dict(table_inputs(info, inputs))
    named = None if is_column(inputs) else _as_mapping(inputs)
    if named is not None:
        return named
    if len(names) != 1:
        msg = f"model {info.name}: has {len(names)} inputs, want a mapping by name"
        raise UsageError(msg, hint="the inputs are " + ", ".join(names))
    return {names[0]: inputs}


def _as_mapping(inputs: object) -> dict[str, object] | None:
    """Return a mapping as a dict; archives of NumPy (.npz) are mappings too."""
    if not hasattr(inputs, "keys") or not hasattr(inputs, "__getitem__"):
        return None
    return {str(name): inputs[name] for name in inputs.keys()}  # noqa: SIM118 - NpzFile iterates files, keys are its API


def dump_inputs(info: ModelInfo, named: Mapping[str, object]) -> InferBody:
    """Return the request body. Names, types and ranks that cannot fit are refused here, before anything is sent.

    Raises ``UsageError``.
    """
    entries: list[Json] = []
    parts: list[bytes] = []
    for tensor, array in _arrays(info, named):
        data = encode(array, tensor.datatype, name=tensor.name)
        parts.append(data)
        entries.append(
            {
                "datatype": tensor.datatype,
                "name": tensor.name,
                "parameters": {"binary_data_size": len(data)},
                "shape": [int(size) for size in array.shape],
            }
        )
    head = dump_json({"inputs": entries, "parameters": {"binary_data_output": True}})
    return InferBody(data=head + b"".join(parts), head_bytes=len(head))


def array_inputs(info: ModelInfo, inputs: object, *, many: bool = False) -> dict[str, Array]:
    """Return one question's inputs as arrays of the model's types; what cannot become any is refused.

    ``many``: there may be more rows than one request takes. Raises ``UsageError``.
    """
    named = name_inputs(info, None, inputs) if is_image(inputs) else name_inputs(info, inputs, None)
    return {tensor.name: array for tensor, array in _arrays(info, named, many=many)}


def _arrays(info: ModelInfo, named: Mapping[str, object], *, many: bool = False) -> Iterator[tuple[TensorInfo, Array]]:
    """Yield each input of the model with its array, of the type and shape that it takes."""
    wanted = {tensor.name: tensor for tensor in info.inputs}
    unknown = sorted(set(named) - set(wanted))
    missing = sorted(set(wanted) - set(named))
    if unknown or missing:
        detail = [f"unknown {name[:80]}" for name in unknown] + [f"missing {name}" for name in missing]
        msg = f"model {info.name}: inputs: {', '.join(detail)}"
        raise UsageError(msg, hint="the inputs are " + ", ".join(wanted))
    for name, tensor in wanted.items():
        array = fit(_array_for(info, tensor, named[name]), tensor.datatype, name=name)
        _demand_shape(tensor, array, many=many)
        yield tensor, array


def _array_for(info: ModelInfo, tensor: TensorInfo, value: object) -> Array:
    if is_table(value):
        return table_array(info, tensor, value)
    if is_column(value):
        return column_array(tensor, value)
    if tensor.datatype == "BYTES":
        return as_array(value, tensor.datatype, name=tensor.name)
    if is_image(value):
        return _pictured(info, tensor, [value])
    if isinstance(value, list | tuple) and value and all(map(is_image, value)):
        return _pictured(info, tensor, value)
    return as_array(value, tensor.datatype, name=tensor.name)


def _pictured(info: ModelInfo, tensor: TensorInfo, pictures: Sequence[object]) -> Array:
    """Return pictures as one batch."""
    if tensor.name not in info.images:
        msg = f"input {tensor.name}: the model's card does not say how an image becomes this input"
        raise UsageError(msg, hint="pass an array")
    return np.concatenate([image_to_array(picture, info.images[tensor.name]) for picture in pictures])


def _demand_shape(tensor: TensorInfo, array: Array, *, many: bool) -> None:
    """Refuse what the enclave would refuse. A single open dimension may stand for any rank (its metadata)."""
    want, got = tensor.shape, array.shape
    if want == (_OPEN,):
        return
    first = (_OPEN, *want[1:]) if many and want else want
    if len(got) == len(first) and all(size in (_OPEN, there) for size, there in zip(first, got, strict=True)):
        return
    msg = f"input {tensor.name}: shape {list(got)}, want {tensor}"
    one_short = len(got) + 1 == len(want)
    raise UsageError(msg, hint="one item alone? give it its first dimension: array[np.newaxis]" if one_short else None)


def parse_outputs(data: bytes, *, head_bytes: int | None) -> dict[str, Array]:
    """Return the outputs of a response body by name. Raises ``Malformed``."""
    if head_bytes is not None and head_bytes > len(data):
        msg = f"infer response: head of {head_bytes} bytes in {len(data)}"
        raise Malformed(msg)
    head = data if head_bytes is None else data[:head_bytes]
    left = memoryview(data)[len(head) :]
    cap = max(MAX_HEAD_BYTES, len(data)) if head_bytes is None else MAX_HEAD_BYTES
    fields = Fields(parse_json(head, what="infer response", cap=cap), what="infer response")
    outputs: dict[str, Array] = {}
    for item in fields.items("outputs", cap=MAX_OUTPUTS):
        entry = Fields(item, what="infer response: output")
        name = entry.text("name", cap=512, floor=1)
        if name in outputs:
            entry.fail("name", "twice")
        outputs[name], left = _output(entry, name, left)
    if len(left):
        msg = f"infer response: {len(left)} bytes after the last output"
        raise Malformed(msg)
    return outputs


def _output(entry: Fields, name: str, left: memoryview) -> tuple[Array, memoryview]:
    datatype = entry.text("datatype", cap=32)
    shape = tuple(
        Fields({"shape": item}, what="infer response: output").integer("shape", cap=MAX_DIM)
        for item in entry.items("shape", cap=16)
    )
    # A zero elsewhere must not hide dimensions that no array can have.
    if math.prod(max(1, size) for size in shape) > MAX_ELEMENTS:
        entry.fail("shape", f"want at most {MAX_ELEMENTS} elements")
    parameters = entry.fields("parameters") if "parameters" in entry else Fields({}, what="infer response: output")
    if "binary_data_size" not in parameters:
        return _from_json(entry.take("data"), datatype, shape, name), left
    size = parameters.integer("binary_data_size")
    if size > len(left):
        msg = f"output {name}: {len(left)} bytes left, want {size}"
        raise Malformed(msg)
    return decode(left[:size], datatype, shape, name=name), left[size:]


def _from_json(data: Json, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    try:
        kind = np.dtype(np.float32) if datatype == "BF16" else element_type(datatype)
        return np.array(data, dtype=kind).reshape(shape)
    except (TypeError, ValueError, OverflowError) as exc:
        msg = f"output {name}: data does not fit {datatype} of shape {list(shape)}"
        raise Malformed(msg) from exc
