"""Somebody else's request passed to a verified enclave, as a plan: whole or not at all, an inference only when proven.

For what speaks the inference protocol itself and knows nothing of enclaves: the request goes out under our
credentials, and its answer comes back once its end has arrived and its receipt is proven.

Not done here: reading tensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.client.exchange import TruncatedResponse
from cloister.client.receipts import verify_answer, verify_paid
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from cloister.channel.bhttp import BinaryRequest
    from cloister.channel.fields import FieldLines
    from cloister.client.exchange import Answer
    from cloister.client.plan import Plan
    from cloister.client.receipts import ReceiptChain, VerifiedReceipt
    from cloister.client.session import Session
    from cloister.client.trust import VerifiedEnclave

__all__ = ["Passed", "pass_on"]

_INFER = re.compile(r"/v2/models/([a-z0-9._-]{1,64})(?:/versions/[^/?]+)?/infer")
_KEY_BYTES = 18
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A whole answer and who gave it; of an inference with its model and its proven receipt."""

    answer: Answer
    enclave: VerifiedEnclave
    model: str | None = None
    receipt: VerifiedReceipt | None = None


def pass_on(session: Session, request: BinaryRequest, *, own: FieldLines, chain: ReceiptChain) -> Plan[Passed]:
    """Return the answer to ``request`` with the credentials ``own``. Raises as ``Session.ask`` and ``verify_paid``.

    An answer that was cut is asked for once more, under the same Idempotency-Key, so that it costs nothing again.
    """
    request = replace(request, headers=(*_keyed(session, request), *own))
    try:
        answer, enclave = yield from session.ask(request)
    except TruncatedResponse:
        answer, enclave = yield from session.ask(request)
    found = _INFER.fullmatch(request.path)
    if found is None or answer.status != _OK:
        return Passed(answer=answer, enclave=enclave, model=found[1] if found else None)
    model = found[1]
    proven = verify_answer(enclave, model, request=request.body, response=answer.body, trailers=answer.trailers)
    receipt, _ = verify_paid(enclave, model, proven, trailers=answer.trailers, chain=chain)
    return Passed(answer=answer, enclave=enclave, model=model, receipt=receipt)


def _keyed(session: Session, request: BinaryRequest) -> FieldLines:
    if request.method != "POST" or any(name == "idempotency-key" for name, _ in request.headers):
        return request.headers
    return (*request.headers, ("idempotency-key", dump_b64u(session.rng(_KEY_BYTES))))
