"""Settings of a server as a frozen data class: declared once, with what each means and its range, and read strictly.

A field's metadata has ``doc``, ``floor`` and ``cap``; its default has its type. Not done here: which settings there
are, what does not go together, and how an error names where it is (``fail``).
"""

from __future__ import annotations

import tomllib
from dataclasses import field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from dataclasses import Field

__all__ = ["Fail", "declare", "parse_toml", "toml_of", "typed"]

_KIND = {str: "a string", int: "an integer", bool: "true or false"}


class Fail(Protocol):
    """Raises the server's own ``UsageError`` about a setting."""

    def __call__(self, detail: str, /) -> NoReturn:
        """Raise it."""
        ...


def declare(default: object, doc: str, *, floor: int = 0, cap: int = 0) -> Any:
    """Declare one setting: its default, what it means, its range."""
    return field(default=default, metadata={"doc": doc, "floor": floor, "cap": cap})


def parse_toml(text: str, fail: Fail, *, cap: int) -> dict[str, Any]:
    """Return a TOML document of at most ``cap`` characters, or fail."""
    if len(text) > cap:
        fail(f"{len(text)} characters, want at most {cap}")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # tomllib lets a number of too many digits and deep nesting through
        fail(f"{exc}" if isinstance(exc, tomllib.TOMLDecodeError) else "not toml that can be read")


def typed(setting: Field[Any], value: object, fail: Fail) -> object:
    """Return ``value`` if it has the type and range of ``setting``, or fail: nothing is guessed."""
    name, default = setting.name, setting.default
    floor, cap = setting.metadata["floor"], setting.metadata["cap"]
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            fail(f"{name}: want an array of strings")
        return tuple(value)
    if type(value) is not type(default):
        fail(f"{name}: want {_KIND[type(default)]}")
    if isinstance(value, int) and not isinstance(value, bool) and not floor <= value <= cap:
        fail(f"{name}: {value} is outside {floor}..{cap}")
    if isinstance(value, str) and not value.isprintable():
        fail(f"{name}: control character")
    return value


def toml_of(value: object) -> str:
    """Return the value of a setting as TOML spells it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_of(item) for item in value) + "]"
    return str(value) if isinstance(value, int) else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
