"""What one inference costs in processor time between the opened request and the answer to be sealed, engine included.

    python benchmarks/engine.py --rounds 10

The enclave as it is shipped, in this process, with a custodian in memory and a simulated TEE; requests go to the inner
API, so that neither encryption nor the web server is in the figures. The same requests run with every run in a thread
(an engine that calls no model steady), with brief runs in place, and in batches, one at a time and 64 at once; then one
tensor of 600 KB in and out. Rounds of all kinds are interleaved, medians are shown. Microseconds are of this machine
at this moment; ``refs`` are the same in units of a fixed loop of Python, timed beside it, and compare between machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from figures.processor import reference
from fleet.enclave import lend
from onnx import TensorProto, helper, numpy_helper

from cloister.channel.bhttp import BinaryRequest
from cloister.enclave.asker import NOBODY
from cloister.enclave.boot import boot
from cloister.enclave.clock import SystemClock
from cloister.enclave.config import Batching, EnclaveConfig, Limits
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.engines.onnx import OnnxEngine, OnnxModel
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.instance import EnclaveInstance
from cloister.enclave.loanfile import read_loan_file
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.enclave.oip import HEADER_LENGTH
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.enclave.engines import ModelFiles

AT_ONCE = 64
EACH = 5  # requests of one consumer in a round
PHOTO = 3 * 224 * 224
GOAL_BATCHED = 1.5
GOAL_PHOTO_US = 3000
OK = 200


class Threaded(OnnxEngine):
    """The same engine, of whose runs nothing is foreseen: all go to threads."""

    def load(self, files: ModelFiles, *, prepack: bool = False) -> OnnxModel:
        """Return the model, not steady."""
        model = super().load(files, prepack=prepack)
        model.steady = False
        return model


def network(width: int) -> bytes:
    """Return a classifier of 64 numbers with ``width`` hidden ones."""
    rng = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(rng.random(shape, dtype=np.float32), name)
        for shape, name in (((64, width), "v"), ((width, 10), "w"))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"]),
    ]
    return _model(nodes, 64, 10, weights)


def doubler() -> bytes:
    """Return a model that gives a photo back twice as bright."""
    two = numpy_helper.from_array(np.array(2, dtype=np.float32), "two")
    return _model([helper.make_node("Mul", ["x", "two"], ["y"])], PHOTO, PHOTO, [two])


def _model(nodes: list[Any], wide: int, out: int, weights: list[Any]) -> bytes:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", wide])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", out])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(built.SerializeToString())


def asked(name: str, width: int, seed: int = 2) -> BinaryRequest:
    """Return a binary request of one row."""
    row = np.random.default_rng(seed).random((1, width), dtype=np.float32)
    entry = {"name": "x", "datatype": "FP32", "shape": [1, width], "parameters": {"binary_data_size": row.nbytes}}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    lines = ((HEADER_LENGTH, str(len(head))),)
    return BinaryRequest(method="POST", path=f"/v2/models/{name}/infer", headers=lines, body=head + row.tobytes())


MODELS = {"small": network(64), "wide": network(8192), "photo": doubler()}


@dataclass(slots=True, kw_only=True)
class Kind:
    """One way to run, and what its rounds came to: microseconds and refs of a request, by what was asked."""

    name: str
    threaded: bool = False
    batched: bool = False
    clauses: Mapping[str, Any] = field(default_factory=dict)
    instance: EnclaveInstance | None = None
    found: dict[tuple[str, int], list[tuple[float, float]]] = field(default_factory=dict)

    async def start(self, stack: AsyncExitStack) -> None:
        """Boot an enclave of this kind."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="engine-")))
        (folder / "models").mkdir()
        batching = {name: Batching(rows=AT_ONCE + 1) for name in ("small", "wide")} if self.batched else {}
        config = EnclaveConfig(
            loan=folder / "loan.json", models=(folder / "models",), limits=Limits(), batching=batching
        )
        root = SimulatedRoot.generate()
        transport = (await lend(folder, root, config, MODELS, self.clauses)).transport
        loan, software, clock = read_loan_file(config.loan), measure_software(config), SystemClock()
        source = EvidenceSource(attester=SimulatedAttester(root, software, os.urandom(32)))
        engine = (Threaded if self.threaded else OnnxEngine)(threads=1)
        log = EventLog(clock.wall, StringIO())
        link = await stack.enter_async_context(CustodianLink(loan, timeout=timedelta(seconds=5), transport=transport))
        booted = await boot(config, loan, source=source, software=software, engine=engine, link=link, log=log)
        self.instance = EnclaveInstance(
            booted, config, loan, source=source, engine=engine, link=link, clock=clock, log=log
        )
        stack.callback(self.instance.wipe)

    async def round(self, name: str, at_once: int) -> None:
        """Ask ``at_once`` consumers' requests together and note what one cost."""
        if self.instance is None:
            return
        await self.instance.renewal.once()
        api = self.instance.api
        rows = len(self.found.get((name, at_once), ())) * EACH  # other rows in each round: nothing may be remembered
        requests = [asked(name, PHOTO if name == "photo" else 64, rows + at) for at in range(EACH)]

        async def consumer() -> None:
            for request in requests:
                answer = await api.answer(request, NOBODY)
                if answer.response.status != OK:
                    raise SystemExit(answer.response.status)

        before = reference()
        begun = time.process_time()
        await asyncio.gather(*(consumer() for _ in range(at_once)))
        took = (time.process_time() - begun) / (EACH * at_once)
        ref = (before + reference()) / 2
        self.found.setdefault((name, at_once), []).append((took * 1e6, took / ref))

    def median(self, name: str, at_once: int) -> tuple[float, float]:
        """Return microseconds and refs of one request."""
        found = self.found[name, at_once]
        return statistics.median(one for one, _ in found), statistics.median(other for _, other in found)


