"""Forms as browsers send them: ``application/x-www-form-urlencoded``, and ``multipart/form-data`` (RFC 7578).

Exact, bounded, to the end: what no browser writes is ``Malformed``. Files stay bytes in memory, their names and types
are what the sender says. Not done here: reading the body (``bodies``); what a field means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FORM_TYPE", "MULTIPART_TYPE", "Form", "Upload", "parse_form"]

FORM_TYPE, MULTIPART_TYPE = "application/x-www-form-urlencoded", "multipart/form-data"
MAX_FIELDS = 512
MAX_TEXT_BYTES = 4 << 20  # of one field that is no file
_MAX_HEAD_BYTES = 4096  # of one part
_BOUNDARY = re.compile(r'multipart/form-data; ?boundary="?([A-Za-z0-9\'()+_,./:=?-]{1,70})"?', re.IGNORECASE)
_DISPOSITION = re.compile(r'form-data; name="([^"\r\n]{1,200})"(; filename="([^"\r\n]{0,1000})")?', re.IGNORECASE)
_FIELDS = frozenset({"content-disposition", "content-type"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file; ``name`` and ``media_type`` are the sender's word."""

    name: str
    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form: each name stands once. A file that was not chosen is not there."""

    texts: Mapping[str, str] = field(repr=False)
    files: Mapping[str, Upload] = field(repr=False)

    def text(self, name: str) -> str:
        """Return a field, empty where it is not there."""
        return self.texts.get(name, "")


def parse_form(body: bytes, content_type: str) -> Form:
    """Return the form in a body of that type. Raises ``Malformed``."""
    if content_type.partition(";")[0].strip().lower() == FORM_TYPE:
        return Form(texts=_once(_encoded(body)), files={})
    found = _BOUNDARY.fullmatch(content_type.strip())
    if found is None:
        msg = f"form: media type {content_type[:80]!r}, want {FORM_TYPE} or {MULTIPART_TYPE}"
        raise Malformed(msg)
    parts = list(_parts(body, found[1].encode("ascii")))
    texts = [(name, _text(name, value)) for name, value in parts if not isinstance(value, Upload)]
    files = [(name, value) for name, value in parts if isinstance(value, Upload) and (value.name or value.data)]
    taken = _once([(name, "") for name, _ in (*texts, *files)])
    del taken  # one name is either a text or a file
    return Form(texts=dict(texts), files=dict(files))


def _encoded(body: bytes) -> list[tuple[str, str]]:
    try:
        text = body.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=MAX_FIELDS,
                         errors="strict")  # fmt: skip
    except ValueError as exc:
        msg = "form: not url-encoded, or too many fields"
        raise Malformed(msg) from exc


def _once(fields: list[tuple[str, str]]) -> dict[str, str]:
    found = dict(fields)
    if len(found) != len(fields):
        msg = "form: a field is there twice"
        raise Malformed(msg)
    return found


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[str, bytes | Upload]]:
    """Yield name and value of each part (RFC 2046 section 5.1.1, without preamble and epilogue)."""
    line = b"--" + boundary
    if not body.startswith(line):
        msg = "form: want the boundary first"
        raise Malformed(msg)
    at, count = len(line), 0
    while body[at : at + 2] != b"--":
        end = body.find(b"\r\n" + line, at)
        count += 1
        if body[at : at + 2] != b"\r\n" or end < 0 or count > MAX_FIELDS:
            msg = "form: a part does not end, or there are too many"
            raise Malformed(msg)
        yield _part(body[at + 2 : end])
        at = end + 2 + len(line)
    if body[at + 2 :] not in (b"", b"\r\n"):
        msg = "form: bytes behind the last boundary"
        raise Malformed(msg)


def _part(data: bytes) -> tuple[str, bytes | Upload]:
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
    if end < 0:
        msg = "form: a part has no head"
        raise Malformed(msg)
    fields = _head(data[:end])
    found = _DISPOSITION.fullmatch(fields.get("content-disposition", ""))
    if found is None:
        msg = "form: a part without a name"
        raise Malformed(msg)
    value = data[end + 4 :]
    if found[2] is None:
        return found[1], value
    media_type = fields.get("content-type", "")[:100].lower()
    return found[1], Upload(name=found[3], media_type=media_type, data=value)


def _head(data: bytes) -> dict[str, str]:
    try:
        lines = data.decode("utf-8").split("\r\n")
    except UnicodeDecodeError as exc:
        msg = "form: a head that is no utf-8"
        raise Malformed(msg) from exc
    split = [(name.lower(), value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]
    fields = dict(split)
    if len(fields) != len(lines) or not set(fields) <= _FIELDS:
        msg = "form: a head with other fields, or one twice"
        raise Malformed(msg)
    return fields


def _text(name: str, value: bytes | Upload) -> str:
    if isinstance(value, Upload) or len(value) > MAX_TEXT_BYTES:
        msg = f"form: {name[:64]!a}: want at most {MAX_TEXT_BYTES} bytes of text"
        raise Malformed(msg)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as exc:
        msg = f"form: {name[:64]!a}: no utf-8"
        raise Malformed(msg) from exc
