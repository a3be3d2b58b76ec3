"""A guest's kernel, secure processor, Nitro module, GPU driver and services as they answer, without the hardware.

Every fake works on the bytes a kernel would see: structures are taken from memory at the offsets of the C headers, not
through the classes under test.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socketserver
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import cbor2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloister.enclave.attesters.files import Device, LocalFiles

REPORTS = "sys/kernel/config/tsm/report"


def failed(number: int) -> OSError:
    """Return the error a kernel answers with."""
    return OSError(number, os.strerror(number))


@dataclass
class _Request:
    """The kernel's state behind one directory (struct tsm_report_state)."""

    written: int = 0
    read: int = -1
    inblob: bytes = b""
    privlevel: int = 0


@dataclass
class TsmKernel:
    """configfs-tsm as drivers/virt/coco/guest/report.c behaves; everything else is read from ``disk``."""

    disk: LocalFiles
    provider: str = "sev_guest"
    floor: int = 0
    aux: bytes = b"certificates"
    make: Callable[[bytes, int], bytes] = lambda inblob, level: b"report %d " % level + inblob
    races: int = 0
    """Requests that a second writer changes before the report is read."""
    late_races: int = 0
    """Requests that a second writer changes after the report was read."""
    errors: dict[str, list[int]] = field(default_factory=dict)
    """Errors to give for an attribute or call, in turn."""
    instances: dict[str, str] = field(default_factory=dict)
    requests: dict[str, _Request] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    writes: list[tuple[str, bytes]] = field(default_factory=list)

    def _fail(self, name: str) -> None:
        if self.errors.get(name):
            raise failed(self.errors[name].pop(0))

    def _split(self, path: str) -> tuple[_Request, str] | None:
        folder, _, name = path.rpartition("/")
        return (self.requests[folder], name) if folder in self.requests else None

    def exists(self, path: str) -> bool:
        return path == REPORTS or self.disk.exists(path)

    def mkdir(self, path: str) -> None:
        self._fail("mkdir")
        assert path.startswith(f"{REPORTS}/")
        if not self.provider:
            raise failed(errno.ENXIO)
        assert path not in self.made, "a name twice"
        self.made.append(path)
        self.requests[path] = _Request()

    def rmdir(self, path: str) -> None:
        self._fail("rmdir")
        del self.requests[path]

    def write(self, path: str, data: bytes) -> None:
        found = self._split(path)
        assert found is not None, path
        request, name = found
        self._fail(name)
        self.writes.append((name, data))
        if name == "privlevel":
            if not self.floor <= int(data) <= 3:
                raise failed(errno.EINVAL)
            request.privlevel = int(data)
        else:
            assert name == "inblob"
            if len(data) > 64:
                raise failed(errno.EFBIG)
            request.inblob = data
            if self.races:
                self.races -= 1
                request.inblob, request.written = bytes(64), request.written + 1
        request.written += 1

    def read(self, path: str, *, cap: int) -> bytes:
        found = self._split(path)
        if found is None:
            return self.disk.read(path, cap=cap)
        request, name = found
        self._fail(name)
        match name:
            case "provider":
                return f"{self.provider}\n".encode()
            case "privlevel_floor":
                return f"{self.floor}\n".encode()
            case "generation":
                return f"{request.written}\n".encode()
            case "outblob" | "auxblob":
                return self._blob(request, name)[: cap + 1]
        raise failed(errno.ENOENT)

    def _blob(self, request: _Request, name: str) -> bytes:
        if not request.inblob:
            raise failed(errno.EINVAL)
        request.read = request.written
        if name == "auxblob":
            return self.aux
        report = self.make(request.inblob, request.privlevel)
        if self.late_races:
            self.late_races -= 1
            request.written += 1
        return report

    @contextlib.contextmanager
    def device(self, path: str) -> Iterator[Device]:
        with self.disk.device(path) as opened:
            yield opened


