"""The extraction guard: sketches of how each consumer asks, in memory of a fixed size (docs/spec/watches.md).

``sketch`` is one consumer's, ``features`` what of an inference goes into it, ``watching`` all of them. Nothing leaves
this room but which kind of alarm is due for whom, and past the enclave only how many of each kind there were.
"""

from __future__ import annotations

from cloister.enclave.guard.watching import Watching

__all__ = ["Watching"]
