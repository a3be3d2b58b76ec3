"""Runs of the engine: each in its turn, brief ones where they are, long ones in a thread, several as one (ADR 0037).

A turn ends with the run and not with who waits for it: a thread cannot be stopped, and while it computes its place is
taken. So whoever has a turn starts at once, with nothing waited for after its units are set aside (E4).
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from cloister.channel.bhttp import BinaryResponse
from cloister.enclave.batches import Batches
from cloister.enclave.batching import joined, parts_of, rows_of
from cloister.enclave.guard import Watching
from cloister.enclave.oip import HEADER_LENGTH, dump_response
from cloister.enclave.pace import Pace
from cloister.enclave.turns import Turns, demand_in_time
from cloister.errors import Rejected, Unavailable
from cloister.lending.conditions import account_of
from cloister.lending.receipt import commit

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Sequence

    from cloister.enclave.batches import Member, Outcome
    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.engines.tensor import Tensor
    from cloister.enclave.job import Job
    from cloister.enclave.metering import Metering
    from cloister.enclave.metrics import Metrics
    from cloister.enclave.pool import ModelPool
    from cloister.enclave.tickets import Tickets
    from cloister.lending.lease import Reservation

__all__ = ["Runs"]

T = TypeVar("T")
R = TypeVar("R")
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
        self._batches = Batches(config.batching, self._turns, self._start)
        self._paces: dict[str, Pace] = {}
        self._watching = Watching(metering.watches) if metering.watches else None

    async def run(self, job: Job) -> BinaryResponse:
        """Run one job in its turn and return its answer; the units are set aside then, and its maker's to give back.

        Raises as ``Turns.take``, ``Metering.reserve`` and ``Tickets.take``, and ``Rejected`` (``engine_failed``,
        ``output``, ``too_large``).
        """
        line = self._batches.line(job)
        response = None if line is None else await self._batches.run(job, line)
        return await self._alone(job) if response is None else response

    async def _alone(self, job: Job) -> BinaryResponse:
        size = job.size
        if not self._turns.at_once():
            await self._turns.take(job.payer, size, model=job.model.terms.name, until=job.until)
        held = True
        try:
            # E4: between this check and the start of the run nothing is waited for.
            reservation = self._reserve(job)
            if job.model.terms.ticketed:  # the wait; then the ticket and the lease are proven again, and it runs
                job.ticket = await self._tickets.take(reservation, commit(job.salts.request, job.body))
            pace = self._pace(job)
            if pace.is_brief(size):
                response, seconds = self._timed(self._answer, job)
                pace.note(size, seconds, aside=False)
                return response
            run = self._aside(job, self._answer, job)
            held = False
            response, seconds = await asyncio.shield(run)  # a thread is not cancelled: nor is what it computes with
        finally:
            if held:
                self._turns.leave()
        pace.note(size, seconds, aside=True)
        return response

    def _start(self, members: Sequence[Member]) -> None:
        """Run several jobs as one, in a turn that is held and given back here."""
        outcomes = [asyncio.get_running_loop().create_future() for _ in members]
        ready: list[tuple[Job, Future[Outcome]]] = []
        # E4: between these checks and the start of the run nothing is waited for.
        for member, outcome in zip(members, outcomes, strict=True):
            member.future.set_result(outcome)
            try:
                self._reserve(member.job)
            except Exception as exc:  # noqa: BLE001 - whatever is wrong with one is its own
                outcome.set_result(exc)
            else:
                ready.append((member.job, outcome))
        if not ready:
            self._turns.leave()
            return
        jobs = [job for job, _ in ready]
        size, pace = sum(job.size for job in jobs), self._pace(jobs[0])
        if pace.is_brief(size):
            answers, seconds = self._timed(self._answers, jobs)
            self._turns.leave()
            pace.note(size, seconds, aside=False)
            self._deliver(ready, answers)
            return

        def over(run: Future[tuple[list[Outcome], float]]) -> None:
            if run.cancelled():
                self._deliver(ready, [Unavailable("model: this instance has ended")] * len(ready))
                return
            answers, seconds = run.result()
            pace.note(size, seconds, aside=True)
            self._deliver(ready, answers)

        self._aside(jobs[0], self._answers, jobs).add_done_callback(over)

    def _aside(self, job: Job, work: Callable[[T], R], what: T) -> Future[tuple[R, float]]:
        """Run in a thread, in a turn that ends with it; the model stays in memory so long."""
        run = asyncio.get_running_loop().run_in_executor(self._threads, self._timed, work, what)
        self._pool.keep(job.model, run)
        run.add_done_callback(lambda _: self._turns.leave())
        return run

    def _deliver(self, ready: Sequence[tuple[Job, Future[Outcome]]], answers: Sequence[Outcome]) -> None:
        """Give every job its own outcome; one that is to run alone has its units set aside anew then."""
        self._metrics.add("cloister_batches_total", label=ready[0][0].model.terms.name)
        self._metrics.add("cloister_batched_inferences_total", len(ready), ready[0][0].model.terms.name)
        for (job, outcome), answer in zip(ready, answers, strict=True):
            if outcome.done():
                continue  # its consumer has gone, and has its units back
            if answer is None and job.reservation is not None:
                self._metering.refund(job.reservation)
                job.reservation = None
            outcome.set_result(answer)

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

    def _timed(self, work: Callable[[T], R], what: T) -> tuple[R, float]:
        """Return what ``work`` makes of it and the processor time of this thread that it took."""
        begun = time.thread_time()
        made = work(what)
        return made, time.thread_time() - begun

    def _answers(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Return what becomes of each: its answer, its own error; None for all where the run failed. Raises nothing."""
        rows = [rows_of(job.tensors) for job in jobs]
        first = jobs[0]
        try:
            outputs = self._outputs(first, joined([job.tensors for job in jobs]))
            parts = parts_of(outputs, rows)
        except Exception:  # noqa: BLE001 - whoever is to blame meets it again alone
            return [None] * len(jobs)
        return [self._outcome(job, part) for job, part in zip(jobs, parts, strict=True)]

    def _outcome(self, job: Job, outputs: Sequence[Tensor]) -> Outcome:
        try:
            return self._written(job, outputs)
        except Exception as exc:  # noqa: BLE001 - one answer that cannot be written is nobody else's
            return exc

    def _answer(self, job: Job) -> BinaryResponse:
        """Run the engine and write the answer."""
        return self._written(job, self._outputs(job, job.tensors))

    def _written(self, job: Job, outputs: Sequence[Tensor]) -> BinaryResponse:
        """Watch how it asked, hold back and round what the contract says, and write the answer."""
        self._watch(job, outputs)
        outputs = job.withheld.applied(outputs)
        terms = job.model.terms
        card = job.model.manifest.card
        body, header_bytes = dump_response(job.asked, outputs, model=terms.name, version=terms.digest, card=card)
        if len(body) > self._limits.max_response_bytes:
            want = f"at most {self._limits.max_response_bytes} bytes"
            raise Rejected.because("too_large", "response", got=f"{len(body)} bytes", want=want)
        if header_bytes is None:
            return BinaryResponse(status=200, headers=_JSON, body=body)
        headers = (("content-type", "application/octet-stream"), (HEADER_LENGTH, str(header_bytes)))
        return BinaryResponse(status=200, headers=headers, body=body)

    def _watch(self, job: Job, outputs: Sequence[Tensor]) -> None:
        """Put one inference into its consumer's sketch, and sound the alarms that come of it."""
        if self._watching is None:
            return
        name = job.model.terms.name
        for kind in self._watching.take(account_of(job.caller), name, job.tensors, outputs, job.units):
            self._metrics.add("cloister_extraction_alarms_total", label=kind.value)
            self._metering.alarm(job.caller, kind)

    def _outputs(self, job: Job, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        name = job.model.terms.name
        started = time.perf_counter()
        try:
            return job.running.run(inputs, job.names)
        except Unavailable as exc:
            raise Rejected.because("engine_failed", f"model {name}") from exc
        finally:
            self._metrics.add("cloister_engine_seconds_total", time.perf_counter() - started, name)
