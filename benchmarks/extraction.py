"""How well the digits model is copied by asking it, what the guard notices of that, and how often it is wrong.

    python benchmarks/extraction.py --queries 1000 --streams 40

The target is the demo's model, run by the enclave's engine; its outputs go through the enclave's own ``Withholding``
and its inputs through the enclave's own ``Watching``. A copy is trained on what was answered and compared with the
target on 225 scans that neither saw: printed is the part of them that both call the same, by what was shown, and for a
copy from what was answered before the first alarm.

Natural questions are scans that the target never saw, as they are and moved by a pixel; synthetic ones are noise, steps
along lines between scans, differences of single pixels, and Jacobian-based augmentation (Papernot and others 2017).
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from cloister.cli.demo.digits import train
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.enclave.guard import Watching
from cloister.enclave.withholding import Withholding
from cloister.lending.output_rule import OutputRule, Shown
from cloister.lending.watch import Watch, WatchKind
from cloister.sealed.memfd import MemoryFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.enclave.engines import RunningModel
    from cloister.enclave.engines.tensor import Array

PIXELS, SHADES, CLASSES = 64, 16, 10
HALF = 225  # scans of the attacker, and as many that copies are judged by
WATCHES = (Watch(kind=WatchKind.NEAR, above=20), Watch(kind=WatchKind.REGULAR, above=150))
OUTPUT = "probabilities"
SHOWN = {
    "all scores": (),
    "top 3": (OutputRule(model="digits", output=OUTPUT, top=3),),
    "label": (OutputRule(model="digits", output=OUTPUT, show=Shown.LABEL),),
}


class _OneFile:
    """The model's bytes as an engine gets them."""

    files = ("model.onnx",)

    def __init__(self, data: bytes) -> None:
        self._memory = MemoryFile(len(data))
        self._memory.write(0, memoryview(data))
        self._memory.seal()

    def view(self, _: str) -> memoryview:
        return self._memory.view()

    def move(self, _: str, to: int, start: int, size: int) -> None:
        self._memory.move(to, start, size)

    def fd_path(self, _: str) -> str:
        return f"/proc/self/fd/{self._memory.fd}"


class Target:
    """The lent model as an enclave runs it, and what a contract shows of it."""

    def __init__(self, onnx: bytes) -> None:
        """Load it."""
        self._running: RunningModel = OnnxEngine(threads=1).load(_OneFile(onnx))

    def ask(self, rows: Array, rules: tuple[OutputRule, ...] = ()) -> Array:
        """Return what a consumer is shown of the scores."""
        inputs = (tensor("image", rows),)
        shown = Withholding.of(self._running.signature, rules, None)
        return shown.applied(self._running.run(inputs, [OUTPUT]))[0].array

    def labels(self, rows: Array) -> Array:
        """Return what it calls each row."""
        found: Array = self.ask(rows).argmax(axis=1)
        return found


def tensor(name: str, rows: Array) -> Tensor:
    """Return rows of singles as a tensor."""
    return Tensor(name=name, datatype=Datatype.FP32, array=np.ascontiguousarray(rows, dtype=np.float32))


def moved(scans: Array, count: int, rng: np.random.Generator) -> Array:
    """Return scans as they are and then moved by a pixel this way and that, with a little noise."""
    picked = rng.integers(len(scans), size=count)
    picked[: len(scans)] = np.arange(min(len(scans), count))
    images = scans[picked].reshape(-1, 8, 8)
    for at in range(len(scans), count):
        images[at] = np.roll(images[at], rng.integers(-1, 2, size=2), axis=(0, 1))
    noise = rng.normal(0, 1, images.shape) * (np.arange(count) >= len(scans))[:, None, None]
    return _shades(images + noise).reshape(count, PIXELS)


