"""A model as it is sealed for one borrower: read through the mark, so that no marked copy lies anywhere in clear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloister.sealed.tracing.floats import FloatTensor, read_words
from cloister.sealed.tracing.mark import Keystream, Mark, values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloister.sealed.directory import PlainFile
    from cloister.sealed.seal import PlainSource

__all__ = ["Drift", "MarkedSource", "parameter_drift"]

_CHUNK = 1 << 15  # elements: what is worked on stays in the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far parameters moved, each against its own size: the largest and the root mean square over all marked."""

    tensors: int
    elements: int
    largest: float
    rms: float


class MarkedSource:
    """Reads files of a model with the marks of one key in them; at any offset, from several threads."""

    def __init__(
        self, source: PlainSource[PlainFile], tensors: Sequence[FloatTensor], key: bytes | bytearray, bits: int
    ) -> None:
        """Mark ``tensors``, which were found in the same files, at a strength of ``bits``."""
        self._source = source
        self._marks: dict[str, list[tuple[FloatTensor, Mark, Keystream]]] = {}
        for tensor in tensors:
            marker = (tensor, Mark(tensor.kind, bits), Keystream(key, tensor.file.path, tensor.name))
            self._marks.setdefault(tensor.file.path, []).append(marker)

    def read_into(self, entry: PlainFile, offset: int, out: memoryview) -> None:
        """Fill ``out`` with marked bytes. Raises what the plain source does, ``Malformed`` for a file cut short."""
        self._source.read_into(entry, offset, out)
        for tensor, mark, stream in self._marks.get(entry.path, ()):
            size = tensor.kind.size
            first = max(0, (offset - tensor.begin) // size)  # elements that ``out`` has a part of
            last = min(tensor.count, -(-(offset + len(out) - tensor.begin) // size))
            if first < last:
                words = mark.apply(read_words(tensor, first, last - first), stream.read(first, last - first))
                data, at = memoryview(words.tobytes()), tensor.begin + first * size - offset
                begin, end = max(at, 0), min(at + len(data), len(out))
                out[begin:end] = data[begin - at : end - at]


def parameter_drift(
    tensors: Sequence[FloatTensor],
    key: bytes | bytearray,
    bits: int,
    progress: Callable[[int, int], None] | None = None,
) -> Drift:
    """Return what a mark does to the parameters. Reads every tensor once; ``progress`` gets bytes."""
    total, done, elements, squares, largest = sum(item.count * item.kind.size for item in tensors), 0, 0, 0.0, 0.0
    for tensor in tensors:
        mark, stream = Mark(tensor.kind, bits), Keystream(key, tensor.file.path, tensor.name)
        for first in range(0, tensor.count, _CHUNK):
            words = read_words(tensor, first, min(_CHUNK, tensor.count - first))
            marked = mark.apply(words, stream.read(first, len(words)))
            before, after = values(words, tensor.kind), values(marked, tensor.kind)
            with np.errstate(divide="ignore", invalid="ignore"):  # what does not move may be zero or no number
                change = np.nan_to_num(np.abs(after - before) / np.abs(before), copy=False)
            elements += len(words)
            squares += float(np.dot(change, change))
            largest = max(largest, float(change.max(initial=0.0)))
            done += words.nbytes
            if progress is not None:
                progress(done, total)
    return Drift(tensors=len(tensors), elements=elements, largest=largest, rms=(squares / max(1, elements)) ** 0.5)
