"""The second way in: plain HTTP inside TLS 1.3 that ends in this process (docs/spec/channel.md, "Pinned TLS").

    pinned? -> read -> consumer -> inner API -> lease still live? -> answer, the receipt in its header

The key of that TLS is made here, is in nobody else's hands, and stands in the attested keyset: a consumer that
pinned it from there is as unseen as one that encapsulates. TLS lets nothing in twice (no early data), so neither
``Date`` nor a memory of replays is needed. Sizes are not padded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.channel.bhttp import BinaryRequest, BinaryResponse
from cloister.channel.keyset import OHTTP_KEY_PROBLEM
from cloister.enclave.admission import Admitted
from cloister.enclave.answering import or_problem
from cloister.enclave.inner import InnerAnswer
from cloister.enclave.problems import NO_STORE, inner_problem, plain
from cloister.enclave.web.exchange import Answer
from cloister.errors import Rejected

if TYPE_CHECKING:
    from cloister.enclave.admission import Admission
    from cloister.enclave.inner import InnerApi
    from cloister.enclave.logs import EventLog
    from cloister.enclave.metering import Metering
    from cloister.enclave.web.exchange import Body, Exchange, Head

__all__ = ["Direct"]

_OF_THE_CONNECTION = frozenset(
    {
        "accept-encoding",  # compression inside encryption leaks what it compresses (CRIME); never offered
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)


class Direct:
    """Every resource below ``/v2``."""

    def __init__(self, api: InnerApi, metering: Metering, *, admission: Admission, log: EventLog) -> None:
        """Serve ``api`` to whoever comes over a pinned connection."""
        self.api = api
        self.metering = metering
        self.admission = admission
        self.log = log

    def begin(self, head: Head) -> Exchange | Answer:
        """Take one request, or refuse it: in the clear nobody is asked for what should have been sealed."""
        if not head.pinned:
            return plain(421)
        return self.admission.refusal() or _Plain(self, head)


class _Plain(Admitted):
    """One request over pinned TLS."""

    def __init__(self, direct: Direct, head: Head) -> None:
        super().__init__(direct.admission)
        self._direct = direct
        self._head = head

    async def answer(self, body: Body) -> Answer:
        """Return the answer of the inner API."""
        self.whole()
        direct = self._direct
        request = BinaryRequest(
            method=self._head.method,
            scheme="https",
            authority="",
            path=self._head.target,
            headers=tuple([line for line in self._head.headers if line[0] not in _OF_THE_CONNECTION]),
            body=bytes(body),
        )
        try:
            answer = await or_problem(self._ask(request), metrics=direct.admission.metrics, log=direct.log)
            if answer.model is not None:
                direct.metering.demand_still_live(answer.model.terms, answer.consumer)
        except Rejected as exc:
            if exc.code == "ohttp_key":  # verified with a keyset whose models were replaced since
                return self._refused("ohttp_key", 400, OHTTP_KEY_PROBLEM)
            answer = InnerAnswer(response=inner_problem(exc))
        return _open(answer.response)

    async def _ask(self, request: BinaryRequest) -> InnerAnswer:
        asker = self._direct.api.asker(request, self._head.certificates)
        return await self._direct.api.answer(request, asker)


def _open(response: BinaryResponse) -> Answer:
    """Return an inner response as it is, what would have been its trailer in its header."""
    return Answer(status=response.status, headers=(*response.headers, *response.trailers, NO_STORE), body=response.body)
