"""What an inference costs the consumer's own processor: the SDK over pinned TLS and over encapsulated requests.

    python benchmarks/consumer.py --inferences 500

A perceptron over 64 numbers in an enclave as it is shipped, a process of its own. ``receipt`` is what proving one
answer costs alone; ``plain`` is httpx2 asking whether the enclave is ready over the same TLS, and proving nothing.
Processor time of this process for one inference, the least of five rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import numpy as np
from fleet.enclave import serve_process
from fleet.running import running
from race.nets import mlp

from cloister.client import Client, Trust
from cloister.client.receipts import verify_answer
from cloister.enclave.config import Tls
from cloister.testing.simulated import SimulatedScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 5


@contextlib.contextmanager
def enclave() -> Iterator[tuple[str, Trust]]:
    """Run an enclave; yield its address and whom to trust."""
    with (
        tempfile.TemporaryDirectory(prefix="consumer-") as folder,
        running(serve_process, folder, {"mlp": mlp().data}, leave, {"tls": Tls.GENERATED}) as (port, _),
    ):
        yield f"https://127.0.0.1:{port}", Trust.load(Path(folder) / "trust.json")


def leave(_app: object, _instance: object) -> None:
    """Add nothing to the enclave."""


def least_us(ask: Callable[[], object], count: int) -> float:
    """Return the processor time of one call in microseconds."""
    ask()
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(count):
            ask()
        found.append((time.process_time() - begun) / count * 1e6)
    return min(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inferences", type=int, default=500)
    parser.add_argument("--profile", type=Path, help="Keep a profile of each way in this folder.")
    options = parser.parse_args()
    row = np.random.default_rng(3).random((1, 64), dtype=np.float32)
    with enclave() as (url, trust):
        for way in ("pinned", "ohttp"):
            schemes = [SimulatedScheme(trust.simulated_root)] if trust.simulated_root else []
            with Client.verify(url, trust, schemes=schemes, way=way) as client:
                print(f"{way:8} {least_us(lambda: client.infer('mlp', row), options.inferences):8.0f} us")
                if options.profile:
                    with cProfile.Profile() as profile:
                        for _ in range(options.inferences):
                            client.infer("mlp", row)
                    profile.dump_stats(options.profile / way)
        measure_floor(url, trust, row, options.inferences)


def measure_floor(url: str, trust: Trust, row: np.ndarray, count: int) -> None:
    """Print what proving costs alone, and a request of this size without any proof."""
    schemes = [SimulatedScheme(trust.simulated_root)] if trust.simulated_root else []
    with Client.verify(url, trust, schemes=schemes, way="pinned") as client:
        found = client.infer("mlp", row)
        kept = found.receipt
        trailers = tuple(
            (f"cloister-{name}", value)
            for name, value in (
                ("receipt", _b64u(kept.statement)),
                ("request-salt", _b64u(kept.request_salt)),
                ("response-salt", _b64u(kept.response_salt)),
            )
        )

        def prove() -> object:
            return verify_answer(
                found.enclave, "mlp", request=found.request, response=found.response, trailers=trailers
            )

        print(f"{'receipt':8} {least_us(prove, count):8.0f} us")
    with httpx2.Client(verify=False, trust_env=False) as http:
        ask = lambda: http.get(f"{url}/v2/health/ready").content  # noqa: E731
        print(f"{'plain':8} {least_us(ask, count):8.0f} us")


def _b64u(data: bytes) -> str:
    from cloister.wire import dump_b64u  # noqa: PLC0415

    return dump_b64u(data)


if __name__ == "__main__":
    main()
