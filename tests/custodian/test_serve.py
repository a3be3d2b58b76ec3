"""The real process: TLS, signals, the lock, kill -9 under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from custodian_kit import CHEAP, START

from cloister.custodian.setup import init_custodian
from cloister.custodian.tls import authority_certificate, write_server_certificate
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, KeyFile
from cloister.errors import Malformed, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.custodian.setup import Initialised

CHILD = Path(__file__).with_name("serve_child.py")


@pytest.fixture
def home(tmp_path: Path) -> Initialised:
    """Return a fresh custodian that will listen on any free port."""
    key = KeyFile.create(tmp_path / "vault.key")
    return init_custodian(
        tmp_path / "home", key, settings={"port": 0, "shutdown_grace_s": 2, "sweep_interval_s": 1}, kdf=CHEAP
    )


class Running:
    """A custodian in a process of its own."""

    def __init__(self, home: Initialised) -> None:
        self.home = home
        self.process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, str(CHILD), str(home.home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, self.process.communicate()[1]
        self.port = urlsplit(self.url).port or 0

    def connect(self) -> http.client.HTTPSConnection:
        """Return a connection that trusts this custodian's authority and nothing else."""
        context = ssl.create_default_context(cadata=self.home.ca_pem)
        return http.client.HTTPSConnection("localhost", self.port, context=context, timeout=20)

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make one call as the admin."""
        connection = self.connect()
        headers = {"Authorization": f"Bearer {self.home.admin_token}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(sig)
        self.process.communicate(timeout=20)
        return self.process.returncode


@contextlib.contextmanager
def _running(home: Initialised) -> Iterator[Running]:
    running = Running(home)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate()


def _handshake(port: int, context: ssl.SSLContext, name: str = "localhost") -> str | None:
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname=name) as secure:
        return secure.version()


def test_it_serves_tls_1_3_stops_on_sigterm_and_lets_the_lock_go(home: Initialised) -> None:
    """List 51 and 102; T39: the second process is told who holds the lock."""
    with _running(home) as running:
        assert running.call("GET", "/v1/custodian")[1]["key"] == home.key.dump()
        trusting = ssl.create_default_context(cadata=home.ca_pem)
        assert _handshake(running.port, trusting) == "TLSv1.3"
        old = ssl.create_default_context(cadata=home.ca_pem)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _handshake(running.port, old)
        with pytest.raises(ssl.SSLCertVerificationError):
            _handshake(running.port, ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            _handshake(running.port, trusting, name="custodian.example")
        second = subprocess.run(  # noqa: S603 - our own file
            [sys.executable, str(CHILD), str(home.home)], capture_output=True, text=True, check=False, timeout=60
        )
        assert second.returncode == 5
        assert f"held by process {running.process.pid}" in second.stderr
        # An open event stream does not keep it from ending.
        stream = running.connect()
        stream.request("GET", "/v1/events", headers={"Authorization": f"Bearer {home.admin_token}"})
        answer = stream.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")
        reader = threading.Thread(target=answer.read)
        reader.start()
        assert running.stop() == 0
        reader.join()
        stream.close()
    with _running(home) as again:
        entries = again.call("GET", "/v1/audit")[1]["entries"]
        assert [entry["kind"] for entry in entries][-2:] == ["custodian_stopped", "custodian_started"]
        assert again.stop(signal.SIGINT) == 0


def _load(running: Running, acknowledged: list[int], first: threading.Event, stop: threading.Event) -> None:
    """Make tokens until the process is gone; remember how many were acknowledged, and tell of the first."""
    while not stop.is_set():
        try:
            status, _ = running.call("POST", "/v1/tokens", {"role": "auditor", "name": "load"})
        except (OSError, http.client.HTTPException, ValueError):
            return
        if status == 201:
            acknowledged.append(1)
            first.set()


def _kill_rounds(home: Initialised, rounds: int) -> None:
    """Kill -9 under load; what was acknowledged is stored, and the log is whole (C7, C10)."""
    acknowledged: list[int] = []
    for number in range(rounds):
        with _running(home) as running:
            first, stop = threading.Event(), threading.Event()
            threads = [threading.Thread(target=_load, args=(running, acknowledged, first, stop)) for _ in range(4)]
            for thread in threads:
                thread.start()
            assert first.wait(60)
            stop.wait(0.05 * (number % 4))
            running.stop(signal.SIGKILL)
            stop.set()
            for thread in threads:
                thread.join()
    with _running(home) as running:
        tokens = [item for item in running.call("GET", "/v1/tokens")[1]["tokens"] if item["name"] == "load"]
        assert len(acknowledged) <= len(tokens) <= len(acknowledged) + 4 * rounds
        assert running.stop() == 0
    database = sqlite3.connect(home.home / "custodian.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    made = database.execute("SELECT count(*) FROM audit WHERE CAST(entry AS TEXT) LIKE '%token_created%'").fetchone()[0]
    assert made == len(tokens) + 1
    database.close()


def test_killed_under_load_it_comes_back_with_all_it_acknowledged(home: Initialised) -> None:
    _kill_rounds(home, 3)


@pytest.mark.drill
def test_killed_twenty_times_under_load_it_comes_back_each_time(home: Initialised) -> None:
    _kill_rounds(home, 20)


def _trickle(running: Running, request: bytes) -> ssl.SSLSocket:
    """Connect and send the beginning of a request."""
    context = ssl.create_default_context(cadata=running.home.ca_pem)
    plain = socket.create_connection(("127.0.0.1", running.port), timeout=10)
    secure = context.wrap_socket(plain, server_hostname="localhost")
    secure.sendall(request)
    return secure


def test_slow_clients_do_not_keep_the_others_out(tmp_path: Path) -> None:
    """T82, list 52: silence, a byte now and then, half a body; each on its own and after a whole request too."""
    key = KeyFile.create(tmp_path / "vault.key")
    settings = {"port": 0, "connections": 6, "request_timeout_s": 1, "shutdown_grace_s": 1}
    with _running(init_custodian(tmp_path / "home", key, settings=settings, kdf=CHEAP)) as running:
        token = running.home.admin_token.encode()
        body = b"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token
        body += b"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        half = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
        whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        slow = [_trickle(running, start) for start in (b"", b"G", half, half, whole + half, body)]
        begin = time.monotonic()
        while slow and time.monotonic() < begin + 15:
            time.sleep(0.2)
            for secure in tuple(slow):
                if _is_dropped(secure):
                    secure.close()
                    slow.remove(secure)
        assert not slow
        assert time.monotonic() < begin + 8
        assert running.call("GET", "/v1/tokens")[0] == 200
        assert running.stop() == 0


def test_idle_connections_make_room_for_busy_ones(tmp_path: Path) -> None:
    """Many enclaves keep a connection and ask now and then: none of them may be told that there is no place."""
    key = KeyFile.create(tmp_path / "vault.key")
    settings = {"port": 0, "connections": 6, "shutdown_grace_s": 1}
    with _running(init_custodian(tmp_path / "home", key, settings=settings, kdf=CHEAP)) as running:
        kept = [running.connect() for _ in range(20)]
        for turn in range(2):
            for connection in kept:
                with contextlib.suppress(ConnectionError, ssl.SSLError):  # given up meanwhile: asked again below
                    connection.request("GET", "/healthz")
                    assert connection.getresponse().read()
                    continue
                connection.close()
                connection.request("GET", "/healthz")
                answer = connection.getresponse()
                assert (turn, answer.status, answer.read()) == (turn, 200, b'{"status":"ok"}')
        busy = [_trickle(running, b"GET /healthz HTTP/1.1\r\nHost: x\r\n") for _ in range(6)]
        last = running.connect()
        last.request("GET", "/healthz")
        assert last.getresponse().status == 503  # who is on its way keeps its place
        for connection in (*kept, *busy, last):
            connection.close()
        assert running.stop() == 0


def _is_dropped(secure: ssl.SSLSocket) -> bool:
    """Send one byte more and tell whether the other side has hung up."""
    secure.settimeout(0.05)
    try:
        secure.sendall(b"x")
        while secure.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_a_server_certificate_is_renewed_in_time_and_for_new_names(home: Initialised) -> None:
    folder = home.home / "tls"
    vault = EncryptedFileVault.open(home.home / "vault.json", KeyFile(home.home.parent / "vault.key"))
    names = ("localhost", "127.0.0.1")
    now = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes()).not_valid_before_utc
    key = vault.tls_authority_key
    assert not write_server_certificate(folder, key, names=names, now=now)
    assert not write_server_certificate(folder, key, names=names, now=now + timedelta(days=59))
    assert write_server_certificate(folder, key, names=names, now=now + timedelta(days=61))
    assert write_server_certificate(folder, key, names=(*names, "k.example"), now=now + timedelta(days=62))
    (folder / "server.key").chmod(0o644)
    with pytest.raises(UsageError):
        write_server_certificate(folder, key, names=(*names, "k.example"), now=now + timedelta(days=62))


def test_a_renewal_that_was_killed_between_key_and_certificate_is_made_good(home: Initialised) -> None:
    """Else the next start ends in a key and a certificate that do not belong together."""
    folder = home.home / "tls"
    vault = EncryptedFileVault.open(home.home / "vault.json", KeyFile(home.home.parent / "vault.key"))
    before = (folder / "server.pem").read_bytes()
    now = x509.load_pem_x509_certificate(before).not_valid_before_utc + timedelta(days=1)
    assert write_server_certificate(folder, vault.tls_authority_key, names=("k.example",), now=now)
    (folder / "server.pem").write_bytes(before)
    names = ("localhost", "127.0.0.1")
    assert write_server_certificate(folder, vault.tls_authority_key, names=names, now=now)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "server.pem", folder / "server.key")


def test_a_certificate_of_another_vault_is_refused(home: Initialised, tmp_path: Path) -> None:
    """List 114: key and certificate that do not belong together."""
    other = EncryptedFileVault.create(tmp_path / "other.json", KeyFile(tmp_path / "vault.key"), kdf=CHEAP)
    (home.home / "tls" / "server.pem").unlink()
    with pytest.raises(UsageError):
        write_server_certificate(home.home / "tls", other.tls_authority_key, names=("localhost",), now=START)
    with pytest.raises(Malformed):
        authority_certificate(b"no key", name="x", now=START)
