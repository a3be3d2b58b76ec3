"""What encryption and metering cost: the same inference, plain and encrypted, on one server in one run.

    python benchmarks/serving.py --seconds 20 --connections 4

One process serves, this one asks. The server is the enclave as it is shipped, with a custodian in memory and a
simulated TEE, plus one route that the product does not have: it takes the same body in plain and runs it
through the same reader, engine and writer. Rounds of both kinds are interleaved, so that whatever else the
machine does falls on both alike; medians are shown, and ratios: 0.80x means 80 % of the plain figure.

Requests are sealed before the clock starts and answers opened after it stops: the figures are the server's
cost. What the consumer's side costs stands in the last columns.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
from fleet.enclave import serve_process
from onnx import TensorProto, helper, numpy_helper
from starlette.responses import Response
from starlette.routing import Route

from cloister.channel.bhttp import BinaryRequest, BinaryResponse
from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, GATEWAY_PATH, KEYSET_PATH, EvidenceDocument, Keyset
from cloister.channel.ohttp import seal_request
from cloister.channel.replay import dump_http_date
from cloister.enclave.oip import HEADER_LENGTH, dump_response, fit, parse_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette

    from cloister.enclave.boot import Booted
    from cloister.enclave.instance import EnclaveInstance

PLAIN_PATH = "/plain/infer"
OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One kind of request: a name, the shape of its input, and whether it goes as JSON."""

    name: str
    shape: tuple[int, ...]
    as_json: bool = False

    def body(self) -> tuple[bytes, dict[str, str]]:
        """Return an inference request and its headers."""
        array = np.random.default_rng(1).random(self.shape, dtype=np.float32)
        entry: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(self.shape)}
        if self.as_json:
            return json.dumps({"inputs": [entry | {"data": array.reshape(-1).tolist()}]}).encode(), {}
        entry["parameters"] = {"binary_data_size": array.nbytes}
        head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
        return head + array.tobytes(), {HEADER_LENGTH: str(len(head))}


WORKS = (
    Work(name="one digit, json", shape=(1, 64), as_json=True),
    Work(name="64 digits, binary", shape=(64, 64)),
    Work(name="one photo, binary", shape=(1, 3 * 224 * 224)),
)


