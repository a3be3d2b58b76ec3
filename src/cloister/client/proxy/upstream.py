"""The verified enclave behind a proxy: takes one request, gives back one whole and proven answer.

Its keys are verified anew before they run out, and when the enclave says that they are gone; while it cannot be
verified nothing is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.channel.bhttp import BinaryRequest
from cloister.client.client import AsyncClient
from cloister.client.inference import bearer
from cloister.client.passing import pass_on
from cloister.client.plan import drive_async
from cloister.errors import CloisterError

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.channel.fields import FieldLines
    from cloister.client.passing import Passed
    from cloister.client.proxy.keeping import ReceiptFolder
    from cloister.client.trust import VerifiedEnclave

__all__ = ["Upstream"]

_AHEAD = 6  # verified anew when a sixth of the keys' life is left
_TICK = timedelta(seconds=5)


class Upstream(AsyncClient):
    """A consumer of one verified enclave that asks what others ask; made by ``await Upstream.verify(...)``."""

    receipts: ReceiptFolder | None = None
    passed = 0
    proven = 0

    async def ask(self, method: str, path: str, headers: FieldLines, body: bytes) -> Passed:
        """Return the answer under our own credentials, its receipt kept where that is wished.

        Raises ``UsageError`` for what cannot be a request or a model that the trust does not name, ``Rejected`` for an
        enclave or a receipt that does not hold, ``Unavailable``, also where a receipt could not be kept.
        """
        if self.receipts is not None and method == "POST":
            await self.receipts.demand_room()
        request = BinaryRequest(method=method, path=path, headers=headers, body=body)
        own = (*bearer(self._token), *self._fields)
        passed = await drive_async(pass_on(self._session, request, own=own, chain=self._chain), self._wire.take)
        self.passed += 1
        if passed.receipt is not None:
            self.proven += 1
            if self.receipts is not None:
                await self.receipts.keep(passed.receipt)
        return passed

    @property
    def verified(self) -> VerifiedEnclave | None:
        """The enclave, None while it could not be verified."""
        enclave = self._session.enclave
        return enclave if enclave is not None and self.now() < enclave.keyset.exp else None

    @property
    def refusal(self) -> CloisterError | None:
        """Why it could not be verified last."""
        return self._session.refusal

    def now(self) -> datetime:
        """Return the time."""
        return self._session.clock()

    def demand_trusted(self, model: str) -> None:
        """Raise ``UsageError`` for a model that the trust does not name."""
        self._session.trust.digest_of(model)

    async def remaining(self, model: str) -> int | None:
        """Ask what is left of the allowance for ``model``; None where the enclave does not say."""
        try:
            return (await self.model(model)).remaining
        except CloisterError:
            return None

    async def keep_verified(self) -> None:
        """Verify again and again, ahead of need; ends with its task."""
        while True:
            await asyncio.sleep(_TICK.total_seconds())
            await self.refresh_if_due()

    async def refresh_if_due(self) -> None:
        """Verify anew where that is due. ``refusal`` has why it was not possible; the next request meets it too."""
        if self._is_due():
            with contextlib.suppress(CloisterError):
                await drive_async(self._session.refresh(), self._wire.take)

    def _is_due(self) -> bool:
        enclave = self._session.enclave
        if enclave is None:
            return True
        keyset = enclave.keyset
        return keyset.exp - self.now() < (keyset.exp - keyset.nbf) / _AHEAD
