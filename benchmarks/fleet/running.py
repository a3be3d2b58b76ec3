"""An enclave in a process of its own, for the length of a block."""

from __future__ import annotations

import contextlib
import multiprocessing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["running"]

_START_S = 120  # seconds until it must be up
_END_S = 30  # and down


@contextlib.contextmanager
def running(serve: Callable[..., None], folder: str, *words: Any) -> Iterator[tuple[int, int]]:
    """Run ``serve(folder, pipe, *words)`` in a process; yield port and process id. Ends it whatever happens."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(folder, theirs, *words))
    process.start()
    theirs.close()
    try:
        if not ours.poll(_START_S):
            raise SystemExit("the enclave did not come up")
        yield ours.recv(), process.pid or 0
    finally:
        with contextlib.suppress(OSError):
            ours.send("end")
        process.join(_END_S)
        if process.is_alive():
            process.kill()
            process.join()
