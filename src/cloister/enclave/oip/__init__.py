"""Open Inference Protocol V2 (KServe, "Predict Protocol - Version 2") with its binary tensor data extension.

``request`` reads what a consumer sends, ``parameters`` decides what may be asked beside it, ``fitting`` holds it
against the model's signature, ``data`` turns numbers and bytes into arrays and back, ``response`` writes answers.
Sans-io: bytes in, values out. Strict where the protocol is lax: unknown members are refused, and parameters that change
nothing are named in the answer: in a metered and attested service nothing a consumer asks for is silently dropped.
"""

from __future__ import annotations

from cloister.enclave.oip.fitting import fit, units_of
from cloister.enclave.oip.heads import Fitted, KnownHeads
from cloister.enclave.oip.request import HEADER_LENGTH, InferRequest, parse_request
from cloister.enclave.oip.response import dump_response

__all__ = ["HEADER_LENGTH", "Fitted", "InferRequest", "KnownHeads", "dump_response", "fit", "parse_request", "units_of"]
