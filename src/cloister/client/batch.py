"""Many questions in few requests: which rows go together, and whose the rows of an answer are.

Rows are joined where the first dimension of every input and output of the model is open, up to a number of rows or to
about a megabyte. Not done here: asking (``many``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cloister.client.results import NamedOutputs
from cloister.client.tensors import array_inputs
from cloister.errors import Malformed, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cloister.client.datatypes import Array
    from cloister.client.inference import Inference
    from cloister.client.model_info import ModelInfo
    from cloister.client.receipts import VerifiedReceipt

__all__ = ["Answers", "Group", "group_inputs"]

TARGET_BYTES = 1 << 20  # of the inputs of one request, where the caller names no number of rows
MAX_ROWS = 256  # rows of one request, where the caller names no number
_OPEN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One request: its inputs by name, and how many rows each of its questions has."""

    inputs: Mapping[str, Array] = field(repr=False)
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Answers(NamedOutputs):
    """Proven answers in the order of their questions: all of them, or those before and around what stopped the rest.

    ``answers`` has one ``Inference`` for each request, with its receipt, None where none came. An array that was split
    into rows is one question for each request.
    """

    groups: tuple[Group, ...] = field(repr=False)
    answers: tuple[Inference | None, ...]

    def __repr__(self) -> str:
        """Return how far it came and what it cost; no value of an output."""
        names = ", ".join(next((answer.outputs for answer in self._there()), ()))
        return (
            f"Answers(done={self.done}, total={self.total}, outputs=[{names}], units={self.units}, "
            f"remaining={self.remaining}, receipts={len(self.receipts)})"
        )

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it."""
        from cloister.client.notebook.answers import answers_html  # noqa: PLC0415 - of notebooks alone

        return answers_html(self)

    @property
    def total(self) -> int:
        """Rows that were asked about."""
        return sum(sum(group.rows) for group in self.groups)

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The names of all classes by output, where the model's card has them."""
        return next((answer.classes for answer in self._there()), {})

    @property
    def receipts(self) -> tuple[VerifiedReceipt, ...]:
        """Every receipt, in order."""
        return tuple(answer.receipt for answer in self._there())

    @property
    def units(self) -> int:
        """What all of them cost together."""
        return sum(answer.units for answer in self._there())

    @property
    def remaining(self) -> int | None:
        """The least that an answer said is left; None without one."""
        return min((answer.remaining for answer in self._there()), default=None)

    @property
    def done(self) -> int:
        """Rows that were answered."""
        return sum(sum(group.rows) for group, answer in zip(self.groups, self.answers, strict=True) if answer)

    @property
    def outputs(self) -> dict[str, Array]:
        """The outputs by name, joined along their first dimension; rows without an answer are left out.

        Raises ``UsageError`` where they differ in more than that, as answers to questions of different shapes may.
        """
        there = list(self._there())
        names = there[0].outputs if there else ()
        try:
            return {name: np.concatenate([np.atleast_1d(answer.outputs[name]) for answer in there]) for name in names}
        except ValueError as exc:
            msg = "infer_many: answers of different shapes have no outputs in common"
            raise UsageError(msg, hint="take them one by one: each(), or answers") from exc

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The names of classes by output, joined as the outputs are."""
        there = list(self._there())
        names = there[0].labels if there else ()
        return {name: tuple(label for answer in there for label in answer.labels[name]) for name in names}

    def each(self) -> Iterator[Mapping[str, Array] | None]:
        """Yield the outputs of each question, None for one without an answer."""
        for group, answer in zip(self.groups, self.answers, strict=True):
            start = 0
            for rows in group.rows:
                if answer is None:
                    yield None
                elif len(group.rows) == 1:
                    yield answer.outputs
                else:
                    yield {name: value[start : start + rows] for name, value in answer.outputs.items()}
                start += rows

    def _there(self) -> Iterator[Inference]:
        return (answer for answer in self.answers if answer is not None)


def group_inputs(info: ModelInfo, inputs: object, *, batch: int | None) -> tuple[Group, ...]:
    """Return the requests for ``inputs``: a list or tuple has a question in each item, an array one in each row.

    Raises ``UsageError`` for inputs that cannot fit, before anything is asked.
    """
    if batch is not None and batch < 1:
        msg = f"infer_many: batch of {batch}, want at least 1"
        raise UsageError(msg)
    if isinstance(inputs, list | tuple):
        questions = [array_inputs(info, item) for item in inputs]
        return tuple(_joined(questions, batch) if _is_open(info) else map(_alone, questions))
    return tuple(_split(info, array_inputs(info, inputs, many=True), batch))


def _is_open(info: ModelInfo) -> bool:
    """Say whether rows of different questions may go into one request."""
    return all(tensor.shape[:1] == (_OPEN,) for tensor in (*info.inputs, *info.outputs))


def _rows(named: Mapping[str, Array]) -> int | None:
    """Return the first dimension that all inputs have, None where they have none in common."""
    found = {array.shape[0] if array.ndim else None for array in named.values()}
    return found.pop() if len(found) == 1 else None


def _alone(named: Mapping[str, Array]) -> Group:
    return Group(inputs=named, rows=(_rows(named) or 1,))


def _at_once(named: Mapping[str, Array], rows: int, batch: int | None) -> int:
    """Return how many rows go into one request."""
    if batch is not None:
        return batch
    size = sum(array.nbytes for array in named.values()) // max(1, rows)
    return max(1, min(MAX_ROWS, TARGET_BYTES // max(1, size)))


def _split(info: ModelInfo, named: Mapping[str, Array], batch: int | None) -> Iterator[Group]:
    rows = _rows(named)
    if not rows:
        msg = "infer_many: want the same number of rows in every input, and at least one"
        raise UsageError(msg, hint="a list has one question in each item")
    step = _at_once(named, rows, batch)
    if not _is_open(info):
        fixed = {tensor.shape[0] for tensor in info.inputs if tensor.shape} - {_OPEN}
        step = fixed.pop() if len(fixed) == 1 else rows
        if rows % step:
            msg = f"infer_many: {rows} rows, want a multiple of {step}: the model takes so many at once"
            raise UsageError(msg)
    for start in range(0, rows, step):
        part = {name: array[start : start + step] for name, array in named.items()}
        yield Group(inputs=part, rows=(min(step, rows - start),))


def _joined(questions: Iterable[Mapping[str, Array]], batch: int | None) -> Iterator[Group]:
    """Join neighbours of the same type and shape but for their rows."""
    kept: list[Mapping[str, Array]] = []
    counts: list[int] = []
    for named in questions:
        rows = _rows(named)
        if kept and (
            rows is None or _kind(named) != _kind(kept[0]) or sum(counts) + rows > _at_once(named, rows, batch)
        ):
            yield _join(kept, counts)
            kept, counts = [], []
        if rows is None:
            yield _alone(named)
        else:
            kept.append(named)
            counts.append(rows)
    if kept:
        yield _join(kept, counts)


def _kind(named: Mapping[str, Array]) -> dict[str, object]:
    return {name: (array.dtype, array.shape[1:]) for name, array in named.items()}


def _join(kept: list[Mapping[str, Array]], counts: list[int]) -> Group:
    joined = {name: np.concatenate([named[name] for named in kept]) for name in kept[0]}
    return Group(inputs=joined if len(kept) > 1 else kept[0], rows=tuple(counts))


def demand_rows(group: Group, answer: Inference) -> None:
    """Refuse an answer to several questions from which the rows of each cannot be told. Raises ``Malformed``."""
    if len(group.rows) == 1:
        return
    for name, value in answer.outputs.items():
        got = value.shape[0] if value.ndim else 0
        if got != sum(group.rows):
            msg = f"output {name}: {got} rows, want {sum(group.rows)}"
            raise Malformed(msg, hint="ask these questions one by one: infer, or batch=1")
