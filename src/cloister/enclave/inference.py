"""One inference: read, fit, count, run, charge. The order is the product.

    idempotency -> model in memory -> its turn, in time -> reserve (no suspension after it)
                   -> run -> charge -> remember
                                                  ticketed model: -> ticket (waited for), proven again ->

Everything before ``reserve`` costs nothing and may be refused; everything after it either ends in a receipt or
gives the units back.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from cloister.channel.bhttp import BinaryResponse
from cloister.channel.fields import value_of
from cloister.enclave.engines.tensor import Datatype
from cloister.enclave.job import Job
from cloister.enclave.oip import HEADER_LENGTH, KnownHeads, fit, parse_request, units_of
from cloister.enclave.receipts import Receipts
from cloister.enclave.runs import Runs
from cloister.errors import Malformed, UsageError
from cloister.lending.conditions import person_of
from cloister.lending.receipt import commit
from cloister.lending.replies import Replies, RequestKey
from cloister.wire import dump_b64u, lp

if TYPE_CHECKING:
    from cloister.channel.bhttp import BinaryRequest
    from cloister.enclave.asker import Asker
    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.metering import Metering
    from cloister.enclave.metrics import Metrics
    from cloister.enclave.oip import Fitted
    from cloister.enclave.pool import ModelPool
    from cloister.enclave.served import ServedModel
    from cloister.enclave.tickets import Tickets
    from cloister.enclave.withholding import Withholding

__all__ = ["IDEMPOTENCY_KEY", "Inference"]

IDEMPOTENCY_KEY = "idempotency-key"
_MAX_HEADER_DIGITS = 12
_SMALL_BYTES = 64 * 1024  # of JSON, or of a body with strings in it: read at once; larger ones in a thread
_LARGE_BYTES = 1 << 20  # of binary data, of which but truth values are looked at


class Inference:
    """Runs inferences against a lease. One per enclave; ``close`` ends its threads."""

    def __init__(
        self, metering: Metering, metrics: Metrics, config: EnclaveConfig, tickets: Tickets, pool: ModelPool
    ) -> None:
        """Start with nothing asked."""
        self._metering = metering
        self._metrics = metrics
        self._pool = pool
        self._limits = config.limits
        self._heads = KnownHeads()
        self._receipts = Receipts(metering, metrics)
        self._runs = Runs(metering, config, metrics, tickets, pool)
        self._replies = Replies(
            max_entries=config.limits.idempotency_entries, max_bytes=config.limits.idempotency_bytes
        )

    async def infer(self, model: ServedModel, request: BinaryRequest, asker: Asker) -> BinaryResponse:
        """Return the answer with its receipt.

        Raises ``Malformed``, ``Rejected``, ``Unavailable``; then it cost nothing, but for a ticket that was taken.
        """
        request_id = value_of(request.headers, IDEMPOTENCY_KEY)
        if request_id is None:
            return await self._fresh(model, request, asker)
        key = RequestKey(consumer=hashlib.sha256(asker.scope).hexdigest(), request_id=request_id)
        stored = self._replies.begin(key, _digest(request))
        if stored is not None:
            self._metering.demand_live(model.terms, asker.caller)
            return BinaryResponse.parse(stored, max_body_bytes=self._limits.max_response_bytes)
        try:
            response = await self._fresh(model, request, asker)
        except BaseException:
            self._replies.forget(key)
            raise
        self._replies.finish(key, response.dump())
        return response

    def close(self) -> None:
        """End the engine's threads; runs under way finish first."""
        self._runs.close()

    async def _fresh(self, model: ServedModel, request: BinaryRequest, asker: Asker) -> BinaryResponse:
        begun = asyncio.get_running_loop().time()
        withheld = self._metering.withholding(model, asker.caller)
        asked, tensors, units = await self._fitted(model, request, withheld, asker)
        timeout_us = asked.parameters.timeout_us
        if not self._pool.is_loaded(model):
            self._metering.demand_live(model.terms, asker.caller)  # who may not run it makes nobody open it
        async with self._pool.use(model) as running:
            job = Job(
                who=asker.who,
                caller=asker.caller,
                units=units,
                until=None if timeout_us is None else begun + timeout_us / 1e6,
                model=model,
                running=running,
                asked=asked,
                tensors=tensors,
                withheld=withheld,
                body=request.body,
            )
            try:
                response = await self._runs.run(job)
            except BaseException:
                if job.reservation is not None:
                    self._metering.refund(job.reservation)
                raise
            return await self._charged(job, response)

    async def _fitted(self, model: ServedModel, request: BinaryRequest, withheld: Withholding, asker: Asker) -> Fitted:
        """Read a request and hold it against the model; a large one aside, so that the lease goes on being renewed."""
        header_bytes = _header_bytes(request)
        if header_bytes is None:
            return await self._read(model, request, None, withheld)
        whose = (person_of(asker.caller), model.terms.name, model.terms.digest)
        known = self._heads.find(whose, request.body, header_bytes)
        if known is None:
            known = await self._read(model, request, header_bytes, withheld)
            self._heads.keep(whose, request.body, header_bytes, known)
        return known

    async def _read(
        self, model: ServedModel, request: BinaryRequest, header_bytes: int | None, withheld: Withholding
    ) -> Fitted:
        def read() -> Fitted:
            asked = parse_request(request.body, header_bytes=header_bytes, json_cap=self._limits.max_json_bytes)
            withheld.demand(asked)
            tensors = fit(asked, withheld.signature)
            return asked, tensors, units_of(tensors, model.signature)

        return await asyncio.to_thread(read) if _is_long(model, request, header_bytes) else read()

    async def _charged(self, job: Job, response: BinaryResponse) -> BinaryResponse:
        """Charge, and return the response with the receipt and both salts in its trailer."""
        reservation, salts = job.reservation, job.salts
        if reservation is None:
            msg = "job: ran without a reservation"
            raise UsageError(msg)
        model, units = reservation.model.name, reservation.units
        commitments = commit(salts.request, job.body), commit(salts.response, response.body)
        receipt = await self._receipts.signed(self._metering.charge(reservation, units, *commitments))
        self._metrics.add("cloister_inferences_total", label=model)
        self._metrics.add("cloister_units_total", units, model)
        trailers = [
            ("cloister-receipt", dump_b64u(receipt)),
            ("cloister-request-salt", dump_b64u(salts.request)),
            ("cloister-response-salt", dump_b64u(salts.response)),
        ]
        if job.ticket is not None:
            trailers.append(("cloister-ticket", dump_b64u(job.ticket)))
        remaining = self._metering.remaining_of(reservation)
        return BinaryResponse(
            status=response.status,
            headers=(*response.headers, ("cloister-units", str(units)), ("cloister-remaining", str(remaining))),
            body=response.body,
            trailers=tuple(trailers),
        )


def _digest(request: BinaryRequest) -> bytes:
    """Return SHA-256 over what makes two requests the same: not the Date, not the encryption."""
    length = value_of(request.headers, HEADER_LENGTH) or ""
    parts = (request.method.encode(), request.path.encode("latin-1"), length.encode("latin-1"), request.body)
    return hashlib.sha256(lp(*parts)).digest()


def _is_long(model: ServedModel, request: BinaryRequest, header_bytes: int | None) -> bool:
    """Tell whether reading a request takes so long that others should not wait for it."""
    size = len(request.body)
    if size <= _SMALL_BYTES:
        return False
    if header_bytes is None or header_bytes > _SMALL_BYTES or size > _LARGE_BYTES:
        return True
    return any(spec.datatype is Datatype.BYTES for spec in model.signature.inputs)


def _header_bytes(request: BinaryRequest) -> int | None:
    value = value_of(request.headers, HEADER_LENGTH)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _MAX_HEADER_DIGITS):
        msg = f"field {HEADER_LENGTH}: not a number"
        raise Malformed(msg)
    return int(value)
