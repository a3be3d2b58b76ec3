"""What loans spent lately, step by step, for consoles and plots.

Totals read a loan's whole ledger, so who asks again within ``_KEPT_S`` gets the same ones; the steps are always fresh.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.custodian.service.standing import loan_row
from cloister.custodian.store.spending import Moved, Totals, moved_in_steps, totals
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from sqlalchemy import Connection

    from cloister.custodian.service.context import Context
    from cloister.lending.terms import LoanId
    from cloister.wire import Json

__all__ = ["Spending"]

_KEPT_S = 30.0  # seconds that totals of all loans are good for
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING = Totals(granted=0, spent=0, written_off=0)


class Spending:
    """Tells what loans spent."""

    def __init__(self, context: Context) -> None:
        """Have read nothing."""
        self._context = context
        self._lock = threading.Lock()
        self._totals: Mapping[LoanId, Totals] = {}
        self._read_at: float | None = None

    def of_all(self, *, step: timedelta, steps: int) -> Json:
        """Return what every loan spent in the newest ``steps``; one that was never granted a unit is not there."""
        with self._context.reading() as connection:
            return self._told(connection, None, self._all(connection), step, steps)

    def of_one(self, loan: LoanId, *, step: timedelta, steps: int) -> Json:
        """Return what one loan spent. Raises ``Rejected`` (``not_found``)."""
        with self._context.reading() as connection:
            loan_row(connection, loan)
            return self._told(connection, loan, {loan: _NOTHING, **totals(connection, loan)}, step, steps)

    def _all(self, connection: Connection) -> Mapping[LoanId, Totals]:
        with self._lock:  # one reads for all who ask at once
            if self._read_at is None or time.monotonic() - self._read_at >= _KEPT_S:
                self._totals, self._read_at = totals(connection, None), time.monotonic()
            return self._totals

    def _told(
        self, connection: Connection, loan: LoanId | None, found: Mapping[LoanId, Totals], step: timedelta, steps: int
    ) -> Json:
        """Say it. Steps begin at multiples of their length, so that the same one is the same when asked again."""
        now = self._context.now()
        start = now - (now - _BEGINNING) % step - step * (steps - 1)
        moved = moved_in_steps(connection, loan, start=start, step=step, steps=steps)
        still = Moved(spent=[0] * steps, added=[0] * steps)
        return {
            "from": dump_time(start),
            "loans": [
                {
                    "added_steps": moved.get(name, still).added,
                    "granted": one.granted,
                    "loan": name,
                    "spent": one.spent,
                    "spent_steps": moved.get(name, still).spent,
                    "written_off": one.written_off,
                }
                for name, one in found.items()
            ],
            "step_s": int(step.total_seconds()),
            "to": dump_time(now),
        }
