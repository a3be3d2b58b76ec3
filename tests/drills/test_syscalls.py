"""What the whole enclave process does to the world, by the kernel's own account (strace): T27, T69.

From start to end of one enclave that boots, serves and drains, its model in a folder or on a web server: every file it
opened for writing, and every address it connected or sent to.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from contextlib import ExitStack

import pytest
from drill_house import DrillHouse, row
from hostile_server import HostileServer
from stores_kit import parts_of

from cloister.client import Client
from cloister.testing.simulated import SimulatedScheme

_CALLS = "open,openat,openat2,creat,rename,renameat2,link,linkat,mkdir,mkdirat,connect,sendto,sendmsg"
_OPENED = re.compile(r'open(?:at|at2)?\((?:[^,"]+, )?"([^"]*)", (?:\{flags=)?([A-Z_|0-9a-z]+)')
_MADE = re.compile(r'(?:creat|mkdirat|mkdir|rename|renameat2|link|linkat)\([^"]*"([^"]*)"')
_ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")')
_HARMLESS = ("/dev/", "/proc/")  # devices and the kernel's own view of the process: nothing there is a disk

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)"
)


@pytest.fixture(scope="module", params=["folder", "web server"])
def account(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, DrillHouse, frozenset[int]]:
    """Return what strace saw of an enclave from start to end, the house it stood in, and whom it may call."""
    root = tmp_path_factory.mktemp("syscalls")
    log = root / "strace.log"
    with ExitStack() as stack:
        house = stack.enter_context(DrillHouse(root / "house", ttl_s=30, max_ceiling=10, allowance=10, consumers=1))
        known, place = {house.custodian_port}, "sealed"
        if request.param == "web server":
            sealed = house.world.borrower / "sealed"
            server = stack.enter_context(HostileServer(parts_of(sealed)))
            shutil.rmtree(sealed)
            known, place = known | {int(server.url.rsplit(":", 1)[1])}, server.url
        ready = house.world.borrower / "ready.json"
        words = ("strace", "-f", "-qq", "-s", "256", "-e", f"trace={_CALLS}", "-o", str(log))
        ours = [place if word == "sealed" else word for word in house.enclave_words()]
        command = [*words, *house.world.command(*ours)]
        traced = house.world._start(house.world.borrower, "enclave", command, None)
        house.world.until_file(traced, ready)
        schemes = [SimulatedScheme(house.simulated.public)]
        with Client.verify(house.url, house.trust(), token=house.tokens["clinic-0"], schemes=schemes) as client:
            assert client.infer("digits", row(2)).outputs["label"].tolist() == [2]
        tracee = int(log.read_text().split(maxsplit=1)[0])
        os.kill(tracee, signal.SIGTERM)
        assert traced.wait(within_s=20) == 0, traced.said()[-1500:]
    return log.read_text(), house, frozenset(known)


@needs_strace
@pytest.mark.timeout(180)
def test_the_enclave_writes_no_file_but_the_one_it_was_told_to(account: tuple[str, DrillHouse, frozenset[int]]) -> None:
    """T27: no temporary file, no cache, no device id, no log beside standard error."""
    text, house, _ = account
    written = {
        path
        for path, flags in _OPENED.findall(text)
        if {"O_WRONLY", "O_RDWR", "O_CREAT"} & set(flags.split("|")) and not path.startswith(_HARMLESS)
    }
    written |= {path for path in _MADE.findall(text) if not path.startswith(_HARMLESS)}
    allowed = re.compile(re.escape(str(house.world.borrower)) + r"/\.?ready\.json\S*|\.?ready\.json\S*|\.")
    assert not [path for path in written if not allowed.fullmatch(path)]
    assert any("ready.json" in path for path in written), "the account shows nothing at all"


@needs_strace
@pytest.mark.timeout(180)
def test_the_enclave_talks_to_its_custodian_and_to_nobody_else(account: tuple[str, DrillHouse, frozenset[int]]) -> None:
    """T69: no name server, no telemetry; it connects to the loan file's address, and to where its model is."""
    text, _, known = account
    spoken = {
        (ipv4 or ipv6, int(port))
        for line in text.splitlines()
        if re.search(r"\b(connect|sendto|sendmsg)\(", line)
        for port, ipv4, ipv6 in _ADDRESS.findall(line)
    }
    strangers = {(host, port) for host, port in spoken if port not in {0, *known}}
    assert not strangers
    assert {port for _, port in spoken} >= known
    assert {host for host, _ in spoken} <= {"127.0.0.1", "::1"}
