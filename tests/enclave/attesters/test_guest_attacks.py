"""A hostile host answers the guest's questions."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from cloister.enclave.attesters.local_http import SocketService
from cloister.errors import Malformed

if TYPE_CHECKING:
    from pathlib import Path

CAP = 1000
FLOOD_BYTES = 8 << 20


def answer(path: Path, head: bytes, body_bytes: int) -> tuple[Malformed, int]:
    """Return how the guest refuses the answer, and how many bytes the host got rid of."""
    sent = 0

    def serve() -> None:
        nonlocal sent
        with listening.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 200 OK\r\n" + head)
            while sent < body_bytes:
                try:
                    sent += peer.send(b"x" * min(65536, body_bytes - sent))
                except OSError:  # the guest heard enough
                    return

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        host = threading.Thread(target=serve)
        host.start()
        with pytest.raises(Malformed) as refused:
            SocketService(path)("GET", "/quote", headers={}, body=b"", cap=CAP)
        host.join()
    return refused.value, sent


@pytest.mark.parametrize(
    "head",
    [
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"Content-Length: 999999999999\r\n\r\n",
        b"Content-Length: -7\r\n\r\n",
        b"\r\n",
    ],
)
def test_an_answer_without_end_takes_no_memory(tmp_path: Path, head: bytes) -> None:
    refused, sent = answer(tmp_path / "host", head, FLOOD_BYTES)
    assert "more than 1000 bytes" in refused.message
    assert sent < FLOOD_BYTES // 4, "the guest hung up"


def test_an_answer_cut_short_is_no_answer(tmp_path: Path) -> None:
    assert "no http" in answer(tmp_path / "host", b"Content-Length: 900\r\n\r\n", 899)[0].message
