"""TCB versions: eight bytes, one security patch level for each firmware (AMD 56860 section 2.2, TCB_VERSION).

The order of the bytes depends on the line of processors: Turin put FMC in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.amd.products import Product
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TCB_BYTES", "Tcb"]

TCB_BYTES = 8
_OLD: Mapping[str, int] = {"bl": 0, "tee": 1, "snp": 6, "ucode": 7}
_TURIN: Mapping[str, int] = {"fmc": 0, "bl": 1, "tee": 2, "snp": 3, "ucode": 7}
_MAX_LEVEL = 255


def _places(product: Product) -> Mapping[str, int]:
    return _TURIN if product is Product.TURIN else _OLD


@dataclass(frozen=True, slots=True)
class Tcb:
    """One TCB version. ``parts`` are the levels by name, ``raw`` the bytes as the report has them."""

    raw: bytes
    parts: Mapping[str, int]

    @classmethod
    def read(cls, raw: bytes, product: Product) -> Self:
        """Read ``TCB_BYTES`` bytes in the order of ``product``. Any byte has a reading."""
        return cls(raw, {name: raw[place] for name, place in _places(product).items()})

    @classmethod
    def make(cls, product: Product, parts: Mapping[str, int]) -> Self:
        """Return the version with these levels; what is not named is 0. Raises ``UsageError``."""
        places = _places(product)
        unknown = [name for name in parts if name not in places]
        if unknown or not all(0 <= level <= _MAX_LEVEL for level in parts.values()):
            msg = f"tcb: {dict(parts)}, want levels 0 to {_MAX_LEVEL} of {', '.join(places)}"
            raise UsageError(msg)
        raw = bytearray(TCB_BYTES)
        for name, level in parts.items():
            raw[places[name]] = level
        return cls.read(bytes(raw), product)

    def exceeds(self, other: Tcb) -> bool:
        """Tell whether any level is above that of ``other``, of the same line."""
        return any(level > other.parts[name] for name, level in self.parts.items())

    def __str__(self) -> str:
        """Return ``bl 4, tee 0, snp 24, ucode 219``."""
        return ", ".join(f"{name} {level}" for name, level in self.parts.items())
