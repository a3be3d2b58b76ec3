"""Receipts of one turn of the event loop are signed together (ADR 0039).

A signature is among the dearest steps of a brief inference. What was charged since the last one waits for no clock: it
is signed as soon as everything that was ready has run, alone where it was alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloister.lending.receipt_batch import MAX_BATCH

if TYPE_CHECKING:
    from cloister.enclave.metering import Metering
    from cloister.enclave.metrics import Metrics

__all__ = ["Receipts"]


class _Due(asyncio.Future[bytes]):
    """A receipt that will be signed within this turn. Who waits for it may be cancelled; it is not.

    A task that waits for what refuses is told of it once that is over (``asyncio.Task.cancel``).
    """

    def cancel(self, msg: object | None = None) -> bool:
        """Refuse."""
        del msg
        return False


class Receipts:
    """Signs what ``Metering.charge`` gave. For one event loop."""

    def __init__(self, metering: Metering, metrics: Metrics) -> None:
        """Start with nothing waiting."""
        self._metering = metering
        self._metrics = metrics
        self._waiting: list[tuple[bytes, _Due]] = []

    async def signed(self, payload: bytes) -> bytes:
        """Return ``payload`` as a signed receipt. Raises as ``Metering.sign_receipts``.

        Not cancelled: what was charged has its receipt, and its place under the consumer's Idempotency-Key, whoever
        has left meanwhile. It takes one turn of the loop.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._sign)
        due = _Due(loop=loop)
        self._waiting.append((payload, due))
        try:
            return await due
        except asyncio.CancelledError:
            return due.result()

    def _sign(self) -> None:
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), MAX_BATCH):
            self._sign_together(waiting[at : at + MAX_BATCH])

    def _sign_together(self, batch: list[tuple[bytes, _Due]]) -> None:
        try:
            receipts = self._metering.sign_receipts([payload for payload, _ in batch])
        except Exception as exc:  # noqa: BLE001 - who waits here cannot be cancelled, so each is told whatever it was
            for _, due in batch:
                due.set_exception(exc)
            return
        self._metrics.add("cloister_receipt_signatures_total")
        for (_, due), receipt in zip(batch, receipts, strict=True):
            due.set_result(receipt)
