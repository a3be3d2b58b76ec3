"""Models of safetensors made here, variants of them, and what a thief does to a copy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from cloister.sealed.formats import ModelFile
from cloister.sealed.tracing.floats import float_tensors, read_words, sketch
from cloister.sealed.tracing.mark import STRENGTHS, FloatKind, Keystream, Mark, convert, values
from cloister.sealed.tracing.record import MarkedTensor, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from cloister.sealed.tracing.floats import FloatTensor

    Array = NDArray[Any]
    Words = Mapping[str, Array]

SHAPES = {"hidden.weight": (64, 64), "hidden.bias": (64,), "out.weight": (64, 10)}
CREATED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def memory_file(data: bytes, path: str = "model.safetensors") -> ModelFile:
    return ModelFile(path=path, size=len(data), read=lambda at, size: data[at : at + size])


def safetensors(words: Words, kind: FloatKind) -> bytes:
    header, blobs, end = {}, [], 0
    for name, item in words.items():
        begin, end = end, end + item.nbytes
        header[name] = {"data_offsets": [begin, end], "dtype": kind.name, "shape": list(item.shape)}
        blobs.append(item.tobytes())
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(blobs)


def found_in(words: Words, kind: FloatKind) -> tuple[FloatTensor, ...]:
    return float_tensors([memory_file(safetensors(words, kind))])


def weights(seed: int, kind: FloatKind = FloatKind.F32) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    plain = {name: (rng.standard_normal(shape) * 0.2).astype("<f4") for name, shape in SHAPES.items()}
    return {name: convert(item.view("<u4"), FloatKind.F32, kind) for name, item in plain.items()}


def floats(words: Words, kind: FloatKind) -> dict[str, Array]:
    return {name: values(item, kind) for name, item in words.items()}


def as_words(numbers: Words, kind: FloatKind) -> dict[str, Array]:
    return {name: convert(item.astype("<f8").view("<u8"), FloatKind.F64, kind) for name, item in numbers.items()}


@dataclass(frozen=True)
class Lent:
    """A model, and a variant of it for each borrower."""

    kind: FloatKind
    plain: dict[str, Array]
    tensors: tuple[FloatTensor, ...]
    candidates: tuple[tuple[Variant, bytes], ...]

    def copy_of(self, number: int) -> dict[str, Array]:
        """Return the words of one borrower's copy."""
        variant, key = self.candidates[number]
        return self.marked(key, variant.bits)

    def marked(self, key: bytes, bits: int) -> dict[str, Array]:
        """Return the words of a copy by any key, of this lender's borrowers or not."""
        mark = Mark(self.kind, bits)
        return {
            item.name: mark.apply(
                read_words(item, 0, item.count), Keystream(key, item.file.path, item.name).read(0, item.count)
            ).reshape(self.plain[item.name].shape)
            for item in self.tensors
        }

    def changed(self, number: int, change: Callable[[Array], Array], kind: FloatKind | None = None) -> Any:
        """Return the tensors of a copy after ``change`` of its numbers, kept as ``kind``."""
        numbers = {name: change(item) for name, item in floats(self.copy_of(number), self.kind).items()}
        return found_in(as_words(numbers, kind or self.kind), kind or self.kind)


def lend(borrowers: int = 50, *, kind: FloatKind = FloatKind.F32, strength: str = "medium", seed: int = 1) -> Lent:
    plain = weights(seed, kind)
    tensors = found_in(plain, kind)
    rng = np.random.default_rng(seed + 1000)
    marked = tuple(
        MarkedTensor(path=item.file.path, name=item.name, kind=item.kind, count=item.count, sketch=sketch(item))
        for item in tensors
    )
    candidates = tuple(
        (
            Variant(
                digest=f"{number:064x}", model="toy", holder=f"borrower-{number}", created=CREATED,
                bits=STRENGTHS[strength], tensors=marked,
            ),
            rng.bytes(32),
        )
        for number in range(borrowers)
    )  # fmt: skip
    return Lent(kind=kind, plain=plain, tensors=tensors, candidates=candidates)
