"""Where signing keys rest: a file of mode 0600, plain or wrapped by a vault; and the ring as it is now.

A service advances its ring when it is asked for a key and something is due; a person rotates it beside a running
service. Both hold a lock while they read, change and write; a running service reads the file again once it changed.

Not done here: what is due (``ring``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from cloister.errors import CloisterError, Malformed, Unavailable
from cloister.private_file import read_private, replace_private, write_private
from cloister.verifier.logs import LOG, Event
from cloister.verifier.ring import MAX_RING_BYTES, Ring
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime
    from pathlib import Path

    from cloister.verifier.ring import KeyPlan, RingKey
    from cloister.wire import Json

__all__ = ["KeyFile", "Wrapper"]

_AAD = b"cloister/attestation-service/keys/v1"
_LOOK_EVERY = timedelta(minutes=1)  # between two looks at what is due


class Wrapper(Protocol):
    """What keeps keys unreadable at rest: a vault. Contract: ``unwrap`` raises ``Rejected`` for what is not its own."""

    def wrap(self, plain: bytes, *, aad: bytes) -> bytes:
        """Return ``plain`` encrypted."""
        ...

    def unwrap(self, wrapped: bytes, *, aad: bytes) -> bytes:
        """Return what was wrapped with the same ``aad``."""
        ...


class KeyFile:
    """The signing keys of one service."""

    def __init__(
        self, path: Path, plan: KeyPlan, algorithms: Collection[str], *, wrapper: Wrapper | None = None
    ) -> None:
        """Keep keys in ``path``, wrapped where there is a ``wrapper``; nothing is read yet."""
        self._path, self._plan, self._algorithms, self._wrapper = path, plan, frozenset(algorithms), wrapper
        self._ring = Ring()
        self._seen: tuple[int, int, int] | None = None
        self._looked_at: datetime | None = None
        self._lock = threading.Lock()

    def signing(self, algorithm: str, now: datetime) -> RingKey:
        """Return the key that signs now. Raises ``Unavailable`` where the file cannot be written."""
        return self.ring(now).signing(algorithm, now)

    def jwks(self, now: datetime) -> Json:
        """Return the public keys."""
        return self.ring(now).jwks()

    def ring(self, now: datetime) -> Ring:
        """Return the ring as it has to be now, from the file and back into it."""
        with self._lock:
            fresh = self._looked_at is not None and timedelta(0) <= now - self._looked_at < _LOOK_EVERY
            if not fresh or self._seen != self._mark():
                self._look(now)
            return self._ring

    def _look(self, now: datetime) -> None:
        """Do what is due. What is wrong with the file is said as it is once, at start; later nobody asked about it."""
        try:
            self._change(lambda ring: ring.advance(self._algorithms, self._plan, now))
        except CloisterError as exc:
            if self._looked_at is None:
                raise
            msg = "signing keys: the file cannot be used"
            raise Unavailable(msg) from exc
        self._looked_at = now

    def rotate(self, now: datetime, *, incident: bool = False) -> Ring:
        """Make next keys, which sign once they have been published long enough; after an ``incident`` at once."""
        with self._lock:
            self._change(lambda ring: ring.replaced(now) if incident else ring.rotate(self._plan, now))
            return self._ring

    def _change(self, change: Callable[[Ring], Ring]) -> None:
        with self._alone():
            before = self._read()
            if before is None and self._ring.keys:  # fresh keys would make every token of before worthless
                msg = f"{self._path.name}: is gone"
                raise Unavailable(msg, hint="put it back; or start anew, and fresh keys are made")
            after = change(before or Ring())
            if before is None:
                write_private(self._path, self._dump(after))
            elif after != before:
                replace_private(self._path, self._dump(after))
                LOG.write(Event.KEYS_CHANGED, count=len(after.keys))
            self._ring, self._seen = after, self._mark()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes away while the file is changed."""
        try:
            fd = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            msg = f"{self._path}: {exc.strerror}"
            raise Unavailable(msg) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> Ring | None:
        """Return what the file holds, None where there is none. Raises ``UsageError``, ``Malformed``, ``Rejected``."""
        if not self._path.exists():
            return None
        data = read_private(self._path, cap=2 * MAX_RING_BYTES, holds="signing keys")
        fields = Fields.parse(data, what=f"{self._path.name}", cap=2 * MAX_RING_BYTES)
        if "wrapped" not in fields:
            if self._wrapper is not None:
                msg = f"{self._path.name}: not wrapped by the vault"
                raise Malformed(msg)
            return Ring.parse(data)
        if self._wrapper is None:
            msg = f"{self._path.name}: wrapped by a vault that is not here"
            raise Malformed(msg)
        fields.literal("v", 1)
        wrapped = fields.b64u("wrapped", cap=MAX_RING_BYTES)
        fields.end()
        return Ring.parse(self._wrapper.unwrap(wrapped, aad=_AAD))

    def _dump(self, ring: Ring) -> bytes:
        if self._wrapper is None:
            return ring.dump()
        return dump_json({"v": 1, "wrapped": dump_b64u(self._wrapper.wrap(ring.dump(), aad=_AAD))})
