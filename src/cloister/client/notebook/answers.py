"""Answers: the classes and numbers, what they cost, what is left, and that their receipts hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.client.notebook.box import box, details, facts, short, table
from cloister.client.notebook.enclave import SIMULATED
from cloister.client.notebook.receipts import receipt_html, units_text
from cloister.client.results import shapes_of, top_of
from cloister.errors import UsageError
from cloister.wire.markup import Html, joined, tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloister.client.batch import Answers
    from cloister.client.datatypes import Array
    from cloister.client.inference import Inference

__all__ = ["answers_html", "inference_html"]

_ITEMS = 10  # of an answer that are shown
_BEST = 3  # classes of an item that are shown
_CHARACTERS = 200  # of a value


def inference_html(answer: Inference) -> Html:
    """Return one answer."""
    return box(
        f"Answer of {answer.model}" + ("" if answer.label is None else f": {answer.label}"),
        _items(answer.outputs, answer.labels, answer.classes),
        facts(_cost(answer)),
        details("Receipt, proven", receipt_html(answer.receipt)),
        warning=SIMULATED if answer.enclave.is_simulated else "",
    )


def _cost(answer: Inference) -> Iterator[tuple[str, str]]:
    yield "used", units_text(answer.units)
    yield "remaining", f"{units_text(answer.remaining)}, as far as this instance knows"
    yield "sealed model", short(answer.digest)
    yield "asked", "once" if answer.tries == 1 else f"{answer.tries} times, counted once by the instance that answered"


def answers_html(answers: Answers) -> Html:
    """Return many answers: how many there are, the first of them, what they cost."""
    missing = answers.total - answers.done
    remaining = "not said" if answers.remaining is None else units_text(answers.remaining)
    simulated = any(answer is not None and answer.enclave.is_simulated for answer in answers.answers)
    return box(
        f"{answers.done:,} of {answers.total:,} answered",
        _joined(answers),
        facts(
            (
                ("used", units_text(answers.units)),
                ("remaining", f"{remaining}, as far as the instances know"),
                ("receipts", f"{len(answers.receipts):,}, each proven"),
                *((("without an answer", f"{missing:,}"),) if missing else ()),
            )
        ),
        warning=SIMULATED if simulated else "",
    )


def _joined(answers: Answers) -> Html:
    try:
        return _items(answers.outputs, answers.labels, answers.classes)
    except UsageError as exc:  # of different shapes
        return tag("p", exc.message)


def _items(
    outputs: Mapping[str, Array], labels: Mapping[str, Sequence[str]], classes: Mapping[str, tuple[str, ...]]
) -> Html:
    """Return the first items: classes where there are any, else types and shapes."""
    best = _best(outputs, classes)
    columns = {name: list(names[:_ITEMS]) for name, names in labels.items()}
    if best:
        columns["best"] = best
    if not columns:
        return facts(_values(outputs))
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        return facts((name, ", ".join(column)) for name, column in columns.items())
    rows = zip(range(lengths.pop()), *columns.values(), strict=True)
    more = max((len(value) for value in outputs.values() if value.ndim), default=0)
    shown = table(("item", *columns), ([str(place), *(cell[:_CHARACTERS] for cell in row)] for place, *row in rows))
    return joined(shown, f"and {more - _ITEMS:,} more" if more > _ITEMS else "")


def _best(outputs: Mapping[str, Array], classes: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the best classes of the first items in words, where one output has scores that the card names."""
    try:
        ranked = top_of({name: value[:_ITEMS] for name, value in outputs.items() if value.ndim}, classes, _BEST, None)
    except UsageError:
        return []
    return [", ".join(f"{item.label} {item.score:.3g}" for item in row) for row in ranked]


def _values(outputs: Mapping[str, Array]) -> Iterator[tuple[str, str]]:
    for name, value in outputs.items():
        shown = f" = {value.tolist()}" if value.size <= _ITEMS else ""
        yield name, (shapes_of({name: value}).removeprefix(f"{name} ") + shown)[:_CHARACTERS]
