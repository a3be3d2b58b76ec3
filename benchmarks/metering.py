"""What share of a request an enclave spends on metering: counting, permitting, settling, signing the receipt.

    python benchmarks/metering.py [--seconds 40]

One enclave as it is shipped serves two models through its real gateway, encrypted: a small perceptron over 8x8
digits, and a convolutional net of about 25 MB over photos. Two figures for each:

* counted inside: the processor time that every call of the lease took, summed over one request (who asks, reserve,
  charge with the signed receipt, what is left, the checks before each chunk), with both salted commitments;
  its share is of all processor time that the enclave's process took for the request.
* seen from outside: the same requests with a lease that does nothing (no counting, no signature: a stand-in that only
  this benchmark has), in rounds interleaved with the real one. Its noise is that of the whole request.

The goal is under 1 % of the request for the conv net.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
from figures.goals import at_most
from fleet.asker import Asker, Work, name_of
from fleet.enclave import serve_process
from onnx import TensorProto, helper, numpy_helper

from cloister.enclave import inference
from cloister.enclave.web.exchange import Answer
from cloister.lending.lease import Reservation
from cloister.lending.receipt import SALT_BYTES, commit
from cloister.lending.terms import LOAN_METER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.added import Added
    from onnx import NodeProto

    from cloister.enclave.instance import EnclaveInstance
    from cloister.enclave.web.exchange import Body, Head

GOAL = at_most(1, " %")
CONTROL_PATH = "/metering"
CALLS = ("consumer", "reserve", "charge", "sign_receipts", "refund", "remaining", "demand_live")


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo(Work):
    """A request whose input is a picture, not a row."""

    name: str = "conv net, one photo"
    shape: tuple[int, ...] = (1, 3, 224, 224)


DIGIT = Work(name="perceptron, one digit", shape=(1, 64), as_json=True)
PHOTO = Photo()


def perceptron() -> bytes:
    """Return a perceptron of one hidden layer over 64 pixels."""
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal(shape, dtype=np.float32) for shape in ((64, 64), (64, 10))]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"]),
    ]
    return _model(nodes, {f"w{at}": item for at, item in enumerate(weights)}, (64,))


def conv_net() -> bytes:
    """Return a plain convolutional net of 6.3 million weights over photos of 224x224."""
    rng = np.random.default_rng(2)
    layers = ((64, 3, 7, 2), (64, 64, 3, 2), (128, 64, 3, 2), (128, 128, 3, 1), (256, 128, 3, 2), (256, 256, 3, 1),
              (512, 256, 3, 2), (512, 512, 3, 1), (512, 512, 3, 1))  # fmt: skip
    nodes: list[NodeProto] = []
    weights: dict[str, Any] = {}
    last = "x"
    for at, (out, into, side, stride) in enumerate(layers):
        weights[f"w{at}"] = rng.standard_normal((out, into, side, side), dtype=np.float32) / (side * into**0.5)
        pads = [side // 2] * 4
        nodes.append(helper.make_node("Conv", [last, f"w{at}"], [f"c{at}"], strides=[stride] * 2, pads=pads))
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"]))
        last = f"r{at}"
    weights["head"] = rng.standard_normal((512, 10), dtype=np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"]),
    ]
    return _model(nodes, weights, (3, 224, 224))


def _model(nodes: list[NodeProto], weights: dict[str, Any], shape: tuple[int, ...]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(item.astype(np.float32), name) for name, item in weights.items()],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(built.SerializeToString())


@dataclass(slots=True)
class Timed:
    """The real lease, with a watch on every call that one request makes."""

    real: Any
    seconds: float = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        if name not in CALLS:
            return found

        def timed(*arguments: Any, **named: Any) -> Any:
            begun = time.thread_time()
            try:
                return found(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - begun

        return timed


@dataclass(slots=True)
class Free:
    """A lease that counts nothing and signs nothing. What it is asked for display is the real one's."""

    real: Any
    receipt: bytes = field(default_factory=lambda: os.urandom(900))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def consumer(self, _token: bytes | None) -> None:
        """Know nobody."""

    def reserve(self, model: str, _token: bytes | None, units: int, **_: Any) -> Reservation:
        """Set nothing aside."""
        terms = self.real.terms.model(model)
        return Reservation(number=0, model=terms, consumer=None, units=units, meters=(LOAN_METER,))

    def charge(self, *_: Any) -> bytes:
        """Allow anything; return bytes of a receipt's length."""
        return self.receipt

    def sign_receipts(self, payloads: Sequence[bytes]) -> tuple[bytes, ...]:
        """Sign nothing."""
        return tuple(payloads)

    def refund(self, *_: Any) -> None:
        """Give nothing back."""

    def remaining(self, *_: Any) -> int:
        """Tell nothing."""
        return 0

    def demand_live(self, *_: Any) -> None:
        """Demand nothing."""


