"""Who a consumer is: one token, from memory or a file of its owner's alone, or a sub-allowance in its place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.client.sub_allowance import HeldSubAllowance
from cloister.errors import UsageError
from cloister.private_file import read_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["one_token", "read_token"]

MAX_TOKEN_BYTES = 4096


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


def one_token(
    token: str | None, token_file: Path | str | None, sub_allowance: HeldSubAllowance | Path | str | None
) -> tuple[str | None, HeldSubAllowance | None]:
    """Return the token, and the sub-allowance whose token it is."""
    if sum(given is not None for given in (token, token_file, sub_allowance)) > 1:
        msg = "client: want token, token_file or sub_allowance, not both"
        raise UsageError(msg)
    if sub_allowance is not None:
        if not isinstance(sub_allowance, HeldSubAllowance):
            sub_allowance = HeldSubAllowance.load(sub_allowance)
        return sub_allowance.token, sub_allowance
    if token_file is not None:
        return read_token(token_file), None
    return None if token is None else _token(token.encode("utf-8"), name="token"), None