def model(width: int) -> bytes:
    """Return a small classifier over rows of ``width`` numbers."""
    weights = numpy_helper.from_array(np.random.default_rng(2).random((width, 10), dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [weights],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(built.SerializeToString())


def name_of(work: Work) -> str:
    """Return the name of the model that takes this work."""
    return f"rows-of-{work.shape[1]}"


def plain_route(models: dict[str, Any]) -> Route:
    """Return the route that only this benchmark has: the same inference without encryption and count."""

    async def answer(request: Any) -> Response:
        body = await request.body()
        served = models[request.query_params["model"]]
        length = request.headers.get(HEADER_LENGTH)

        def run() -> tuple[bytes, int | None]:
            asked = parse_request(body, header_bytes=None if length is None else int(length), json_cap=4 << 20)
            outputs = served.running.run(fit(asked, served.running.signature), ["y"])
            return dump_response(asked, outputs, model=served.terms.name, version=served.terms.digest)

        data, size = await asyncio.get_running_loop().run_in_executor(None, run)
        return Response(data, headers={} if size is None else {HEADER_LENGTH: str(size)})

    return Route(PLAIN_PATH, answer, methods=["POST"])


def add_plain(app: Starlette, _instance: EnclaveInstance, booted: Booted) -> None:
    """Add the plain route to the enclave's application."""
    app.router.routes.append(plain_route({item.terms.name: item for item in booted.models}))


class Asker:
    """Asks one server, plain or encrypted; one connection for each thread."""

    def __init__(self, port: int) -> None:
        """Fetch the keyset."""
        self._port = port
        document = httpx2.get(f"http://127.0.0.1:{port}{KEYSET_PATH}", trust_env=False).content
        self._config = Keyset.parse(EvidenceDocument.parse(document).keyset).configs[0]
        self.seal_s: list[float] = []
        self.open_s: list[float] = []

    def plain(self, work: Work, count: int) -> list[tuple[str, bytes, dict[str, str], Any]]:
        """Return plain requests."""
        body, headers = work.body()
        return [(f"{PLAIN_PATH}?model={name_of(work)}", body, headers, None)] * count

    def sealed(self, work: Work, count: int) -> list[tuple[str, bytes, dict[str, str], Any]]:
        """Return encrypted requests, each sealed anew."""
        body, extra = work.body()
        made = []
        for _ in range(count):
            begun = time.perf_counter()
            request = BinaryRequest(
                method="POST",
                authority="enclave",
                path=f"/v2/models/{name_of(work)}/infer",
                headers=(("date", dump_http_date(datetime.now(UTC))), *extra.items()),
                body=body,
            )
            sealed, opener = seal_request(self._config, request.dump())
            self.seal_s.append(time.perf_counter() - begun)
            made.append((GATEWAY_PATH, sealed, {"content-type": CHUNKED_REQUEST_TYPE}, opener))
        return made

    def send(self, requests: list[tuple[str, bytes, dict[str, str], Any]]) -> list[float]:
        """Send one after the other on one connection; return the seconds of each, answers opened outside them."""
        took, answers = self._send(requests)
        self._open(requests, answers)
        return took

    def _send(self, requests: list[tuple[str, bytes, dict[str, str], Any]]) -> tuple[list[float], list[bytes]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        took, answers = [], []
        for path, body, headers, _ in requests:
            begun = time.perf_counter()
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answers.append(answer.read())
            took.append(time.perf_counter() - begun)
            if answer.status != OK:
                msg = f"{path}: {answer.status} {answers[-1][:200]!r}"
                raise SystemExit(msg)
        connection.close()
        return took, answers

    def _open(self, requests: list[tuple[str, bytes, dict[str, str], Any]], answers: list[bytes]) -> None:
        for (_, _, _, opener), data in zip(requests, answers, strict=True):
            if opener is None:
                continue
            begun = time.perf_counter()
            inner = BinaryResponse.parse(b"".join([*opener.feed(data), opener.end()]))
            self.open_s.append(time.perf_counter() - begun)
            if inner.status != OK:
                msg = f"inner {inner.status} {inner.body[:200]!r}"
                raise SystemExit(msg)

    def rate(self, requests: list[tuple[str, bytes, dict[str, str], Any]], connections: int) -> float:
        """Return requests per second over several connections at once; answers are opened after that."""
        parts = [requests[at::connections] for at in range(connections)]
        with ThreadPoolExecutor(connections) as threads:
            begun = time.perf_counter()
            answers = list(threads.map(self._send, parts))
            took = time.perf_counter() - begun
        for part, (_, found) in zip(parts, answers, strict=True):
            self._open(part, found)
        return len(requests) / took


def measure(asker: Asker, work: Work, seconds: float, connections: int) -> None:
    """Measure one kind of work in interleaved rounds and print a line."""
    makers: dict[str, Callable[[Work, int], Any]] = {"plain": asker.plain, "sealed": asker.sealed}
    took: dict[str, list[float]] = {"plain": [], "sealed": []}
    rates: dict[str, list[float]] = {"plain": [], "sealed": []}
    for make in makers.values():
        asker.send(make(work, 10))
    asker.seal_s.clear()
    asker.open_s.clear()
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(rates["sealed"]) < 3:  # noqa: PLR2004 - a median wants three
        for kind, make in makers.items():
            took[kind] += asker.send(make(work, 20))
            rates[kind].append(asker.rate(make(work, 20 * connections), connections))
    wait = {kind: statistics.median(values) * 1e3 for kind, values in took.items()}
    rate = {kind: statistics.median(values) for kind, values in rates.items()}
    seal, opened = (statistics.median(values) * 1e3 for values in (asker.seal_s, asker.open_s))
    print(
        f"{work.name:20}{wait['plain']:>8.2f}{wait['sealed']:>8.2f}{wait['sealed'] / wait['plain']:>7.2f}x"
        f"{rate['plain']:>9.0f}{rate['sealed']:>8.0f}{rate['sealed'] / rate['plain']:>7.2f}x{seal:>9.2f}{opened:>7.2f}"
    )


def main() -> None:
    """Start the server, measure every kind of work, print a table."""
    parser = argparse.ArgumentParser(description="encrypted and metered inference against plain, on one server")
    parser.add_argument("--seconds", type=float, default=15, help="seconds in all (15)")
    parser.add_argument("--connections", type=int, default=4, help="connections at once for requests per second (4)")
    arguments, _ = parser.parse_known_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        models = {name_of(work): model(work.shape[1]) for work in WORKS}
        process = context.Process(target=serve_process, args=(folder, theirs, models, add_plain))
        process.start()
        asker = Asker(ours.recv())
        print(f"medians of interleaved rounds, {os.cpu_count()} processors, {arguments.connections} connections")
        print(f"{'':20}{'latency, ms':>24}{'requests/s':>25}{'consumer, ms':>16}")
        print(
            f"{'':20}{'plain':>8}{'sealed':>8}{'ratio':>8}{'plain':>9}{'sealed':>8}{'ratio':>8}{'seal':>9}{'open':>7}"
        )
        for work in WORKS:
            measure(asker, work, arguments.seconds / len(WORKS), arguments.connections)
        ours.send("end")
        process.join()


if __name__ == "__main__":
    main()
