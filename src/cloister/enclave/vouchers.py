"""Vouchers of a running enclave: asked for, taken and accounted for through a folder (docs/spec/voucher.md)."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.enclave.logs import Event
from cloister.enclave.media import CONSUMPTION, VOUCHER, VOUCHER_REQUEST, usage_file
from cloister.errors import CloisterError

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.enclave.logs import EventLog
    from cloister.enclave.media import MediaFolder
    from cloister.enclave.metering import Metering
    from cloister.lending.messages import Units

__all__ = ["Vouchers"]

_NONCE_BYTES = 16
_STATE_EVERY = timedelta(seconds=5)  # between two consumption statements


class Vouchers:
    """The folder's side of one instance. ``tick`` does what there is to do and is called again and again."""

    def __init__(self, metering: Metering, media: MediaFolder, *, log: EventLog) -> None:
        """Take a folder; nothing is written before somebody asks."""
        self._metering = metering
        self._media = media
        self._log = log
        self._has_voucher = False
        self._stated: Units | None = None
        self._stated_at: datetime | None = None
        self._files: set[int] = set()  # the usage reports that lie in the folder, by their first index

    def tick(self) -> None:
        """Look once. What goes wrong is logged and tried again: a medium may be pulled out at any time."""
        for step in (self._ask, self._receive, self._state):
            try:
                step()
            except CloisterError as exc:
                code = exc.logged
                self._log.write(Event.VOUCHER_FAILED, code=code)

    def _ask(self) -> None:
        if self._media.take_ask():
            request = self._metering.voucher_request(secrets.token_bytes(_NONCE_BYTES))
            self._files.clear()  # whoever asks may have lost a medium: all of them again
            self.report()
            self._media.write(VOUCHER_REQUEST, request)
            self._log.write(Event.VOUCHER_ASKED)

    def report(self) -> None:
        """Write the usage reports that what is written next speaks of. Raises ``Unavailable``."""
        written = 0
        for first, statement in self._metering.usage_files():
            if first not in self._files:
                self._media.write(usage_file(first), statement)
                self._files.add(first)
            written = first
        self._metering.usage_filed(written)

    def _receive(self) -> None:
        data = self._media.fresh(VOUCHER)
        if data is None:
            return
        voucher = self._metering.receive_voucher(data)
        self._has_voucher, self._stated = True, None
        waiting = {first for first, _ in self._metering.usage_files()}
        for first in self._files - waiting:  # the custodian has them: else it had signed nothing
            self._media.remove(usage_file(first))
        self._files &= waiting
        self._log.write(Event.VOUCHER_ACCEPTED, seq=voucher.seq, seconds=voucher.lasts.total_seconds())

    def _state(self) -> None:
        """Write what was served, where there is more than the last statement says."""
        if not self._has_voucher:
            return
        now, used = self._metering.now(), self._metering.snapshot().used
        if used == self._stated or (self._stated_at is not None and now < self._stated_at + _STATE_EVERY):
            return
        statement = self._metering.consumption()
        self.report()
        self._media.write(CONSUMPTION, statement)
        self._stated, self._stated_at = used, now
