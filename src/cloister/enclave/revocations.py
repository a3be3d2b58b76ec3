"""Revocation lists of a running enclave, taken from its folder (docs/spec/sub-allowance.md, section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.enclave.logs import Event
from cloister.enclave.media import REVOCATIONS
from cloister.errors import CloisterError

if TYPE_CHECKING:
    from cloister.enclave.logs import EventLog
    from cloister.enclave.media import MediaFolder
    from cloister.enclave.metering import Metering

__all__ = ["Revocations"]


class Revocations:
    """The folder's side of one instance. ``tick`` takes a list that is new, and is called again and again."""

    def __init__(self, metering: Metering, media: MediaFolder, *, log: EventLog) -> None:
        """Take the list that lies there already: before anybody is served, not after."""
        self._metering = metering
        self._media = media
        self._log = log
        self.tick()

    def tick(self) -> None:
        """Look once. A list that is refused is logged, and the one before goes on to hold."""
        data = self._media.fresh(REVOCATIONS)
        if data is None:
            return
        try:
            found = self._metering.revoke(data)
        except CloisterError as exc:
            code = exc.logged
            self._log.write(Event.REVOCATIONS_FAILED, code=code)
        else:
            self._log.write(Event.REVOCATIONS_ACCEPTED, seq=found.number, count=len(found.blocks))
