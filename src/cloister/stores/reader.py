"""Parts read by range requests (RFC 9110 section 14), whoever sends them: a web server or a registry.

Each part is pinned when it is first looked at: size, entity tag and time of change. Bytes go into memory of the
caller's and never beyond what was asked for; what a broken connection brought is kept, and the rest asked for again.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from cloister.errors import Unavailable
from cloister.sealed.parts import demand_part
from cloister.stores.patience import Patience, TryAgainError
from cloister.stores.ranges import Seen, verify_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from cloister.stores.link import Answer

__all__ = ["RangeReader", "RangeSource"]


class Getter(Protocol):
    """Sends a request for a part and yields the answer. Raises as ``Link.exchange``."""

    def __call__(self, name: str, headers: Mapping[str, str], *, deadline: float) -> AbstractContextManager[Answer]:
        """Ask for part ``name`` with these headers besides its own."""
        ...


class RangeReader:
    """Reads parts through ``get``. Any number of threads may read."""

    def __init__(self, get: Getter, patience: Patience, subject: Callable[[str], str]) -> None:
        """Ask nothing yet; ``subject`` names a part in messages."""
        self._get = get
        self._patience = patience
        self._subject = subject
        self._seen: dict[str, Seen] = {}
        self._turn = Lock()

    def size(self, name: str) -> int:
        """Return the size of part ``name`` in bytes, by asking for its first. Raises ``Unavailable``."""
        return self._look(name).size

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return at most ``size`` bytes of part ``name``. Raises ``Unavailable``."""
        out = bytearray(max(0, min(size, self._look(name).size - offset)))  # no more memory than there is to read
        return bytes(out[: self.read_into(name, offset, memoryview(out))])

    def read_into(self, name: str, offset: int, out: memoryview) -> int:
        """Fill ``out`` from part ``name``; return the bytes there were. Raises ``Unavailable``."""
        seen = self._look(name)
        want = out[: max(0, min(len(out), seen.size - offset))]
        done = 0

        def work(deadline: float) -> None:
            nonlocal done
            left = want[done:]
            with self._ask(name, offset + done, len(left), deadline, seen) as (_, answer):
                while got := answer.readinto(left):
                    left = left[got:]
                    done += got
                self._demand_end(name, answer, left)

        if want:
            self._patience.insist(self._subject(name), work)
        return len(want)

    def _look(self, name: str) -> Seen:
        """Return what part ``name`` was when it was first looked at: this is that time, or it was before."""
        demand_part(name)
        with self._turn:
            known = self._seen.get(name)
        if known is not None:
            return known
        found = self._patience.insist(self._subject(name), lambda deadline: self._first_byte(name, deadline))
        with self._turn:
            return self._seen.setdefault(name, found)

    def _first_byte(self, name: str, deadline: float) -> Seen:
        left = memoryview(bytearray(1))
        with self._ask(name, 0, 1, deadline, None) as (seen, answer):
            left = left[answer.readinto(left) :]
            self._demand_end(name, answer, left)
        return seen

    @contextmanager
    def _ask(
        self, name: str, offset: int, size: int, deadline: float, seen: Seen | None
    ) -> Iterator[tuple[Seen, Answer]]:
        """Ask for ``size`` bytes; yield what the part is, and the answer. Raises ``TryAgainError``, ``Unavailable``."""
        first, last = offset, offset + size - 1
        headers = {"range": f"bytes={first}-{last}"} | (seen.condition if seen else {})
        with self._get(name, headers, deadline=deadline) as answer:
            yield verify_head(answer, self._subject(name), first=first, last=last, seen=seen), answer

    def _demand_end(self, name: str, answer: Answer, left: memoryview) -> None:
        """Prove that a body had what was asked for: fewer bytes are asked for again, more are refused."""
        if left:
            msg = "ended early"
            raise TryAgainError(msg)
        if answer.readinto(memoryview(bytearray(1))):
            msg = f"{self._subject(name)}: more was sent than asked for"
            raise Unavailable(msg)


class RangeSource:
    """A ``DirectSource`` whose parts are read by range; what it is built on sets ``_reader``."""

    _reader: RangeReader

    def size(self, name: str) -> int:
        """Return the size of part ``name`` in bytes, by asking for its first. Raises ``Unavailable``."""
        return self._reader.size(name)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return at most ``size`` bytes of part ``name``. Raises ``Unavailable``."""
        return self._reader.read(name, offset, size)

    def read_into(self, name: str, offset: int, out: memoryview) -> int:
        """Fill ``out`` from part ``name``; return the bytes there were. Raises ``Unavailable``."""
        return self._reader.read_into(name, offset, out)
