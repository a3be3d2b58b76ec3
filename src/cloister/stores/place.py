"""Names of places where sealed models are kept: a path, or a URL of a kind we know.

A URL holds no secret: user names, passwords and queries, in which signed links carry theirs, are refused. Whoever
lists processes or reads a log would have them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import unquote, urlsplit

from cloister.errors import UsageError

__all__ = ["BUCKETS", "ModelUrl", "Place", "is_url", "parse_place"]

BUCKETS: Final = frozenset({"az", "gs", "s3"})
_SCHEMES: Final = BUCKETS | {"http", "https", "oci"}
_MAX_URL_CHARS = 2048
_URL = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUrl:
    """Where a package lies: ``path`` has no slash at its end. Only ``parse_place`` makes one."""

    scheme: str
    host: str
    port: int | None
    path: str

    @property
    def is_loopback(self) -> bool:
        """Tell whether this machine itself is meant."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def takes_token(self) -> bool:
        """Tell whether a bearer token is shown there."""
        return self.scheme not in BUCKETS

    @property
    def netloc(self) -> str:
        """Host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL."""
        return f"{self.scheme}://{self.netloc}{self.path}"


Place: TypeAlias = Path | ModelUrl


def is_url(text: str) -> bool:
    """Tell whether ``text`` means a URL and no path."""
    return "://" in text


def parse_place(text: str, *, base: Path = Path()) -> Place:
    """Return the place that ``text`` names; a relative path starts at ``base``.

    Raises ``UsageError`` for a URL of another kind or with a secret in it, which is not repeated.
    """
    return _parse_url(text) if is_url(text) else base / text


def _parse_url(text: str) -> ModelUrl:
    try:
        parts = urlsplit(text if len(text) <= _MAX_URL_CHARS and _URL.fullmatch(text) else "")
        port = parts.port
    except ValueError:
        raise _unfit("not a url") from None  # the cause would repeat what may be a password
    if "@" in parts.netloc or parts.query or parts.fragment or "?" in text or "#" in text:
        raise _unfit(
            "want neither user, password, query nor fragment in it",
            hint="credentials come from files and the environment: docs/reference/sources.md",
        )
    if parts.scheme not in _SCHEMES:
        raise _unfit(f"want one of {', '.join(sorted(_SCHEMES))} before '://'")
    if not parts.hostname or port == 0:
        raise _unfit("want a host and, where there is one, a sound port")
    if parts.scheme in BUCKETS and port is not None:
        raise _unfit("want a bucket without a port", hint="as s3://BUCKET/FOLDER; the endpoint is in the environment")
    segments = unquote(parts.path).split("/")
    if "\\" in parts.path or any(part in {".", ".."} for part in segments) or "//" in parts.path:
        raise _unfit("want no '.', '..', empty part or backslash in its path")
    return ModelUrl(scheme=parts.scheme, host=parts.hostname, port=port, path=parts.path.rstrip("/"))


def _unfit(why: str, *, hint: str | None = None) -> UsageError:
    return UsageError(f"url of a sealed model: {why}", hint=hint or "as https://HOST/FOLDER")
