"""Whose copy is it: a suspect file against the key of every variant (docs/spec/tracing.md, section "Detection").

The score of a key is a sum of what the file shows at each element, signed by the key, over the root of the sum of its
squares. To whoever made a file without the key those signs are coin tosses, so Hoeffding's inequality bounds the
chance of a score ``t`` by ``exp(-t**2 / 2)``: for every file, without a word about how weights are distributed.

Not proven: who leaked. A borrower's copy may have been stolen, and who holds the vault can mark a file with any key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cloister.sealed.tracing.floats import FloatTensor, bits_of, distances, read_words
from cloister.sealed.tracing.mark import FloatKind, Keystream, Mark, convert

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloister.sealed.tracing.mark import Array
    from cloister.sealed.tracing.record import MarkedTensor, Variant

__all__ = ["THRESHOLD_LOG10", "Finding", "Pair", "match", "trace"]

THRESHOLD_LOG10: Final = -9.0
"""A variant is named below this, counted over all candidates together: one innocent file in a billion."""

_CHUNK = 1 << 18  # elements held at a time
_MAX_DISTANCE = 0.25  # of a sketch; unrelated weights differ in half of it
_MARGIN = 0.125  # by which the next best has to be worse
_CLIP = 4  # steps: what fine-tuning moved far says little and must not drown the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A tensor of the suspect file, the marked one it was known as, and the plain original where it is at hand."""

    suspect: FloatTensor
    marked: MarkedTensor
    original: FloatTensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a file says of one variant. ``log10_p`` bounds the chance of it in an innocent file, over all candidates."""

    variant: Variant
    score: float
    log10_p: float
    elements: int

    @property
    def is_named(self) -> bool:
        """Whether the evidence is below the threshold."""
        return self.log10_p < THRESHOLD_LOG10


def match(
    suspects: Sequence[FloatTensor], marked: Sequence[MarkedTensor], originals: Sequence[FloatTensor] = ()
) -> tuple[Pair, ...]:
    """Return which suspect tensor is which marked one: by number of elements and sketch, never by name or place.

    One that fits two about equally well is left out. No key has a part in it, and each marked tensor is used
    once: the bound on the score rests on both.
    """
    by_count: dict[int, list[int]] = {}
    for number, entry in enumerate(marked):
        by_count.setdefault(entry.count, []).append(number)
    wanted = {count: bits_of([marked[number].sketch for number in same]) for count, same in by_count.items()}
    fits: list[tuple[float, int, int]] = []
    for at, tensor in enumerate(suspects):
        if tensor.count in by_count:
            away = distances(tensor, wanted[tensor.count])
            order = np.argsort(away, kind="stable")
            best = float(away[order[0]])
            if best <= _MAX_DISTANCE and (len(order) == 1 or away[order[1]] >= best + _MARGIN):
                fits.append((best, at, by_count[tensor.count][order[0]]))
    plain = {(item.file.path, item.name, item.kind, item.count): item for item in originals}
    used: dict[int, Pair] = {}
    for _, at, number in sorted(fits):
        entry = marked[number]
        original = plain.get((entry.path, entry.name, entry.kind, entry.count))
        used.setdefault(number, Pair(suspect=suspects[at], marked=entry, original=original))
    return tuple(pair for _, pair in sorted(used.items()))


def trace(
    suspects: Sequence[FloatTensor],
    candidates: Sequence[tuple[Variant, bytes]],
    originals: Sequence[FloatTensor] = (),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Finding, ...]:
    """Return a finding for every candidate, the strongest first. ``candidates`` are variants with their keys.

    Where ``originals`` are given only tensors that have one are looked at. ``progress`` gets elements.
    """
    groups: dict[tuple[MarkedTensor, ...], list[tuple[Variant, bytes]]] = {}
    for variant, key in candidates:
        groups.setdefault(variant.tensors, []).append((variant, key))
    pairs = {tensors: match(suspects, tensors, originals) for tensors in groups}
    total = sum(pair.suspect.count for found in pairs.values() for pair in found)
    sums = {variant.digest: [0.0, 0.0, 0.0] for variant, _ in candidates}
    done = 0
    for tensors, group in groups.items():
        for pair in pairs[tensors]:
            if pair.original is not None or not originals:
                _look(pair, group, sums)
            done += pair.suspect.count
            if progress is not None:
                progress(done, total)
    findings = [_finding(variant, sums[variant.digest], len(candidates)) for variant, _ in candidates]
    return tuple(sorted(findings, key=lambda item: -item.score))


def _finding(variant: Variant, sums: Sequence[float], candidates: int) -> Finding:
    signed, squares, elements = sums
    score = signed / math.sqrt(squares) if squares else 0.0
    log10_p = min(0.0, math.log10(candidates) - max(score, 0.0) ** 2 / 2 / math.log(10))
    return Finding(variant=variant, score=score, log10_p=log10_p, elements=int(elements))


def _look(pair: Pair, group: Sequence[tuple[Variant, bytes]], sums: dict[str, list[float]]) -> None:
    """Add what one tensor shows to the sums of every candidate."""
    kind, strengths = pair.marked.kind, sorted({variant.bits for variant, _ in group})
    streams = [
        (variant.bits, sums[variant.digest], Keystream(key, pair.marked.path, pair.marked.name))
        for variant, key in group
    ]
    for first in range(0, pair.marked.count, _CHUNK):
        count = min(_CHUNK, pair.marked.count - first)
        words = convert(read_words(pair.suspect, first, count), pair.suspect.kind, kind)
        plain = None if pair.original is None else read_words(pair.original, first, count)
        for bits in strengths:
            mark = Mark(kind, bits)
            shown = _blind(words, mark) if plain is None else _informed(words, plain, mark)
            whole = _Shown(shown)
            for _, total, stream in (item for item in streams if item[0] == bits):
                grid, selected = mark.choose(stream.read(first, count))
                (whole if mark.selects_all else _Shown(shown * selected)).add(total, grid)


class _Shown:
    """What elements show, and the sums that are the same for every key."""

    def __init__(self, shown: Array) -> None:
        self._shown = shown
        self._sum = float(shown.sum(dtype=np.float64))
        self._squares = float(np.dot(shown, shown))
        self._count = int(np.count_nonzero(shown))

    def add(self, total: list[float], grid: Array) -> None:
        """Add the sums of one key, whose signs are +1 where ``grid`` is 1 and -1 elsewhere."""
        total[0] += 2 * float(np.dot(self._shown, grid.astype(np.float32))) - self._sum
        total[1] += self._squares
        total[2] += self._count


def _blind(words: Array, mark: Mark) -> Array:
    """Return for each element how much it looks as if on grid 1 (1) or on grid 0 (-1)."""
    magnitudes = mark.kind.magnitudes(words)
    turns = (magnitudes & (2 * mark.step - 1)).astype(np.float32) / np.float32(mark.step)
    shown: Array = np.where(mark.kind.is_markable(magnitudes), -np.cos(np.float32(np.pi) * turns), np.float32(0))
    return shown


def _informed(words: Array, plain: Array, mark: Mark) -> Array:
    """Return the same with the original at hand: is it nearer to where grid 1 would have put it, and how much."""
    kind: FloatKind = mark.kind
    magnitudes, before = kind.magnitudes(words), kind.magnitudes(plain)
    zero, one = mark.change(before, 0), mark.change(before, 1)
    away = ((magnitudes - before) - (zero + one) / 2) / mark.step
    shown = np.clip(away, -_CLIP, _CLIP) * np.sign(one - zero)
    there = kind.is_markable(before) & kind.is_markable(magnitudes)
    return np.where(there, shown, 0).astype(np.float32)
