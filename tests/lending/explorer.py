"""Every order of events in a small world: a breadth-first search that looks at each state once.

What can happen: launch, ask, bring any earlier request, deliver any earlier answer to anybody, serve, begin
and finish a stream, end, time passing, and what the ``Config`` allows an adversary and a lender besides. A
message that is lost is one that is never brought; a crash of an enclave is an enclave that does nothing any
more; a crash of the custodian after its commit is an answer that is never delivered, or with ``answers_lost``
one that does not exist. After every step I1 to I9 are proven: those of one part where its step is taken
(``explored``), those of the whole here.

The search is breadth-first, so the first violation has a shortest way to it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from books import Violation
from custodian_fake import MemoryCustodian
from explored import TICK, Parts
from explored_usage import Fate

from cloister.lending.clock import lifetime
from cloister.lending.lease import LeaseHolder

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOUND = lifetime(TICK) / TICK  # in ticks: how long after a block a chunk may still leave


@dataclass(frozen=True, kw_only=True)
class Config:
    """How large the world is, and what may happen how often."""

    quota: int = 3
    cap: int = 2
    launches: int = 2
    ticks: int = 4
    asks: int = 3
    blocks: int = 1
    unblocks: int = 0
    top_ups: int = 0
    restores: int = 0
    forks: int = 0
    freezes: int = 0
    streams: bool = False
    closes: bool = True
    answers_lost: bool = False
    disk: bool = False
    with_checkpoint: bool = False
    sizes: tuple[int, ...] = (1, 2)


class Ghost(NamedTuple):
    """What nobody in the world knows, and how much of each kind may still happen."""

    served: int
    granted: int
    blocks: int
    unblocks: int
    top_ups: int
    restores: int
    forks: int
    freezes: int
    relaxed: int = 0
    blocked_at: int = -1
    late: int = 0
    backup: int = -1
    disk: int = -1


class State(NamedTuple):
    """The world: numbers of parts. ``cells`` are the running enclaves, ``asked`` and ``answers`` what travels."""

    tick: int
    db: int
    cells: tuple[int, ...]
    asked: tuple[int, ...]
    answers: tuple[int, ...]
    launched: int
    ghost: Ghost


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a search came to. ``way`` leads to the violation, if there is one."""

    states: int
    steps: int
    depth: int
    complete: bool
    violation: Violation | None = None
    way: tuple[str, ...] = ()


