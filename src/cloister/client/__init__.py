"""The consumer's SDK: trust, verification, encrypted transports, inference with proven receipts.

A name is loaded when it is first used: who only reads a trust file carries no transports and no arrays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloister.client.batch import Answers
    from cloister.client.client import AsyncClient, Client
    from cloister.client.contract import AgreedContract
    from cloister.client.exchange import TruncatedResponse
    from cloister.client.inference import Inference
    from cloister.client.many import Incomplete, Progress
    from cloister.client.model_info import ModelInfo
    from cloister.client.notebook.bar import ProgressBar
    from cloister.client.receipts import VerifiedReceipt
    from cloister.client.results import Ranked
    from cloister.client.retries import Retry, Retrying
    from cloister.client.sub_allowance import HeldSubAllowance
    from cloister.client.tickets import TicketNotProven
    from cloister.client.trust import VerifiedEnclave
    from cloister.client.trust_file import CustodianPin, SystemTls, Trust

__all__ = [
    "AgreedContract",
    "Answers",
    "AsyncClient",
    "Client",
    "CustodianPin",
    "HeldSubAllowance",
    "Incomplete",
    "Inference",
    "ModelInfo",
    "Progress",
    "ProgressBar",
    "Ranked",
    "Retry",
    "Retrying",
    "SystemTls",
    "TicketNotProven",
    "TruncatedResponse",
    "Trust",
    "VerifiedEnclave",
    "VerifiedReceipt",
]

_FILES = {
    "AgreedContract": "contract",
    "Answers": "batch",
    "AsyncClient": "client",
    "Client": "client",
    "CustodianPin": "trust_file",
    "HeldSubAllowance": "sub_allowance",
    "Incomplete": "many",
    "Inference": "inference",
    "ModelInfo": "model_info",
    "Progress": "many",
    "ProgressBar": "notebook.bar",
    "Ranked": "results",
    "Retry": "retries",
    "Retrying": "retries",
    "SystemTls": "trust_file",
    "TicketNotProven": "tickets",
    "TruncatedResponse": "exchange",
    "Trust": "trust_file",
    "VerifiedEnclave": "trust",
    "VerifiedReceipt": "receipts",
}


def __getattr__(name: str) -> Any:
    """Load a name from the file that has it (PEP 562)."""
    if name not in _FILES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"cloister.client.{_FILES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})
