"""Threads of whom a task works for: a tenant's share of them, or the process's own.

A use case waits for its database in a thread. Where one process serves several tenants, each has a number of threads
to itself, so that a slow database of one holds none of another's (docs/reference/tenants.md). A custodian alone has
those of the process. What a task starts works for the same tenant: the choice goes with its context.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["run_in_threadpool", "working_with"]

P = ParamSpec("P")
T = TypeVar("T")
_SHARE: ContextVar[CapacityLimiter | None] = ContextVar("threads of whom this task works for", default=None)


async def run_in_threadpool(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``work`` returns, run in a thread of whom this task works for."""
    return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=_SHARE.get())


@contextlib.contextmanager
def working_with(share: CapacityLimiter) -> Iterator[None]:
    """Let this task, and those that it starts, use threads of ``share`` only."""
    before = _SHARE.set(share)
    try:
        yield
    finally:
        _SHARE.reset(before)
