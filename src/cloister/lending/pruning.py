"""What is left of an entry that was pruned: its place, its leaf hash, and by which pruning (section 10).

    {"index":7,"leaf":"<hex>","pruned":1,"v":2}

The hash keeps the tree what it was, so that every proof stays good. What keeps a log from losing entries unseen: each
pruning is an entry of its own, with how many it took and one digest over their places and hashes; ``Prunings`` holds
what is missing from a log against what its entries say was taken.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.lending.merkle import HASH_BYTES
from cloister.wire import Fields, dump_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloister.lending.events import DetailValue

__all__ = ["PrunedEntry", "Prunings", "is_pruned", "pruning_digest"]

_PREFIX = b'{"index":'  # no entry begins with it: its first member is its actor
_MAX_BYTES = 256
_INDEX_BYTES = 8


def is_pruned(line: bytes) -> bool:
    """Tell whether a line is what is left of an entry; ``PrunedEntry.parse`` says whether it is well formed."""
    return line.startswith(_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedEntry:
    """The place of an entry whose body is gone."""

    index: int
    leaf: bytes
    pruning: int

    def dump(self) -> bytes:
        """Return the canonical line, without a line end."""
        return dump_json({"index": self.index, "leaf": self.leaf.hex(), "pruned": self.pruning, "v": 2})

    @classmethod
    def parse(cls, data: bytes) -> PrunedEntry:
        """Parse one line. Raises ``Malformed``."""
        fields = Fields.parse(data, what="pruned entry", cap=_MAX_BYTES, canonical=True)
        fields.literal("v", 2)
        entry = cls(
            index=fields.integer("index"),
            leaf=fields.hex("leaf", size=HASH_BYTES),
            pruning=fields.integer("pruned", floor=1),
        )
        fields.end()
        return entry


def pruning_digest(taken: Iterable[tuple[int, bytes]]) -> str:
    """Return the digest over indexes and leaf hashes, in the order of the log."""
    digest = hashlib.sha256()
    for index, leaf in taken:
        digest.update(_part(index, leaf))
    return digest.hexdigest()


def _part(index: int, leaf: bytes) -> bytes:
    return index.to_bytes(_INDEX_BYTES, "big") + leaf


@dataclass(slots=True)
class _Missing:
    """What of a log is missing under one number."""

    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size: int = 0
    last: int = -1


@dataclass(slots=True)
class Prunings:
    """What a log lacks, and what its own entries say was taken, while it is read from front to back."""

    _missing: dict[int, _Missing] = field(default_factory=dict)
    _said: dict[int, tuple[int, int, str]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many entries are missing."""
        return sum(item.size for item in self._missing.values())

    def lacks(self, entry: PrunedEntry) -> None:
        """Note a place without a body."""
        found = self._missing.setdefault(entry.pruning, _Missing())
        found.digest.update(_part(entry.index, entry.leaf))
        found.size, found.last = found.size + 1, entry.index

    def says(self, index: int, details: Mapping[str, DetailValue]) -> None:
        """Note an entry ``log_pruned`` at ``index``."""
        number = int(details.get("seq", 0))
        if number in self._said:
            raise Rejected.because("audit_withheld", f"entry {index}", got=f"pruning {number} a second time")
        self._said[number] = index, int(details.get("size", -1)), str(details.get("root", ""))

    def verify(self) -> None:
        """Prove that what is missing is exactly what prunings took. Raises ``Rejected`` (``audit_withheld``)."""
        for number, missing in sorted(self._missing.items()):
            index, size, root = self._said.get(number, (-1, -1, ""))
            if (missing.size, missing.digest.hexdigest()) != (size, root) or missing.last >= index:
                raise Rejected.because(
                    "audit_withheld", f"entry {missing.last}", got=f"{missing.size} entries without a body",
                    want=f"{size} that pruning {number} took" if size >= 0 else "an entry that says who took them",
                    hint="a copy that was begun before a pruning is to be made anew",
                )  # fmt: skip
