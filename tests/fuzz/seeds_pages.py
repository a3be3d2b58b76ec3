"""Fuzzing targets of pages: forms as browsers send them, and what an enclave shows its host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cloister.borrowing.host import parse_metrics, parse_ready
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


TARGETS: dict[str, Target] = {
    "page-form": (_form, _forms),
    "page-metrics": (parse_metrics, lambda: [b'cloister_units_total{model="a"} 3\ncloister_queue_length 0.5\n']),
    "page-ready": (parse_ready, lambda: [json.dumps(_READY).encode()]),
}
