"""What one inference costs the enclave in calls of Python functions and in processor time, by the way it came.

    python benchmarks/stages.py [--rounds 40] [--concurrency 1,8,64] [--calls WAY]

The enclave as it is shipped, in this process, on its own connections (``enclave/web``) over transports in memory: what
the kernel, OpenSSL and a load generator take is not in the figures. Ways are the plain route of ``race``, pinned TLS as
it looks behind TLS, and Oblivious HTTP, sealed before the clock starts. All ask the perceptron of ``race`` in binary
form. Rounds of all ways and concurrencies are interleaved and medians of processor time are shown; ``refs`` are the
same in units of a fixed loop of Python timed beside it, and compare between machines. Calls do not depend on the
machine at all: ``--calls`` tells which functions they are.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from figures.processor import reference
from fleet.added import Added
from fleet.enclave import lend
from race.nets import NETS
from race.ours import infer_path
from race.plain import PLAIN_PATH, add_plain
from race.spelling import BINARY, OIP, Request

from cloister.channel.bhttp import BinaryRequest
from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, GATEWAY_PATH, EvidenceDocument, Keyset
from cloister.channel.ohttp import seal_request
from cloister.channel.replay import dump_http_date
from cloister.enclave.boot import boot
from cloister.enclave.clock import SystemClock
from cloister.enclave.config import Batching, EnclaveConfig, Limits
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.instance import EnclaveInstance
from cloister.enclave.loanfile import read_loan_file
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.enclave.outer import Outer
from cloister.enclave.web.http1 import Http1Connection
from cloister.enclave.web.listener import Connections
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from race.nets import Net

PLAIN, PINNED, OHTTP, BATCHED = "plain", "pinned TLS", "OHTTP", "pinned TLS, batching"
EACH = 64  # requests of one round, over all connections
_OK = b"HTTP/1.1 200"


class Wire(asyncio.Transport):
    """A connection in memory: what is written is looked at and told of; nothing ever waits."""

    def __init__(self, connection: Http1Connection, buffer: memoryview) -> None:
        """Connect."""
        super().__init__()
        self._connection = connection
        self._buffer = buffer
        self._answered: Callable[[], None] | None = None
        connection.connection_made(self)

    def ask(self, request: bytes, answered: Callable[[], None]) -> None:
        """Let a whole request arrive, in one piece as it does from the kernel; call back when its answer is written."""
        self._answered = answered
        self._buffer[: len(request)] = request
        self._connection.get_buffer(-1)
        self._connection.buffer_updated(len(request))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take an answer, whole as those of small models are in every way."""
        told, answered = bytes(data), self._answered
        if answered is None or not told.startswith(_OK):
            raise SystemExit(told[:300].decode("latin-1"))
        self._answered = None
        answered()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def is_closing(self) -> bool:
        """Never."""
        return False


@dataclass(slots=True, kw_only=True)
class Way:
    """One way to ask, over connections of its own, and what its rounds came to."""

    name: str
    application: Any
    instance: EnclaveInstance
    request: Request
    pinned: bool = False
    keyset: Keyset | None = None
    wires: list[Wire] = field(default_factory=list)
    found: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def connect(self, most: int, limits: Limits) -> None:
        """Open ``most`` connections."""
        shared = Connections(limits, encrypted=False, pinned=self.pinned)
        self.wires = [Wire(Http1Connection(self.application, shared), shared.buffer) for _ in range(most)]

    def requests(self, count: int) -> list[bytes]:
        """Return so many requests as they arrive; each of Oblivious HTTP is a new one."""
        if self.keyset is None:
            return [self.request.on_the_wire()] * count
        return [_sealed(self.keyset, self.request).on_the_wire() for _ in range(count)]

    async def ask(self, requests: list[bytes], at_once: int) -> None:
        """Send all, so many at once, each connection its next one as soon as it was answered."""
        left, over = iter(requests), asyncio.get_running_loop().create_future()
        loop, open_ = asyncio.get_running_loop(), len(requests)

        def start(wire: Wire) -> None:
            nonlocal open_
            request = next(left, None)
            if request is not None:
                wire.ask(request, lambda: loop.call_soon(again, wire))

        def again(wire: Wire) -> None:
            nonlocal open_
            open_ -= 1
            if open_:
                start(wire)
            else:
                over.set_result(None)

        for wire in self.wires[:at_once]:
            start(wire)
        await over

    async def round(self, at_once: int) -> None:
        """Ask ``EACH`` times and note what one cost."""
        requests = self.requests(EACH)
        await self.instance.renewal.once()
        before = reference()
        begun = time.process_time()
        await self.ask(requests, at_once)
        took = (time.process_time() - begun) / EACH
        self.found.setdefault(at_once, []).append((took * 1e6, took / ((before + reference()) / 2)))

    async def calls(self, at_once: int) -> Counter[str]:
        """Ask ``EACH`` times and return how often each function was called."""
        requests, found = self.requests(EACH), Counter[str]()
        await self.instance.renewal.once()

        def note(frame: FrameType, event: str, arg: Any) -> None:
            if event == "call":
                found[f"{frame.f_code.co_filename.rpartition('site-packages/')[2]} {frame.f_code.co_qualname}"] += 1
            elif event == "c_call":
                found[f"C {getattr(arg, '__qualname__', arg)}"] += 1

        sys.setprofile(note)
        try:
            await self.ask(requests, at_once)
        finally:
            sys.setprofile(None)
        return found


