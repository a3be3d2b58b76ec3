"""What a consumer asks for: the JSON of an inference request, and the binary data behind it."""

from __future__ import annotations

import json
from dataclasses import field
from typing import TYPE_CHECKING

from cloister.enclave.engines.tensor import MAX_RANK
from cloister.enclave.oip.parameters import InputParameters, OutputParameters, RequestParameters
from cloister.errors import Malformed
from cloister.wire import Fields, Json, no_double_keys, refuse_constant
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.errors import Reason

__all__ = [
    "HEADER_LENGTH",
    "MAX_ELEMENTS",
    "MAX_TENSORS",
    "InferRequest",
    "RawInput",
    "RequestedOutput",
    "parse_request",
]

HEADER_LENGTH = "inference-header-content-length"
"""Header that says how many bytes of JSON stand before the binary data."""

MAX_TENSORS = 256  # inputs, or outputs, of one request
MAX_ELEMENTS = 1 << 28  # elements of one tensor
MAX_DIM = (1 << 31) - 1  # size of one dimension
MAX_NAME = 512  # characters of a tensor's name
_READER = json.JSONDecoder(object_pairs_hook=no_double_keys, parse_constant=refuse_constant)


@hot_value
class RawInput:
    """One input as sent, not yet held against the signature. ``data`` is JSON or a view of binary data."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Json | memoryview = field(repr=False)
    parameters: InputParameters


@hot_value
class RequestedOutput:
    """One output asked for."""

    name: str
    parameters: OutputParameters


@hot_value
class InferRequest:
    """One parsed request. ``outputs`` empty means all of the model's, as in the protocol.

    ``refused`` is every parameter that asks for what is not done here, ``ignored`` the names of those that change
    nothing, each once, in their order.
    """

    id: str | None
    inputs: tuple[RawInput, ...]
    outputs: tuple[RequestedOutput, ...]
    parameters: RequestParameters
    refused: tuple[Reason, ...]
    ignored: tuple[str, ...]

    def wants_binary(self, name: str) -> bool:
        """Tell whether this output goes back as binary data."""
        for output in self.outputs:
            if output.name == name and output.parameters.binary is not None:
                return output.parameters.binary
        return self.parameters.binary_output

    def classes(self, name: str) -> int | None:
        """Return how many of this output's highest values are asked for in its place."""
        for output in self.outputs:
            if output.name == name:
                return output.parameters.classes
        return None


def parse_request(body: bytes, *, header_bytes: int | None, json_cap: int) -> InferRequest:
    """Parse a request body; ``header_bytes`` is the value of ``HEADER_LENGTH`` or None for JSON alone.

    Does not know the model: names, datatypes and sizes are held against its signature by ``fitting``.
    Raises ``Malformed``.
    """
    if header_bytes is not None and header_bytes > len(body):
        msg = f"infer request: header of {header_bytes} bytes in a body of {len(body)}"
        raise Malformed(msg)
    head = body if header_bytes is None else body[:header_bytes]
    fields = Fields(_parse_json(head, json_cap), what="infer request")
    binary = _BinaryData(memoryview(body)[len(head) :])
    ident = fields.optional("id", lambda name: fields.text(name, cap=256))
    inputs, outputs = tuple(_inputs(fields, binary)), tuple(_outputs(fields))
    parameters = RequestParameters.take(fields)
    fields.end()
    binary.end()
    _demand_unique(fields, "inputs", [item.name for item in inputs])
    _demand_unique(fields, "outputs", [item.name for item in outputs])
    askers: tuple[RequestParameters | InputParameters | OutputParameters, ...]
    askers = (parameters, *[item.parameters for item in inputs], *[item.parameters for item in outputs])
    return InferRequest(
        id=ident,
        inputs=inputs,
        outputs=outputs,
        parameters=parameters,
        refused=tuple([reason for item in askers for reason in item.refused]),
        ignored=tuple(dict.fromkeys([name for item in askers for name in item.ignored])),
    )


def _parse_json(data: bytes, cap: int) -> Json:
    """Return the value of strict JSON whose numbers are data: any integer, any finite float, minus zero too.

    ``wire.parse_json`` is for messages with one spelling and refuses numbers that a tensor may well hold.
    """
    if len(data) > cap:
        msg = f"infer request: {len(data)} bytes of json, want at most {cap}"
        raise Malformed(msg)
    try:
        text = data.decode("utf-8")
        value: Json = _READER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate has no utf-8 form
    except (ValueError, RecursionError) as exc:
        msg = "infer request: not strict json"
        raise Malformed(msg) from exc
    return value


class _BinaryData:
    """The bytes after the JSON, taken front to back in the order of the inputs."""

    def __init__(self, data: memoryview) -> None:
        self._left = data

    def take(self, size: int) -> memoryview:
        if size > len(self._left):
            msg = f"infer request: {len(self._left)} bytes of binary data left, want {size}"
            raise Malformed(msg)
        part, self._left = self._left[:size], self._left[size:]
        return part

    def end(self) -> None:
        if len(self._left):
            msg = f"infer request: {len(self._left)} bytes after the last input"
            raise Malformed(msg)


def _inputs(fields: Fields, binary: _BinaryData) -> Iterator[RawInput]:
    for item in fields.items("inputs", cap=MAX_TENSORS):
        entry = Fields(item, what="infer request: input")
        name = entry.text("name", cap=MAX_NAME, floor=1)
        datatype = entry.text("datatype", cap=32)
        shape = _shape(entry)
        parameters = InputParameters.take(entry, name)
        if parameters.size is not None:
            data: Json | memoryview = binary.take(parameters.size)
        else:  # of one that asks for what is not done here the data may be elsewhere; it is refused as a whole later
            data = [] if parameters.refused and "data" not in entry else entry.take("data")
        entry.end()  # data beside binary_data_size stays untaken and is refused here
        yield RawInput(name=name, datatype=datatype, shape=shape, data=data, parameters=parameters)


def _shape(entry: Fields) -> tuple[int, ...]:
    shape: list[int] = []
    count = 1
    for size in entry.items("shape", cap=MAX_RANK):
        if type(size) is not int or not 0 <= size <= MAX_DIM:
            entry.fail("shape", f"want integers of 0 to {MAX_DIM}")
        shape.append(size)
        # A zero elsewhere must not hide dimensions that no array can have.
        count *= max(1, size)
    if count > MAX_ELEMENTS:
        entry.fail("shape", f"{count} elements, want at most {MAX_ELEMENTS}")
    return tuple(shape)


def _outputs(fields: Fields) -> Iterator[RequestedOutput]:
    if "outputs" not in fields:
        return
    for item in fields.items("outputs", cap=MAX_TENSORS):
        entry = Fields(item, what="infer request: output")
        name = entry.text("name", cap=MAX_NAME, floor=1)
        parameters = OutputParameters.take(entry, name)
        entry.end()
        yield RequestedOutput(name=name, parameters=parameters)


def _demand_unique(fields: Fields, member: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        fields.fail(member, "double name")
