"""One inference: read, fit, count, run, charge. The order is the product.

    idempotency -> model in memory -> engine slot -> reserve (no suspension after it)
                   -> run -> permit -> settle -> remember
                                                      ticketed model: -> ticket (waited for), proven again ->

Everything before ``reserve`` costs nothing and may be refused; everything after it either ends in a receipt or
gives the units back.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.channel.bhttp import BinaryResponse
from cloister.channel.fields import value_of
from cloister.enclave.oip import HEADER_LENGTH, dump_response, fit, parse_request, units_of
from cloister.enclave.rounding import rounded
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.lending.receipt import SALT_BYTES, commit
from cloister.lending.replies import Replies, RequestKey
from cloister.lending.sub_allowance import SubAllowance
from cloister.wire import dump_b64u, lp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.channel.bhttp import BinaryRequest
    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.engines import RunningModel
    from cloister.enclave.engines.tensor import Tensor
    from cloister.enclave.metering import Metering
    from cloister.enclave.metrics import Metrics
    from cloister.enclave.oip import InferRequest
    from cloister.enclave.pool import ModelPool
    from cloister.enclave.served import ServedModel
    from cloister.enclave.tickets import Tickets
    from cloister.lending.conditions import Caller
    from cloister.lending.lease import Reservation

__all__ = ["IDEMPOTENCY_KEY", "Inference"]

IDEMPOTENCY_KEY = "idempotency-key"
_MAX_HEADER_DIGITS = 12
_SMALL_BODY_BYTES = 64 * 1024  # read at once; larger ones in a thread


class Inference:
    """Runs inferences against a lease. One per enclave; ``close`` ends its threads."""

    def __init__(
        self, metering: Metering, metrics: Metrics, config: EnclaveConfig, tickets: Tickets, pool: ModelPool
    ) -> None:
        """Prepare ``engine_workers`` threads; as many inferences run at once."""
        self._metering = metering
        self._metrics = metrics
        self._tickets = tickets
        self._pool = pool
        self._limits = config.limits
        self._slots = asyncio.Semaphore(config.engine_workers)
        self._threads = ThreadPoolExecutor(max_workers=config.engine_workers, thread_name_prefix="engine")
        self._replies = Replies(
            max_entries=config.limits.idempotency_entries, max_bytes=config.limits.idempotency_bytes
        )

    async def infer(
        self, model: ServedModel, request: BinaryRequest, *, token: bytes | None, consumer: Caller
    ) -> BinaryResponse:
        """Return the answer with its receipt.

        Raises ``Malformed``, ``Rejected``, ``Unavailable``; then it cost nothing, but for a ticket that was taken.
        """
        request_id = value_of(request.headers, IDEMPOTENCY_KEY)
        if request_id is None:
            return await self._fresh(model, request, token=token, consumer=consumer)
        # Scope is the token, so that ids of different consumers never meet, also where a loan knows none.
        scope = hashlib.sha256(b"" if token is None else token).hexdigest()
        key = RequestKey(consumer=scope, request_id=request_id)
        stored = self._replies.begin(key, _digest(request))
        if stored is not None:
            self._metering.demand_live(model.terms, consumer)
            return BinaryResponse.parse(stored, max_body_bytes=self._limits.max_response_bytes)
        try:
            response = await self._fresh(model, request, token=token, consumer=consumer)
        except BaseException:
            self._replies.forget(key)
            raise
        self._replies.finish(key, response.dump())
        return response

    def close(self) -> None:
        """End the engine's threads; runs under way finish first."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _fresh(
        self, model: ServedModel, request: BinaryRequest, *, token: bytes | None, consumer: Caller
    ) -> BinaryResponse:
        asked, tensors = await self._fitted(model, request)
        units = units_of(tensors, model.signature)
        places = self._metering.precision(consumer)
        who = consumer if isinstance(consumer, SubAllowance) else token
        if not self._pool.is_loaded(model):
            self._metering.demand_live(model.terms, consumer)  # who may not run it makes nobody open it
        async with self._pool.use(model) as running, self._slots:
            # E4: between this check and the start of the run nothing is waited for.
            reservation = self._metering.reserve(model.terms.name, who, units, version=model.terms.digest)
            salt = secrets.token_bytes(SALT_BYTES)
            ticket = None
            try:
                if model.terms.ticketed:  # the wait; then the ticket and the lease are proven again, and it runs
                    ticket = await self._tickets.take(reservation, commit(salt, request.body))
                loop = asyncio.get_running_loop()
                response = await loop.run_in_executor(self._threads, self._run, model, running, tensors, asked, places)
                self._metering.permit(reservation, units)
            except BaseException:
                self._metering.refund(reservation)
                raise
            charged = self._charged(reservation, request, response, consumer, salt)
            if ticket is None:
                return charged
            return replace(charged, trailers=(*charged.trailers, ("cloister-ticket", dump_b64u(ticket))))

    async def _fitted(self, model: ServedModel, request: BinaryRequest) -> tuple[InferRequest, tuple[Tensor, ...]]:
        """Read a request and hold it against the model; a large one aside, so that the lease goes on being renewed."""
        header_bytes = _header_bytes(request)

        def read() -> tuple[InferRequest, tuple[Tensor, ...]]:
            asked = parse_request(request.body, header_bytes=header_bytes, json_cap=self._limits.max_json_bytes)
            return asked, fit(asked, model.signature)

        return read() if len(request.body) <= _SMALL_BODY_BYTES else await asyncio.to_thread(read)

    def _run(
        self,
        model: ServedModel,
        running: RunningModel,
        tensors: Sequence[Tensor],
        asked: InferRequest,
        places: int | None,
    ) -> BinaryResponse:
        """Run the engine, round to ``places`` where the contract says so, and write the answer, in a worker thread."""
        names = [item.name for item in asked.outputs] or [spec.name for spec in model.signature.outputs]
        started = time.perf_counter()
        try:
            outputs = running.run(tensors, names)
        except Unavailable as exc:
            raise Rejected.because("engine_failed", f"model {model.terms.name}") from exc
        finally:
            elapsed = time.perf_counter() - started
            self._metrics.add("cloister_engine_seconds_total", elapsed, model.terms.name)
        if places is not None:
            outputs = tuple(rounded(tensor, places) for tensor in outputs)
        body, header_bytes = dump_response(asked, outputs, model=model.terms.name, version=model.terms.digest)
        if len(body) > self._limits.max_response_bytes:
            want = f"at most {self._limits.max_response_bytes} bytes"
            raise Rejected.because("too_large", "response", got=f"{len(body)} bytes", want=want)
        if header_bytes is None:
            return BinaryResponse(status=200, headers=(("content-type", "application/json"),), body=body)
        headers = (("content-type", "application/octet-stream"), (HEADER_LENGTH, str(header_bytes)))
        return BinaryResponse(status=200, headers=headers, body=body)

    def _charged(
        self,
        reservation: Reservation,
        request: BinaryRequest,
        response: BinaryResponse,
        consumer: Caller,
        request_salt: bytes,
    ) -> BinaryResponse:
        """Settle, and return the response with the receipt and both salts in its trailer."""
        response_salt = secrets.token_bytes(SALT_BYTES)
        model = reservation.model.name
        receipt = self._metering.settle(
            reservation,
            reservation.units,
            commit(request_salt, request.body),
            commit(response_salt, response.body),
        )
        self._metrics.add("cloister_inferences_total", label=model)
        self._metrics.add("cloister_units_total", reservation.units, model)
        counts = (
            ("cloister-units", str(reservation.units)),
            ("cloister-remaining", str(self._metering.remaining(model, consumer))),
        )
        return BinaryResponse(
            status=response.status,
            headers=response.headers + counts,
            body=response.body,
            trailers=(
                ("cloister-receipt", dump_b64u(receipt)),
                ("cloister-request-salt", dump_b64u(request_salt)),
                ("cloister-response-salt", dump_b64u(response_salt)),
            ),
        )


def _digest(request: BinaryRequest) -> bytes:
    """Return SHA-256 over what makes two requests the same: not the Date, not the encryption."""
    length = value_of(request.headers, HEADER_LENGTH) or ""
    parts = (request.method.encode(), request.path.encode("latin-1"), length.encode("latin-1"), request.body)
    return hashlib.sha256(lp(*parts)).digest()


def _header_bytes(request: BinaryRequest) -> int | None:
    value = value_of(request.headers, HEADER_LENGTH)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _MAX_HEADER_DIGITS):
        msg = f"field {HEADER_LENGTH}: not a number"
        raise Malformed(msg)
    return int(value)
