"""What it takes to be let in: whose certificate a server must show, and the bearer token we show.

A token comes from a file of mode 0600 or from the environment, never from an argument or a URL, and no ``repr`` shows
it. Buckets have credentials of their own kind, by the names their providers' programs use (docs/reference/sources.md).
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TOKEN_FILE_VARIABLE", "TOKEN_VARIABLE", "Access", "read_access"]

TOKEN_VARIABLE: Final = "CLOISTER_MODEL_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE_VARIABLE: Final = "CLOISTER_MODEL_TOKEN_FILE"  # noqa: S105 - the name of a variable
_TOKEN = re.compile(r"[!-~]{1,8192}", re.ASCII)  # what a header field holds
_MAX_TOKEN_BYTES = 8193


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """``ca`` is a PEM file of the authority to believe, None the system's; ``token`` is a bearer token (RFC 6750)."""

    ca: Path | None = None
    token: str | None = field(default=None, repr=False)

    def tls(self) -> ssl.SSLContext:
        """Return a context that believes this authority alone. Raises ``UsageError``."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            msg = f"{self.ca}: no certificates there"
            raise UsageError(msg) from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def read_access(*, ca: Path | None, token_file: Path | None, environment: Mapping[str, str]) -> Access:
    """Return the access of options or, where they say nothing of a token, of the environment. Raises ``UsageError``."""
    named = environment.get(TOKEN_FILE_VARIABLE, "")
    place = token_file or (Path(named) if named else None)
    token = environment.get(TOKEN_VARIABLE) or None if place is None else _read_token(place)
    if token is not None and not _TOKEN.fullmatch(token):
        msg = "token of the model's server: want one line of printable ascii"
        raise UsageError(msg)
    return Access(ca=ca, token=token)


def _read_token(place: Path) -> str:
    try:
        with os.fdopen(os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
                msg = f"{place}: want a regular file of mode 0600"
                raise UsageError(msg, hint=f"chmod 600 {place}")
            return file.read(_MAX_TOKEN_BYTES + 1).decode("ascii", "replace").removesuffix("\n")
    except OSError as exc:
        msg = f"{place}: {exc.strerror}"
        raise UsageError(msg) from exc
