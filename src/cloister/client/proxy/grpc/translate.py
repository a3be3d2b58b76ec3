"""Calls of the gRPC form as requests of the HTTP form with binary tensors, and answers back.

A call with raw tensors is answered with raw ones, a typed one typed, where every output has a typed form.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cloister.channel.fields import value_of
from cloister.client.proxy.grpc.contents import HOLDERS, dump_contents, fill_contents
from cloister.client.proxy.grpc.messages import message, parse
from cloister.client.proxy.grpc.raw import join_raw, split_raw
from cloister.client.tensors import HEADER_LENGTH
from cloister.errors import Malformed
from cloister.wire import Fields, Json, parse_json

if TYPE_CHECKING:
    from cloister.channel.fields import FieldLines
    from cloister.client.exchange import Answer

__all__ = ["Call", "model_path", "parse_call", "read_infer_answer", "read_model_metadata", "read_server_metadata"]

MAX_HEAD_BYTES = 4 << 20  # bytes of JSON of one answer
MAX_TENSORS = 256
MAX_VERSIONS = 64
MAX_TIMEOUT_US = 24 * 3600 * 10**6  # microseconds, what the enclave takes
_OF_HTTP = ("binary_data", "binary_data_output", "binary_data_size")  # parameters of the other form


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An inference as the HTTP form has it. ``typed`` says that its tensors came element by element."""

    path: str
    headers: FieldLines
    body: bytes = field(repr=False)
    id: str
    typed: bool


def model_path(name: str, version: str, what: str = "") -> str:
    """Return the path of a model, or of what can be asked of it."""
    versions = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v2/models/{quote(name, safe='')}{versions}{what}"


def parse_call(data: bytes, *, left_us: int | None = None) -> Call:
    """Return the inference in a ``ModelInferRequest``, to begin within ``left_us`` microseconds. Raises ``Malformed``.

    A ``timeout`` among its own parameters goes before.
    """
    rest, raw = split_raw(data)
    request = parse("ModelInferRequest", rest)
    if raw and len(raw) != len(request.inputs):
        msg = f"raw_input_contents: {len(raw)} parts, want one for each of {len(request.inputs)} inputs"
        raise Malformed(msg)
    parts: list[bytes | memoryview] = list(raw)
    entries: list[Json] = []
    for index, item in enumerate(request.inputs):
        what = f"input {index}"
        if not raw:
            parts.append(dump_contents(item.contents, item.datatype, what=what))
        elif item.HasField("contents"):
            raise Malformed(f"{what}: contents beside raw_input_contents")
        parameters = _parameters(item.parameters, what)
        entries.append(
            {
                "datatype": item.datatype,
                "name": item.name,
                "parameters": {**parameters, "binary_data_size": len(parts[index])},
                "shape": list(item.shape),
            }
        )
    head: dict[str, Json] = {
        "inputs": entries,
        "parameters": {
            **({} if left_us is None else {"timeout": min(max(left_us, 1), MAX_TIMEOUT_US)}),
            **_parameters(request.parameters, "request"),
            "binary_data_output": True,
        },
    }
    if request.id:
        head["id"] = request.id
    if request.outputs:
        head["outputs"] = [
            {"name": item.name, "parameters": _parameters(item.parameters, "output")} for item in request.outputs
        ]
    try:
        text = json.dumps(head, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as exc:
        raise Malformed("parameters: infinity or not-a-number") from exc
    return Call(
        path=model_path(request.model_name, request.model_version, "/infer"),
        headers=(("content-type", "application/octet-stream"), (HEADER_LENGTH, str(len(text)))),
        body=b"".join((text, *parts)),
        id=request.id,
        typed=bool(request.inputs) and not raw,
    )


def _parameters(parameters: Any, what: str) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise Malformed(f"{what}: a parameter without a value")
        if name in _OF_HTTP:
            raise Malformed(f"{what}: parameter {name}: belongs to the http form")
        found[name] = getattr(value, kind)
    return found


def read_server_metadata(answer: Answer) -> bytes:
    """Return the ``ServerMetadataResponse`` of an answer. Raises ``Malformed``."""
    fields = _document(answer.body)
    return _dump(
        message("ServerMetadataResponse")(
            name=fields.text("name"),
            version=fields.text("version"),
            extensions=fields.texts("extensions", cap=MAX_VERSIONS),
        )
    )


def read_model_metadata(answer: Answer) -> bytes:
    """Return the ``ModelMetadataResponse`` of an answer. Raises ``Malformed``."""
    fields = _document(answer.body)
    found = message("ModelMetadataResponse")(
        name=fields.text("name"),
        versions=fields.texts("versions", cap=MAX_VERSIONS),
        platform=fields.text("platform"),
    )
    for name, tensors in (("inputs", found.inputs), ("outputs", found.outputs)):
        for item in fields.items(name, cap=MAX_TENSORS):
            entry = Fields(item, what=f"metadata: {name}")
            tensors.add(name=entry.text("name"), datatype=entry.text("datatype"), shape=_shape(entry, floor=-1))
    return _dump(found)


def read_infer_answer(answer: Answer, *, typed: bool) -> bytes:
    """Return the ``ModelInferResponse`` of an answer whose outputs are all binary. Raises ``Malformed``."""
    length = value_of(answer.headers, HEADER_LENGTH)
    if length is None or not length.isdecimal() or int(length) > min(len(answer.body), MAX_HEAD_BYTES):
        raise Malformed("infer response: want the length of its head")
    fields = _document(answer.body[: int(length)])
    left = memoryview(answer.body)[int(length) :]
    found = message("ModelInferResponse")(
        model_name=fields.text("model_name"),
        model_version=fields.text("model_version"),
        id=fields.text("id") if "id" in fields else "",
    )
    if "parameters" in fields:
        for name, value in fields.members("parameters", cap=MAX_TENSORS).items():
            found.parameters[name].string_param = value if isinstance(value, str) else json.dumps(value)
    parts: list[memoryview] = []
    for item in fields.items("outputs", cap=MAX_TENSORS):
        entry = Fields(item, what="infer response: output")
        size = entry.fields("parameters").integer("binary_data_size", cap=len(left))
        found.outputs.add(name=entry.text("name"), datatype=entry.text("datatype"), shape=_shape(entry))
        parts.append(left[:size])
        left = left[size:]
    if len(left):
        raise Malformed(f"infer response: {len(left)} bytes after the last output")
    if not typed or not {item.datatype for item in found.outputs} <= set(HOLDERS):
        return join_raw(_dump(found), parts)
    for item, part in zip(found.outputs, parts, strict=True):
        fill_contents(item.contents, item.datatype, part, what="infer response: output")
    return _dump(found)


def _shape(entry: Fields, *, floor: int = 0) -> list[int]:
    dims = entry.items("shape", cap=16)
    return [Fields({"shape": dim}, what="shape").integer("shape", floor=floor) for dim in dims]


def _document(data: bytes) -> Fields:
    return Fields(parse_json(data, what="answer", cap=MAX_HEAD_BYTES), what="answer")


def _dump(found: Any) -> bytes:
    return found.SerializeToString()  # type: ignore[no-any-return]  # bytes, as the library has it
