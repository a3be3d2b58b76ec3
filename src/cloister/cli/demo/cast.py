"""What the scenes share: the world, the stage, and what earlier scenes made."""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloister.cli.demo.stage import DemoFailed

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from cloister.cli.demo.digits import Digits
    from cloister.cli.demo.hardware import Hardware
    from cloister.cli.demo.stage import Stage
    from cloister.cli.demo.tap import Tap
    from cloister.cli.demo.world import Running, World
    from cloister.testing.swtpm import Swtpm

__all__ = ["OPERATOR", "TTL_S", "Cast", "Line"]

OPERATOR = "General Hospital"
TTL_S = 4  # seconds a lease lives here; 60 outside of demos
CEILING = 8  # units one instance may hold unserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the asking consumer."""

    at: float
    kind: str
    members: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Cast:
    """The state of the demo, scene by scene."""

    world: World
    stage: Stage
    trained: Future[Digits]
    hardware: Future[Hardware]
    swtpm: Swtpm | None
    custodian_port: int
    enclave_port: int
    metrics_url: str = ""
    vendors: Path | None = None
    custodian: Running | None = None
    enclave: Running | None = None
    tap: Tap | None = None
    digest: str = ""
    loan: str = ""
    custodian_key: str = ""
    images: tuple[Path, ...] = ()
    truths: tuple[int, ...] = ()
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def digits(self) -> Digits:
        """The model and what it was not trained on."""
        return self.trained.result()

    @property
    def url(self) -> str:
        """Where consumers find the enclave: at the borrower's recording proxy."""
        if self.tap is None:
            msg = "demo: the proxy is not up yet"
            raise DemoFailed(msg)
        return f"https://localhost:{self.tap.port}"

    @property
    def tee(self) -> str:
        """Name of the TEE in use."""
        return "simulated" if self.swtpm is None else "tpm"

    def tee_words(self, *, seed: bool = False) -> tuple[str, ...]:
        """Return the options that choose the TEE; ``seed``: with what makes evidence, not only checks it."""
        if self.swtpm is None:
            root = self.world.borrower / "simulated-root.json" if seed else self.world.root / "simulated-root.pub.json"
            return ("--tee", "simulated", "--insecure-simulated-root", str(root))
        return ("--tee", "tpm", "--tpm", f"unix:{self.swtpm.socket}")

    def ask(self, *images: Path, wait_s: int | None = None, expect: int | None = 0) -> Any:
        """Let the consumer ask with ``cloister infer``; return its outcome."""
        waiting = () if wait_s is None else ("--wait", str(wait_s))
        return self.world.run(self.world.consumer, *self.ask_words(*images), *waiting, expect=expect)

    def ask_words(self, *images: Path) -> tuple[str, ...]:
        """Return the words of ``cloister infer`` for these images."""
        inputs = tuple(word for image in images for word in ("--input", str(image)))
        return ("infer", self.url, "--model", "digits", *inputs, *self.consumer_words())

    def consumer_words(self) -> tuple[str, ...]:
        """Return the options by which the consumer says whom it trusts and who it is."""
        folder = self.world.consumer
        words = ("--trust", str(folder / "trust.json"), "--token-file", str(folder / "clinic.token"))
        return words if self.swtpm is not None else (*words, *self.tee_words()[2:])

    def metrics(self) -> dict[str, float]:
        """Return the enclave's metrics, as the borrower sees them: name with labels to value."""
        with urllib.request.urlopen(self.metrics_url, timeout=5) as answer:  # noqa: S310 - the enclave's own word
            text = answer.read().decode()
        pairs = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def lines(self, running: Running) -> list[Line]:
        """Return what the asking consumer printed so far."""
        found = []
        for text in running.said().splitlines():
            if text.startswith("{") and text.endswith("}"):
                members = json.loads(text)
                found.append(Line(at=members.pop("at"), kind=members.pop("kind"), members=members))
        return found

    def until_line(self, running: Running, kind: str, *, within_s: float, after: float = 0) -> Line:
        """Wait for a line of that kind behind the moment ``after``. Raises ``DemoFailed``."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for line in self.lines(running):
                if line.kind == kind and line.at > after:
                    return line
            if running.process.poll() is not None:
                break
            time.sleep(0.05)
        msg = f"demo: the consumer saw no line {kind!r} within {within_s:g} s"
        raise DemoFailed(msg, hint=running.said()[-400:])
