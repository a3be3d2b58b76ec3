"""Heads that were read before: whoever asks one model in one way sends the same JSON each time.

Of a request in binary form all that JSON, parameters and signature decide is the same for the same bytes of JSON, and
only the binary data behind it is new. So what was decided is kept, for each caller apart: else the time that an answer
takes would tell one consumer how another asks. Not kept are heads that name a request (``id``) or hold anything else
of one request alone, and types whose data must be looked at (``BOOL``, ``BYTES``).

Not done here: deciding it (``request``, ``fitting``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cloister.enclave.engines.tensor import Datatype, Tensor, element_count

if TYPE_CHECKING:
    from collections.abc import Hashable

    from cloister.enclave.oip.request import InferRequest

__all__ = ["MAX_HEAD_BYTES", "Fitted", "KnownHeads"]

MAX_HEAD_BYTES = 1024  # of JSON; larger ones are read each time
_MOST = 1024  # heads
_LOOKED_AT = frozenset({Datatype.BOOL, Datatype.BYTES})

Fitted: TypeAlias = "tuple[InferRequest, tuple[Tensor, ...], int]"
"""A request that fits its model, its inputs, and its units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What one head decides: the request without its data, each input and where its bytes begin, all their bytes."""

    asked: InferRequest
    inputs: tuple[tuple[str, Datatype, tuple[int, ...], int, int], ...]
    size: int
    units: int


class KnownHeads:
    """The heads of one enclave. Where there are too many the oldest goes. For one event loop."""

    def __init__(self) -> None:
        """Start with none."""
        self._known: dict[tuple[Hashable, bytes], _Known] = {}

    def find(self, whose: Hashable, body: bytes, header_bytes: int) -> Fitted | None:
        """Return what ``body`` asks for, None where its head is not known or its data is not as long as that says.

        ``whose`` names caller and model.
        """
        if header_bytes > MAX_HEAD_BYTES:
            return None
        known = self._known.get((whose, body[:header_bytes]))
        if known is None or len(body) != header_bytes + known.size:
            return None
        tensors = [
            Tensor(
                name=name,
                datatype=datatype,
                array=np.frombuffer(body, datatype.dtype, count, header_bytes + start).reshape(shape),
            )
            for name, datatype, shape, start, count in known.inputs
        ]
        return known.asked, tuple(tensors), known.units

    def keep(self, whose: Hashable, body: bytes, header_bytes: int, fitted: Fitted) -> None:
        """Keep what the head of ``body`` decided, where the next one may come with other data and nothing else new."""
        asked, tensors, units = fitted
        if header_bytes > MAX_HEAD_BYTES or asked.id is not None or asked.ignored:
            return
        if any(item.parameters.size is None for item in asked.inputs):
            return
        if any(tensor.datatype in _LOOKED_AT for tensor in tensors):
            return
        starts: dict[str, int] = {}
        size = 0
        for item in asked.inputs:  # in the order of the request, which may not be the model's
            starts[item.name] = size
            size += item.parameters.size or 0
        inputs = tuple(
            (tensor.name, tensor.datatype, tensor.shape, starts[tensor.name], element_count(tensor.shape))
            for tensor in tensors
        )
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        known = _Known(asked=replace(asked, inputs=()), inputs=inputs, size=size, units=units)
        self._known[whose, body[:header_bytes]] = known