def lines(scans: Array, count: int, rng: np.random.Generator) -> Array:
    """Return steps along straight lines between scans: how a boundary is searched for with labels alone."""
    step = np.linspace(0, 1, 20)[:, None]
    pairs = rng.integers(len(scans), size=(count // 20 + 1, 2))
    return _shades(np.concatenate([(1 - step) * scans[one] + step * scans[other] for one, other in pairs])[:count])


def differences(scans: Array, count: int, _: np.random.Generator) -> Array:
    """Return scans and each with one pixel a little darker: a derivative by each input."""
    around = np.vstack([np.zeros(PIXELS), np.eye(PIXELS) / 2])
    return _shades(np.concatenate([scan + around for scan in scans[: count // len(around) + 1]])[:count])


def jacobian(scans: Array, count: int, rng: np.random.Generator, target: Target, step: float) -> Array:
    """Return what Jacobian-based augmentation asks: 60 scans, and steps along the signs of a copy's derivative."""
    pool = asked = scans[:60]
    while len(asked) < count:
        copy = MLPClassifier((32,), max_iter=80, random_state=0).fit(asked / SHADES, target.labels(asked))
        before = copy.predict_proba(pool / SHADES)
        called = before.argmax(axis=1)
        slope = np.zeros_like(pool)
        for pixel in range(PIXELS):
            near = pool.copy()
            near[:, pixel] += 0.5
            after = copy.predict_proba(near / SHADES)
            slope[:, pixel] = (after - before)[np.arange(len(pool)), called]
        new = _shades(pool - step * np.sign(slope))
        asked, pool = np.concatenate([asked, new]), rng.permutation(np.concatenate([pool, new]))[:240]
    return asked[:count]


def _shades(images: Array) -> Array:
    return np.clip(images, 0, SHADES).astype(np.float32)


def attacks(scans: Array, count: int, target: Target) -> Iterator[tuple[str, Array]]:
    """Yield every way to ask, and its questions."""
    rng = np.random.default_rng(11)
    yield "natural: own scans", scans
    yield "natural: own scans, moved", moved(scans, count, rng)
    yield "noise, even", _shades(rng.uniform(0, SHADES, (count, PIXELS)))
    ink = rng.uniform(0, SHADES, (count, PIXELS))
    yield "noise, a third inked", _shades(np.where(rng.random((count, PIXELS)) < 0.3, ink, 0))  # noqa: PLR2004
    yield "lines between scans", lines(scans, count, rng)
    yield "differences of pixels", differences(scans, count, rng)
    for step in (1.0, 2.0, 4.0):
        yield f"jacobian, step {step:g}/16", jacobian(scans, count, rng, target, step)


def copied(asked: Array, shown: Array, judged: Array, truth: Array) -> float:
    """Return how often a copy trained on answers agrees with the target: the better of one of labels, one of scores."""
    labels = shown.argmax(axis=1)
    if len(set(labels.tolist())) < 2:  # noqa: PLR2004 - one class alone teaches nothing
        return float((truth == labels[0]).mean()) if len(labels) else 0.0
    copy: Any = MLPClassifier((64,), max_iter=400, random_state=1).fit(asked / SHADES, labels)
    called = [copy.predict(judged / SHADES)]
    if (np.sort(shown, axis=1)[:, -2] > 0).any():
        copy = MLPRegressor(hidden_layer_sizes=(64,), max_iter=400, random_state=1)
        copy.fit(asked / SHADES, np.log(np.clip(shown, 1e-6, 1)))
        called.append(copy.predict(judged / SHADES).argmax(axis=1))
    return max(float((found == truth).mean()) for found in called)


@dataclass(frozen=True)
class Noticed:
    """The first alarm of a stream, and all of them by kind."""

    at: int | None
    kinds: dict[str, int]


def watched(asked: Array, watches: tuple[Watch, ...] = WATCHES) -> Noticed:
    """Ask one by one and return what the guard notices."""
    guard = Watching(watches)
    first: int | None = None
    kinds: dict[str, int] = {}
    for row in range(len(asked)):
        for kind in guard.take("ward", "digits", (tensor("image", asked[row : row + 1]),), (), 1):
            first = row + 1 if first is None else first
            kinds[kind.value] = kinds.get(kind.value, 0) + 1
    return Noticed(first, kinds)


def normal(streams: int) -> Iterator[tuple[str, Array]]:
    """Yield traffic that is none of this: scans of all digits, of one digit, and noisier scans."""
    scans, digits = load_digits(return_X_y=True)
    scans = scans.astype(np.float32)
    for seed in range(streams):
        rng = np.random.default_rng(seed)
        yield "all digits", rng.permutation(scans)[:1024]
        yield "one digit", rng.permutation(scans[digits == seed % CLASSES])
        yield "noisier scanner", _shades(rng.permutation(scans)[:1024] + rng.normal(0, 1, (1024, PIXELS)))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=40)
    said, _ = parser.parse_known_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    digits = train()
    target = Target(digits.onnx)
    own, judged = digits.scans[:HALF], digits.scans[HALF : 2 * HALF]
    truth = target.labels(judged)
    print(f"{'asked':28}{'queries':>8}" + "".join(f"{name:>12}" for name in SHOWN) + "   alarm at   stopped there")
    for name, asked in attacks(own, said.queries, target):
        scores = [copied(asked, target.ask(asked, rules), judged, truth) for rules in SHOWN.values()]
        seen = watched(asked)
        row = f"{name:28}{len(asked):8}" + "".join(f"{score:12.1%}" for score in scores)
        if seen.at is None:
            print(f"{row}{'none':>11}")
            continue
        before = asked[: seen.at - 1]
        kinds = ", ".join(sorted(seen.kinds))
        print(f"{row}{seen.at:11}{copied(before, target.ask(before), judged, truth):16.1%}  {kinds}")
    wrong: dict[str, list[int]] = {}
    for name, asked in normal(said.streams):
        alarms = sum(watched(asked).kinds.values())
        counts = wrong.setdefault(name, [0, 0, 0])
        counts[0], counts[1], counts[2] = counts[0] + 1, counts[1] + len(asked) // 128, counts[2] + alarms
    for name, (count, blocks, alarms) in wrong.items():
        print(f"normal, {name}: {alarms} alarms in {blocks} blocks of 128 questions, {count} consumers")


if __name__ == "__main__":
    main()
