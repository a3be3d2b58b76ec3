"""The route that only this benchmark has: the same inference in plain, neither encrypted nor counted.

It runs on the enclave's own web server, through the same reader, the same turns at the same engine, and the same
writer; ``/plain/MODEL``. What stands between this and an encrypted answer is what the product costs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.routing import Mount

from cloister.enclave.job import Job, Salts
from cloister.enclave.oip import HEADER_LENGTH, fit, parse_request, units_of
from cloister.lending.lease import Reservation
from cloister.lending.terms import LOAN_METER

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

    from cloister.enclave.engines import RunningModel
    from cloister.enclave.engines.tensor import Tensor
    from cloister.enclave.instance import EnclaveInstance
    from cloister.enclave.oip import InferRequest
    from cloister.enclave.served import ServedModel

PLAIN_PATH = "/plain"
_JSON_CAP = 4 << 20
_SMALL_BYTES = 64 * 1024  # as in ``cloister.enclave.inference``: read at once; larger ones in a thread
_LENGTH = HEADER_LENGTH.encode()
_NO_SALTS = Salts(b"", b"")


class Plain:
    """An ASGI application over the models of one instance."""

    def __init__(self, instance: EnclaveInstance) -> None:
        """Serve through the instance's own runs, and so in as many threads as the product does."""
        self._pool = instance.pool
        self._runs = instance.inference._runs  # noqa: SLF001 - a way in that the product does not have

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one inference."""
        model = self._pool.model(scope["path"].rpartition("/")[2])
        if model is None:
            raise LookupError(scope["path"])
        length = dict(scope["headers"]).get(_LENGTH)
        body = await _body(receive)

        def read() -> tuple[InferRequest, tuple[Tensor, ...]]:
            asked = parse_request(body, header_bytes=None if length is None else int(length), json_cap=_JSON_CAP)
            return asked, fit(asked, model.signature)

        asked, tensors = read() if len(body) <= _SMALL_BYTES else await asyncio.to_thread(read)
        async with self._pool.use(model) as running:
            response = await self._runs.run(_free(model, running, asked, tensors))
        headers = [(name.encode(), value.encode()) for name, value in response.headers]
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


def _free(model: ServedModel, running: RunningModel, asked: InferRequest, tensors: tuple[Tensor, ...]) -> Job:
    """Return a job that sets nothing aside, and that nobody is charged for."""

    def reserve() -> Reservation:
        units = units_of(tensors, model.signature)
        return Reservation(number=0, model=model.terms, consumer=None, units=units, meters=(LOAN_METER,))

    return Job(
        model=model,
        running=running,
        asked=asked,
        tensors=tensors,
        places=None,
        body=b"",
        reserve=reserve,
        salts=_NO_SALTS,
    )


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
