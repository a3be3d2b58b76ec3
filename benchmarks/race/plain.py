"""The route that only this benchmark has: the same inference in plain, neither encrypted nor counted.

It runs on the enclave's own web server, through the same reader, the same turns at the same engine, and the same
writer; ``/plain/MODEL``. What stands between this and an encrypted answer is what the product costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from starlette.routing import Mount

from cloister.channel.bhttp import BinaryRequest
from cloister.enclave.inference import Inference
from cloister.enclave.oip import HEADER_LENGTH
from cloister.enclave.tickets import Tickets
from cloister.lending.lease import Reservation
from cloister.lending.terms import LOAN_METER

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

    from cloister.channel.bhttp import BinaryResponse
    from cloister.enclave.instance import EnclaveInstance
    from cloister.enclave.metering import Metering

PLAIN_PATH = "/plain"
_LENGTH = HEADER_LENGTH.encode()


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
    """An ASGI application over the models of one instance."""

    def __init__(self, instance: EnclaveInstance) -> None:
        """Serve through an engine's queue of its own, with as many threads as the product's."""
        self._pool = instance.pool
        metering = cast("Metering", _Free(instance.metering))
        link, config = instance._link, instance._config  # noqa: SLF001 - a way in that the product does not have
        self._inference = _Uncharged(metering, instance.metrics, config, Tickets(metering, link), instance.pool)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one inference."""
        model = self._pool.model(scope["path"].rpartition("/")[2])
        if model is None:
            raise LookupError(scope["path"])
        length = dict(scope["headers"]).get(_LENGTH)
        request = BinaryRequest(
            method="POST",
            authority="",
            path=scope["path"],
            headers=() if length is None else ((HEADER_LENGTH, length.decode()),),
            body=await _body(receive),
        )
        response = await self._inference.infer(model, request, token=None, consumer=None)
        headers = [(name.encode(), value.encode()) for name, value in response.headers]
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def add_plain(app: Starlette, instance: EnclaveInstance) -> None:
    """Add the plain route to the enclave's application."""
    app.router.routes.append(Mount(PLAIN_PATH, Plain(instance)))
