"""Runs of the engine: each in its turn, brief ones where they are, long ones in a thread (ADR 0037).

A turn ends with the run and not with who waits for it: a thread cannot be stopped, and while it computes its place is
taken. So whoever has a turn starts at once, with nothing waited for after its units are set aside (E4).
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cloister.channel.bhttp import BinaryResponse
from cloister.enclave.oip import HEADER_LENGTH, dump_response
from cloister.enclave.pace import Pace
from cloister.enclave.rounding import rounded
from cloister.enclave.turns import Turns, demand_in_time
from cloister.errors import Rejected, Unavailable
from cloister.lending.receipt import commit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.engines.tensor import Tensor
    from cloister.enclave.job import Job
    from cloister.enclave.metering import Metering
    from cloister.enclave.metrics import Metrics
    from cloister.enclave.pool import ModelPool
    from cloister.enclave.tickets import Tickets
    from cloister.lending.lease import Reservation

__all__ = ["Runs"]

_JSON = (("content-type", "application/json"),)


class Runs:
    """Runs jobs. ``close`` ends its threads."""

    def __init__(
        self, metering: Metering, config: EnclaveConfig, metrics: Metrics, tickets: Tickets, pool: ModelPool
    ) -> None:
        """Prepare ``engine_workers`` threads; as many jobs run at once."""
        self._metering = metering
        self._limits = config.limits
        self._metrics = metrics
        self._tickets = tickets
        self._pool = pool
        self._turns = Turns(config.engine_workers, config.limits, metrics)
        self._threads = ThreadPoolExecutor(max_workers=config.engine_workers, thread_name_prefix="engine")
        self._paces: dict[str, Pace] = {}

    async def run(self, job: Job) -> BinaryResponse:
        """Run one job in its turn and return its answer; the units are set aside then, and its maker's to give back.

        Raises as ``Turns.take``, ``Metering.reserve`` and ``Tickets.take``, and ``Rejected`` (``engine_failed``,
        ``output``, ``too_large``).
        """
        await self._turns.take(job.payer, job.size, model=job.model.terms.name, until=job.until)
        held = True
        try:
            # E4: between this check and the start of the run nothing is waited for.
            reservation = self._reserve(job)
            if job.model.terms.ticketed:  # the wait; then the ticket and the lease are proven again, and it runs
                job.ticket = await self._tickets.take(reservation, commit(job.salts.request, job.body))
            pace, size = self._pace(job), job.size
            if pace.is_brief(size):
                response, seconds = self._timed(job)
                pace.note(size, seconds, aside=False)
                return response
            run = asyncio.get_running_loop().run_in_executor(self._threads, self._timed, job)
            held = False
            self._pool.keep(job.model, run)
            run.add_done_callback(lambda _: self._turns.leave())
            response, seconds = await asyncio.shield(run)  # a thread is not cancelled: nor is what it computes with
        finally:
            if held:
                self._turns.leave()
        pace.note(size, seconds, aside=True)
        return response

    def close(self) -> None:
        """Refuse who waits and end the engine's threads; runs under way finish first."""
        self._turns.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _reserve(self, job: Job) -> Reservation:
        demand_in_time(job.until)
        terms = job.model.terms
        job.reservation = self._metering.reserve(terms.name, job.who, job.units, version=terms.digest)
        return job.reservation

    def _pace(self, job: Job) -> Pace:
        digest = job.model.terms.digest
        pace = self._paces.get(digest)
        if pace is None:
            pace = self._paces[digest] = Pace(steady=job.running.steady)
        return pace

    def _timed(self, job: Job) -> tuple[BinaryResponse, float]:
        """Return the answer and the processor time of this thread that it took."""
        begun = time.thread_time()
        response = self._answer(job)
        return response, time.thread_time() - begun

    def _answer(self, job: Job) -> BinaryResponse:
        """Run the engine, round where the contract says so, and write the answer."""
        outputs = self._outputs(job)
        if job.places is not None:
            outputs = tuple(rounded(tensor, job.places) for tensor in outputs)
        terms = job.model.terms
        body, header_bytes = dump_response(job.asked, outputs, model=terms.name, version=terms.digest)
        if len(body) > self._limits.max_response_bytes:
            want = f"at most {self._limits.max_response_bytes} bytes"
            raise Rejected.because("too_large", "response", got=f"{len(body)} bytes", want=want)
        if header_bytes is None:
            return BinaryResponse(status=200, headers=_JSON, body=body)
        headers = (("content-type", "application/octet-stream"), (HEADER_LENGTH, str(header_bytes)))
        return BinaryResponse(status=200, headers=headers, body=body)

    def _outputs(self, job: Job) -> Sequence[Tensor]:
        name = job.model.terms.name
        started = time.perf_counter()
        try:
            return job.running.run(job.tensors, job.names)
        except Unavailable as exc:
            raise Rejected.because("engine_failed", f"model {name}") from exc
        finally:
            self._metrics.add("cloister_engine_seconds_total", time.perf_counter() - started, name)
