"""The mark: dither modulation of magnitudes, in integers only (docs/spec/tracing.md, section "Mark").

A float without its sign bit is an integer in the order of its size, so a nudge by so many units in the last place
needs no arithmetic of floats and is the same everywhere. Key and place of an element choose one of two grids, and
its magnitude moves to the nearest point of that one. B. Chen, G. Wornell, "Quantization Index Modulation", IEEE
Transactions on Information Theory 47(4), 2001.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cloister.crypto.stream import KEY_BYTES, expand
from cloister.errors import UsageError
from cloister.wire import lp

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KEY_BYTES", "STRENGTHS", "Array", "FloatKind", "Keystream", "Mark", "convert", "values"]

Array: TypeAlias = "NDArray[Any]"

STRENGTHS: Final = {"low": 14, "medium": 10, "high": 7}
"""By name: a nudge is at most ``2 ** -bits`` of a weight, or one unit in its last place where that is more."""

_LABEL = b"cloister/trace/v1/tensor"
_BLOCK_BYTES = 16
_SELECTION = 64  # what six bits of the keystream can say
_MAX_RARENESS = 6  # one element in 64 is nudged at least


class FloatKind(Enum):
    """A format of floats: bits, bits of the mantissa, and the unsigned integers that hold them."""

    F64 = (64, 52, "<u8")
    F32 = (32, 23, "<u4")
    F16 = (16, 10, "<u2")
    BF16 = (16, 7, "<u2")

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return self.value[0] // 8

    @property
    def mantissa(self) -> int:
        """Explicit bits of the mantissa."""
        return self.value[1]

    @property
    def words(self) -> str:
        """Numpy's name of the unsigned integers, little-endian."""
        return self.value[2]

    def magnitudes(self, words: Array) -> Array:
        """Return the bits without the sign, as 64-bit integers."""
        found: Array = (words & np.array((1 << (self.value[0] - 1)) - 1, self.words)).astype(np.int64)
        return found

    def is_markable(self, magnitudes: Array) -> Array:
        """Tell which are normal, with a factor of two to spare on both sides: never zero, infinite or not a number."""
        exponents = magnitudes >> self.mantissa
        last = (1 << (self.value[0] - 1 - self.mantissa)) - 1
        found: Array = (exponents >= 2) & (exponents <= last - 2)  # noqa: PLR2004 - see above
        return found


class Keystream:
    """One byte for each element of one tensor: AES-256-CTR under a key of that tensor alone."""

    def __init__(self, key: bytes | bytearray, path: str, name: str) -> None:
        """Derive the tensor's key from the variant's (32 bytes). Raises ``UsageError`` for another length."""
        if len(key) != KEY_BYTES:
            msg = f"trace key: {len(key)} bytes, want {KEY_BYTES}"
            raise UsageError(msg)
        self._key = bytes(expand(key, lp(_LABEL, path.encode(), name.encode()), KEY_BYTES))

    def read(self, first: int, count: int) -> Array:
        """Return the bytes of elements ``first`` to ``first + count``."""
        block, skip = divmod(first, _BLOCK_BYTES)
        counter = block.to_bytes(_BLOCK_BYTES, "big")
        data = Cipher(algorithms.AES(self._key), modes.CTR(counter)).encryptor().update(bytes(skip + count))
        return np.frombuffer(data, np.uint8)[skip:]

    def __repr__(self) -> str:
        """Show no key."""
        return "Keystream()"


class Mark:
    """How far elements of one kind move at one strength, and which."""

    def __init__(self, kind: FloatKind, bits: int) -> None:
        """``bits`` of 1 to 52: the negative binary logarithm of the relative nudge."""
        shift = kind.mantissa - bits
        self.kind = kind
        self.step: int = 1 << max(shift, 0)
        self.selected: int = _SELECTION >> min(max(-shift, 0), _MAX_RARENESS)

    @property
    def selects_all(self) -> bool:
        """Whether no key leaves an element out."""
        return self.selected == _SELECTION

    def choose(self, stream: Array) -> tuple[Array, Array]:
        """Return each element's grid, 0 or 1, and whether it is marked at all."""
        return stream & 1, (stream >> 2) < self.selected

    def change(self, magnitudes: Array, grid: Array | int) -> Array:
        """Return by how many units each magnitude moves to its nearest point of ``grid``: at most a step."""
        step, whole = self.step, 2 * self.step
        away = (grid * np.int64(step) - magnitudes) & (whole - 1)
        # Half way, the magnitude's own next bit decides: neither key nor drift has a part in it. No branches: they
        # would depend on random bits, and take five times as long.
        down = (~magnitudes >> (whole.bit_length() - 1)) & 1
        found: Array = away - ((away + down + (step - 1)) & whole)
        return found

    def apply(self, words: Array, stream: Array) -> Array:
        """Return marked words. ``stream`` has a byte for each."""
        magnitudes = self.kind.magnitudes(words)
        grid, selected = self.choose(stream)
        moved = self.change(magnitudes, grid.astype(np.int64)) * (selected & self.kind.is_markable(magnitudes))
        marked: Array = (words.astype(np.int64, casting="unsafe") + moved).astype(self.kind.words, casting="unsafe")
        return marked


def values(words: Array, kind: FloatKind) -> Array:
    """Return floats of 64 bits."""
    with np.errstate(all="ignore"):
        if kind is FloatKind.BF16:
            return (words.astype("<u4") << 16).view("<f4").astype(np.float64)
        return words.view(f"<f{kind.size}").astype(np.float64)


def convert(words: Array, old: FloatKind, new: FloatKind) -> Array:
    """Return the same numbers as ``new``, rounded to nearest even where it has fewer bits."""
    if old is new:
        return words
    with np.errstate(all="ignore"):
        if new is not FloatKind.BF16:
            return values(words, old).astype(f"<f{new.size}").view(new.words)
        wide = values(words, old).astype("<f4").view("<u4").astype(np.uint64)
        return ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(new.words)
