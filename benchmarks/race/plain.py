"""The route that only this benchmark has: the same inference in plain, neither encrypted nor counted.

It runs on the enclave's own web server, through the same reader, the same turns at the same engine, and the same
writer; ``/plain/MODEL``. What stands between this and an encrypted answer is what the product costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from cloister.channel.bhttp import BinaryRequest
from cloister.enclave.inference import Inference
from cloister.enclave.oip import HEADER_LENGTH
from cloister.enclave.tickets import Tickets
from cloister.enclave.web.exchange import Answer
from cloister.lending.lease import Reservation
from cloister.lending.terms import LOAN_METER

if TYPE_CHECKING:
    from fleet.added import Added

    from cloister.channel.bhttp import BinaryResponse
    from cloister.enclave.instance import EnclaveInstance
    from cloister.enclave.metering import Metering
    from cloister.enclave.web.exchange import Body, Head

PLAIN_PATH = "/plain"


class _Free:
    """A lease that sets nothing aside; for the rest the real one."""

    def __init__(self, real: Metering) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def reserve(self, model: str, _token: object, units: int, **_: object) -> Reservation:
        """Set nothing aside."""
        terms = self._real.terms.model(model)
        if terms is None:
            raise LookupError(model)
        return Reservation(number=0, model=terms, consumer=None, units=units, meters=(LOAN_METER,))

    def refund(self, _: Reservation) -> None:
        """Give nothing back."""


class _Uncharged(Inference):
    """The product's inference, but for its last step: nothing is charged, committed to or signed."""

    def _charged(self, _job: object, response: BinaryResponse, _consumer: object) -> BinaryResponse:
        return response


class Plain:
    """Answers for the models of one instance."""

    def __init__(self, instance: EnclaveInstance) -> None:
        """Serve through an engine's queue of its own, with as many threads as the product's."""
        self._pool = instance.pool
        metering = cast("Metering", _Free(instance.metering))
        link, config = instance._link, instance._config  # noqa: SLF001 - a way in that the product does not have
        self._inference = _Uncharged(metering, instance.metrics, config, Tickets(metering, link), instance.pool)

    async def answer(self, head: Head, body: Body) -> Answer:
        """Answer one inference."""
        model = self._pool.model(head.path.rpartition("/")[2])
        if model is None:
            raise LookupError(head.path)
        length = tuple((HEADER_LENGTH, value) for value in head.all(HEADER_LENGTH))
        request = BinaryRequest(method="POST", authority="", path=head.path, headers=length, body=bytes(body))
        response = await self._inference.infer(model, request, token=None, consumer=None)
        return Answer(status=200, headers=response.headers, body=response.body)


def add_plain(app: Added, instance: EnclaveInstance) -> None:
    """Add the plain routes to the enclave's application."""
    plain = Plain(instance)
    for model in instance.pool.models:
        app.add(f"{PLAIN_PATH}/{model.terms.name}", plain.answer)
