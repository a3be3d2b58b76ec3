"""Cloister: lend an AI model without giving it away; ask it without being overheard.

The names here are the consumer's SDK; they are loaded when first used, so that a server does not carry them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloister.client import (
        AsyncClient,
        Client,
        Inference,
        ModelInfo,
        Retry,
        Retrying,
        TicketNotProven,
        TruncatedResponse,
        Trust,
        VerifiedEnclave,
        VerifiedReceipt,
    )
    from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable, UsageError

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "CloisterError",
    "Inference",
    "Malformed",
    "ModelInfo",
    "Reason",
    "Rejected",
    "Retry",
    "Retrying",
    "TicketNotProven",
    "TruncatedResponse",
    "Trust",
    "Unavailable",
    "UsageError",
    "VerifiedEnclave",
    "VerifiedReceipt",
]

_ERRORS = frozenset({"CloisterError", "Malformed", "Reason", "Rejected", "Unavailable", "UsageError"})


def __getattr__(name: str) -> Any:
    """Load a public name from the room that has it (PEP 562)."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module("cloister.errors" if name in _ERRORS else "cloister.client"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})
