"""Sharing a secret among holders: Shamir's scheme over GF(2^8), byte by byte (docs/spec/share.md).

Each byte of the secret is the value at 0 of a polynomial of its own, of degree ``need - 1`` and with random
coefficients; holder ``x`` gets the values at ``x``. Any ``need`` parts give the secret, fewer say nothing of it,
however much their holders can compute: every secret fits them equally well.

Not done here: telling a part that was altered. ``combine`` notices it only where there are more parts than needed;
whoever uses the secret must be able to tell a wrong one. Tables are looked up at secret places: a machine on which
others can watch the caches is no place to split or combine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MAX_PARTS", "MIN_NEED", "Part", "combine", "split"]

MIN_NEED: Final = 2  # with 1, each part would be the secret
MAX_PARTS: Final = 255  # the elements of the field that are not 0
_MODULUS = 0x11B  # x^8 + x^4 + x^3 + x + 1, FIPS 197 section 4.2
_ORDER = 255  # of the multiplicative group


def _tables() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return powers of the generator 3, twice over so that sums of logarithms need no reduction, and logarithms."""
    powers, logarithms, value = [0] * (2 * _ORDER), [0] * (_ORDER + 1), 1
    for exponent in range(_ORDER):
        powers[exponent] = powers[exponent + _ORDER] = value
        logarithms[value] = exponent
        value ^= value << 1  # times 3 is times 2, plus once
        if value > _ORDER:
            value ^= _MODULUS
    return tuple(powers), tuple(logarithms)


_POWERS, _LOGARITHMS = _tables()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one holder gets: the place ``x`` (1 to 255) and one byte for each of the secret's. Never prints itself."""

    x: int
    values: bytes = field(repr=False)


def split(secret: bytes, *, need: int, of: int, rng: Callable[[int], bytes]) -> tuple[Part, ...]:
    """Return ``of`` parts, any ``need`` of which give ``secret``. Raises ``UsageError`` for numbers out of range."""
    if not MIN_NEED <= need <= of <= MAX_PARTS:
        msg = f"shares: {need} of {of}, want at least {MIN_NEED} of at most {MAX_PARTS}"
        raise UsageError(msg)
    coefficients = [secret, *(rng(len(secret)) for _ in range(need - 1))]
    return tuple(Part(x=x, values=_evaluate(coefficients, x)) for x in range(1, of + 1))


def combine(parts: Sequence[Part], *, need: int) -> bytes:
    """Return the secret that ``need`` parts of one split give; every further part must fit the others.

    Raises ``UsageError`` for too few parts, two at one place, or parts of several lengths, ``Rejected``
    (``wrong_share``) where there are more than needed and they contradict each other. Does not prove the secret.
    """
    if need < MIN_NEED or len(parts) < need:
        msg = f"shares: {len(parts)} given, want {max(need, MIN_NEED)}"
        raise UsageError(msg)
    if len({part.x for part in parts}) != len(parts) or len({len(part.values) for part in parts}) != 1:
        msg = "shares: two at one place, or of different lengths"
        raise UsageError(msg)
    first = parts[:need]
    if any(_interpolate(first, part.x) != part.values for part in parts[need:]):
        raise Rejected.because("wrong_share", "shares", got="parts of several secrets, or altered", want="one secret")
    return _interpolate(first, 0)


def _times(left: int, right: int) -> int:
    return _POWERS[_LOGARITHMS[left] + _LOGARITHMS[right]] if left and right else 0


def _over(left: int, right: int) -> int:
    return _POWERS[_LOGARITHMS[left] + _ORDER - _LOGARITHMS[right]] if left else 0


def _evaluate(coefficients: Sequence[bytes], x: int) -> bytes:
    """Return the value at ``x`` of every byte's polynomial, constant terms first (Horner)."""
    values = bytes(len(coefficients[0]))
    for row in reversed(coefficients):
        values = bytes(_times(value, x) ^ term for value, term in zip(values, row, strict=True))
    return values


def _interpolate(parts: Sequence[Part], at: int) -> bytes:
    """Return the values at ``at`` of the polynomials of lowest degree through ``parts`` (Lagrange)."""
    values = bytes(len(parts[0].values))
    for part in parts:
        weight = 1
        for other in parts:
            if other.x != part.x:
                weight = _times(weight, _over(at ^ other.x, part.x ^ other.x))
        values = bytes(value ^ _times(weight, term) for value, term in zip(values, part.values, strict=True))
    return values
