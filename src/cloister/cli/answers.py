"""What a custodian answered: bounded bytes, JSON whose missing members are its fault, and problems as our errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable, UsageError
from cloister.wire import Json, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

__all__ = ["HTTP_BAD_REQUEST", "MAX_ANSWER_BYTES", "Answer", "Document", "documents", "fault", "lines", "whole"]

MAX_ANSWER_BYTES = 16 << 20
HTTP_BAD_REQUEST = 400
_MAX_EVENT_BYTES = 1 << 20
_HTTP_UNAUTHORIZED, _HTTP_TOO_MANY, _HTTP_SERVER = 401, 429, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    status: int
    content: bytes


class Document(dict[str, Any]):
    """A JSON object of the custodian's: a member that is not there is the custodian's fault, not ours."""

    def __missing__(self, name: str) -> Any:
        msg = f"custodian's answer: {name}: missing"
        raise Malformed(msg, hint="is this a custodian of the same version?")


def documents(value: Json) -> Any:
    """Return ``value`` with every object in it as a ``Document``."""
    if isinstance(value, dict):
        return Document({name: documents(member) for name, member in value.items()})
    return [documents(item) for item in value] if isinstance(value, list) else value


def whole(response: httpx2.Response) -> Answer:
    """Return a bounded answer as it was sent; nothing is unpacked."""
    data = bytearray()
    for part in response.iter_raw():
        data += part
        if len(data) > MAX_ANSWER_BYTES:
            msg = f"custodian's answer: more than {MAX_ANSWER_BYTES} bytes"
            raise Malformed(msg)
    return Answer(status=response.status_code, content=bytes(data))


def lines(response: httpx2.Response) -> Iterator[str]:
    """Yield the lines of a stream, each bounded."""
    left = bytearray()
    for part in response.iter_raw():
        *lines, rest = (left + part).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
        left = rest
        if len(left) > _MAX_EVENT_BYTES:
            msg = f"custodian's events: a line of more than {_MAX_EVENT_BYTES} bytes"
            raise Malformed(msg)


def fault(answer: Answer) -> CloisterError:
    """Return the error that a problem document (RFC 9457) says."""
    try:
        problem = parse_json(answer.content, what="problem", cap=MAX_ANSWER_BYTES)
    except Malformed:
        problem = {}
    members = problem if isinstance(problem, dict) else {}
    status = answer.status
    message = str(members.get("detail") or members.get("title") or f"custodian answered {status}")
    hint = members.get("hint")
    advice = hint if isinstance(hint, str) else None
    if status == _HTTP_TOO_MANY or status >= _HTTP_SERVER:
        return Unavailable(message, hint=advice)
    code = members.get("code")
    if code == "malformed":
        return Malformed(message, hint=advice)
    if code == "usage" or not isinstance(code, str):
        return UsageError(message, hint=advice)
    if status == _HTTP_UNAUTHORIZED and advice is None:
        advice = "pass --token-file, or --home on the custodian's machine"
    return Rejected(message, reasons=_reasons(members, code, message), hint=advice)


def _reasons(members: dict[str, Any], code: str, message: str) -> tuple[Reason, ...]:
    found = members.get("reasons")
    reasons = tuple(
        Reason(**{name: str(item.get(name, "")) for name in ("code", "subject", "got", "want")})
        for item in (found if isinstance(found, list) else [])
        if isinstance(item, dict)
    )
    return reasons or (Reason(code=code, subject=message),)
