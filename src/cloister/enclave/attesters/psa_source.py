"""PSA tokens of Arm TrustZone, from a file or a socket that the machine's owner sets up.

Linux has no interface to the initial attestation service of a secure world: a small trusted application (OP-TEE) or
the board's agent has to ask it. Here its answer is taken from a unix socket, which is sent the challenge and
answers with the token, or from a file that somebody wrote for this challenge.

Not done here: verifying the token. That it carries the challenge is looked at, so that a stale file is noticed here.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.enclave.attesters.field import demand_field
from cloister.enclave.attesters.files import LocalFiles, cannot, read_part
from cloister.errors import Malformed, Unavailable

__all__ = ["MAX_TOKEN_BYTES", "PsaAttester"]

MAX_TOKEN_BYTES = 16 * 1024  # bytes of one token; 1 KiB is usual
_TIMEOUT_S = 30.0
_CHALLENGE_BYTES = 64  # of 32, 48 and 64 (RFC 9783 section 4.1.1)
_SOCKET = "unix:"


class PsaAttester:
    """Tokens from the place the configuration names.

    Contract of ``collect``: ``UsageError`` for report data that are not 64 bytes; ``Unavailable`` where nothing
    answers, or what is there was made for another challenge; ``Malformed`` for a token that is too long.
    """

    tee: Final = TeeKind("psa")
    report_data_bytes: Final = _CHALLENGE_BYTES

    def __init__(self, source: str) -> None:
        """Take tokens from ``unix:PATH``, or from the file ``source``."""
        self._source = source

    def collect(self, report_data: bytes) -> Evidence:
        """Return a token whose challenge is ``report_data``; see the class for what is raised."""
        demand_field(report_data, _CHALLENGE_BYTES, what="psa challenge")
        if self._source.startswith(_SOCKET):
            token = _ask(self._source.removeprefix(_SOCKET), report_data)
        else:
            path = Path(self._source).absolute()
            token = read_part(LocalFiles(path.parent), path.name, cap=MAX_TOKEN_BYTES, what="psa token")
        if report_data not in token:
            msg = f"psa token: the one from {self._source} is not for this challenge"
            raise Unavailable(msg, hint="ask the secure world again with this challenge")
        return Evidence(tee=self.tee, payload=dump_parts({"token": token}))


def _ask(path: str, challenge: bytes) -> bytes:
    """Send the challenge and nothing else; return all that comes back."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(_TIMEOUT_S)
        try:
            peer.connect(path)
            peer.sendall(challenge)
            peer.shutdown(socket.SHUT_WR)
            token = b""
            while len(token) <= MAX_TOKEN_BYTES and (part := peer.recv(MAX_TOKEN_BYTES)):
                token += part
        except OSError as exc:
            raise cannot(f"psa token: {path}", exc) from exc
    if len(token) > MAX_TOKEN_BYTES:
        msg = f"psa token: {path} gave more than {MAX_TOKEN_BYTES} bytes"
        raise Malformed(msg)
    return token
