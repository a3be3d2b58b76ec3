"""The edge of the inner API: whatever goes wrong behind it becomes an answer that says nothing of our bugs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.enclave.inner import InnerAnswer
from cloister.enclave.logs import Event
from cloister.enclave.problems import inner_problem, status_of
from cloister.errors import CloisterError, Rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from cloister.enclave.logs import EventLog
    from cloister.enclave.metrics import Metrics

__all__ = ["InTheClear", "or_problem"]


async def or_problem(asking: Awaitable[InnerAnswer], *, metrics: Metrics, log: EventLog) -> InnerAnswer:
    """Return the answer, or the problem that took its place, and count it.

    Raises ``InTheClear`` as it comes, and ``Rejected`` for keys of a version that was replaced (``ohttp_key``).
    """
    try:
        answer = await asking
    except InTheClear:
        raise
    except CloisterError as exc:
        if isinstance(exc, Rejected) and exc.code == "ohttp_key":
            raise
        metrics.add("cloister_answers_total", label=status_of(exc)[1])
        return InnerAnswer(response=inner_problem(exc))
    except Exception as exc:  # noqa: BLE001 - the server's edge: our bug must not tell the host anything
        log.write(Event.INTERNAL_ERROR, error=type(exc).__name__)
        metrics.add("cloister_answers_total", label="internal")
        return InnerAnswer(response=inner_problem(CloisterError("internal error")))
    metrics.add("cloister_answers_total", label="ok")
    return answer


class InTheClear(Exception):
    """A request that is answered outside, without having been taken."""
