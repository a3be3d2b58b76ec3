"""Who a consumer is: a token, from memory, a file of its owner's alone or a function, or a sub-allowance in its place.

Tokens of issuers run out and are replaced: a Kubernetes projected token by its kubelet, an SVID by its agent, an access
token by whatever fetched it. So a file is looked at for each request, and read again where it is another; a function is
asked each time, and keeps its token itself as long as it is good.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cloister.client.sub_allowance import HeldSubAllowance
from cloister.errors import UsageError
from cloister.private_file import read_private

__all__ = ["GivenToken", "TokenSource", "one_token", "read_token"]

TokenSource: TypeAlias = Callable[[], str]
GivenToken: TypeAlias = "str | TokenSource | None"

MAX_TOKEN_BYTES = 16 * 1024


def read_token(path: Path | str) -> str:
    """Return the token in a file that only its owner can read. Raises ``UsageError``."""
    data = read_private(path, cap=MAX_TOKEN_BYTES, holds="a token", links=True)
    return _token(data, name=str(path))


def _token(data: bytes, *, name: str) -> str:
    text = data.strip(b" \t\r\n")
    if not 0 < len(text) <= MAX_TOKEN_BYTES or not re.fullmatch(rb"[\x21-\x7e]+", text):
        msg = f"{name}: no token, want one line of printable ascii"
        raise UsageError(msg)
    return text.decode("ascii")


class _File:
    """The token that a file holds now."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._seen = self._mark()
        self._token = read_token(path)

    def __call__(self) -> str:
        """Return it. Raises ``UsageError`` for a file that has become none."""
        mark = self._mark()
        if mark != self._seen:
            self._token, self._seen = read_token(self._path), mark
        return self._token

    def _mark(self) -> tuple[int, int, int]:
        """Return what is different of another file, or of other content."""
        try:
            found = self._path.stat()
        except OSError as exc:
            msg = f"{self._path}: {exc.strerror}"
            raise UsageError(msg) from exc
        return found.st_ino, found.st_mtime_ns, found.st_size


def one_token(
    token: GivenToken, token_file: Path | str | None, sub_allowance: HeldSubAllowance | Path | str | None
) -> tuple[TokenSource | None, HeldSubAllowance | None]:
    """Return where the token comes from, and the sub-allowance whose token it is. Raises ``UsageError``."""
    if sum(given is not None for given in (token, token_file, sub_allowance)) > 1:
        msg = "client: want token, token_file or sub_allowance, not both"
        raise UsageError(msg)
    if sub_allowance is not None:
        held = sub_allowance if isinstance(sub_allowance, HeldSubAllowance) else HeldSubAllowance.load(sub_allowance)
        return lambda: held.token, held
    if token_file is not None:
        return _File(token_file), None
    if callable(token):
        return lambda: _token(token().encode("utf-8"), name="token"), None
    if token is None:
        return None, None
    fixed = _token(token.encode("utf-8"), name="token")
    return lambda: fixed, None
