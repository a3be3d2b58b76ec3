"""Values that are made often: as frozen dataclasses in all but how their fields are set."""

from __future__ import annotations

from dataclasses import field, fields, is_dataclass, replace

import pytest

from cloister.wire.values import hot_value


@hot_value
class Pair:
    """Two fields."""

    one: int
    other: bytes = field(default=b"", repr=False)


def test_a_value_is_made_by_names_and_compares_and_hashes_by_its_fields() -> None:
    assert Pair(one=1) == Pair(one=1, other=b"")
    assert Pair(one=1) != Pair(one=2)
    assert hash(Pair(one=1)) == hash(Pair(one=1))
    assert replace(Pair(one=1), one=2) == Pair(one=2)
    assert is_dataclass(Pair)
    assert [item.name for item in fields(Pair)] == ["one", "other"]


def test_a_value_takes_no_place_and_no_other_field() -> None:
    with pytest.raises(TypeError):
        Pair(1)  # type: ignore[misc]  # what is refused here
    with pytest.raises(AttributeError):
        Pair(one=1).third = 3  # type: ignore[attr-defined]  # what is refused here


def test_what_is_not_shown_is_not_shown() -> None:
    assert repr(Pair(one=1, other=b"secret")) == "Pair(one=1)"
