"""What a proxy adds: requests of programs over HTTP and gRPC through it, beside the same requests by our own client.

    python benchmarks/proxy.py [--seconds 3] [--concurrency 1,16]

Enclave, proxy and load are processes of their own. ``mlp`` is a small tensor in and out, ``echo`` 600 KB each way. Rate
and median are of the whole way; the processor time is of the proxy's process alone, and of the enclave's, per request,
which hold on a busy machine too. Load over HTTP comes from wrk, over gRPC from the library's own client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from fleet.enclave import serve_process
from race.load import demand_wrk, press, write_requests
from race.nets import echo, mlp
from race.processor import cpu_s
from race.spelling import BINARY, OIP

from cloister.client import Trust
from cloister.client.proxy.grpc.messages import SERVICE, message
from cloister.client.proxy.upstream import Upstream
from cloister.testing.simulated import SimulatedScheme

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from race.nets import Net

_START_S = 120
_LIMITS = {"max_exchanges": 256, "max_connections": 4096}


def nothing(_: object, __: object) -> None:
    """Add nothing to the enclave."""


@contextlib.contextmanager
def enclave(folder: Path, nets: list[Net]) -> Iterator[tuple[str, int]]:
    """Run an enclave; yield its URL and its process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    models = {net.name: net.data for net in nets}
    settings = {"limits": _LIMITS}
    process = context.Process(target=serve_process, args=(str(folder), theirs, models, nothing, settings))
    process.start()
    try:
        if not ours.poll(_START_S):
            raise SystemExit("the enclave did not come up")
        yield f"http://127.0.0.1:{ours.recv()}", process.pid or 0
    finally:
        with contextlib.suppress(OSError):
            ours.send("end")
        process.join(30)


@dataclass(frozen=True)
class Door:
    """A running proxy."""

    url: str
    grpc: str
    token: str
    pid: int


@contextlib.contextmanager
def proxy(folder: Path, url: str) -> Iterator[Door]:
    """Run the command."""
    ready = folder / "ready.json"
    words = ["proxy", url, "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--ready-file", str(ready)]
    words += ["--trust", str(folder / "trust.json"), "--insecure-simulated-root", str(folder / "root.pub.json")]
    words += ["--local-token", str(folder / "local.token")]
    process = subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-m", "cloister", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + _START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the proxy did not come up")
            time.sleep(0.05)
        said = json.loads(ready.read_text())
        yield Door(said["address"], said["grpc"], (folder / "local.token").read_text().strip(), process.pid)
    finally:
        process.terminate()
        process.wait(30)


async def repeat(ask: Callable[[], Awaitable[object]], connections: int, seconds: float) -> tuple[float, float]:
    """Ask again and again, so many at once; return the rate and the median in milliseconds."""
    took: list[float] = []
    end = time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < end:
            begun = time.monotonic()
            await ask()
            took.append(time.monotonic() - begun)

    await asyncio.gather(*(one() for _ in range(connections)))
    return len(took) / seconds, statistics.median(took) * 1e3


async def by_client(folder: Path, url: str, net: Net, connections: int, seconds: float) -> tuple[float, float]:
    """Ask with our own client, in this process."""
    trust = Trust.load(folder / "trust.json")
    assert trust.simulated_root is not None  # noqa: S101 - as fleet.enclave wrote it
    asked = OIP[BINARY].write(f"/v2/models/{net.name}/infer", net.inputs(1))
    headers = tuple((name.lower(), value) for name, value in asked.headers.items())
    async with await Upstream.verify(url, trust, schemes=[SimulatedScheme(trust.simulated_root)]) as client:
        await client.ask("POST", asked.path, headers, asked.body)
        return await repeat(lambda: client.ask("POST", asked.path, headers, asked.body), connections, seconds)


async def by_grpc(door: Door, net: Net, connections: int, seconds: float) -> tuple[float, float]:
    """Ask over gRPC, with one channel."""
    inputs = net.inputs(1)
    request = message("ModelInferRequest")(model_name=net.name, raw_input_contents=[inputs.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=inputs.shape)
    data, metadata = request.SerializeToString(), (("authorization", f"Bearer {door.token}"),)
    async with grpc.aio.insecure_channel(door.grpc) as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        await call(data, metadata=metadata)
        return await repeat(lambda: call(data, metadata=metadata), connections, seconds)


def by_http(folder: Path, door: Door, net: Net, connections: int, seconds: int) -> tuple[float, float]:
    """Ask over HTTP, by wrk."""
    asked = OIP[BINARY].write(f"/v2/models/{net.name}/infer", net.inputs(1))
    asked.headers["Authorization"] = f"Bearer {door.token}"
    write_requests(folder / "requests", [asked.on_the_wire()])
    load = press(door.url, folder / "requests", connections=connections, seconds=seconds)
    if load.faults:
        raise SystemExit(f"faults: {load.faults}")
    return load.rate, load.p50_ms


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--concurrency", default="1,16")
    asked, _ = parser.parse_known_args()
    demand_wrk()
    nets = [mlp(), echo()]
    print("model  at once  way            a second   median ms  proxy ms  enclave ms of processor each")
    with tempfile.TemporaryDirectory(prefix="proxy-") as place:
        folder = Path(place)
        with enclave(folder, nets) as (url, pid), proxy(folder, url) as door:
            for net in nets:
                for connections in map(int, asked.concurrency.split(",")):
                    ways = {
                        "our client": lambda: asyncio.run(by_client(folder, url, net, connections, asked.seconds)),  # noqa: B023
                        "proxy, http": lambda: by_http(folder, door, net, connections, asked.seconds),  # noqa: B023
                        "proxy, grpc": lambda: asyncio.run(by_grpc(door, net, connections, asked.seconds)),  # noqa: B023
                    }
                    for name, way in ways.items():
                        before = cpu_s([door.pid]), cpu_s([pid])
                        rate, median = way()
                        spent = cpu_s([door.pid]) - before[0], cpu_s([pid]) - before[1]
                        each = [1e3 * one / (rate * asked.seconds) for one in spent]
                        print(f"{net.name:5}  {connections:7}  {name:12}  {rate:9.0f}  {median:10.2f}"
                              f"  {each[0]:8.2f}  {each[1]:10.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
