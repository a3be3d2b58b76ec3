"""What only the collector would free: rings, in which keys and tokens would stay for as long as it does not come by."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


_OURS = ("cloister.", "httptools.")  # and its parser, which we hand ourselves to


@contextlib.contextmanager
def no_rings() -> Iterator[None]:
    """Fail where the block leaves objects of ours that refer to one another and to which nothing else does."""
    gc.disable()
    gc.freeze()  # what is older is not looked at
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        left = {type(item).__qualname__ for item in gc.garbage if type(item).__module__.startswith(_OURS)}
        assert not left
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
