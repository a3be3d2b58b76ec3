"""Which models are in memory: as many as the budget holds, the least recently used goes first (ADR 0026).

A model that something runs in, or waits to run in, stays. One that is not in memory is opened at the next request for
it, from its package, with the key that this instance was released: the consumer waits and sees nothing else. Where
no room comes up in time the answer is 503 with Retry-After.

All of it happens in one event loop; opening and zeroing, in threads.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from cloister.enclave.logs import Event
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.enclave.engines import RunningModel
    from cloister.enclave.loader import Loader
    from cloister.enclave.logs import EventLog
    from cloister.enclave.metrics import Metrics
    from cloister.enclave.packages import FoundPackage
    from cloister.enclave.served import Loaded, ServedModel
    from cloister.lending.messages import Grant
    from cloister.lending.terms import ModelTerms

__all__ = ["ModelPool", "Staged"]

_Key: TypeAlias = tuple[str, str]  # name and digest

_RETRY_AFTER_S = 5  # seconds after which a consumer may ask again for a model that does not fit now


@dataclass(slots=True, kw_only=True)
class _Place:
    """One model: its memory while it has any, how many use it, when one did last."""

    model: ServedModel
    loaded: Loaded | None = None
    users: int = 0
    turn: int = 0
    opening: asyncio.Task[Loaded] | None = None
    leaving: asyncio.Event | None = None  # set once a newer version has taken its place, or could not
    retired: bool = False

    @property
    def key(self) -> _Key:
        return self.model.terms.name, self.model.terms.digest

    def opened(self, task: asyncio.Task[Loaded]) -> None:
        """Forget an opening that is over; what went wrong is in the log, also where nobody waits any more."""
        self.opening = None
        if not task.cancelled():
            task.exception()


class Staged:
    """Newer versions that are loaded and not served yet: ``adopt`` or ``discard`` them."""

    def __init__(self, pool: ModelPool) -> None:
        """Stage nothing yet."""
        self._pool = pool
        self.places: list[_Place] = []
        self.leaving: list[_Place] = []

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """The newer versions."""
        return tuple(place.model for place in self.places)

    def adopt(self) -> None:
        """Serve them from now on; what runs in the older ones finishes there. Suspends nowhere."""
        for place in self.places:
            self._pool.put_current(place)
        self._end()

    def discard(self) -> None:
        """Close them: the older ones go on."""
        for place in self.places:
            place.retired = True
            self._pool.leave(place)
        self._end()

    def _end(self) -> None:
        for place in self.leaving:
            if place.leaving is not None:
                place.leaving.set()
                place.leaving = None
        self.places, self.leaving = [], []


class ModelPool:
    """The models of one instance. ``close`` ends it."""

    def __init__(self, loader: Loader, log: EventLog, *, budget: int | None = None, patience_s: float = 30) -> None:
        """Keep at most ``budget`` bytes of models loaded, all of them where it is None.

        ``patience_s`` is how long a request waits for others to leave room.
        """
        self.budget = budget
        self._loader = loader
        self._log = log
        self._patience_s = patience_s
        self._places: dict[_Key, _Place] = {}
        self._current: dict[str, _Place] = {}  # by name
        self._retiring: set[asyncio.Task[None]] = set()
        self._turn = 0
        self._freeing = 0  # bytes that are being zeroed
        self._closed = False
        self._guard = threading.Lock()  # between ``close`` and a thread that is opening
        self._one = asyncio.Lock()  # openings, one at a time: what is being opened takes room too
        self._left = asyncio.Event()
        self._metrics: Metrics | None = None

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """The newest version of every model, in memory or not."""
        return tuple(place.model for place in self._current.values())

    @property
    def resident_bytes(self) -> int:
        """Bytes of all models that are loaded, or not given back yet."""
        return self._freeing + sum(place.model.takes for place in self._places.values() if place.loaded is not None)

    def model(self, name: str) -> ServedModel | None:
        """Return the model of that name, None for one that this instance has not."""
        place = self._current.get(name)
        return None if place is None else place.model

    def is_loaded(self, model: ServedModel) -> bool:
        """Tell whether it is in memory now."""
        place = self._places.get((model.terms.name, model.terms.digest))
        return place is not None and place.loaded is not None

    def show(self, metrics: Metrics) -> None:
        """Count into ``metrics`` from now on."""
        self._metrics = metrics
        for name, place in self._current.items():
            metrics.set("cloister_model_loaded", int(place.loaded is not None), name)
        metrics.set("cloister_models_bytes", self.resident_bytes)
        metrics.set("cloister_memory_budget_bytes", self.budget or 0)

    async def add(self, wanted: Iterable[tuple[ModelTerms, FoundPackage]]) -> None:
        """Open and load models for the first time, each at least once, so that each is proven to be what was lent.

        Raises ``UsageError`` for one that is larger than the whole budget, else as ``Loader.load``; then none is left.
        """
        models = list(wanted)
        try:
            for terms, package in models:
                self._demand_fitting(terms.name, await asyncio.to_thread(self._loader.takes, terms, package))
            for terms, package in models:
                place = await self._first(terms, package)
                self._current[terms.name] = place
                place.users = 0
        except BaseException:
            self.close()
            raise

    def _demand_fitting(self, name: str, takes: int) -> None:
        if self.budget is not None and takes > self.budget:
            msg = f"model {name}: takes {takes} bytes, the memory budget is {self.budget}"
            raise UsageError(msg, hint="raise memory_budget, or leave prepacking off")

    async def _first(self, terms: ModelTerms, package: FoundPackage) -> _Place:
        """Open and load a model for the first time; it stays in memory until its place is left."""
        async with self._one:
            await self._make_room(await asyncio.to_thread(self._loader.takes, terms, package))
            model, loaded = await asyncio.to_thread(self._load, terms, package)
        self._turn += 1
        place = _Place(model=model, loaded=loaded, users=1, turn=self._turn)
        self._places[place.key] = place
        self._log.write(Event.MODEL_LOADED, model=terms.name, digest=terms.digest, bytes=model.manifest.size)
        if model.joins is False:
            self._log.write(Event.MODEL_NOT_BATCHED, model=terms.name, digest=terms.digest)
        return place

    async def stage(self, grant: Grant, wanted: Iterable[tuple[ModelTerms, FoundPackage]]) -> Staged:
        """Open newer versions of models beside those that are served, or in their place where both do not fit.

        Where they do not fit the older version takes no more requests, those in it finish, and it goes; who asks
        meanwhile waits for the newer one. Raises ``Unavailable`` where they do not finish in time, ``UsageError`` for
        one larger than the budget, else as ``Loader.load``; then the older versions go on.
        """
        self._loader.learn(grant)
        staged = Staged(self)
        try:
            for terms, package in wanted:
                takes = await asyncio.to_thread(self._loader.takes, terms, package)
                self._demand_fitting(terms.name, takes)
                older = self._current[terms.name]
                if self.budget is not None and older.model.takes + takes > self.budget:
                    older.leaving = asyncio.Event()
                    staged.leaving.append(older)
                staged.places.append(await self._first(terms, package))
        except BaseException:
            staged.discard()
            raise
        return staged

    def retire(self, place: _Place) -> None:
        """Close a version that is served no more, once nothing runs in it."""
        place.retired = True
        self._left.set()
        if not place.users and self._places.pop(place.key, None) is not None:
            digest = place.model.terms.digest
            if all(item.model.terms.digest != digest for item in self._places.values()):
                self._loader.drop(digest)
            task = asyncio.create_task(self._evict(place))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def put_current(self, place: _Place) -> None:
        """Serve this version under its name from now on, and retire the one before. Suspends nowhere."""
        older = self._current[place.model.terms.name]
        self._current[place.model.terms.name] = place
        self.leave(place)
        self.retire(older)
        if self._metrics is not None:
            self.show(self._metrics)

    def leave(self, place: _Place) -> None:
        """Note that one who used a model is done."""
        place.users -= 1
        if not place.users:
            self._left.set()
            if place.retired:
                self.retire(place)

    def use(self, model: ServedModel) -> _Use:
        """Return a block in which there is the model to run in: it stays in memory until left.

        Entering raises ``Unavailable`` where it cannot be opened now, and once the pool is closed; ``Rejected``
        (``ohttp_key``) for a version that was replaced since the request was opened: whoever asks again learns the
        newer keyset.
        """
        return _Use(self, model)

    async def enter(self, model: ServedModel) -> tuple[_Place, RunningModel]:
        """Enter a model, for ``use``: ``leave`` undoes it."""
        place = self._places.get((model.terms.name, model.terms.digest))
        if place is not None and place.leaving is not None:
            await place.leaving.wait()
        if place is None or (place.retired and place.loaded is None):
            raise _replaced(model)
        place.users += 1
        try:
            loaded = place.loaded or await self._opened(place)
        except BaseException:
            self.leave(place)
            raise
        self._turn += 1
        place.turn = self._turn
        return place, loaded.running

    def keep(self, model: ServedModel, run: asyncio.Future[Any]) -> None:
        """Keep a model that is in use in memory until ``run`` is over, also where nobody waits for it any more.

        The engine computes with the model's memory: it must not go while a thread still reads it.
        """
        place = self._places[model.terms.name, model.terms.digest]
        place.users += 1

        def over(done: asyncio.Future[Any]) -> None:
            self.leave(place)
            if not done.cancelled():
                done.exception()

        run.add_done_callback(over)

    async def _opened(self, place: _Place) -> Loaded:
        """Return the memory of a model, opened once for all who wait; who goes away meanwhile stops nobody."""
        if place.opening is None:
            place.opening = asyncio.create_task(self._open(place))
            place.opening.add_done_callback(place.opened)
        try:
            return await asyncio.shield(place.opening)
        except CloisterError as exc:
            if place.retired:
                raise _replaced(place.model) from exc
            msg = f"model {place.model.terms.name}: cannot be opened now"
            raise Unavailable(msg, retry_after_s=_RETRY_AFTER_S) from exc

    async def _open(self, place: _Place) -> Loaded:
        terms = place.model.terms
        try:
            async with self._one:
                await self._make_room(place.model.takes, place)
                _, loaded = await asyncio.to_thread(self._load, terms, place.model.package)
                place.loaded = loaded
        except CloisterError as exc:
            code = exc.logged
            self._log.write(Event.MODEL_NOT_OPENED, model=terms.name, digest=terms.digest, code=code)
            raise
        self._count("cloister_model_loads_total", place)
        self._log.write(Event.MODEL_LOADED, model=terms.name, digest=terms.digest, bytes=place.model.manifest.size)
        return loaded

    def _load(self, terms: ModelTerms, package: FoundPackage) -> tuple[ServedModel, Loaded]:
        """Load in a thread; what comes too late for the pool's end is closed at once."""
        model, loaded = self._loader.load(terms, package)
        with self._guard:
            if not self._closed:
                return model, loaded
        loaded.close()
        msg = "model: this instance has ended"
        raise Unavailable(msg)

    async def _make_room(self, takes: int, place: _Place | None = None) -> None:
        """Evict until ``takes`` bytes fit, for ``place`` if it is not replaced meanwhile.

        Raises ``Unavailable`` when those in use do not leave in time.
        """
        until = asyncio.get_running_loop().time() + self._patience_s
        try:
            while self.budget is not None and self.resident_bytes + takes > self.budget:
                self._left.clear()
                if place is not None and place.retired:
                    raise _replaced(place.model)
                idle = [item for item in self._places.values() if item.loaded is not None and not item.users]
                if idle:
                    await self._evict(min(idle, key=lambda item: item.turn))
                else:
                    async with asyncio.timeout_at(until):
                        await self._left.wait()
        except TimeoutError:
            msg = "models: no room in the memory budget, every model there is in use"
            raise Unavailable(msg) from None

    async def _evict(self, place: _Place) -> None:
        loaded, place.loaded = place.loaded, None  # nobody enters it any more
        if loaded is None:
            return
        self._freeing += place.model.takes
        try:
            await asyncio.to_thread(loaded.close)
        finally:
            self._freeing -= place.model.takes
            self._left.set()
        self._count("cloister_model_evictions_total", place)
        self._log.write(Event.MODEL_EVICTED, model=place.model.terms.name, digest=place.model.terms.digest)

    def _count(self, metric: str, place: _Place) -> None:
        if self._metrics is not None:
            self._metrics.add(metric, label=place.model.terms.name)
            self.show(self._metrics)

    def close(self) -> None:
        """Unload every model and drop every key; harmless the second time. Nothing may run any more."""
        with self._guard:
            self._closed = True
        self._loader.forget()
        for place in self._places.values():
            if place.loaded is not None:
                place.loaded.close()
                place.loaded = None


class _Use:
    """A block in which a model stays in memory. By hand: a generator for it costs more than all that it does."""

    __slots__ = ("_model", "_place", "_pool")

    def __init__(self, pool: ModelPool, model: ServedModel) -> None:
        self._pool = pool
        self._model = model
        self._place: _Place | None = None

    async def __aenter__(self) -> RunningModel:
        self._place, running = await self._pool.enter(self._model)
        return running

    async def __aexit__(self, *_: object) -> None:
        if self._place is not None:
            self._pool.leave(self._place)


def _replaced(model: ServedModel) -> Rejected:
    """Return what is said of a version that a request was meant for and that is served no more."""
    return Rejected.because("ohttp_key", f"model {model.terms.name}", got="a version that was replaced")
