"""What a tenant is called: one segment of a path, of a folder, and of a log line, spelled in one way only."""

from __future__ import annotations

import re
from typing import Final, NewType

from cloister.errors import Malformed

__all__ = ["TENANT", "TenantName", "parse_tenant", "split_path"]

TenantName = NewType("TenantName", str)
TENANT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
PREFIX: Final = b"/t/"


def parse_tenant(text: str) -> TenantName:
    """Return a tenant's name. Raises ``Malformed``."""
    if not TENANT.fullmatch(text):
        msg = "tenant: want 1 to 32 of a to z, 0 to 9 and -, which neither begins nor ends it"
        raise Malformed(msg)
    return TenantName(text)


def split_path(raw: bytes) -> tuple[bytes, bytes] | None:
    """Return which tenant a path as it was sent names, and the path below it; None for a path of the host's own.

    Nothing is decoded or made tidy before: a name in another spelling is another name, and nobody has it. Dots and
    doubled slashes behind the name stay behind it.
    """
    if not raw.startswith(PREFIX):
        return None
    name, slash, rest = raw[len(PREFIX) :].partition(b"/")
    return name, slash + rest
