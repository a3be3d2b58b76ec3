"""Real processes and sockets: TLS in memory, an orderly end, a stop, and an end without anybody."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from enclave_models import doubler
from enclave_parties import ALICE, Answer, World, infer_body, make_world, opened

import cloister
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rules import NotChecked
from cloister.channel.bhttp import BinaryRequest
from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, GATEWAY_PATH, KEYSET_PATH, EvidenceDocument, Keyset
from cloister.channel.ohttp import seal_request
from cloister.channel.replay import dump_http_date
from cloister.enclave.clock import SystemClock
from cloister.enclave.config import Tls
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.enclave.media import REVOCATIONS
from cloister.enclave.serve import Ending, Ready, Surroundings, serve_async
from cloister.errors import CloisterError, UsageError
from cloister.testing.simulated import SIMULATED, simulated_policy
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(cloister.__file__).parent.parent
ROW = [1.0, 2.0, 3.0]

CHILD = """
import os, sys
from pathlib import Path
from cloister.enclave.config import load_config
from cloister.enclave.measure import measure_software
from cloister.enclave.serve import serve
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot
from cloister.enclave.evidence import EvidenceSource
config = load_config(Path(sys.argv[1]), env={})
attester = SimulatedAttester(SimulatedRoot.load(Path(sys.argv[2])), measure_software(config), os.urandom(32))
ending = serve(config, EvidenceSource(attester=attester), on_ready=lambda ready: print(ready.url, flush=True))
print(ending.value, flush=True)
"""


def ask(url: str, http: httpx2.Client, rows: list[list[float]] | None = None) -> Answer:
    """Ask the enclave at ``url`` once, with keys from its own keyset."""
    keyset = Keyset.parse(EvidenceDocument.parse(http.get(url + KEYSET_PATH).content).keyset)
    request = BinaryRequest(
        method="POST",
        authority="enclave",
        path="/v2/models/m/infer",
        headers=(("date", dump_http_date(datetime.now(UTC))), ("authorization", f"Bearer {ALICE.decode()}")),
        body=infer_body(rows or [ROW]),
    )
    sealed, opener = seal_request(keyset.configs[0], request.dump())
    answer = http.post(url + GATEWAY_PATH, content=sealed, headers={"content-type": CHUNKED_REQUEST_TYPE})
    return opened(answer, opener)


def any_software() -> Policy:
    """Return a policy for whatever runs: parent and child may not see the same tree while it is worked on."""
    known = simulated_policy("00" * 48)
    rules = dict(known.tees[SIMULATED].rules) | {"measurement": NotChecked("this test is not about the software")}
    return Policy(version=1, tees={SIMULATED: TeePolicy(rules)})


class Process:
    """One enclave process, and the custodian it talks to over a real socket."""

    def __init__(self, folder: Path, *, ttl: int = 60, limits: str = "") -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        self.world: World = make_world(folder, {"m": doubler()}, clock=SystemClock(), url=url, ttl=ttl)
        self.world.custodian.trust(any_software())
        settings = folder / "enclave.toml"
        settings.write_text(
            f'loan = "loan.json"\nmodels = ["{self.world.custodian.lent[0].root}"]\nlisten = "127.0.0.1:0"\n' + limits
        )
        root = folder / "root.json"
        self.world.custodian.root.save(root)
        config = uvicorn.Config(self.world.custodian.app(), lifespan="off", log_config=None, access_log=False)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        self.log_path = folder / "log"
        self.log = self.log_path.open("w")
        self.child = subprocess.Popen(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-W", "error", "-c", CHILD, str(settings), str(root)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "PYTHONPATH": str(SRC)},
            text=True,
        )
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().strip()

    def stop_custodian(self) -> None:
        """End the custodian's server."""
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()

    def rest(self) -> str:
        """Return what the enclave said until its end."""
        assert self.child.stdout is not None
        said = self.child.stdout.read().strip()
        self.child.wait(20)
        return said

    def events(self) -> list[str]:
        """Return the events of its log."""
        return [json.loads(line)["event"] for line in self.log_path.read_text().splitlines()]

    def close(self) -> None:
        """End everything that is still there."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
        self.log.close()
        self.stop_custodian()


@contextlib.contextmanager
def process(folder: Path, *, ttl: int = 60, limits: str = "") -> Iterator[Process]:
    """Run one enclave process."""
    running = Process(folder, ttl=ttl, limits=limits)
    try:
        assert running.url.startswith("http"), running.log_path.read_text()
        yield running
    finally:
        running.close()


def test_sigterm_under_load_drains_and_sends_the_last_count(tmp_path: Path) -> None:
    """Bad input 102."""
    with process(tmp_path) as enclave, httpx2.Client(trust_env=False) as http:
        assert [ask(enclave.url, http).status for _ in range(5)] == [200] * 5
        answered: list[int] = []
        stop = threading.Event()

        def load() -> None:
            with httpx2.Client(trust_env=False) as client:
                while not stop.is_set():
                    try:
                        answered.append(ask(enclave.url, client).outer)
                    except (httpx2.HTTPError, CloisterError):  # gone, or no keyset any more
                        return

        loads = [threading.Thread(target=load) for _ in range(3)]
        for thread in loads:
            thread.start()
        time.sleep(0.5)
        begun = time.monotonic()
        enclave.child.send_signal(signal.SIGTERM)
        said = enclave.rest()
        took = time.monotonic() - begun
        stop.set()
        for thread in loads:
            thread.join()
        assert (said, enclave.child.returncode) == ("drained", 0), enclave.log_path.read_text()
        assert took < 10
        assert set(answered) <= {200, 503}
        (used,) = enclave.world.custodian.closed
        assert used == 5 + answered.count(200)
        assert enclave.events()[-3:] == ["ending", "closed"] or enclave.events()[-1] == "closed"
        assert {"hardened", "memory_pages"} <= set(enclave.events())


def test_a_block_ends_the_process_by_itself(tmp_path: Path) -> None:
    with process(tmp_path, ttl=3) as enclave, httpx2.Client(trust_env=False) as http:
        assert ask(enclave.url, http).status == 200
        enclave.world.custodian.block(loan=True)
        begun = time.monotonic()
        assert enclave.rest() == "stopped"
        assert time.monotonic() - begun < 3 + 2
        assert "wiped" in enclave.events()


def test_a_dead_custodian_ends_serving_at_t_and_the_process_at_two_t(tmp_path: Path) -> None:
    """T36, with real time and a real process."""
    with process(tmp_path, ttl=2) as enclave, httpx2.Client(trust_env=False) as http:
        assert ask(enclave.url, http).status == 200
        enclave.world.custodian.cut = True
        begun = time.monotonic()
        last = 0.0
        while time.monotonic() - begun < 6:
            try:
                answer = ask(enclave.url, http)
            except (httpx2.HTTPError, CloisterError):
                break
            if answer.outer == 200 and answer.status == 200:
                last = time.monotonic() - begun
            time.sleep(0.05)
        assert last < 2 + 1.002
        assert enclave.rest() == "expired"
        assert time.monotonic() - begun < 2 * 2 + 3


def test_the_models_key_is_not_in_memory_while_the_model_is_served(tmp_path: Path) -> None:
    """T26 and R19: after loading nobody needs it, so nobody can find it. The reader here is root outside any TEE."""
    with process(tmp_path) as enclave, httpx2.Client(trust_env=False) as http:
        assert ask(enclave.url, http).status == 200
        memory = list(readable_memory(enclave.child.pid))
        if not any(enclave.world.token.encode() in part for part in memory):
            pytest.skip("the memory of another process cannot be read here (CAP_SYS_PTRACE)")
        assert not any(enclave.world.custodian.lent[0].dek in part for part in memory)


def readable_memory(pid: int) -> Iterator[bytes]:
    """Yield every readable mapping of a process."""
    with contextlib.suppress(PermissionError), Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            places, rights, *_ = line.split()
            start, end = (int(place, 16) for place in places.split("-"))
            if "r" in rights and "[v" not in line:
                with contextlib.suppress(OSError):
                    memory.seek(start)
                    yield memory.read(end - start)


def test_a_killed_enclave_loses_at_most_n(tmp_path: Path) -> None:
    """I4: kill -9 costs what was escrowed and nothing else."""
    with process(tmp_path) as enclave, httpx2.Client(trust_env=False) as http:
        before = enclave.world.custodian.balances["loan"]  # type: ignore[index]
        ask(enclave.url, http)
        enclave.child.kill()
        enclave.child.wait()
        lost = 1000 - before
        assert 0 < lost <= 1000
        assert enclave.world.custodian.alarms == []


@asynchronous
async def test_outer_tls_has_a_key_of_this_boot_and_its_hash_is_attested(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, clock=SystemClock())
    config = world.config(tls=Tls.GENERATED, port=0)
    world.custodian.trust(simulated_policy(measure_software(config)))
    around = Surroundings(
        clock=world.clock,
        log=EventLog(world.clock.wall, world.log),
        transport=httpx2.ASGITransport(app=world.custodian.app()),
    )
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(
        serve_async(
            config, EvidenceSource(attester=world.attester(config)), around=around, stop=stop, on_ready=ready.set_result
        )
    )
    url = (await ready).url
    assert url.startswith("https://127.0.0.1:")

    def talk() -> tuple[bytes, Answer]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        host, port = url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw) as wrapped:
            der = wrapped.getpeercert(binary_form=True)
        assert der is not None
        spki = x509.load_der_x509_certificate(der).public_key()
        with httpx2.Client(verify=context, trust_env=False) as http:
            keyset = Keyset.parse(EvidenceDocument.parse(http.get(url + KEYSET_PATH).content).keyset)
            digest = hashlib.sha256(spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
            assert keyset.tls_spki_sha256 == (digest,)
            with pytest.raises(httpx2.HTTPError):
                httpx2.get(url, trust_env=False)  # self-signed: only the attested hash makes it good
            return digest, ask(url, http)

    _, answer = await asyncio.to_thread(talk)
    assert answer.status == 200
    stop.set()
    assert await asyncio.wait_for(serving, 10) is Ending.DRAINED
    assert world.custodian.closed == [1]


@asynchronous
async def test_a_running_enclave_looks_for_revocations_in_its_folder(tmp_path: Path) -> None:
    world, media = make_world(tmp_path, {"m": doubler()}, clock=SystemClock()), tmp_path / "media"
    media.mkdir()
    config = world.config(port=0, media=media)
    around = Surroundings(
        clock=world.clock,
        log=EventLog(world.clock.wall, world.log),
        transport=httpx2.ASGITransport(app=world.custodian.app()),
    )
    source, stop, found = EvidenceSource(attester=world.attester(config)), asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve_async(config, source, around=around, stop=stop, on_ready=lambda _: found.set()))
    await asyncio.wait_for(found.wait(), 10)
    (media / REVOCATIONS).write_bytes(b"{}")
    async with asyncio.timeout(10):
        while "revocations_failed" not in world.log.getvalue():  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.05)
    stop.set()
    assert await asyncio.wait_for(serving, 10) is Ending.DRAINED


@asynchronous
async def test_a_taken_port_is_said(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, clock=SystemClock())
    around = Surroundings(
        clock=world.clock,
        log=EventLog(world.clock.wall, world.log),
        transport=httpx2.ASGITransport(app=world.custodian.app()),
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = world.config(port=taken.getsockname()[1])
        with pytest.raises(UsageError, match="listen"):
            await serve_async(config, EvidenceSource(attester=world.attester(config)), around=around)
    assert world.custodian.closed == [0], "what was begun is ended in order"


def test_t82_clients_that_do_not_get_their_request_out_are_dropped(tmp_path: Path) -> None:
    """Bad input 52: silence and a byte now and then, each for longer than a head may take."""
    with process(tmp_path, limits="[limits]\nbody_timeout_s = 1\n") as enclave:
        address = ("127.0.0.1", httpx2.URL(enclave.url).port)
        slow = [socket.create_connection(address, timeout=5) for _ in range(3)]
        slow[1].sendall(b"G")
        slow[2].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        begin = time.monotonic()
        for connection in slow:
            with connection:
                assert connection.recv(1024) == b""
        assert time.monotonic() - begin < 4