class FakeDevices:
    """Devices by path, each a function of request and the argument's address; ``calls`` keeps the requests."""

    def __init__(self, **devices: Callable[[int, int], None]) -> None:
        """Take devices by the last part of their path, ``-`` written as ``_``."""
        self._devices = devices
        self.calls: list[int] = []
        self.open = 0

    @contextlib.contextmanager
    def device(self, path: str) -> Iterator[Device]:
        found = self._devices.get(path.rpartition("/")[2].replace("-", "_"))
        if found is None:
            raise failed(errno.ENOENT)
        self.open += 1
        try:
            yield _FakeDevice(found, self.calls)
        finally:
            self.open -= 1


class _FakeDevice:
    def __init__(self, answer: Callable[[int, int], None], calls: list[int]) -> None:
        self._answer, self._calls = answer, calls

    def ioctl(self, request: int, argument: ctypes.Structure) -> None:
        assert ctypes.sizeof(argument) == request >> 16 & 0x3FFF, "size in the number and size of the argument"
        self._calls.append(request)
        self._answer(request, ctypes.addressof(argument))


def peek(address: int, layout: str) -> tuple[Any, ...]:
    """Return a C structure from memory."""
    return struct.unpack(layout, ctypes.string_at(address, struct.calcsize(layout)))


def poke(address: int, data: bytes) -> None:
    """Write to memory."""
    ctypes.memmove(address, data, len(data))


@dataclass
class SecureProcessor:
    """/dev/sev-guest as drivers/virt/coco/sev-guest answers; reports say what was asked."""

    certs: bytes = b""
    """Pages of certificates the host has."""
    extended: bool = True
    exitinfo2: int = 0
    error: int = 0
    status: int = 0
    size: int = 1184
    make: Callable[[bytes, int], bytes] = lambda data, vmpl: (data + struct.pack("<I", vmpl)).ljust(1184, b"\xa5")
    asked: list[tuple[bytes, int]] = field(default_factory=list)

    def __call__(self, request: int, argument: int) -> None:
        """Answer one ioctl."""
        version, data, response, _ = peek(argument, "<B7xQQQ")
        assert version == 1
        user_data, vmpl, reserved = peek(data, "<64sI28s")
        assert not any(reserved)
        if request == 0xC0205302:
            if not self.extended:
                raise failed(errno.ENOTTY)
            room, length = peek(data + 96, "<QI")
            assert length % 4096 == 0
            if length < len(self.certs):
                poke(data + 104, struct.pack("<I", len(self.certs)))
                poke(argument + 24, struct.pack("<Q", 1 << 32))
                raise failed(errno.EIO)
            poke(room, self.certs)
        else:
            assert request == 0xC0205300
        self.asked.append((user_data, vmpl))
        poke(argument + 24, struct.pack("<Q", self.exitinfo2))
        if self.error:
            raise failed(self.error)
        report = self.make(user_data, vmpl)
        poke(response, (struct.pack("<II24x", self.status, self.size) + report).ljust(4000, b"\x00")[:4000])


@dataclass
class NitroModule:
    """/dev/nsm as the kernel's driver and the module behind it answer."""

    error: int = 0
    answer: Any = None
    """What to say in place of a document: an object, or bytes as they are."""
    length: int | None = None
    make: Callable[[bytes], bytes] = lambda user_data: b"document " + user_data
    asked: list[Any] = field(default_factory=list)

    def __call__(self, request: int, argument: int) -> None:
        """Answer one ioctl."""
        assert request == 0xC0200A00
        address, length, room, capacity = peek(argument, "<QQQQ")
        assert capacity == 0x3000
        self.asked.append(cbor2.loads(ctypes.string_at(address, length)))
        if self.error:
            raise failed(self.error)
        document = {"Attestation": {"document": self.make(self.asked[-1]["Attestation"]["user_data"])}}
        answer = document if self.answer is None else self.answer
        data = answer if isinstance(answer, bytes) else cbor2.dumps(answer)
        poke(room, data[:capacity])
        poke(argument + 24, struct.pack("<Q", len(data) if self.length is None else self.length))


