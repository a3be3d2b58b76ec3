"""Lines of processors, each with a root key of its own (AMD 57230, certificate chains).

Bergamo and Siena are Genoa to AMD's key service: they have Genoa's root and Genoa's name in their certificates.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Product", "product_of_cpuid", "product_of_name"]

HWID_BYTES = 64
TURIN_HWID_BYTES = 8


class Product(Enum):
    """A line of processors; the value is its name in AMD's certificates."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"

    @property
    def key(self) -> str:
        """The name as policies and endorsements spell it."""
        return self.value.lower()

    @property
    def hwid_bytes(self) -> int:
        """Size of the hardware id in a VCEK: Turin shortened it (AMD 57230, hwID)."""
        return TURIN_HWID_BYTES if self is Product.TURIN else HWID_BYTES


_FAMILY_19H, _FAMILY_1AH = 0x19, 0x1A
_MODELS: Mapping[int, tuple[tuple[range, Product], ...]] = {
    _FAMILY_19H: (
        (range(0x10), Product.MILAN),
        (range(0x10, 0x20), Product.GENOA),
        (range(0xA0, 0xB0), Product.GENOA),  # Bergamo, Siena
    ),
    _FAMILY_1AH: ((range(0x12), Product.TURIN),),
}
_NAMES: Mapping[str, Product] = {
    **{item.value: item for item in Product},
    "Bergamo": Product.GENOA,
    "Siena": Product.GENOA,
}


def product_of_cpuid(family: int, model: int) -> Product | None:
    """Return the line with this CPUID family and model, None for one we do not know."""
    for models, product in _MODELS.get(family, ()):
        if model in models:
            return product
    return None


def product_of_name(name: str) -> Product | None:
    """Return the line of a certificate's productName: ``Milan-B0``, ``Genoa``; None for one we do not know."""
    return _NAMES.get(name.partition("-")[0])
