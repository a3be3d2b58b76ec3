"""A JSON object of somebody else's, read member by member: what is missing or of another type is ``Malformed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Malformed
from cloister.wire import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

__all__ = ["Doc"]


class Doc:
    """A JSON object, read member by member."""

    def __init__(self, value: object) -> None:
        """Read ``value``. Raises ``Malformed`` for anything but an object."""
        if not isinstance(value, dict):
            msg = "custodian's answer: want a json object"
            raise Malformed(msg)
        self._members: dict[str, object] = value

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._members.get(name)
        if isinstance(value, str):
            return value
        raise _wrong(name, "a text")

    def count(self, name: str) -> int:
        """Return an integer."""
        value = self._members.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise _wrong(name, "an integer")

    def number(self, name: str) -> float:
        """Return a number."""
        value = self._members.get(name)
        return value if isinstance(value, float) else self.count(name)

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._members.get(name)
        if isinstance(value, bool):
            return value
        raise _wrong(name, "true or false")

    def time(self, name: str) -> datetime:
        """Return a time."""
        return parse_time(self.text(name), what=f"custodian's answer: {name}")

    def doc(self, name: str) -> Doc:
        """Return an object."""
        return Doc(self._members.get(name))

    def values(self, name: str) -> list[object]:
        """Return a list."""
        value = self._members.get(name)
        if isinstance(value, list):
            return value
        raise _wrong(name, "a list")

    def docs(self, name: str) -> Iterator[Doc]:
        """Return a list of objects."""
        return (Doc(one) for one in self.values(name))

    def counts(self, name: str) -> list[int]:
        """Return a list of integers."""
        return [Doc({name: one}).count(name) for one in self.values(name)]

    def items(self) -> Iterator[tuple[str, object]]:
        """Return the members, in the order of their names."""
        return iter(sorted(self._members.items()))

    def is_null(self, name: str) -> bool:
        """Tell whether a member is null, or not there."""
        return self._members.get(name) is None


def _wrong(name: str, want: str) -> Malformed:
    return Malformed(f"custodian's answer: {name}: want {want}", hint="is this a custodian of the same version?")
