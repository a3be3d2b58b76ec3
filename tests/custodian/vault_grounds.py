"""Every kind of vault as an operator has it: what opens it, what of that is secret, and services that go wrong.

Each ground runs the real part: SoftHSM, moto, the transit engine of these tests, PyKMIP, swtpm. Beside the right way to
open there are wrong ones: another key, another secret, and a service that stands between and gives the right answer in
a wrong form, so that the plain key is where nobody expects it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kmip_kit import between, swap
from moto_kit import start_moto
from softhsm_kit import PIN
from transit_kit import TOKEN, start_transit

from cloister.custodian.vaults.aws_kms import AwsKms
from cloister.custodian.vaults.key_service import connect
from cloister.custodian.vaults.pkcs11_token import PIN_FILE_VARIABLE, PIN_VARIABLE
from cloister.custodian.vaults.tpm_state import TPM_VARIABLE
from cloister.custodian.vaults.unlock import KeyFile, Passphrase
from cloister.tpm.commands import Tpm
from cloister.tpm.transport import SocketTransport
from swtpm import start_swtpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from kmip_kit import KmipServer
    from softhsm_kit import SoftHsm

    from cloister.custodian.vaults.unlock import Unlock

__all__ = ["GROUNDS", "Ground", "Machine", "Wrong"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is made once for all tests of a process, each when it is first asked for."""

    tokens: Callable[[], SoftHsm]
    kmip: Callable[[], KmipServer]


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A way to open that must not work. ``patch`` is the environment it needs."""

    name: str
    unlock: Unlock
    patch: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """One kind of vault. ``environment`` and ``words`` are what the command line takes to open it."""

    unlock: Unlock
    environment: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    wrong: tuple[Wrong, ...] = ()
    private: tuple[Path, ...] = ()
    """Files that hold a secret because they are the secret: key files, passphrase files."""


@contextlib.contextmanager
def _passphrase(folder: Path, _machine: Machine) -> Iterator[Ground]:
    value = b"CANARY of 8 words and more " + os.urandom(8).hex().encode()
    file = folder / "passphrase"
    file.touch(mode=0o600)
    file.write_bytes(value)
    wrong = (Wrong(name="another", unlock=Passphrase(value[::-1])), Wrong(name="short", unlock=Passphrase(value[-7:])))
    words = ("--passphrase-file", str(file))
    yield Ground(unlock=Passphrase(value), words=words, secrets={"passphrase": value}, wrong=wrong, private=(file,))


@contextlib.contextmanager
def _key_file(folder: Path, _machine: Machine) -> Iterator[Ground]:
    key, other = KeyFile.create(folder / "a.key"), KeyFile.create(folder / "b.key")
    wrong = (Wrong(name="another", unlock=other), Wrong(name="absent", unlock=KeyFile(folder / "none")))
    secrets = {"key file": key.secret(), "other key file": other.secret()}
    words = ("--key-file", str(key.path))
    yield Ground(unlock=key, words=words, secrets=secrets, wrong=wrong, private=(key.path, other.path))


@contextlib.contextmanager
def _pkcs11(_folder: Path, machine: Machine) -> Iterator[Ground]:
    name, hsm = "pkcs11:token=cloister;object=vault", machine.tokens()
    bad_pin = {**hsm.environment, PIN_FILE_VARIABLE: "", PIN_VARIABLE: PIN[::-1]}
    wrong = (
        Wrong(name="another key", unlock=_named(name, connect(name.replace("vault", "other"), hsm.environment))),
        Wrong(name="wrong pin", unlock=connect(name, bad_pin)),
        Wrong(name="no such key", unlock=_named(name, connect(name.replace("vault", "none"), hsm.environment))),
    )
    environment = {**hsm.environment, "SOFTHSM2_CONF": os.environ["SOFTHSM2_CONF"]}
    yield Ground(
        unlock=connect(name, hsm.environment), environment=environment, secrets={"pin": PIN.encode()}, wrong=wrong
    )


@contextlib.contextmanager
def _aws_kms(_folder: Path, _machine: Machine) -> Iterator[Ground]:
    for moto in start_moto():
        arn, other = moto.new_key(), moto.new_key()
        service = AwsKms.connect(f"aws-kms:{arn}")
        modes = ("refused with the answer", "not a document", "a longer key")  # each costs a client of botocore's
        with _meddler(moto.environment["AWS_ENDPOINT_URL_KMS"], *modes) as urls:
            wrong = [
                Wrong(name=mode, unlock=service, patch={"AWS_ENDPOINT_URL_KMS": url}) for mode, url in urls.items()
            ]
            wrong.append(Wrong(name="another key", unlock=_named(service.name, AwsKms.connect(f"aws-kms:{other}"))))
            yield Ground(unlock=service, environment=moto.environment, wrong=tuple(wrong))


@contextlib.contextmanager
def _transit(_folder: Path, _machine: Machine) -> Iterator[Ground]:
    name = "transit:transit/vault"
    for server in start_transit():
        with _meddler(server.url) as urls:
            wrong = [
                Wrong(name=mode, unlock=connect(name, {**server.environment, "VAULT_ADDR": url}))
                for mode, url in urls.items()
            ]
            bad_token = connect(name, {**server.environment, "VAULT_TOKEN": TOKEN[::-1]})
            wrong.append(Wrong(name="wrong token", unlock=bad_token))
            # The token is no secret to be searched for here: the operator put it into the environment.
            yield Ground(
                unlock=connect(name, server.environment), environment=server.environment, wrong=tuple(wrong),
            )  # fmt: skip


@contextlib.contextmanager
def _tpm(folder: Path, _machine: Machine) -> Iterator[Ground]:
    name = "tpm:sha256:7,11"
    with start_swtpm(folder) as swtpm, start_swtpm(folder, name="thief") as thief, _tpm_meddler(swtpm.socket) as ways:
        for one in (swtpm, thief):
            with SocketTransport(one.socket) as transport:
                for pcr in (7, 11):
                    Tpm(transport).pcr_extend(pcr, bytes(range(32)))
        wrong = [
            Wrong(name=mode, unlock=connect(name, {TPM_VARIABLE: f"unix:{place}"})) for mode, place in ways.items()
        ]
        wrong.append(Wrong(name="another tpm", unlock=connect(name, {TPM_VARIABLE: f"unix:{thief.socket}"})))
        environment = {TPM_VARIABLE: f"unix:{swtpm.socket}"}
        yield Ground(unlock=connect(name, environment), environment=environment, wrong=tuple(wrong))


_DATA, _STATUS = 0x4200C2, 0x42007F  # KMIP 1.4 section 9.1.3.1
KMIP_MEDDLING: dict[str, Callable[[bytes], bytes]] = {
    "refused with the answer": swap(_STATUS, lambda _: 1),
    "a longer key": swap(_DATA, lambda data: data + bytes(1)),
    "a key that is text": lambda answer: answer.replace(bytes.fromhex("4200c208"), bytes.fromhex("4200c207")),
    "cut": lambda answer: answer[:-8],
}


@contextlib.contextmanager
def _kmip(_folder: Path, machine: Machine) -> Iterator[Ground]:
    server = machine.kmip()
    name = f"kmip:{server.keys['vault']}"
    service = connect(name, server.environment())
    other = connect(f"kmip:{server.keys['other']}", server.environment())
    with contextlib.ExitStack() as stack:
        wrong = [Wrong(name="another key", unlock=_named(name, other))]
        for mode, change in KMIP_MEDDLING.items():
            port = stack.enter_context(between(server, change)).port
            wrong.append(Wrong(name=mode, unlock=connect(name, server.environment(port))))
        private = (server.folder / "client.key").read_bytes().split(b"-----")[2]  # without what all keys have
        yield Ground(
            unlock=service, environment=server.environment(), secrets={"client's key": private}, wrong=tuple(wrong)
        )


def _named(name: str, service: Unlock) -> Unlock:
    """Return a service that says it is another: what a vault file meets whose key was swapped behind its name."""

    class Renamed:
        def __init__(self) -> None:
            self.name = name
            self.wrap, self.unwrap = service.wrap, service.unwrap  # type: ignore[union-attr]  # services alone

        def __repr__(self) -> str:
            return repr(service)

    return Renamed()


MEDDLING: dict[str, Callable[[int, bytes], tuple[int, bytes]]] = {
    "an error with the answer": lambda _status, body: (501, body),  # which no client tries again
    "refused with the answer": lambda _status, body: (403, b'{"__type":"AccessDenied","errors":[' + body + b"]}"),
    "not a document": lambda status, body: (status, b"<html>" + body),
    "cut": lambda status, body: (status, body[:-3]),
    "deeper": lambda status, body: (status, b'{"data":{"data":' + body + b"}}"),
    "a longer key": lambda status, body: (status, body.replace(b'="', b'A"')),
}  # fmt: skip


@contextlib.contextmanager
def _meddler(url: str, *modes: str) -> Iterator[dict[str, str]]:
    """Yield, for each way to go wrong, the address of who passes on what ``url`` answers, in that way."""
    servers = {mode: _pass_on(url, change) for mode, change in MEDDLING.items() if mode in modes or not modes}
    try:
        yield {mode: f"http://127.0.0.1:{server.server_port}" for mode, server in servers.items()}
    finally:
        for server in servers.values():
            server.shutdown()
            server.server_close()


def _pass_on(url: str, change: Callable[[int, bytes], tuple[int, bytes]]) -> ThreadingHTTPServer:
    place = urlsplit(url).netloc

    class Between(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with contextlib.closing(HTTPConnection(place, timeout=20)) as inner:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                inner.request("POST", self.path, body, headers)
                answer = inner.getresponse()
                status, data = change(answer.status, answer.read())
            self.send_response(status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Between)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


_UNSEAL = bytes.fromhex("0000015e")  # TPM2_Unseal (Part 2 section 6.5.2)


def _resized(answer: bytes, by: int) -> bytes:
    """Return an answer of TPM2_Unseal with a longer or shorter secret, sound otherwise (Part 1 section 18)."""
    size = int.from_bytes(answer[14:16], "big")
    data = (answer[16 : 16 + size] + b"\0")[: size + by]
    total, parameters = (len(answer) + by).to_bytes(4, "big"), (len(data) + 2).to_bytes(4, "big")
    return answer[:2] + total + answer[6:10] + parameters + len(data).to_bytes(2, "big") + data + answer[16 + size :]


TPM_MEDDLING: dict[str, Callable[[bytes], bytes]] = {
    "one byte more": lambda answer: _resized(answer, 1),
    "one byte less": lambda answer: _resized(answer, -1),
    "refused with the key": lambda answer: answer[:6] + bytes.fromhex("00000101") + answer[10:],
    "cut": lambda answer: answer[:2] + (len(answer) - 40).to_bytes(4, "big") + answer[6:-40],
}


@contextlib.contextmanager
def _tpm_meddler(real: Path) -> Iterator[dict[str, Path]]:
    """Yield the sockets of who passes on a TPM's answers, and that to TPM2_Unseal in a wrong form."""
    with contextlib.ExitStack() as stack:
        places = {}
        for number, (mode, change) in enumerate(TPM_MEDDLING.items()):
            places[mode] = real.with_name(f"between-{number}")
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(places[mode]))
            listener.listen()
            threading.Thread(target=_serve_tpm, args=(listener, real, change), daemon=True).start()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
        yield places


def _serve_tpm(listener: socket.socket, real: Path, change: Callable[[bytes], bytes]) -> None:
    with contextlib.suppress(OSError):
        while True:
            outer, _ = listener.accept()
            with outer, SocketTransport(real) as inner:
                while command := outer.recv(65536):
                    answer = inner.transceive(command)
                    outer.sendall(change(answer) if command[6:10] == _UNSEAL else answer)


GROUNDS = {
    "passphrase": _passphrase,
    "key file": _key_file,
    "pkcs11": _pkcs11,
    "aws-kms": _aws_kms,
    "transit": _transit,
    "tpm": _tpm,
    "kmip": _kmip,
}
