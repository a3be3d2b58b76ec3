"""Typed members of one JSON object; what nobody took is refused."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from cloister.errors import Malformed
from cloister.wire.json import MAX_INT, MAX_JSON_BYTES, Json, parse_json
from cloister.wire.text import parse_b64u, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

__all__ = ["STEERING", "Fields"]

T = TypeVar("T")
_MISSING: Any = object()

STEERING = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]")
"""Characters that steer a terminal or a log line: controls, line separators, marks of direction (T84)."""


class Fields:
    """Takes typed members out of one JSON object; ``end`` refuses what nobody asked for.

    Every method raises ``Malformed`` naming the member. A member is taken once. ``name in fields``
    asks for optional members.
    """

    __slots__ = ("_left", "_what")

    def __init__(self, value: Json, *, what: str) -> None:
        """Demand an object."""
        if not isinstance(value, dict):
            msg = f"{what}: want a json object"
            raise Malformed(msg)
        self._left: dict[str, Json] = dict(value)
        self._what = what

    @classmethod
    def parse(cls, data: bytes, *, what: str, cap: int = MAX_JSON_BYTES, canonical: bool = False) -> Fields:
        """Parse a JSON document that must be an object."""
        return cls(parse_json(data, what=what, cap=cap, canonical=canonical), what=what)

    def __contains__(self, name: str) -> bool:
        """Tell whether the member is there and was not taken yet."""
        return name in self._left

    def fail(self, name: str, detail: str) -> NoReturn:
        """Raise ``Malformed`` about member ``name``."""
        msg = f"{self._what}: {ascii(name)[1:-1][:64]}: {detail}"  # a name may be a stranger's (T84)
        raise Malformed(msg)

    def take(self, name: str) -> Json:
        """Return the member as it is."""
        got: Json = self._left.pop(name, _MISSING)
        if got is _MISSING:
            self.fail(name, "missing")
        return got

    def literal(self, name: str, want: str | int) -> None:
        """Demand that the member equals ``want`` in value and type."""
        got = self.take(name)
        if type(got) is not type(want) or got != want:
            self.fail(name, f"want {want!r}")

    def text(self, name: str, *, cap: int = 1024, floor: int = 0) -> str:
        """Return a string of ``floor`` to ``cap`` characters, none of which steers a terminal or a log line.

        Refused are control characters, line and paragraph separators, and marks that change the direction
        of the text around them (T84).
        """
        got = self.take(name)
        if not isinstance(got, str):
            self.fail(name, "want a string")
        if not floor <= len(got) <= cap:
            self.fail(name, f"{len(got)} characters, want {floor} to {cap}")
        if STEERING.search(got):
            self.fail(name, "control character")
        return got

    def match(self, name: str, pattern: re.Pattern[str]) -> str:
        """Return a string that matches ``pattern`` from end to end."""
        got = self.text(name)
        if not pattern.fullmatch(got):
            self.fail(name, f"want {pattern.pattern}")
        return got

    def integer(self, name: str, *, floor: int = 0, cap: int = MAX_INT) -> int:
        """Return an integer (never ``true``, never ``5.0``) of ``floor`` to ``cap``."""
        got = self.take(name)
        if type(got) is not int:
            self.fail(name, "want an integer")
        if not floor <= got <= cap:
            self.fail(name, f"{got} is outside {floor}..{cap}")
        return got

    def number(self, name: str, *, floor: float, cap: float) -> float:
        """Return a finite number of ``floor`` to ``cap``."""
        got = self.take(name)
        if type(got) not in (int, float):
            self.fail(name, "want a number")
        value = float(got)  # type: ignore[arg-type]  # narrowed by type() above
        if not floor <= value <= cap:
            self.fail(name, f"{value} is outside {floor}..{cap}")
        return value

    def boolean(self, name: str) -> bool:
        """Return ``true`` or ``false``."""
        got = self.take(name)
        if type(got) is not bool:
            self.fail(name, "want true or false")
        return got

    def b64u(self, name: str, *, size: int | None = None, cap: int = MAX_JSON_BYTES) -> bytes:
        """Return the bytes of a base64url string."""
        got = self.take(name)
        if not isinstance(got, str):
            self.fail(name, "want a base64url string")
        return parse_b64u(got, what=f"{self._what}: {name}", size=size, cap=cap)

    def hex(self, name: str, *, size: int) -> bytes:
        """Return ``size`` bytes from lower-case hex."""
        got = self.take(name)
        if not isinstance(got, str) or not re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", got):
            self.fail(name, f"want {2 * size} lower-case hex digits")
        return bytes.fromhex(got)

    def time(self, name: str) -> datetime:
        """Return an aware datetime."""
        got = self.take(name)
        if not isinstance(got, str):
            self.fail(name, "want an rfc 3339 time")
        return parse_time(got, what=f"{self._what}: {name}")

    def seconds(self, name: str, *, floor: int = 0, cap: int = MAX_INT // 10**6) -> timedelta:
        """Return an integer number of seconds as a duration."""
        return timedelta(seconds=self.integer(name, floor=floor, cap=min(cap, 10**9)))

    def fields(self, name: str) -> Fields:
        """Return a nested object."""
        return Fields(self.take(name), what=f"{self._what}: {name}")

    def items(self, name: str, *, cap: int) -> list[Json]:
        """Return an array of at most ``cap`` items."""
        got = self.take(name)
        if not isinstance(got, list):
            self.fail(name, "want an array")
        if len(got) > cap:
            self.fail(name, f"{len(got)} items, want at most {cap}")
        return list(got)

    def texts(self, name: str, *, cap: int, item_cap: int = 1024) -> tuple[str, ...]:
        """Return an array of strings, each bounded as by ``text``."""
        items = self.items(name, cap=cap)
        return tuple(Fields({name: item}, what=self._what).text(name, cap=item_cap) for item in items)

    def members(self, name: str, *, cap: int) -> dict[str, Json]:
        """Return a nested object whose member names are data, at most ``cap`` of them."""
        got = self.take(name)
        if not isinstance(got, dict):
            self.fail(name, "want an object")
        if len(got) > cap:
            self.fail(name, f"{len(got)} members, want at most {cap}")
        return dict(got)

    def optional(self, name: str, take: Callable[[str], T]) -> T | None:
        """Return ``take(name)`` where the member is present, else None."""
        return take(name) if name in self._left else None

    def version(self, known: int) -> None:
        """Refuse a file of another version, which member ``v`` names."""
        if (found := self.integer("v", floor=1)) != known:
            self.fail("v", f"newer format {found}, this program reads {known}")

    def end(self) -> None:
        """Refuse members nobody took: in signed data an unknown member is an attack or a newer format."""
        if self._left:
            self.fail(min(self._left), "unknown member")
