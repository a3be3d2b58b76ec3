"""Following the audit log live: server-sent events (WHATWG HTML section 9.2) for `loan watch`.

Each entry is one event ``audit`` with the entry's index as its id; with a loan named, every change is
followed by one event ``loan`` with the loan's summary. Streams are bounded in number and end when the
custodian stops.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from cloister.custodian.calls import Reply
from cloister.custodian.service.loan_views import loan_summary
from cloister.custodian.service.logbook import entries_since
from cloister.custodian.service.standing import parse_loan_id
from cloister.custodian.threads import run_in_threadpool
from cloister.custodian.tokens import Role
from cloister.errors import Rejected
from cloister.wire import MAX_INT, dump_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Receive, Scope, Send

    from cloister.custodian.calls import Call
    from cloister.custodian.service import CustodianService
    from cloister.lending.terms import LoanId

__all__ = ["EVENT_STREAM", "EventStream", "Streams", "events"]

EVENT_STREAM = "text/event-stream"
_LOOK_EVERY_S = 0.25  # seconds between two looks at the log's size, a number in memory
_ALIVE_EVERY = 60  # looks without news after which a comment keeps proxies from closing the stream
_BATCH = 200  # entries read at once


class Streams:
    """How many streams are open, and whether they should end."""

    __slots__ = ("_cap", "_open", "stopping")

    def __init__(self, *, cap: int) -> None:
        """Allow ``cap`` streams at once."""
        self._cap = cap
        self._open = 0
        self.stopping = False

    def enter(self) -> None:
        """Count one more stream. Raises ``Rejected`` (``too_many_requests``)."""
        if self._open >= self._cap:
            raise Rejected.because("too_many_requests", "event stream", hint="close another stream first")
        self._open += 1

    def leave(self) -> None:
        """Count one stream less."""
        self._open -= 1


class EventStream(StreamingResponse):
    """Gives its place back however it ends, also when its reader was gone before the first event."""

    streams: Streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, then give its place back."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.streams.leave()


def events(call: Call) -> Reply:
    """Follow what happens, as server-sent events: staff all of it, a borrower its own loan.

    Proves that the caller may; the app then streams ``follow`` itself.
    """
    loan, after = stream_parameters(call)
    if loan is not None:
        loan_summary(call.service.context, loan)
    return Reply(body=f"{after}".encode("ascii"), media_type=EVENT_STREAM)


def stream_parameters(call: Call) -> tuple[LoanId | None, int]:
    """Return which loan is followed (None: all) and behind which entry."""
    after = call.number("after", default=call.service.context.size - 1, floor=-1, cap=MAX_INT)
    named = parse_loan_id(call.query["loan"]) if "loan" in call.query else None
    if call.actor.role is Role.BORROWER:
        if named not in (None, call.actor.loan):
            raise Rejected.because("not_found", "loan")
        return call.actor.loan, after
    return named, after


async def follow(
    service: CustodianService, streams: Streams, loan: LoanId | None, after: int, *, demand: Callable[[], object]
) -> AsyncIterator[bytes]:
    """Yield events until the custodian stops, the reader goes, or may no longer read.

    ``demand`` raises ``Rejected`` once the reader's token is good no more; it is asked before any news.
    """
    if loan is not None:
        yield await run_in_threadpool(_summary, service, loan)
    quiet = 0
    while not streams.stopping:
        if service.context.size > after + 1:
            try:
                await run_in_threadpool(demand)
            except Rejected:
                return
            chunk, after = await run_in_threadpool(_news, service, loan, after)
            quiet = 0
            if chunk:
                yield chunk
            continue
        quiet += 1
        if quiet % _ALIVE_EVERY == 0:
            yield b": still here\n\n"
        await asyncio.sleep(_LOOK_EVERY_S)


def _news(service: CustodianService, loan: LoanId | None, after: int) -> tuple[bytes, int]:
    entries, following = entries_since(service.context, after, loan=loan, limit=_BATCH)
    chunk = b"".join(b"event: audit\nid: %d\ndata: %b\n\n" % (entry.index, entry.dump()) for entry in entries)
    if entries and loan is not None:
        chunk += _summary(service, loan)
    return chunk, following


def _summary(service: CustodianService, loan: LoanId) -> bytes:
    return b"event: loan\ndata: %b\n\n" % dump_json(loan_summary(service.context, loan))