def add_control(app: Added, instance: EnclaveInstance) -> None:
    """Add the route that changes the lease under the gateway and tells what the timed one took."""
    timed = Timed(instance.metering)
    kinds: dict[str, Any] = {"real": instance.metering, "timed": timed, "free": Free(instance.metering)}
    commit_s = 0.0

    def timed_commit(salt: bytes, data: bytes) -> bytes:
        nonlocal commit_s
        begun = time.thread_time()
        try:
            return commit(salt, data)
        finally:
            commit_s += time.thread_time() - begun

    inference.commit = timed_commit  # type: ignore[attr-defined]  # a watch on what is called anyway

    async def control(head: Head, _: Body) -> Answer:
        nonlocal commit_s
        chosen = kinds[head.query.removeprefix("kind=")]
        runs, receipts = instance.inference._runs, instance.inference._receipts  # noqa: SLF001
        for part in (instance.inference, runs, receipts, instance.gateway, instance.gateway.api):
            name = "metering" if part is instance.gateway else "_metering"
            setattr(part, name, chosen)  # the switch that the product does not have
        told = {"lease": timed.seconds, "commitments": commit_s, "process": time.process_time()}
        timed.seconds = commit_s = 0.0
        return Answer(status=200, body=json.dumps(told).encode())

    app.add(CONTROL_PATH, control)


class Bench:
    """Asks one enclave under one lease or the other."""

    def __init__(self, port: int) -> None:
        """Prepare."""
        self._url = f"http://127.0.0.1:{port}{CONTROL_PATH}"
        self.asker = Asker(port)

    def switch(self, kind: str) -> dict[str, float]:
        """Put this lease under the gateway; return what the timed one took since the last switch."""
        told: dict[str, float] = (
            httpx2.post(self._url, params={"kind": kind}, trust_env=False).raise_for_status().json()
        )
        return told

    def measure(self, work: Work, seconds: float, batch: int) -> None:
        """Measure one kind of request in interleaved rounds and print a line."""
        took: dict[str, list[float]] = {"real": [], "free": [], "timed": []}
        parts: list[list[float]] = []  # processor seconds of one request: lease, commitments, all
        self.asker.send(self.asker.sealed(work, batch))
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(parts) < 3:  # noqa: PLR2004 - a median wants three
            for kind, found in took.items():
                requests = self.asker.sealed(work, batch)
                before = self.switch(kind)
                found.extend(self.asker.send(requests))
                after = self.switch("real")
                if kind == "timed":
                    spent = (after["lease"], after["commitments"], after["process"] - before["process"])
                    parts.append([part / batch for part in spent])
        wall, free = (statistics.median(took[kind]) for kind in ("real", "free"))
        lease, commitments, whole = (statistics.median(values) for values in zip(*parts, strict=True))
        share = (lease + commitments) / whole
        print(
            f"{work.name:24}{whole * 1e3:>8.2f}{lease * 1e6:>8.0f}{commitments * 1e6:>9.0f}{share:>9.2%}"
            f"{wall * 1e3:>12.2f}{free * 1e3:>9.2f}{wall / free:>8.2f}x"
        )
        if work is PHOTO:
            apart = f"the lease's calls alone {lease / whole:.2%}"
            print(f"    {GOAL.verdict(share * 100)}; {apart}")
            print(f"    of the latency: {(lease + commitments) / wall:.2%}")


def show_parts() -> None:
    """Print what the dearest parts cost alone on this machine."""
    from cloister.crypto.sign import Label, SigningKey  # noqa: PLC0415 - beside what it measures

    key, payload, body = SigningKey.generate(), os.urandom(600), os.urandom(3 * 224 * 224 * 4)
    salt = secrets.token_bytes(SALT_BYTES)
    for name, work in {
        "sign a receipt (Ed25519)": lambda: key.sign(Label.RECEIPT, payload),
        "commit to a photo (600 kB)": lambda: commit(salt, body),
    }.items():
        took = []
        for _ in range(300):
            begun = time.perf_counter()
            work()
            took.append(time.perf_counter() - begun)
        print(f"  {name:34}{statistics.median(took) * 1e6:>8.0f} us")


def main() -> None:
    """Start the enclave, measure both models, print a table."""
    parser = argparse.ArgumentParser(description="the share of a request that metering takes")
    parser.add_argument("--seconds", type=float, default=40, help="seconds in all (40)")
    arguments, _ = parser.parse_known_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    models = {name_of(DIGIT): perceptron(), name_of(PHOTO): conv_net()}
    with tempfile.TemporaryDirectory(prefix="metering-") as folder:
        process = context.Process(target=serve_process, args=(folder, theirs, models, add_control))
        process.start()
        try:
            run(Bench(ours.recv()), arguments.seconds)
        finally:
            ours.send("end")
            process.join()


def run(bench: Bench, seconds: float) -> None:
    """Measure both models and print a table."""
    print(f"medians of interleaved rounds, one engine thread, {os.cpu_count()} processors; alone:")
    show_parts()
    print(f"{'':24}{'processor time of one request':>34}{'latency, ms':>30}")
    print(f"{'':24}{'all ms':>8}{'lease':>8}{'commit':>9}{'share':>9}{'metered':>12}{'not':>9}{'ratio':>9}")
    bench.measure(DIGIT, seconds / 3, 20)
    bench.measure(PHOTO, seconds * 2 / 3, 4)


if __name__ == "__main__":
    main()
