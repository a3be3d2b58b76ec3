"""Who may ask: API tokens of 256 random bits, kept as their SHA-256 in a file, one line each.

    NAME SHA256-HEX

A hash without salt is enough, for nobody guesses 256 random bits. Where the service is open, who sends a token is
still known by it, and who sends none by its address. A wrong token is refused in both cases.

Not done here: who somebody is beyond that.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.private_file import read_private, replace_private, write_private
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Callers", "add_caller", "parse_callers", "read_callers"]

MAX_CALLERS_BYTES = 1 << 20
_MAX_CALLERS = 4096
_TOKEN_BYTES = 32
_PREFIX = "clsa_"
_BEARER = re.compile(r"Bearer ([A-Za-z0-9_-]{16,128})", re.IGNORECASE)
CALLER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(rf"({CALLER_NAME.pattern}) ([0-9a-f]{{64}})")


def new_caller_token(rng: Callable[[int], bytes]) -> str:
    """Return a fresh token. It is shown once and not stored."""
    return _PREFIX + dump_b64u(rng(_TOKEN_BYTES))


def caller_line(name: str, token: str) -> str:
    """Return the line of the file for a token. Raises ``UsageError``."""
    if not CALLER_NAME.fullmatch(name):
        msg = f"caller {name[:64]!r}: want 1 to 64 letters, digits, dots, dashes and underscores"
        raise UsageError(msg)
    return f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n"


def parse_callers(data: bytes) -> Mapping[str, str]:
    """Return names by the digest of their token. Raises ``Malformed``."""
    found: dict[str, str] = {}
    lines = [line for line in data.decode("ascii", "replace").splitlines() if line.strip() and line[0] != "#"]
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or match[2] in found or match[1] in found.values() or len(lines) > _MAX_CALLERS:
            msg = f"callers: want at most {_MAX_CALLERS} lines NAME SHA256, each name and digest once"
            raise Malformed(msg)
        found[match[2]] = match[1]
    return found


def read_callers(path: Path) -> Mapping[str, str]:
    """Return the callers of a file, none where there is none. Raises ``UsageError``, ``Malformed``."""
    if not path.exists():
        return {}
    return parse_callers(read_private(path, cap=MAX_CALLERS_BYTES, holds="who may ask"))


def add_caller(path: Path, name: str, *, rng: Callable[[int], bytes]) -> str:
    """Add a caller to the file and return its token, which is stored nowhere. Raises ``UsageError``, ``Malformed``."""
    token = new_caller_token(rng)
    line = caller_line(name, token).encode()
    if name in read_callers(path).values():
        msg = f"caller {name}: is there already"
        raise UsageError(msg, hint=f"take its line out of {path} first")
    if path.exists():
        replace_private(path, read_private(path, cap=MAX_CALLERS_BYTES).rstrip(b"\n") + b"\n" + line)
    else:
        write_private(path, line)
    return token


class Callers:
    """Knows a caller by its header. The file is read again once it changed: a line taken out opens nothing any more."""

    def __init__(self, path: Path, *, is_open: bool) -> None:
        """Know the callers in ``path``; where ``is_open``, others too. Raises as ``read_callers``."""
        self._path, self.is_open = path, is_open
        self._mark, self._by_digest = self._stat(), read_callers(path)

    def known(self, authorization: str | None, address: str) -> str:
        """Return a caller's name for its limits.

        Raises ``Rejected`` (``unauthenticated``), one for every cause; ``Unavailable`` where the file cannot be read.
        """
        if authorization is None and self.is_open:
            return f"ip:{address}"
        found = _BEARER.fullmatch(authorization) if authorization else None
        name = self._current().get(hashlib.sha256(found[1].encode()).hexdigest()) if found else None
        if name is None:
            raise Rejected.because("unauthenticated", "bearer token", hint="send Authorization: Bearer <token>")
        return f"caller:{name}"

    def _current(self) -> Mapping[str, str]:
        mark = self._stat()
        if mark != self._mark:
            try:
                self._by_digest = read_callers(self._path)
            except CloisterError as exc:
                msg = "callers: the file cannot be read"
                raise Unavailable(msg) from exc
            self._mark = mark
        return self._by_digest

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
