"""What a consumer gets back: the JSON of an inference response, and the binary data behind it."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING

from cloister.enclave.oip.classes import classified, labels_of
from cloister.enclave.oip.data import BadData, tensor_to_binary, tensor_to_json
from cloister.enclave.oip.parameters import IGNORED
from cloister.errors import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.enclave.engines.tensor import Tensor
    from cloister.enclave.oip.request import InferRequest
    from cloister.wire import Json

__all__ = ["dump_response"]

OUTPUT = "output"
"""The code of an output that the form asked for cannot carry (422)."""

_WRITER = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":"))
"""Not canonical JSON: nothing signs it, and the standard library's writer is many times faster."""


def dump_response(
    request: InferRequest, tensors: Sequence[Tensor], *, model: str, version: str, card: Json = None
) -> tuple[bytes, int | None]:
    """Return the body and, where binary data follows the JSON, the length of that JSON.

    ``card`` is the model card, which may name classes. Raises ``Rejected`` (code ``output``) naming each output that
    cannot be given as it was asked for.
    """
    parts: list[bytes | memoryview] = [b""]  # the JSON, once it is known
    outputs: list[str] = []
    bad: list[Reason] = []
    for given in tensors:
        try:
            tensor = _wanted(request, given, card)
        except BadData as exc:
            bad.append(Reason(code=OUTPUT, subject=f"output {given.name}", got=exc.got, want=exc.want))
            continue
        if request.wants_binary(tensor.name):
            parts.append(tensor_to_binary(tensor))
            data = f'"parameters":{{"binary_data_size":{len(parts[-1])}}}'
        else:
            try:
                data = f'"data":{_WRITER.encode(tensor_to_json(tensor))}'
            except BadData as exc:
                bad.append(Reason(code=OUTPUT, subject=f"output {tensor.name}", got=exc.got, want=exc.want))
                continue
        shape = ",".join(map(str, tensor.shape))
        outputs.append(
            f'{{"name":{_quoted(tensor.name)},"datatype":"{tensor.datatype.label}","shape":[{shape}],{data}}}'
        )
    if bad:
        raise Rejected("; ".join(str(reason) for reason in bad), reasons=tuple(bad))
    parts[0] = _head(request, outputs, model, version).encode("ascii")
    if len(parts) == 1:
        return bytes(parts[0]), None
    return b"".join(parts), len(parts[0])  # the only copy of what the engine gave


def _head(request: InferRequest, outputs: Sequence[str], model: str, version: str) -> str:
    """Return the JSON, written out: of the same members each time, and this is on the way of every answer."""
    rest = "" if request.id is None else f',"id":{_quoted(request.id)}'
    if request.ignored:
        rest += f',"parameters":{{"{IGNORED}":{_quoted(",".join(request.ignored))}}}'
    return f'{{"model_name":{_quoted(model)},"model_version":"{version}","outputs":[{",".join(outputs)}]{rest}}}'


def _wanted(request: InferRequest, tensor: Tensor, card: Json) -> Tensor:
    """Return an output, or its highest values where these are asked for. Raises ``BadData``."""
    count = request.classes(tensor.name)
    return tensor if count is None else classified(tensor, count, labels_of(card, tensor.name))