class Explorer:
    """One search through one world."""

    def __init__(
        self,
        config: Config,
        *,
        custodian: type[MemoryCustodian] = MemoryCustodian,
        holder: type[LeaseHolder] = LeaseHolder,
    ) -> None:
        self.config = config
        self.parts = Parts(custodian, holder, config.cap)
        self._forked = config.forks > 0
        self._last = ""

    def first(self) -> State:
        c = self.config
        ghost = Ghost(0, c.quota, c.blocks, c.unblocks, c.top_ups, c.restores, c.forks, c.freezes)
        return State(0, self.parts.start(c.quota), (), (), (), 0, ghost)

    def explore(self, most: int = 10_000_000) -> Report:
        """Look at every state, or at the first ``most``; stop at the first violation."""
        first = self.first()
        seen: dict[State, State | None] = {first: None}
        frontier, depth, steps = [first], 0, 0
        while frontier:
            fresh: list[State] = []
            for state in frontier:
                try:
                    for _, after in self.after(state):
                        steps += 1
                        if after not in seen:
                            seen[after] = state
                            fresh.append(after)
                except Violation as violation:
                    last = self._last
                    way = (*self._way(seen, state), last)
                    return Report(
                        states=len(seen), steps=steps, depth=depth + 1, complete=False, violation=violation, way=way
                    )
                if len(seen) > most:
                    return Report(states=len(seen), steps=steps, depth=depth, complete=False)
            frontier, depth = fresh, depth + (1 if fresh else 0)
        return Report(states=len(seen), steps=steps, depth=depth, complete=True)

    def after(self, state: State) -> Iterator[tuple[str, State]]:
        """Return everything that can happen next, by name, and what comes of it. Raises ``Violation``."""
        yield from self._borrower(state)
        yield from self._network(state)
        yield from self._lender(state)
        yield from self._adversary(state)

    def _way(self, seen: dict[State, State | None], state: State) -> tuple[str, ...]:
        """Return what was done on the way to ``state``."""
        states = [state]
        while (before := seen[states[-1]]) is not None:
            states.append(before)
        states.reverse()
        way = []
        for here, there in itertools.pairwise(states):
            way.append(next(name for name, after in self.after(here) if after == there))
        return tuple(way)

    # --- what can happen ---

    def _borrower(self, state: State) -> Iterator[tuple[str, State]]:
        parts, tick = self.parts, state.tick
        if state.launched < self.config.launches:
            self._last = "launch"
            db, cell = parts.attest(state.db, tick, state.launched)
            if cell is not None:
                yield self._last, state._replace(db=db, cells=(*state.cells, cell), launched=state.launched + 1)
        for at, cell in enumerate(state.cells):
            self._last = f"enclave {at} asks"
            after, request = parts.request(cell, tick, self.config.asks)
            if request is not None:
                yield self._last, state._replace(cells=_put(state.cells, at, after), asked=_add(state.asked, request))
            for units in self.config.sizes:
                self._last = f"enclave {at} serves {units}"
                after, left = parts.serve(cell, tick, units)
                if left:
                    yield self._last, self._left(state, at, after, left)
            if self.config.streams:
                yield from self._streams(state, at, cell)
            if self.config.closes:
                yield from self._closes(state, at, cell)
            if parts.due(cell):
                yield from self._reports(state, at, cell)

    def _closes(self, state: State, at: int, cell: int) -> Iterator[tuple[str, State]]:
        self._last = f"enclave {at} closes"
        yield self._last, self._closed(state, at, cell, Fate.HEARD)
        if self.config.answers_lost and self.parts.unreported(cell):
            self._last = f"enclave {at} closes, its reports lost"
            yield self._last, self._closed(state, at, cell, Fate.LOST)

    def _closed(self, state: State, at: int, cell: int, fate: Fate) -> State:
        db, _, alarm = self.parts.close(state.db, state.tick, cell, fate)
        self._demand_true(alarm=alarm)
        return state._replace(db=db, cells=_put(state.cells, at, None))

    def _reports(self, state: State, at: int, cell: int) -> Iterator[tuple[str, State]]:
        for fate in Fate if self.config.answers_lost else (Fate.HEARD,):
            self._last = f"enclave {at} {fate.value}"
            db, after, alarm = self.parts.report(state.db, state.tick, cell, fate)
            self._demand_true(alarm=alarm)
            if (db, after) != (state.db, cell):
                yield self._last, state._replace(db=db, cells=_put(state.cells, at, after))

    def _streams(self, state: State, at: int, cell: int) -> Iterator[tuple[str, State]]:
        self._last = f"enclave {at} begins a stream"
        after = self.parts.begin(cell, state.tick, self.config.cap)
        if after != cell:
            yield self._last, state._replace(cells=_put(state.cells, at, after))
        if self.parts.cells.values[cell].streams:
            self._last = f"enclave {at} finishes a stream"
            after, left = self.parts.finish(cell, state.tick)
            yield self._last, self._left(state, at, after, left)

    def _network(self, state: State) -> Iterator[tuple[str, State]]:
        for request in state.asked:
            self._last = f"request {request} is brought"
            db, answer, alarm = self.parts.lease(state.db, state.tick, request)
            self._demand_true(alarm=alarm)
            if answer is not None:
                self._demand_one_reply(state, db, answer)
                yield self._last, state._replace(db=db, answers=_add(state.answers, answer))
            if db != state.db and (answer is None or self.config.answers_lost):
                yield self._last + ", unheard", state._replace(db=db)
        for answer in state.answers:
            for at, cell in enumerate(state.cells):
                self._last = f"answer {answer} is delivered to enclave {at}"
                after = self.parts.deliver(cell, state.tick, answer)
                if after != cell:
                    yield self._last, state._replace(cells=_put(state.cells, at, after))

    def _lender(self, state: State) -> Iterator[tuple[str, State]]:
        ghost, tick = state.ghost, state.tick
        if tick < self.config.ticks:
            self._last = "a tick passes"
            yield self._last, state._replace(tick=tick + 1)
        self._last = "the dead are written off"
        db = self.parts.sweep(state.db, tick)
        if db != state.db:
            yield self._last, state._replace(db=db)
        if ghost.blocks and ghost.blocked_at < 0:
            self._last = "block"
            fresh = ghost._replace(blocks=ghost.blocks - 1, blocked_at=tick)
            yield self._last, state._replace(db=self.parts.block(state.db, tick, blocked=True), ghost=fresh)
        if ghost.unblocks and ghost.blocked_at >= 0:
            self._last = "unblock"
            fresh = ghost._replace(unblocks=ghost.unblocks - 1, blocked_at=-1)
            yield self._last, state._replace(db=self.parts.block(state.db, tick, blocked=False), ghost=fresh)
        if ghost.top_ups:
            self._last = "top up"
            fresh = ghost._replace(top_ups=ghost.top_ups - 1, granted=ghost.granted + 1)
            yield self._last, state._replace(db=self.parts.top_up(state.db, tick), ghost=fresh)

    def _adversary(self, state: State) -> Iterator[tuple[str, State]]:
        ghost = state.ghost
        if ghost.restores and ghost.backup < 0:
            self._last = "backup"
            yield self._last, state._replace(ghost=ghost._replace(backup=state.db))
        if ghost.restores and ghost.backup >= 0:
            self._last = "restore"
            db = self.parts.restore(
                state.db,
                state.tick,
                ghost.backup,
                blocked=ghost.blocked_at >= 0,
                with_checkpoint=self.config.with_checkpoint,
            )
            yield self._last, state._replace(db=db, ghost=ghost._replace(restores=ghost.restores - 1))
        for at, cell in enumerate(state.cells):
            if ghost.forks:
                self._last = f"enclave {at} is copied"
                twin = self.parts.copied(cell, self.config.forks - ghost.forks + 1)
                fresh = ghost._replace(forks=ghost.forks - 1, relaxed=ghost.relaxed + self.parts.held(cell))
                yield self._last, state._replace(cells=(*state.cells, twin), ghost=fresh)
            if ghost.freezes and self.parts.cells.values[cell].frozen_at < 0:
                self._last = f"the clock of enclave {at} is stopped"
                frozen = self.parts.frozen(cell, state.tick)
                fresh = ghost._replace(freezes=ghost.freezes - 1)
                yield self._last, state._replace(cells=_put(state.cells, at, frozen), ghost=fresh)
            if self.config.disk:
                self._last = f"enclave {at}'s disk is copied"
                yield self._last, state._replace(ghost=ghost._replace(disk=cell))
                if ghost.disk >= 0:
                    self._last = f"enclave {at} is launched again from the disk"
                    yield self._last, state._replace(cells=_put(state.cells, at, ghost.disk))

    # --- what must hold of the whole ---

    def _left(self, state: State, at: int, cell: int, units: int) -> State:
        """Let units leave: never more than were granted (I1), never long after a block (I3)."""
        ghost = state.ghost
        served, allowed = ghost.served + units, ghost.granted + ghost.relaxed
        if served > allowed:
            raise Violation("I1", f"served {served} of {allowed}")
        late = ghost.late
        if units and ghost.blocked_at >= 0 and state.tick > ghost.blocked_at + _BOUND:
            late += units
            tampered = self.parts.cells.values[cell].frozen_at >= 0
            if late > (self.config.cap if tampered else 0):
                raise Violation("I3", f"{late} units left after a block")
        fresh = ghost._replace(served=served, late=late)
        return state._replace(cells=_put(state.cells, at, cell), ghost=fresh)

    def _demand_one_reply(self, state: State, db: int, answer: int) -> None:
        """Prove that a request has one reply and one debit at most (I6)."""
        restored = self.config.restores - state.ghost.restores
        if self._forked or self.parts.dbs.values[db].epoch != 1 + restored:
            return  # two askers with one number; or a database put back unnoticed, of which nothing is promised
        values = self.parts.answers.values
        _, asked = values[answer]
        others = [number for number in state.answers if values[number][1] == asked]
        if any(number != answer for number in others):
            raise Violation("I6", "one request, two replies")
        before, after = (self.parts.dbs.values[number].escrowed for number in (state.db, db))
        if others and after > before:
            raise Violation("I6", "one request, two debits")

    def _demand_true(self, *, alarm: bool) -> None:
        """Prove that nobody is accused where nobody copied anything (I8)."""
        if alarm and not self._forked:
            raise Violation("I8", "a false alarm")


def _put(cells: tuple[int, ...], at: int, cell: int | None) -> tuple[int, ...]:
    return (*cells[:at], *(() if cell is None else (cell,)), *cells[at + 1 :])


def _add(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    return numbers if number in numbers else tuple(sorted((*numbers, number)))


__all__ = ["Config", "Explorer", "Report", "State"]
