"""The loan file: what a borrower got from the custodian (docs/reference/enclave-settings.md).

It holds the borrower's token, so it must be readable by its owner only. It pins the custodian twice: the key
that signs statements, and the CA of its TLS certificate; and the borrower itself, where it signs the contract.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.crypto.sign import VerifyKey
from cloister.errors import UsageError
from cloister.lending.terms import LOAN_ID, LoanId
from cloister.wire import Fields

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LoanFile", "read_loan_file"]

_MAX_BYTES = 64 * 1024
_MAX_CA_CHARS = 32 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]{16,512}")  # what a header field holds


@dataclass(frozen=True, slots=True, kw_only=True)
class LoanFile:
    """One loan as the borrower knows it. ``ca_pem`` None means: the system's trust store.

    ``borrower_key`` is the key that must have signed the contract: without it here, a custodian could leave it out of
    the terms, and with it the borrower's say. None for a loan that nobody countersigns.
    """

    loan: LoanId
    custodian_url: str
    custodian_key: VerifyKey
    ca_pem: str | None
    token: str = field(repr=False)
    borrower_key: VerifyKey | None = None

    @classmethod
    def parse(cls, data: bytes) -> LoanFile:
        """Parse. Raises ``Malformed``, also for a plain-text URL to another machine."""
        fields = Fields.parse(data, what="loan file", cap=_MAX_BYTES)
        fields.literal("v", 1)
        parsed = cls(
            loan=LoanId(fields.match("loan", LOAN_ID)),
            custodian_url=_url(fields),
            custodian_key=VerifyKey.take(fields, "custodian_key"),
            ca_pem=_ca(fields),
            token=fields.match("token", _TOKEN),
            borrower_key=fields.optional("borrower_key", lambda name: VerifyKey.take(fields, name)),
        )
        fields.end()
        return parsed


def _url(fields: Fields) -> str:
    url = fields.text("custodian_url", cap=1024, floor=1)
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        fields.fail("custodian_url", "not a url")
    if parts.scheme not in {"https", "http"} or not host or parts.username or parts.query or parts.fragment:
        fields.fail("custodian_url", "want https://HOST[:PORT]")
    if parts.scheme == "http" and not _is_loopback(host):
        fields.fail("custodian_url", "want https: the borrower's token would travel in the clear")
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ca(fields: Fields) -> str | None:
    value = fields.take("ca_pem")
    if value is not None and not (isinstance(value, str) and value.isascii() and 1 <= len(value) <= _MAX_CA_CHARS):
        fields.fail("ca_pem", "want PEM text, or null for the system's trust store")
    return value


def read_loan_file(path: Path) -> LoanFile:
    """Return the loan file at ``path``.

    Raises ``UsageError`` where it is not there, no plain file, or readable by others; ``Malformed``.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        msg = f"{path}: cannot be read: {exc.strerror}"
        raise UsageError(msg, hint="the custodian makes a loan file with 'cloister loan create'") from exc
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            msg = f"{path}: no plain file"
            raise UsageError(msg)
        if status.st_mode & 0o077:
            msg = f"{path}: mode {stat.S_IMODE(status.st_mode):04o}, want 0600: it holds the borrower's token"
            raise UsageError(msg, hint=f"chmod 600 {path}", code="open_to_others")
        return LoanFile.parse(os.read(handle, _MAX_BYTES + 1))
    finally:
        os.close(handle)
