"""Answers as a person reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from cloister.asking.answer import Output, outputs_of


def shown(array: np.ndarray, *, classes: tuple[str, ...] = (), labels: tuple[str, ...] = ()) -> Output:
    """Return how one output is shown."""
    inference: Any = SimpleNamespace(outputs={"y": array}, labels={"y": labels} if labels else {})
    info: Any = SimpleNamespace(labels={"y": classes} if classes else {})
    return outputs_of(inference, info)[0]


def test_scores_of_one_item_are_bars_in_order_and_in_percent_where_they_are_parts() -> None:
    found = shown(np.array([[0.1, 0.7, 0.2]], np.float32), classes=("a", "b", "c"), labels=("b",))
    assert found.headline == "b"
    assert [(bar.label, bar.score) for bar in found.bars] == [("b", "70.0 %"), ("c", "20.0 %"), ("a", "10.0 %")]
    assert round(found.bars[0].share, 3) == 0.7


def test_scores_that_are_no_parts_of_one_stay_what_they_are() -> None:
    found = shown(np.array([[-2.0, 6.0, 2.0]]), classes=("a", "b", "c"))
    assert [(bar.label, bar.score, bar.share) for bar in found.bars] == [
        ("b", "6", 1.0),
        ("c", "2", 0.5),
        ("a", "-2", 0.0),
    ]


def test_scores_that_are_no_numbers_break_nothing() -> None:
    found = shown(np.array([[np.nan, np.inf, -np.inf]]), classes=("a", "b", "c"))
    assert {bar.score for bar in found.bars} == {"nan", "inf", "-inf"}
    assert all(0 <= bar.share <= 1 for bar in found.bars)


def test_of_many_classes_the_best_are_shown() -> None:
    found = shown(np.linspace(0, 1, 30)[np.newaxis], classes=tuple(map(str, range(30))))
    assert len(found.bars) == 10
    assert found.note == "20 more classes with lower scores"


def test_scores_of_many_items_are_a_table_of_the_best() -> None:
    found = shown(np.eye(3, dtype=np.float32), classes=("a", "b", "c"), labels=("a", "b", "c"))
    assert found.rows == (("1", "a", "100.0 %"), ("2", "b", "100.0 %"), ("3", "c", "100.0 %"))


def test_one_number_one_word_and_one_text() -> None:
    assert shown(np.array([3.14159265])).headline == "3.14159"
    assert shown(np.array(7)).headline == "7"
    assert shown(np.array([1]), labels=("seven",)).headline == "seven"
    assert shown(np.array([b"a\nb"], object)).text == "a\nb"
    assert shown(np.array([b"\xff"], object)).text == "\N{REPLACEMENT CHARACTER}"
    long = shown(np.array([b"x" * 30_000], object))
    assert (len(long.text), long.note) == (20_000, "the first 20000 characters")


def test_tables_are_cut_and_say_so() -> None:
    found = shown(np.zeros((600, 70)))
    assert (len(found.rows), len(found.rows[0])) == (500, 65)
    assert "of 42000 are shown" in found.note
    assert shown(np.arange(3)).head == ("row", "value")
    assert shown(np.arange(600), labels=tuple(map(str, range(600)))).note.startswith("500 of 600")


def test_what_no_page_can_show_is_said() -> None:
    assert "2 x 2 x 2 values" in shown(np.zeros((2, 2, 2))).note
    assert shown(np.zeros((0, 3))).rows == ()
