"""What a model's card says of the columns of a table (docs/reference/model-card.md, "Tables").

Written by whoever sealed the model, and parsed strictly. Not done here: rows and their values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.wire import Fields, Json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Column", "parse_columns"]

_MAX_COLUMNS = 10_000
_MAX_NAME, _MAX_UNIT, _MAX_MEANING = 200, 32, 400
_BOUND = 1e300
_KIND = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One value of a row: what it is called, in which unit, between what it lies; empty or None where none is said."""

    name: str
    unit: str = ""
    meaning: str = ""
    minimum: float | None = None
    maximum: float | None = None


def parse_columns(value: Json) -> tuple[Column, ...]:
    """Parse one entry of a card's ``preprocess``. Raises ``Malformed``."""
    fields = Fields(value, what="model card: preprocess")
    fields.literal("kind", _KIND)
    names = fields.texts("columns", cap=_MAX_COLUMNS, item_cap=_MAX_NAME)
    if not names or len(set(names)) != len(names):
        fields.fail("columns", "want names, each once")
    about = fields.members("about", cap=_MAX_COLUMNS) if "about" in fields else {}
    if not set(about) <= set(names):
        fields.fail("about", "want names of columns")
    fields.end()
    return tuple(_column(name, about) for name in names)


def _column(name: str, about: Mapping[str, Json]) -> Column:
    fields = Fields(about.get(name, {}), what="model card: column")
    column = Column(
        name=name,
        unit=fields.text("unit", cap=_MAX_UNIT) if "unit" in fields else "",
        meaning=fields.text("meaning", cap=_MAX_MEANING) if "meaning" in fields else "",
        minimum=_bound(fields, "minimum"),
        maximum=_bound(fields, "maximum"),
    )
    if column.minimum is not None and column.maximum is not None and column.minimum > column.maximum:
        fields.fail("minimum", "want at most the maximum")
    fields.end()
    return column


def _bound(fields: Fields, name: str) -> float | None:
    return fields.number(name, floor=-_BOUND, cap=_BOUND) if name in fields else None
