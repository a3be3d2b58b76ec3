"""A value that shows itself to nobody by accident: tokens, passphrases, PINs on their way through our code (T85).

Every way in which Python turns a value into text shows ``Secret(...)``, and every way in which it writes one down
refuses. ``reveal`` is the one way out, so that a search for it finds every place where a secret is used.

Not done here: wiping memory. The bytes stay where Python put them until it uses the place again; and who runs code
in this process can call ``reveal`` too.
"""

from __future__ import annotations

import hmac
from typing import Any, Generic, NoReturn, Self, TypeVar

__all__ = ["Secret"]

T = TypeVar("T", str, bytes)
_SHOWN = "Secret(...)"


class Secret(Generic[T]):
    """Holds text or bytes. Two are equal where what they hold is, compared in constant time."""

    __slots__ = ("_held",)

    _held: T

    def __init__(self, value: T) -> None:
        """Hold ``value``."""
        object.__setattr__(self, "_held", value)

    def reveal(self) -> T:
        """Return what is held, for the one call that needs it."""
        return self._held

    def __repr__(self) -> str:
        return _SHOWN

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return _SHOWN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = (item.encode() if isinstance(item, str) else item for item in (self.reveal(), other.reveal()))
        return type(self.reveal()) is type(other.reveal()) and hmac.compare_digest(mine, theirs)

    __hash__ = None  # type: ignore[assignment]  # a hash of it in a log would be one of a secret

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        msg = "a secret is not written down"
        raise TypeError(msg)

    __reduce__ = __getstate__ = __reduce_ex__  # type: ignore[assignment]

    def __setattr__(self, _name: str, _value: object) -> NoReturn:
        msg = "a secret does not change"
        raise AttributeError(msg)
