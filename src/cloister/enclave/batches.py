"""Requests that are run together: gathered while others wait or are read, started in one turn, answered each alone.

Each request keeps what is its own: its units are set aside when the batch starts and not before (E4), its refusal is
nobody else's, its receipt names what it alone sent and got. Where a run fails, each is run again alone, so that one
bad request costs its neighbours time and nothing else. A batch holds one version of one model, and inputs of the same
types and of the same sizes but for their rows. Rows are taken from consumers in turn (``fair_queue``).

An engine that has nothing to do waits for nobody: the first request of a quiet time starts with whatever was read in
the same turn of the event loop. Only where requests have come together before is the window waited for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cloister.enclave.batching import rows_of
from cloister.enclave.fair_queue import Waiting
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from cloister.channel.bhttp import BinaryResponse
    from cloister.enclave.config import Batching
    from cloister.enclave.job import Job
    from cloister.enclave.turns import Turns

__all__ = ["Batches", "Member", "Outcome"]

Outcome: TypeAlias = "BinaryResponse | BaseException | None"
"""What became of one request of a batch; None where it is to be run alone."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member(Waiting["Future[Outcome]"]):
    """One request that waits to be run with others; what it waits for is a start, and that brings a result."""

    job: Job
    rows: int


@dataclass(slots=True, eq=False)
class _Gathering:
    """One line: who gathers it, how many rows came since the last batch, and whether that had company."""

    task: asyncio.Task[None]
    full: asyncio.Event
    rows: int = 0
    crowded: bool = False


class Batches:
    """Gathers requests by what can be run together. Called from the event loop alone."""

    def __init__(
        self,
        settings: Mapping[str, Batching],
        turns: Turns,
        start: Callable[[Sequence[Member]], None],
    ) -> None:
        """Run batches by ``start``, which is called with a turn held and gives it back."""
        self._settings = settings
        self._turns = turns
        self._start = start
        self._gatherings: dict[Hashable, _Gathering] = {}

    def line(self, job: Job) -> Hashable | None:
        """Return what a request shares with those it can be run with, None where it runs alone."""
        terms = job.model.terms
        setting = self._settings.get(terms.name)
        if setting is None or not job.model.joins or terms.ticketed:
            return None
        if not 1 <= rows_of(job.tensors) < setting.rows:
            return None
        return terms.digest, job.names, tuple((tensor.datatype, tensor.shape[1:]) for tensor in job.tensors)

    async def run(self, job: Job, line: Hashable) -> BinaryResponse | None:
        """Return the answer, None where the request is to be run alone.

        Raises as ``Turns.take``, ``Metering.reserve``, and ``Rejected`` (``output``, ``too_large``).
        """
        future: Future[Future[Outcome]] = asyncio.get_running_loop().create_future()
        member = Member(who=job.payer, size=job.size, line=line, future=future, job=job, rows=rows_of(job.tensors))
        name = job.model.terms.name
        self._arrived(line, self._settings[name], name, member.rows)
        outcome = await (await self._turns.wait(member, model=name, until=job.until))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _arrived(self, line: Hashable, setting: Batching, model: str, rows: int) -> None:
        gathering = self._gatherings.get(line)
        if gathering is None:
            task = asyncio.create_task(self._gather(line, setting, model))
            gathering = self._gatherings[line] = _Gathering(task, asyncio.Event())
        gathering.rows += rows
        if gathering.rows >= setting.rows:
            gathering.full.set()

    async def _gather(self, line: Hashable, setting: Batching, model: str) -> None:
        """Start batch after batch while anybody waits in this line."""
        gathering = self._gatherings[line]
        try:
            while True:
                await self._company(gathering, setting)
                if not await self._turns.take_for(line, model=model):
                    return
                gathering.full.clear()
                gathering.rows = 0
                members = self._next(line, setting.rows)
                gathering.crowded = len(members) > 1
                self._start(members)
        except Unavailable:
            return  # this instance ends; whoever waits in the line was told so too
        finally:
            del self._gatherings[line]

    async def _company(self, gathering: _Gathering, setting: Batching) -> None:
        """Let others be read that are here already; where requests come together, wait for more of them."""
        await asyncio.sleep(0)
        if setting.window_us and gathering.crowded and gathering.rows < setting.rows:
            try:
                async with asyncio.timeout(setting.window_us / 1e6):
                    await gathering.full.wait()
            except TimeoutError:
                return

    def _next(self, line: Hashable, rows: int) -> list[Member]:
        members: list[Member] = []
        while rows > 0:
            left = rows
            member = self._turns.next(line, fits=lambda item: isinstance(item, Member) and item.rows <= left)  # noqa: B023
            if not isinstance(member, Member):
                break
            members.append(member)
            rows -= member.rows
        return members