def _sealed(keyset: Keyset, request: Request) -> Request:
    """Return the encapsulated request, with a key of its own."""
    fields = {"date": dump_http_date(datetime.now(UTC)), **request.headers}
    message = BinaryRequest(
        method="POST",
        authority="enclave",
        path=request.path,
        headers=tuple((name.lower(), value) for name, value in fields.items()),
        body=request.body,
    )
    body, _ = seal_request(keyset.configs[0], message.dump())
    return Request(path=GATEWAY_PATH, headers={"Content-Type": CHUNKED_REQUEST_TYPE}, body=body)


async def enclave(net: Net, stack: AsyncExitStack, settings: dict[str, Any]) -> EnclaveInstance:
    """Boot an enclave that serves one net, in this process."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stages-")))
    (folder / "models").mkdir()
    limits = Limits(max_exchanges=256, replay_capacity=10_000_000)
    config = EnclaveConfig(
        loan=folder / "loan.json", models=(folder / "models",), limits=limits, prepack=(net.name,), **settings
    )
    root = SimulatedRoot.generate()
    transport = (await lend(folder, root, config, {net.name: net.data})).transport
    loan, software, clock = read_loan_file(config.loan), measure_software(config), SystemClock()
    source = EvidenceSource(attester=SimulatedAttester(root, software, os.urandom(32)))
    log = EventLog(clock.wall, StringIO())
    link = await stack.enter_async_context(CustodianLink(loan, timeout=timedelta(seconds=5), transport=transport))
    engine = OnnxEngine(threads=1)
    booted = await boot(config, loan, source=source, software=software, engine=engine, link=link, log=log)
    instance = EnclaveInstance(booted, config, loan, source=source, engine=engine, link=link, clock=clock, log=log)
    stack.callback(instance.wipe)
    await instance.renewal.once()
    await instance.publisher.tick()
    return instance


async def ways(net: Net, stack: AsyncExitStack) -> list[Way]:
    """Start two enclaves, one that batches, and return the ways to ask them."""
    instance = await enclave(net, stack, {})
    added = Added(Outer(instance))
    add_plain(added, instance)
    keyset = Keyset.parse(EvidenceDocument.parse(await instance.publisher.document(None)).keyset)
    together = await enclave(net, stack, {"batching": {net.name: Batching()}})
    plain = OIP[BINARY].write(f"{PLAIN_PATH}/{net.name}", net.inputs(1))
    asked = OIP[BINARY].write(infer_path(net), net.inputs(1))
    return [
        Way(name=PLAIN, application=added, instance=instance, request=plain),
        Way(name=PINNED, application=added, instance=instance, request=asked, pinned=True),
        Way(name=OHTTP, application=added, instance=instance, request=asked, keyset=keyset),
        Way(name=BATCHED, application=Outer(together), instance=together, request=asked, pinned=True),
    ]


async def measure(asked: argparse.Namespace) -> None:
    """Run all in turn and print a table."""
    at_once = [int(word) for word in asked.concurrency.split(",")]
    async with AsyncExitStack() as stack:
        every = await ways(NETS["mlp"](), stack)
        for way in every:
            way.connect(max(at_once), Limits())
            for many in at_once:
                for _ in range(3):
                    await way.round(many)
            way.found.clear()
        if asked.calls:
            await show_calls(next(way for way in every if way.name == asked.calls), at_once[0], asked.most)
            return
        cases = [(way, many) for way in every for many in at_once]
        gc.collect()
        gc.freeze()
        for _ in range(asked.rounds):
            random.shuffle(cases)
            for way, many in cases:
                await way.round(many)
        for many in at_once:
            plain = median(every[0], many)
            for way in every:
                us, refs = median(way, many)
                calls = await way.calls(many)
                python = sum(count for name, count in calls.items() if not name.startswith("C ")) / EACH
                native = sum(count for name, count in calls.items() if name.startswith("C ")) / EACH
                print(f"{way.name + ', ' + str(many) + ' at once':32}{us:>7.0f} us {refs:>6.2f} refs"
                      f" {plain[1] / refs:>5.2f}x {python:>5.0f} calls, {native:>5.0f} of C")  # fmt: skip
    print(f"processors {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")


async def show_calls(way: Way, at_once: int, most: int) -> None:
    """Print the functions that are called most."""
    calls = await way.calls(at_once)
    for name, count in calls.most_common(most):
        print(f"{count / EACH:>7.2f} {name}")


def median(way: Way, at_once: int) -> tuple[float, float]:
    """Return microseconds and refs of one request."""
    found = way.found[at_once]
    return statistics.median(one for one, _ in found), statistics.median(other for _, other in found)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description="calls and processor time of one inference, by the way it came")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each way (40)")
    parser.add_argument("--concurrency", default="1,8,64", help="connections at once (1,8,64)")
    parser.add_argument("--calls", choices=(PLAIN, PINNED, OHTTP, BATCHED), help="only say what this way calls")
    parser.add_argument("--most", type=int, default=60, help="of which so many functions (60)")
    asked, _ = parser.parse_known_args()
    uvloop.run(measure(asked))


if __name__ == "__main__":
    main()
