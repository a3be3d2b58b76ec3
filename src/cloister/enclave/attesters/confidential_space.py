"""Tokens of Google's Confidential Space, from the launcher beside our container.

google/go-tpm-tools, launcher/teeserver: HTTP over a unix socket, ``POST /v1/token`` with audience, token_type and
nonces; the answer is the token. Google Cloud documentation, "Confidential Space: connect to external resources": a
nonce has 10 to 74 bytes, so the report data go as hex.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.enclave.attesters.field import demand_field
from cloister.errors import Malformed, UsageError
from cloister.wire import dump_json

if TYPE_CHECKING:
    from cloister.enclave.attesters.local_http import Fetch

__all__ = ["TEESERVER", "ConfidentialSpaceAttester"]

TEESERVER = "run/container_launcher/teeserver.sock"
MAX_TOKEN_BYTES = 64 * 1024  # bytes of one token; 3 KiB are usual
_MAX_AUDIENCE_CHARS = 512
_REPORT_DATA_BYTES = 32
_KIND = "PKI"  # carries its chain to the root that verifiers pin; "OIDC" tokens want a key set
_TOKEN = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")  # RFC 7515 section 7.1


class ConfidentialSpaceAttester:
    """Tokens for one audience.

    Contract of ``collect``: ``UsageError`` for report data that are not 32 bytes; ``Unavailable`` where no launcher
    answers, or it may not be asked so often; ``Rejected`` (``tee_refused``) where it says no; ``Malformed``
    for an answer that is no token.
    """

    tee: Final = TeeKind("confidential-space")
    report_data_bytes: Final = _REPORT_DATA_BYTES

    def __init__(self, fetch: Fetch, *, audience: str) -> None:
        """Ask the launcher behind ``fetch`` for tokens that ``audience`` alone accepts."""
        if not 0 < len(audience) <= _MAX_AUDIENCE_CHARS or not audience.isprintable():
            msg = f"confidential space: want an audience of 1 to {_MAX_AUDIENCE_CHARS} printable characters"
            raise UsageError(msg, hint="name whoever verifies the token, by its url")
        self._fetch = fetch
        self._audience = audience

    def collect(self, report_data: bytes) -> Evidence:
        """Return a token whose nonce is ``report_data`` in hex; see the class for what is raised."""
        demand_field(report_data, _REPORT_DATA_BYTES, what="confidential space report data")
        asked = {"audience": self._audience, "nonces": [report_data.hex()], "token_type": _KIND}
        headers = {"Content-Type": "application/json"}
        token = self._fetch("POST", "/v1/token", headers=headers, body=dump_json(asked), cap=MAX_TOKEN_BYTES).strip()
        if not _TOKEN.fullmatch(token):
            msg = "confidential space: the answer is no token"
            raise Malformed(msg)
        return Evidence(tee=self.tee, payload=dump_parts({"token": token}))
