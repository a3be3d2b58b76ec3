"""What an answer to a range request has to say before a byte of it is taken (RFC 9110 sections 14 and 15.3.7).

Pure: heads come in, verdicts go out. A server that answers anything else than exactly the range asked for, of a part
of the size and the tag seen first, is not believed and not asked again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from cloister.errors import CloisterError, Unavailable
from cloister.stores.patience import TryAgainError

__all__ = ["Head", "Seen", "refused", "verify_head"]

_RANGE = re.compile(r"bytes (\d{1,16})-(\d{1,16})/(\d{1,16})", re.ASCII)
_STRONG = re.compile(r'"[!#-~]{0,200}"', re.ASCII)
_SECONDS = re.compile(r"\d{1,4}", re.ASCII)
_OK, _PARTIAL = 200, 206
_REDIRECTS = frozenset({300, 301, 302, 303, 304, 305, 307, 308})
_TRY_AGAIN = frozenset({408, 421, 425, 429, 500, 502, 503, 504})
_WHY = {
    _OK: ("sent without a range", "the server must answer range requests (status 206)"),
    401: ("not let in", "name a token in a file with --token-file or --model-token-file"),
    403: ("not let in", "may this token read it?"),
    404: ("not there", "is the sealed model whole, and the url right?"),
    410: ("not there any more", "is the url right?"),
    412: ("changed while it was read", "try again when nobody writes there"),
    416: ("has no such range", "is the sealed model whole?"),
}


class Head(Protocol):
    """Status and headers of an answer."""

    status: int

    def header(self, name: str) -> str | None:
        """Return a header's value, by its name in lower case."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a part was when it was first looked at: bytes, entity tag and time of change as the server wrote them."""

    size: int
    etag: str | None
    modified: str | None

    @property
    def condition(self) -> dict[str, str]:
        """Return the header that makes a server refuse for us where the part changed; weak tags cannot."""
        return {"if-match": self.etag} if self.etag and _STRONG.fullmatch(self.etag) else {}


def verify_head(head: Head, subject: str, *, first: int, last: int, seen: Seen | None) -> Seen:
    """Prove that the answer holds bytes ``first`` to ``last`` of what was seen before; return what was seen.

    Raises ``TryAgainError`` where the server says that it may pass, ``Unavailable`` else.
    """
    if head.status != _PARTIAL:
        raise refused(head, subject)
    if head.header("content-encoding") not in {None, "identity"}:
        raise _wrong(subject, "sent compressed, which was not asked for")
    found = _RANGE.fullmatch(head.header("content-range") or "")
    if found is None:
        raise _wrong(subject, "sent without saying which range")
    got = Seen(size=int(found[3]), etag=head.header("etag"), modified=head.header("last-modified"))
    if seen is not None and got != seen:
        raise Unavailable(f"{subject}: {_WHY[412][0]}", hint=_WHY[412][1])
    if (int(found[1]), int(found[2])) != (first, last) or last >= got.size:
        raise _wrong(subject, "sent another range than asked for")
    length = head.header("content-length")
    if length not in {None, str(last - first + 1)}:
        raise _wrong(subject, "sent with another length than its range")
    return got


def refused(head: Head, subject: str) -> CloisterError | TryAgainError:
    """Return what to raise for a status that was not wanted."""
    if head.status in _TRY_AGAIN:
        after = head.header("retry-after") or ""
        return TryAgainError(f"status {head.status}", after_s=float(after) if _SECONDS.fullmatch(after) else 0.0)
    if head.status in _REDIRECTS:
        return Unavailable(f"{subject}: status {head.status}, and no redirect is followed", hint="name the last url")
    why, hint = _WHY.get(head.status, (f"status {head.status}", "is the url right?"))
    return Unavailable(f"{subject}: {why}", hint=hint)


def _wrong(subject: str, why: str) -> Unavailable:
    return Unavailable(f"{subject}: {why}", hint="this server, or something before it, alters what it sends")
