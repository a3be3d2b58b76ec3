"""How much of the process one tenant may take: requests at once, requests per minute (T82).

Counted by the name in the path, whether there is such a tenant or not: the counts are then no sign of it. Threads,
streams, bodies, database are bounded by each tenant's own application (``config.bounded``, ``Running``).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.serving.rates import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from starlette.types import Message, Send

    from cloister.custodian.tenants.config import HostConfig

__all__ = ["Admission"]

_EVENT_STREAM = b"text/event-stream"


class Admission:
    """Places of all tenants, on one event loop."""

    def __init__(self, config: HostConfig, clock: Callable[[], datetime]) -> None:
        """All places are free."""
        self._most = config.requests
        self._clock = clock
        self._rate = RateLimit(per_minute=config.requests_per_minute, subject="requests of this tenant")
        self._taken: dict[bytes, int] = {}

    @contextlib.contextmanager
    def place(self, name: bytes) -> Iterator[_Place]:
        """Hold a place among the requests of ``name``. Raises ``Rejected`` (``too_many_requests``)."""
        if self._taken.get(name, 0) >= self._most:
            raise Rejected.because("too_many_requests", "requests of this tenant", want=f"{self._most} at once")
        self._rate.take(name.decode("latin-1"), self._clock())
        place = _Place(self._taken, name)
        try:
            yield place
        finally:
            place.leave()


class _Place:
    """One request's place. Event streams, which are counted by themselves, give it back once they stream."""

    __slots__ = ("_held", "_name", "_taken")

    def __init__(self, taken: dict[bytes, int], name: bytes) -> None:
        self._taken, self._name, self._held = taken, name, True
        taken[name] = taken.get(name, 0) + 1

    def leave(self) -> None:
        if not self._held:
            return
        self._held = False
        left = self._taken[self._name] - 1
        if left:
            self._taken[self._name] = left
        else:
            del self._taken[self._name]

    def watching(self, send: Send) -> Send:
        """Return ``send`` that notices when an answer is an event stream."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and any(
                name == b"content-type" and value.startswith(_EVENT_STREAM) for name, value in message["headers"]
            ):
                self.leave()
            await send(message)

        return watched
