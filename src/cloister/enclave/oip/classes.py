"""An output as its highest values: the classification extension of the protocol's servers.

Each element is ``VALUE:INDEX`` or ``VALUE:INDEX:LABEL``, the highest value first, for each item of a batch or for the
whole of an output without one. Labels are those of the model card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cloister.enclave.engines.tensor import Datatype, Tensor, element_count
from cloister.enclave.oip.data import BadData, to_numbers

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["classified", "labels_of"]

MAX_SPELLED = 100_000  # values of one output, each a string
_RANK_OF_BATCHES = 2  # from here on the first dimension is the batch


def classified(tensor: Tensor, count: int, labels: tuple[str, ...]) -> Tensor:
    """Return the ``count`` highest values of ``tensor``, which holds numbers, as a tensor of ``BYTES``.

    Raises ``BadData`` for more of them than one answer spells.
    """
    values = to_numbers(tensor)
    batch, item = (values.shape[0], values.shape[1:]) if values.ndim >= _RANK_OF_BATCHES else (1, values.shape)
    rows = values.reshape(batch, element_count(item))
    if batch * min(count, rows.shape[1]) > MAX_SPELLED:
        raise BadData(f"{batch * min(count, rows.shape[1])} classes", f"at most {MAX_SPELLED}, or the output itself")
    keys = np.where(np.isnan(rows), -np.inf, rows) if rows.dtype.kind == "f" else rows
    # Sorted upwards from behind and turned round: of equal values the first comes first.
    order = rows.shape[1] - 1 - np.argsort(keys[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    found = np.empty(order.shape, dtype=object)
    for place, index in np.ndenumerate(order):
        found[place] = _spelled(rows[place[0], index].item(), int(index), labels)
    array = found if values.ndim >= _RANK_OF_BATCHES else found.reshape(-1)
    return Tensor(name=tensor.name, datatype=Datatype.BYTES, array=array)


def labels_of(card: Json, name: str) -> tuple[str, ...]:
    """Return the names of an output's classes as the model card has them, none where it has none."""
    labels = card.get("labels") if isinstance(card, dict) else None
    names = labels.get(name) if isinstance(labels, dict) else None
    return tuple(item for item in names if isinstance(item, str)) if isinstance(names, list) else ()


def _spelled(value: Any, index: int, labels: tuple[str, ...]) -> bytes:
    text = f"{value:f}:{index}" if isinstance(value, float) else f"{int(value)}:{index}"
    return (f"{text}:{labels[index]}" if index < len(labels) else text).encode("utf-8")
