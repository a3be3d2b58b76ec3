"""A local page in a loop of its own thread, so that a browser and plain clients can come from the test's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    import httpx2


class Page(Protocol):
    """An open page, and whoever came to it."""

    clients: list[httpx2.Client]


PageT = TypeVar("PageT", bound=Page)


@contextlib.contextmanager
def opened(serve: Callable[[asyncio.Event, Future[PageT]], Coroutine[Any, Any, None]]) -> Iterator[PageT]:
    """Yield the page that ``serve`` tells of once it is open; with the block the event ends it."""
    told: Future[PageT] = Future()
    ending: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        ended = asyncio.Event()
        ending.set_result((asyncio.get_running_loop(), ended))
        await serve(ended, told)

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as exc:
            if told.done():
                raise
            told.set_exception(exc)

    running = threading.Thread(target=thread, daemon=True)
    running.start()
    page = told.result(60)
    try:
        yield page
    finally:
        for client in page.clients:
            client.close()
        loop, ended = ending.result(1)
        loop.call_soon_threadsafe(ended.set)
        running.join(30)
