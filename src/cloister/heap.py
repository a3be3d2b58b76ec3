"""What a server's process does with its heap once it is ready: no later collection walks what the start has made.

Modules, routes, tables and models are several hundred thousand objects that live as long as the process. CPython's
collector walks all of them at each full collection, on the thread that serves, and every request waits behind it
(``docs/serving.md`` has how long). Objects that are set aside are still freed when nothing refers to them any more;
only rings among them are not, so what can be dropped later must not be a ring, or must break it itself.
"""

from __future__ import annotations

import gc

__all__ = ["settle_heap"]


def settle_heap() -> None:
    """Free what the start left behind and set the rest aside for good (``gc.freeze``); once, before serving begins."""
    gc.collect()
    gc.freeze()
