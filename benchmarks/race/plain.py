"""The route that only this benchmark has: the same inference in plain, neither encrypted nor counted.

It runs on the enclave's own web server, through the same reader, the same turns at the same engine, and the same
writer; ``/plain/MODEL``. What stands between this and an encrypted answer is what the product costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from cloister.channel.bhttp import BinaryRequest
from cloister.enclave.asker import NOBODY
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
    from cloister.enclave.served import ServedModel
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

    async def _charged(self, _job: object, response: BinaryResponse) -> BinaryResponse:
        return response


class Plain:
    """One way to ask one model in plain."""

    def __init__(self, inference: Inference, model: ServedModel) -> None:
        """Ask this model through this inference."""
        self._inference = inference
        self._model = model

    async def __call__(self, head: Head, body: Body) -> Answer:
        """Answer one inference."""
        length = head.all(HEADER_LENGTH)
        headers = ((HEADER_LENGTH, length[0]),) if length else ()
        request = BinaryRequest(method="POST", authority="", path=head.path, headers=headers, body=bytes(body))
        response = await self._inference.infer(self._model, request, NOBODY)
        return Answer(status=200, headers=response.headers, body=response.body)


def add_plain(app: Added, instance: EnclaveInstance) -> None:
    """Add a path for each model; all share an engine's queue of their own, with as many threads as the product's."""
    metering = cast("Metering", _Free(instance.metering))
    link, config = instance._link, instance._config  # noqa: SLF001 - a way in that the product does not have
    inference = _Uncharged(metering, instance.metrics, config, Tickets(metering, link), instance.pool)
    for model in instance.pool.models:
        app.add(f"{PLAIN_PATH}/{model.terms.name}", Plain(inference, model))
