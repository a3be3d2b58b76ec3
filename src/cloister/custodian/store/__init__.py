"""The one database: SQLAlchemy Core, one transaction per use case, over SQLite or PostgreSQL.

``sqlite`` is for one custodian, ``postgres`` for several over one database; ``migrations`` has the one schema of
both, ``copying`` carries all rows from one to another. The other files have the rows, a noun each. Whatever the
database cannot do is ``Unavailable``: no commit, no answer. Not done here: what the rows mean (``service``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Connection

__all__ = ["Store"]


class Store(Protocol):
    """An open database. Every method raises ``Unavailable`` where the database fails, and names no value."""

    @property
    def shared(self) -> bool:
        """Tell whether other custodians write here too: then audit entries are ordered after the commit."""
        ...

    @property
    def is_writable(self) -> bool:
        """Tell whether writing was still possible at the last attempt."""
        ...

    def writing(self, *, fenced: bool = True, alone: bool = False) -> AbstractContextManager[Connection]:
        """Run one read-write transaction; commits durably at the end, rolls back on any exception.

        As if no other ran at the same time. Raises ``Contended`` where that cannot be had now: run it again.
        ``fenced`` demands that the database is still this custodian's; ``alone`` waits until no other transaction
        of this kind runs and lets none begin.
        """
        ...

    def sequencing(self) -> AbstractContextManager[Connection]:
        """Run one read-write transaction of which there is one at a time, over all custodians, seeing all commits."""
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """Run one read-only transaction: a consistent snapshot."""
        ...

    def scrub(self) -> None:
        """Let nothing that was deleted with ``veils.shred_deleted`` remain in files beside the database."""
        ...

    def backup(self, path: Path) -> None:
        """Write a consistent copy to the new SQLite file ``path``. It holds no key that opens anything (T19)."""
        ...

    def close(self) -> None:
        """Close every connection, once the transactions under way have ended; nothing is written afterwards."""
        ...