REPORT_LAYOUT = (("present", 0), ("report_size", 4), ("cec_size", 8), ("nonce", 12), ("report", 44))
"""nvmlConfComputeGpuAttestationReport_t: three numbers, 32 bytes of nonce, 0x2000 of report, 0x1000 of another."""


class FakeNvml:
    """libnvidia-ml as the driver answers: it fills the memory that the pointers point to."""

    def __init__(self, gpus: int = 1, *, make: Callable[[int, bytes], tuple[bytes, bytes]] | None = None) -> None:
        """Have this many GPUs; ``make`` returns report and certificates of one, by handle and nonce."""
        self.gpus = gpus
        self.make = make or (lambda gpu, nonce: (b"gpu %d " % gpu + nonce, b"chain of %d" % gpu))
        self.codes: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.wrong_nonce = False
        self.sessions = 0
        self.ready: list[int] = []

    def _code(self, name: str) -> int:
        assert self.sessions == 1 or name == "nvmlInit_v2", name
        return self.codes.get(name, 0)

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the library's own names
        code = self._code("nvmlInit_v2")
        self.sessions += not code
        return code

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.sessions -= 1
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        poke(ctypes.addressof(count.contents), struct.pack("<I", self.gpus))
        return self._code("nvmlDeviceGetCount_v2")

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:  # noqa: N802
        if index.value >= self.gpus:
            return 2
        poke(ctypes.addressof(handle.contents), struct.pack("<Q", 0xD0 + index.value))
        return self._code("nvmlDeviceGetHandleByIndex_v2")

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, device: ctypes.c_void_p, report: Any) -> int:  # noqa: N802
        assert ctypes.sizeof(report.contents) == 12 + 32 + 0x2000 + 0x1000
        address = ctypes.addressof(report.contents)
        said, _ = self.make(device.value or 0, ctypes.string_at(address + 12, 32))
        poke(address + 4, struct.pack("<I", self.sizes.get("report", len(said))))
        poke(address + 44, said)
        if self.wrong_nonce:
            poke(address + 12, bytes(32))
        return self._code("nvmlDeviceGetConfComputeGpuAttestationReport")

    def nvmlDeviceGetConfComputeGpuCertificate(self, device: ctypes.c_void_p, chain: Any) -> int:  # noqa: N802
        assert ctypes.sizeof(chain.contents) == 8 + 0x1000 + 0x1400
        address = ctypes.addressof(chain.contents)
        _, pem = self.make(device.value or 0, bytes(32))
        poke(address + 4, struct.pack("<I", self.sizes.get("chain", len(pem))))
        poke(address + 8 + 0x1000, pem)
        return self._code("nvmlDeviceGetConfComputeGpuCertificate")

    def nvmlSystemSetConfComputeGpusReadyState(self, state: ctypes.c_uint) -> int:  # noqa: N802
        self.ready.append(state.value)
        return self._code("nvmlSystemSetConfComputeGpusReadyState")


@dataclass
class Service:
    """A local HTTP service: ``answers`` by method and path, what was asked in ``asked``."""

    answers: dict[tuple[str, str], tuple[int, bytes]]
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            service.asked.append((self.command, self.path, headers, body))
            status, answer = service.answers.get((self.command, self.path), (404, b"no such path"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            with contextlib.suppress(OSError):  # a client that has read enough hangs up
                self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 - http.server's own name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def address_string(self) -> str:
            return "local"

    return Handler


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve from a thread for as long as the context lasts."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def http_service(answers: dict[tuple[str, str], tuple[int, bytes]], *, socket: Path | None = None) -> Iterator[Service]:
    """Run a service on a port of this machine, or on a unix socket."""
    service = Service(answers)
    server: socketserver.BaseServer
    if socket is None:
        server = HTTPServer(("127.0.0.1", 0), _handler(service))
        service.port = server.server_address[1]
    else:
        server = socketserver.UnixStreamServer(str(socket), _handler(service))
    with serving(server):
        yield service
