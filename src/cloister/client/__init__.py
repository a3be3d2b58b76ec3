"""The consumer's SDK: trust, verification, encrypted transports, inference with proven receipts."""

from __future__ import annotations

from cloister.client.client import AsyncClient, Client
from cloister.client.exchange import TruncatedResponse
from cloister.client.inference import Inference
from cloister.client.model_info import ModelInfo
from cloister.client.receipts import VerifiedReceipt
from cloister.client.trust import VerifiedEnclave
from cloister.client.trust_file import CustodianPin, SystemTls, Trust

__all__ = [
    "AsyncClient",
    "Client",
    "CustodianPin",
    "Inference",
    "ModelInfo",
    "SystemTls",
    "TruncatedResponse",
    "Trust",
    "VerifiedEnclave",
    "VerifiedReceipt",
]
