"""Outputs in the forms that data scientists go on with: tables of pandas, tensors of torch, the best classes.

pandas and torch are imported when they are asked for, and are nobody's dependency here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, KeysView, Mapping

    from cloister.client.datatypes import Array

__all__ = ["NamedOutputs", "Ranked", "output_of", "shapes_of", "table_of", "tensors_of", "top_of"]

_RANK_OF_SCORES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One class of one item: its place in the output, its name where the card has one, and its score."""

    label: str
    index: int
    score: float


class NamedOutputs:
    """A mapping of outputs by name, for one answer or many joined: in the forms that data scientists go on with."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def outputs(self) -> Mapping[str, Array]:
            """The outputs by name."""

        @property
        def labels(self) -> Mapping[str, tuple[str, ...]]:
            """The name of each item's class, by output."""

        @property
        def classes(self) -> Mapping[str, tuple[str, ...]]:
            """The names of all classes, by output."""

    def __getitem__(self, name: str) -> Array:
        """Return the output of that name. Raises ``KeyError``."""
        return output_of(self.outputs, name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the outputs."""
        return iter(self.outputs)

    def keys(self) -> KeysView[str]:
        """Return the names of the outputs; with ``[]`` it makes ``dict(answer)`` work."""
        return self.outputs.keys()

    def top(self, count: int = 5, *, output: str | None = None) -> tuple[tuple[Ranked, ...], ...]:
        """Return the best classes of each item, best first. Raises ``UsageError`` where no one output has scores."""
        return top_of(self.outputs, self.classes, count, output)

    def to_pandas(self, *, index: object = None) -> Any:
        """Return a ``DataFrame``, a row for each item; ``index`` as pandas takes it, say that of the table asked about.

        Raises ``UsageError`` where the outputs are no table, or without pandas.
        """
        return table_of(self.outputs, self.labels, self.classes, index)

    def to_torch(self) -> dict[str, Any]:
        """Return tensors of torch by name. Raises ``UsageError`` for strings, or without torch."""
        return tensors_of(self.outputs)


def output_of(outputs: Mapping[str, Array], name: str) -> Array:
    """Return one output. Raises ``KeyError``, as a mapping does, with the names there are."""
    if name not in outputs:
        msg = f"{name!r}: the outputs are {', '.join(outputs)}"
        raise KeyError(msg)
    return outputs[name]


def shapes_of(outputs: Mapping[str, Array]) -> str:
    """Return the types and shapes of outputs, without a value: ``label int64[3], scores float32[3, 10]``."""
    return ", ".join(f"{name} {_kind(value)}{list(value.shape)}" for name, value in outputs.items())


def _kind(value: Array) -> str:
    return "bytes" if value.dtype == object else value.dtype.name


def top_of(
    outputs: Mapping[str, Array], classes: Mapping[str, tuple[str, ...]], count: int, output: str | None
) -> tuple[tuple[Ranked, ...], ...]:
    """Return the ``count`` best classes of each item, best first, out of an output with a row of scores for each.

    Equal scores keep the order of the classes; what is no number comes last. Raises ``UsageError`` where no output, or
    more than one, has scores and none is named.
    """
    if count < 1:
        msg = f"top: {count} classes, want at least 1"
        raise UsageError(msg)
    name = _scored(outputs, classes) if output is None else output
    scores = output_of(outputs, name)
    if not _is_scores(scores):
        msg = f"output {name}: {shapes_of({name: scores})}, want a row of scores for each item"
        raise UsageError(msg)
    names = classes.get(name, ())
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :count]
    return tuple(
        tuple(Ranked(label=_named(names, at), index=at, score=float(row[at])) for at in places)
        for row, places in zip(scores, order.tolist(), strict=True)
    )


def _is_scores(value: Array) -> bool:
    return value.dtype.kind == "f" and value.ndim == _RANK_OF_SCORES


def _scored(outputs: Mapping[str, Array], classes: Mapping[str, tuple[str, ...]]) -> str:
    found = [name for name, value in outputs.items() if _is_scores(value)]
    found = [name for name in found if name in classes] or found
    if len(found) != 1:
        msg = f"top: {len(found)} outputs have scores, want one: {shapes_of(outputs)}"
        raise UsageError(msg, hint="name it: top(5, output=NAME)" if found else None)
    return found[0]


def _named(names: tuple[str, ...], at: int) -> str:
    return names[at] if at < len(names) else str(at)


def table_of(
    outputs: Mapping[str, Array],
    labels: Mapping[str, tuple[str, ...]],
    classes: Mapping[str, tuple[str, ...]],
    index: object,
) -> Any:
    """Return a ``DataFrame`` with a row for each item.

    An output of one number for each item is a column of its name; a row of numbers becomes a column for each, named by
    the card's class or by its place (``scores.cat``, ``x.0``); a class's name stands in ``OUTPUT.label``. Bytes become
    text where they are UTF-8. Raises ``UsageError`` for outputs of higher rank, or without pandas.
    """
    pandas = _imported("pandas")
    columns: dict[str, Any] = {}
    for name, value in outputs.items():
        for title, column in _columns(name, value, classes.get(name, ())):
            if title in columns:
                msg = f"to_pandas: two columns {title[:80]}"
                raise UsageError(msg, hint="use outputs[NAME]")
            columns[title] = column
        if name in labels and len(labels[name]) == len(value):
            columns.setdefault(f"{name}.label", list(labels[name]))
    if len({len(column) for column in columns.values()}) > 1:
        msg = f"to_pandas: outputs of different length: {shapes_of(outputs)}"
        raise UsageError(msg, hint="use outputs[NAME]")
    return pandas.DataFrame(columns, index=index)


def _columns(name: str, value: Array, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    rank = value.ndim
    if rank > _RANK_OF_SCORES:
        msg = f"to_pandas: output {shapes_of({name: value})} is no table"
        raise UsageError(msg, hint="use outputs[NAME]")
    if rank < _RANK_OF_SCORES or value.shape[-1] == 1:
        yield name, _texts(value.reshape(-1))
        return
    for at, column in enumerate(value.T):
        title = names[at] if len(names) == len(value.T) else str(at)
        yield f"{name}.{title}", _texts(column)


def _texts(column: Array) -> Any:
    return [_text(item) for item in column.tolist()] if column.dtype == object else column


def _text(item: object) -> object:
    try:
        return item.decode("utf-8") if isinstance(item, bytes) else item
    except UnicodeDecodeError:
        return item


def tensors_of(outputs: Mapping[str, Array]) -> dict[str, Any]:
    """Return tensors of torch by name, over copies. Raises ``UsageError`` for strings, or without torch."""
    torch = _imported("torch")
    strings = [name for name, value in outputs.items() if value.dtype == object]
    if strings:
        msg = f"to_torch: output {strings[0]} has strings, which are no tensor"
        raise UsageError(msg, hint="use outputs[NAME]")
    return {name: torch.from_numpy(value.copy()) for name, value in outputs.items()}


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        msg = f"{name} is not installed"
        raise UsageError(msg, hint=f"pip install {name}, or use outputs: arrays of NumPy") from exc
