"""Bytes to a TPM and back: the kernel's device or a software TPM's socket.

One command is written, one answer is read; the device blocks until the TPM is done.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Protocol, Self

from cloister.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DEVICE", "DeviceTransport", "SocketTransport", "Transport", "open_transport"]

DEVICE = "/dev/tpmrm0"
"""The kernel's resource manager: it swaps objects, and nobody else's handles are in reach."""

MAX_RESPONSE_BYTES = 4096  # TPM_PT_MAX_RESPONSE_SIZE of every TPM seen
_HEADER_BYTES = 10
_TIMEOUT_S = 120.0  # an RSA key in a slow TPM takes half a minute


class Transport(Protocol):
    """Carries commands. Contract: ``Unavailable`` when no answer came, ``Malformed`` for one out of form."""

    def transceive(self, command: bytes) -> bytes:
        """Send one command and return its whole answer."""
        ...

    def close(self) -> None:
        """Let go of the TPM."""
        ...


class DeviceTransport:
    """A character device that answers each write with one read."""

    def __init__(self, path: Path | str = DEVICE) -> None:
        """Open the device. Raises ``Unavailable``."""
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            msg = f"tpm: cannot open {path}: {exc.strerror}"
            raise Unavailable(msg, hint="is there a tpm, and may this user use it (group tss)?") from exc

    def transceive(self, command: bytes) -> bytes:
        """Send one command and return its whole answer."""
        try:
            os.write(self._handle, command)
            return os.read(self._handle, MAX_RESPONSE_BYTES)
        except OSError as exc:
            msg = f"tpm: {exc.strerror}"
            raise Unavailable(msg) from exc

    def close(self) -> None:
        """Close the device; the kernel flushes what this handle left behind."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()


class SocketTransport:
    """The data socket of a software TPM (``swtpm socket --server type=unixio``): plain commands, no framing."""

    def __init__(self, path: Path | str) -> None:
        """Connect. Raises ``Unavailable``."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT_S)
        try:
            self._socket.connect(str(path))
        except OSError as exc:
            self._socket.close()
            msg = f"tpm: cannot connect to {path}: {exc.strerror}"
            raise Unavailable(msg) from exc

    def transceive(self, command: bytes) -> bytes:
        """Send one command and return its whole answer."""
        try:
            self._socket.sendall(command)
            header = self._receive(_HEADER_BYTES)
            size = int.from_bytes(header[2:6], "big")
            if not _HEADER_BYTES <= size <= MAX_RESPONSE_BYTES:
                msg = f"tpm response: {size} bytes, want {_HEADER_BYTES} to {MAX_RESPONSE_BYTES}"
                raise Malformed(msg)
            return header + self._receive(size - _HEADER_BYTES)
        except OSError as exc:
            msg = f"tpm: {exc}"
            raise Unavailable(msg) from exc

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                msg = "tpm: hung up in the middle of a response"
                raise Unavailable(msg)
            data += part
        return data

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()


def open_transport(where: str = DEVICE) -> DeviceTransport | SocketTransport:
    """Open ``device:PATH``, ``unix:PATH`` or a plain path of a device. Raises ``Unavailable``."""
    kind, _, path = where.rpartition(":")
    return SocketTransport(path) if kind == "unix" else DeviceTransport(path)