async def run(kinds: Sequence[Kind], cases: Sequence[tuple[str, int]], rounds: int) -> None:
    """Let every kind answer every case, in turn: once to warm up, then in each round."""
    async with AsyncExitStack() as stack:
        for kind in kinds:
            await kind.start(stack)
        for at in range(rounds + 1):
            for name, at_once in cases:
                for kind in kinds:
                    await kind.round(name, at_once)
            if not at:  # the first round warms up
                for kind in kinds:
                    kind.found.clear()


async def measure(rounds: int) -> None:
    """Run all kinds in turn and print a table."""
    kinds = [Kind(name="threads", threaded=True), Kind(name="in place"), Kind(name="batched", batched=True)]
    cases = [("small", 1), ("small", AT_ONCE), ("wide", 1), ("wide", AT_ONCE), ("photo", 1)]
    await run(kinds, cases, rounds)
    print(f"{'':22}" + "".join(f"{kind.name:>22}" for kind in kinds))
    for name, at_once in cases:
        threads = kinds[0].median(name, at_once)[1]
        row = [(*kind.median(name, at_once), threads) for kind in kinds]
        shown = "".join(f"{us:>7.0f} us {refs:>5.1f} {first / refs:>5.2f}x" for us, refs, first in row)
        print(f"{name + ', ' + str(at_once) + ' at once':22}{shown}")
    for name in ("small", "wide"):
        gain = kinds[0].median(name, AT_ONCE)[1] / kinds[2].median(name, AT_ONCE)[1]
        print(f"{name}: batched {gain:.2f}x of threads, goal {GOAL_BATCHED}x: {_verdict(gain >= GOAL_BATCHED)}")
    photo = min(kind.median("photo", 1)[0] for kind in kinds)
    print(f"photo: {photo:.0f} us with the engine, goal {GOAL_PHOTO_US} us: {_verdict(photo < GOAL_PHOTO_US)}")
    print(f"processors {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")


def _verdict(met: bool) -> str:  # noqa: FBT001 - one word for one truth
    return "met" if met else "missed"


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description="processor time of one inference between channel and channel")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each kind (10)")
    arguments, _ = parser.parse_known_args()
    asyncio.run(measure(arguments.rounds))


if __name__ == "__main__":
    main()
