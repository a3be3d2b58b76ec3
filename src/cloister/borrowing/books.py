"""What the custodian is asked, by a borrower: its loan, the contract, a statement of usage, more units.

Answers are kept for two seconds, so that a page that is loaded again and again costs the custodian little. The token
is the connection's, and goes nowhere from here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from cloister.borrowing.loan import LOAN, Loan, Spending
from cloister.errors import CloisterError
from cloister.lending.contract import Contract, SignedContract
from cloister.lending.dispute import verify_statement
from cloister.wire import Json, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.messages import UsageStatement

__all__ = ["WINDOWS", "Books", "Custodian", "Read"]

WINDOWS = {"hour": (60, 60), "day": (1800, 48), "week": (7200, 84)}
"""How far back a page may look: seconds of a step, and how many."""
_FRESH = timedelta(seconds=2)


class Custodian(Protocol):
    """A connection to the custodian's API with a borrower's token. Raises ``CloisterError`` as the API refuses."""

    def get(self, path: str, **query: str | int) -> Any:
        """GET a JSON document."""
        ...

    def raw(self, path: str, **query: str | int) -> bytes:
        """GET the exact bytes of a document."""
        ...

    def post(self, path: str, body: Json, *, key: str = "") -> Any:
        """POST once: the same key has its effect once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The loan as it was read at ``at``; ``fault`` is why it could not be read since."""

    loan: Loan
    spending: Spending
    at: datetime
    fault: CloisterError | None = None


class Books:
    """One loan at its custodian. Of one event loop; the connection is used in threads."""

    def __init__(
        self, custodian: Custodian, *, loan: str, custodian_key: VerifyKey, clock: Callable[[], datetime]
    ) -> None:
        """Ask ``custodian`` about ``loan``; what it signs must be by ``custodian_key``."""
        self._custodian, self._key, self._clock = custodian, custodian_key, clock
        self._path = f"/v1/loans/{loan}"
        self._kept: dict[str, Read] = {}
        self._lock = asyncio.Lock()

    async def read(self, window: str = "hour") -> Read:
        """Return the loan. While the custodian is away it is the one read last, with the fault.

        Raises ``CloisterError`` where it was never read.
        """
        async with self._lock:
            known = self._kept.get(window)
            if known is not None and known.fault is None and self._clock() - known.at < _FRESH:
                return known
            try:
                found = await asyncio.to_thread(self._fetch, window)
            except CloisterError as exc:
                if known is None:
                    raise
                found = Read(loan=known.loan, spending=known.spending, at=known.at, fault=exc)
            self._kept[window] = found
            return found

    def _fetch(self, window: str) -> Read:
        step_s, steps = WINDOWS[window]
        loan = Loan.from_json(self._custodian.get(f"{self._path}/summary"))
        spending = Spending.from_json(self._custodian.get(f"{self._path}/spending", step_s=step_s, steps=steps))
        return Read(loan=loan, spending=spending, at=self._clock())

    async def ask_more(self, *, units: int, meter: str, reason: str, key: str) -> None:
        """Ask for more units, once for each ``key``. Raises as the API refuses."""
        body: dict[str, Json] = {"reason": reason, "units": units}
        if meter != LOAN:
            body["meter"] = meter
        await asyncio.to_thread(self._custodian.post, f"{self._path}/requests", body, key=key)
        self._kept.clear()

    async def contract(self) -> tuple[Contract | None, Contract | None]:
        """Return the contract in force and the one that waits for the borrower, both proven to be the custodian's.

        Raises ``Malformed``, ``Rejected``.
        """
        answer = await asyncio.to_thread(self._custodian.get, f"{self._path}/contract")
        return self._contract(answer, "in_force"), self._contract(answer, "offered")

    def _contract(self, answer: dict[str, Any], name: str) -> Contract | None:
        text = answer[name]
        if text is None:
            return None
        return SignedContract.parse(parse_b64u(text, what="custodian's answer")).verify_offer(self._key)

    async def usage(self) -> tuple[UsageStatement, bytes]:
        """Return a statement of all that was used, proven to be the custodian's, with its exact bytes.

        The custodian writes down that it stated this, so it is asked for by hand. Raises ``Malformed``, ``Rejected``.
        """
        data = await asyncio.to_thread(self._custodian.raw, f"{self._path}/usage")
        return verify_statement(data, self._key), data
