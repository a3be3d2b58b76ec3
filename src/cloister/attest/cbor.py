"""CBOR (RFC 8949) from strangers: scanned with limits first, decoded by ``cbor2`` after.

The subset that attestation needs: integers, byte and text strings, arrays, maps with integer or text keys,
true, false, null. One tag may stand in front, and the caller says which. Heads are in their shortest form
(section 4.1, preferred serialization). Refused before anything is decoded: floats, other simple values, tags
inside (so no date, bignum, shared reference or regular expression comes to life), strings in pieces, bytes
after the end, and whatever is deeper, longer or more than the limits. The scan has no recursion.

Not done here: what a map means (``CborMap`` takes typed members), COSE (``cose``).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

import cbor2

from cloister.errors import Malformed
from cloister.wire import STEERING, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["MAX_CBOR_DEPTH", "MAX_CBOR_ITEMS", "Cbor", "CborMap", "dump_cbor", "parse_cbor", "take_tag"]

Cbor: TypeAlias = "int | bytes | str | bool | list[Cbor] | dict[int | str, Cbor] | None"
T = TypeVar("T")

MAX_CBOR_DEPTH = 8  # containers inside one another
MAX_CBOR_ITEMS = 1024  # data items of one document, keys and containers counted

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)  # RFC 8949 section 3.1
_IN_HEAD = 24  # arguments below this stand in the first byte
_LONGEST_HEAD = 27  # additional information of an argument of eight bytes
_INDEFINITE = 31
_FALSE, _NULL = 20, 22


def take_tag(data: bytes, *, what: str) -> tuple[int | None, bytes]:
    """Return the number of the tag in front, None where there is none, and what follows it."""
    reader = Reader(data, what=what)
    if not data or data[0] >> 5 != _TAG:
        return None, data
    _, number = _take_head(reader)
    if number is None:
        reader.fail("tag of no number")
    return number, reader.rest()


def parse_cbor(data: bytes, *, what: str, cap: int, indefinite: bool = False) -> Cbor:
    """Parse one data item without tags, to its end. Raises ``Malformed``.

    ``cap`` is the most bytes; ``indefinite`` admits arrays and maps that end with a break.
    """
    reader = Reader(data, what=what)
    if len(data) > cap:
        reader.fail(f"{len(data)} bytes, want at most {cap}")
    _Scan(reader, indefinite=indefinite).walk()
    reader.end()
    try:
        value: Cbor = cbor2.loads(data, allow_indefinite=indefinite, allow_duplicate_keys=False)
    except (cbor2.CBORError, ValueError) as exc:  # a key twice, or text that is no UTF-8
        reader.fail(f"cbor: {str(exc)[:80]!a}")
    return value


def dump_cbor(value: Cbor) -> bytes:
    """Return the preferred serialization: definite lengths, shortest heads, maps in the order given."""
    return cbor2.dumps(value)


@dataclass(slots=True)
class _Open:
    """A container that is being read. ``left``: items still to come, two for each pair; None until a break ends it."""

    is_map: bool
    left: int | None
    taken: int = 0

    @property
    def at_key(self) -> bool:
        return self.is_map and self.taken % 2 == 0

    def count(self) -> None:
        self.taken += 1
        if self.left is not None:
            self.left -= 1


class _Scan:
    """Walks one data item and whatever is inside."""

    __slots__ = ("_indefinite", "_reader", "_stack")

    def __init__(self, reader: Reader, *, indefinite: bool) -> None:
        self._reader = reader
        self._indefinite = indefinite
        self._stack: list[_Open] = []

    def walk(self) -> None:
        """Leave the reader behind the item, or fail."""
        stack = self._stack
        for items in itertools.count(1):
            if items > MAX_CBOR_ITEMS:
                self._reader.fail(f"more than {MAX_CBOR_ITEMS} items")
            opened = self._step()
            if opened is not None:
                if len(stack) == MAX_CBOR_DEPTH:
                    self._reader.fail(f"more than {MAX_CBOR_DEPTH} deep")
                stack.append(opened)
            elif stack:
                stack[-1].count()
            while stack and stack[-1].left == 0:
                stack.pop()
                if stack:
                    stack[-1].count()
            if not stack:
                return

    def _step(self) -> _Open | None:
        """Take a head and the string it announces; return the container it opens, None where an item is complete."""
        major, argument = _take_head(self._reader)
        if major == _SIMPLE and argument is None:
            self._close()
            return None
        if self._stack and self._stack[-1].at_key and major not in {_UINT, _NEGATIVE, _TEXT}:
            self._reader.fail("key of a map is neither integer nor text")
        if major in {_ARRAY, _MAP}:
            return self._open(argument, is_map=major == _MAP)
        if argument is None:
            self._reader.fail("string in pieces")
        if major in {_BYTES, _TEXT}:
            self._reader.take(argument)
        elif major == _TAG:
            self._reader.fail("tag inside")
        elif major == _SIMPLE and not _FALSE <= argument <= _NULL:
            self._reader.fail("simple value other than true, false and null")
        return None

    def _open(self, argument: int | None, *, is_map: bool) -> _Open:
        if argument is None:
            if not self._indefinite:
                self._reader.fail("indefinite length")
            return _Open(is_map=is_map, left=None)
        left = 2 * argument if is_map else argument
        if left > self._reader.left:  # an item has at least one byte
            self._reader.fail(f"{left} items announced, {self._reader.left} bytes left")
        return _Open(is_map=is_map, left=left)

    def _close(self) -> None:
        """End the innermost container at a break (RFC 8949 section 3.2.1)."""
        if not self._stack or self._stack[-1].left is not None:
            self._reader.fail("break where nothing is open")
        if self._stack[-1].is_map and not self._stack[-1].at_key:
            self._reader.fail("map ends after a key")
        self._stack.pop()


def _take_head(reader: Reader) -> tuple[int, int | None]:
    """Return major type and argument (RFC 8949 section 3); None for an indefinite length and for a break."""
    first = reader.u8()
    major, info = first >> 5, first & 0x1F
    if info < _IN_HEAD:
        return major, info
    if info == _INDEFINITE:
        return major, None
    if info > _LONGEST_HEAD or major == _SIMPLE:
        reader.fail(f"head {first:#04x} is reserved, a float or a simple value")
    size = 1 << (info - _IN_HEAD)
    argument = reader.uint(size)
    if argument < (_IN_HEAD if size == 1 else 1 << (4 * size)):
        reader.fail("head is not in its shortest form")
    return major, argument


class CborMap:
    """Takes typed members out of one map. Every method raises ``Malformed`` naming the key; a member is taken once."""

    __slots__ = ("_left", "_what")

    def __init__(self, value: Cbor, *, what: str) -> None:
        """Demand a map."""
        if not isinstance(value, dict):
            msg = f"{what}: want a cbor map"
            raise Malformed(msg)
        self._left = dict(value)
        self._what = what

    def __contains__(self, key: int | str) -> bool:
        """Tell whether the member is there and was not taken yet."""
        return key in self._left

    @property
    def left(self) -> tuple[str, ...]:
        """The keys nobody took, as text, sorted."""
        return tuple(sorted(f"{key!a}"[:64] for key in self._left))

    def fail(self, key: int | str, detail: str) -> NoReturn:
        """Raise ``Malformed`` about member ``key``."""
        msg = f"{self._what}: {ascii(str(key))[1:-1][:64]}: {detail}"  # a key may be a stranger's (T84)
        raise Malformed(msg)

    def take(self, key: int | str) -> Cbor:
        """Return the member as it is."""
        if key not in self._left:
            self.fail(key, "missing")
        return self._left.pop(key)

    def data(self, key: int | str, sizes: Collection[int]) -> bytes:
        """Return a byte string of one of these sizes."""
        got = self.take(key)
        if not isinstance(got, bytes):
            self.fail(key, "want a byte string")
        if len(got) not in sizes:
            want = f"{sizes.start} to {sizes.stop - 1}" if isinstance(sizes, range) else sorted(sizes)
            self.fail(key, f"{len(got)} bytes, want {want}")
        return got

    def text(self, key: int | str, *, cap: int) -> str:
        """Return a text of 1 to ``cap`` characters, none of which steers a terminal or a log line (T84)."""
        got = self.take(key)
        if not isinstance(got, str) or not 0 < len(got) <= cap:
            self.fail(key, f"want a text of 1 to {cap} characters")
        if STEERING.search(got):
            self.fail(key, "control character")
        return got

    def integer(self, key: int | str, *, floor: int, cap: int) -> int:
        """Return an integer (never ``true``) of ``floor`` to ``cap``."""
        got = self.take(key)
        if type(got) is not int or not floor <= got <= cap:
            self.fail(key, f"want an integer of {floor} to {cap}")
        return got

    def boolean(self, key: int | str) -> bool:
        """Return ``true`` or ``false``."""
        got = self.take(key)
        if type(got) is not bool:
            self.fail(key, "want true or false")
        return got

    def items(self, key: int | str, *, floor: int, cap: int) -> list[Cbor]:
        """Return an array of ``floor`` to ``cap`` items."""
        got = self.take(key)
        if not isinstance(got, list) or not floor <= len(got) <= cap:
            self.fail(key, f"want an array of {floor} to {cap} items")
        return got

    def optional(self, key: int | str, take: Callable[[int | str], T]) -> T | None:
        """Return ``take(key)`` where the member is present, else None."""
        return take(key) if key in self else None

    def end(self) -> None:
        """Refuse members nobody took."""
        if self._left:
            self.fail(self.left[0], "unknown member")
