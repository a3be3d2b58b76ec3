"""Fuzzing targets of pages: forms as browsers send them, and what an enclave shows its host."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np

from cloister.asking.npy import read_npy
from cloister.asking.values import number_lines, reading, text_lines, written
from cloister.borrowing.host import parse_metrics, parse_ready
from cloister.client.model_info import TensorInfo
from cloister.errors import Malformed, UsageError
from cloister.serving.forms import FORM_TYPE, MULTIPART_TYPE, parse_form

if TYPE_CHECKING:
    from targets import Target

__all__ = ["TARGETS"]

_BOUNDARY = "b"
_READY = {"checks": [{"code": "ok", "name": "lease", "state": "ok"}], "reasons": [], "state": "active", "status": "ok"}


def _form(data: bytes) -> object:
    """Read a form whose first byte says of which type it is."""
    kind = f"{MULTIPART_TYPE}; boundary={_BOUNDARY}" if data[:1] == b"m" else FORM_TYPE
    return parse_form(data[1:], kind)


def _forms() -> list[bytes]:
    text = b'Content-Disposition: form-data; name="a"\r\n\r\n1'
    file = b'Content-Disposition: form-data; name="f"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG'
    return [b"ua=1&b=%C3%BC+x", b"m--b\r\n" + text + b"\r\n--b\r\n" + file + b"\r\n--b--\r\n"]


def _values(data: bytes) -> object:
    """Read what a person gives for one input; the first two bytes say how and of which type it is."""
    datatype = ("FP32", "INT8", "BYTES", "BOOL")[data[1] % 4] if len(data) > 1 else "FP32"
    how = reading(TensorInfo(name="x", datatype=datatype, shape=(-1,)), gaps=data[:1] == b"g", most=1000)
    try:
        if data[:1] == b"n":
            return read_npy(data[2:], how)
        text = data[2:].decode("utf-8", "surrogateescape")
        if data[:1] == b"l":
            return text_lines(text, how) if how.is_text else number_lines(text, how)
        return written(text, how)
    except UsageError as exc:  # who asks is our caller
        raise Malformed(exc.message) from exc


def _npy() -> bytes:
    data = io.BytesIO()
    np.save(data, np.arange(6, dtype=np.float32).reshape(2, 3))
    return data.getvalue()


TARGETS: dict[str, Target] = {
    "page-form": (_form, _forms),
    "page-metrics": (parse_metrics, lambda: [b'cloister_units_total{model="a"} 3\ncloister_queue_length 0.5\n']),
    "page-values": (
        _values,
        lambda: [b"n0" + _npy(), b"l0a;b\n1;2\n", b"l2a\nb", b"g4[[1, null], [2, 3e1]]", b'w2["a\\"b"]'],
    ),
    "page-ready": (parse_ready, lambda: [json.dumps(_READY).encode()]),
}
