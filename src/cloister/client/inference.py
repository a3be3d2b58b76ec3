"""One inference as a plan: describe the model, ask, wait where that was wished, prove the answer.

Sans-io. What comes back is either a whole, proven ``Inference`` or one of the four errors; there is no answer
with a flag.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import numpy as np

from cloister.channel.bhttp import BinaryRequest
from cloister.channel.fields import value_of
from cloister.client.model_info import ModelInfo, parse_metadata
from cloister.client.plan import Pause
from cloister.client.receipts import verify_answer, verify_paid
from cloister.client.results import NamedOutputs, shapes_of
from cloister.client.retries import DEFAULT_RETRY, Attempt, EnclaveFault, Retrying
from cloister.client.tensors import HEADER_LENGTH, dump_inputs, name_inputs, parse_outputs
from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable
from cloister.wire import Fields, dump_b64u, take_reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloister.channel.fields import FieldLines
    from cloister.client.datatypes import Array
    from cloister.client.exchange import Answer
    from cloister.client.plan import Plan
    from cloister.client.receipts import ReceiptChain, VerifiedReceipt
    from cloister.client.retries import Retry
    from cloister.client.session import Session
    from cloister.client.trust import VerifiedEnclave
    from cloister.lending.messages import Ticket

__all__ = ["Inference", "Question", "ask_again", "bearer", "describe", "infer", "refusal"]

T = TypeVar("T")

OCTETS = "application/octet-stream"
MAX_UNITS = 2**53 - 1
_OK = 200
_SERVER_FAULT = 500
_TOO_MANY_REQUESTS = 429
_FIRST_PAUSE = timedelta(seconds=1)
_LAST_PAUSE = timedelta(seconds=10)
_KEY_BYTES = 18
_RANK_OF_SCORES = 2

_HINTS = {
    "allowance_exhausted": "ask the borrower for more, or wait for it (wait=, --wait)",
    "blocked": "the custodian has stopped this; ask the borrower",
    "budget_spent": "this consumer has had its units of this time; ask again when it says",
    "date_skewed": "set this machine's clock: the enclave's differs by more than a minute",
    "lease_expired": "the enclave cannot reach its custodian, or was stopped; ask again later",
    "outside_hours": "the contract says when the loan may be used: cloister contract URL",
    "rate_limited": "the contract says how fast this consumer may ask: cloister contract URL",
    "sub_allowance_exhausted": "ask whoever gave you the sub-allowance for another",
    "sub_allowance_expired": "ask whoever gave you the sub-allowance for another",
    "sub_allowance_revoked": "the borrower has called it back; ask whoever gave it to you",
    "unauthorized": "give the consumer token of this loan (token=, --token-file)",
    "unknown_model": "see which models the enclave serves: cloister verify URL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a consumer asks. ``key`` makes asking again free; ``wait`` bounds waiting for more units, ``end`` it all."""

    model: str
    inputs: object = field(default=None, repr=False)
    image: object = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    wait: timedelta | None = None
    key: str | None = None
    on_wait: Callable[[Rejected, timedelta], None] | None = None
    retry: Retry = DEFAULT_RETRY
    end: datetime | None = None
    on_retry: Callable[[Retrying], None] | None = None
    fields: FieldLines = ()
    """What goes beside the token: a sub-allowance."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Inference(NamedOutputs):
    """A whole answer from a verified enclave, with its proven receipt. Also a mapping of outputs by name.

    ``outputs`` are NumPy arrays, BF16 as float32, strings as objects of ``bytes``; ``labels`` names the class of each
    item by output, and ``classes`` all there are, where the model's card does.
    ``units`` is what it cost, ``remaining`` what is left as far as the instance knows. ``ticket`` is the custodian's
    proven signature for just this answer, None where the model takes none. ``request`` and ``response`` are the exact
    bytes the receipt commits to. ``tries`` is how often it was asked for.
    """

    model: str
    digest: str
    outputs: Mapping[str, Array] = field(repr=False)
    labels: Mapping[str, tuple[str, ...]]
    units: int
    remaining: int
    receipt: VerifiedReceipt
    ticket: Ticket | None
    enclave: VerifiedEnclave = field(repr=False)
    request: bytes = field(repr=False)
    response: bytes = field(repr=False)
    tries: int = 1
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """Return what it is about; no value of an output but the label."""
        label = "" if self.label is None else f"label={self.label!r}, "
        again = f", tries={self.tries}" if self.tries > 1 else ""
        return (
            f"Inference({label}model={self.model!r}, outputs=[{shapes_of(self.outputs)}], units={self.units}, "
            f"remaining={self.remaining}, receipt={self.receipt.receipt.index}{again})"
        )

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it."""
        from cloister.client.notebook.answers import inference_html  # noqa: PLC0415 - of notebooks alone

        return inference_html(self)

    @property
    def label(self) -> str | None:
        """The name of the first item's class, where the model's card names the classes of one output."""
        first = next(iter(self.labels.values()), ())
        return first[0] if first else None


def describe(
    session: Session, model: str, token: str | None, fields: FieldLines = ()
) -> Plan[tuple[ModelInfo, VerifiedEnclave]]:
    """Return what an enclave says of ``model``, and which; costs nothing. Raises as ``Session.ask``, ``Rejected``."""
    session.trust.digest_of(model)
    request = BinaryRequest(method="GET", path=_path(model), headers=(*bearer(token), *fields))
    answer, enclave = yield from session.ask(request)
    if answer.status != _OK:
        raise refusal(answer)
    info = parse_metadata(answer.body)
    digest = enclave.model(model).digest
    if info.digest != digest:
        raise Rejected.because("model_mismatch", f"model {model}", got=info.digest, want=digest)
    return info, enclave


def infer(session: Session, question: Question, info: ModelInfo, chain: ReceiptChain) -> Plan[Inference]:
    """Return the proven answer to ``question``, asked for again where none came, as its ``retry`` says.

    Raises ``UsageError`` for inputs that cannot fit; ``Rejected`` with the enclave's reasons (``allowance_exhausted``,
    ``blocked``, ...), for a receipt that does not hold, where asking again would count again (``instance_changed``);
    ``TicketNotProven`` for an answer without the ticket it takes; ``Unavailable``.
    """
    # One key for all tries: whoever cuts or answers in the enclave's place cannot make one question cost twice.
    question = replace(question, key=question.key or dump_b64u(session.rng(_KEY_BYTES)))
    until = None if question.wait is None else session.clock() + question.wait
    attempt = Attempt(end=question.end, until=until, other_instance=question.retry.other_instance)
    once = partial(_infer_once, session, question, info, chain, attempt)
    answer, tries = yield from ask_again(session, question, attempt, once)
    return replace(answer, tries=tries)


def ask_again(
    session: Session, question: Question, attempt: Attempt, once: Callable[[], Plan[T]]
) -> Plan[tuple[T, int]]:
    """Return what ``once`` comes to, tried again as the question's ``retry`` says, and how often it was tried."""
    tried = 1
    while True:
        try:
            return (yield from once()), tried
        except CloisterError as exc:
            pause = question.retry.pause(tried, exc, session.rng(2))
            if pause is None:
                raise
            left = attempt.left(session.clock())
            if left is not None and pause >= left:
                raise
            tried += 1
            if question.on_retry is not None:
                question.on_retry(Retrying(cause=exc, number=tried, tries=question.retry.tries, pause=pause))
            yield Pause(pause)


def _infer_once(
    session: Session, question: Question, info: ModelInfo, chain: ReceiptChain, attempt: Attempt
) -> Plan[Inference]:
    body = dump_inputs(info, name_inputs(info, question.inputs, question.image))
    extra: FieldLines = (
        ("content-type", OCTETS),
        (HEADER_LENGTH, str(body.head_bytes)),
        ("idempotency-key", question.key or ""),
    )
    request = BinaryRequest(
        method="POST",
        path=_path(question.model) + "/infer",
        headers=(*bearer(question.token), *question.fields, *extra),
        body=body.data,
    )
    answer, enclave = yield from _ask(session, request, question, attempt)
    receipt = verify_answer(enclave, question.model, request=body.data, response=answer.body, trailers=answer.trailers)
    units, remaining = _count(answer, "cloister-units"), _count(answer, "cloister-remaining")
    if units != receipt.receipt.units:
        raise Rejected.because("units_mismatch", "receipt", got=str(receipt.receipt.units), want=str(units))
    receipt, ticket = verify_paid(enclave, question.model, receipt, trailers=answer.trailers, chain=chain)
    outputs = parse_outputs(answer.body, head_bytes=_head_bytes(answer))
    return Inference(
        model=question.model,
        digest=receipt.receipt.model,
        outputs=outputs,
        labels={name: _label(names, outputs[name]) for name, names in info.labels.items() if name in outputs},
        units=units,
        remaining=remaining,
        receipt=receipt,
        ticket=ticket,
        enclave=enclave,
        request=body.data,
        response=answer.body,
        classes=info.labels,
    )


def _ask(
    session: Session, request: BinaryRequest, question: Question, attempt: Attempt
) -> Plan[tuple[Answer, VerifiedEnclave]]:
    """Ask until there is an answer; while the allowance is exhausted and time is left, wait and ask again."""
    pause = _FIRST_PAUSE
    while True:
        answer, enclave = yield from session.ask(request, attempt)
        if answer.status == _OK:
            return answer, enclave
        exc = refusal(answer)
        if not isinstance(exc, Rejected) or exc.code != "allowance_exhausted" or attempt.until is None:
            raise exc
        left = attempt.until - session.clock()
        if left <= timedelta(0):
            raise exc
        duration = min(pause, left)
        if question.on_wait is not None:
            question.on_wait(exc, left)
        attempt.left(session.clock())
        yield Pause(duration)
        pause = min(pause * 3 / 2, _LAST_PAUSE)


def _path(model: str) -> str:
    return "/v2/models/" + quote(model, safe="")


def bearer(token: str | None) -> FieldLines:
    """Return the field line that carries a token, none without one."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


def _count(answer: Answer, name: str) -> int:
    value = value_of(answer.headers, name) or ""
    if not (value.isascii() and value.isdigit() and len(value) <= 16) or int(value) > MAX_UNITS:  # noqa: PLR2004
        msg = f"infer response: {name}: want a number"
        raise Malformed(msg)
    return int(value)


def _head_bytes(answer: Answer) -> int | None:
    return None if value_of(answer.headers, HEADER_LENGTH) is None else _count(answer, HEADER_LENGTH)


def _label(names: tuple[str, ...], values: Array) -> tuple[str, ...]:
    """Return one name for each item: values are class numbers, class names, or a row of scores."""
    if values.dtype.kind == "f" and values.ndim == _RANK_OF_SCORES and values.shape[1] == len(names):
        values = np.argmax(values, axis=1)
    found = []
    for item in values.reshape(-1).tolist():
        if isinstance(item, bytes):
            found.append(item.decode("utf-8", "replace"))
        elif isinstance(item, int) and not isinstance(item, bool) and 0 <= item < len(names):
            found.append(names[item])
        else:
            found.append(str(item))
    return tuple(found)


def refusal(answer: Answer) -> CloisterError:
    """Return what an inner answer that is no 200 means. Its text is the enclave's own, authentic and bounded."""
    reasons = _reasons(answer.body)
    code = reasons[0].code if reasons else "refused"
    hint = _HINTS.get(code)
    if answer.status >= _SERVER_FAULT or answer.status == _TOO_MANY_REQUESTS:
        after = value_of(answer.headers, "retry-after") or ""
        seconds = int(after) if after.isascii() and after.isdigit() and len(after) < 6 else None  # noqa: PLR2004
        kind = EnclaveFault if answer.status == _SERVER_FAULT else Unavailable
        return kind(f"enclave: status {answer.status} ({code})", retry_after_s=seconds, hint=hint)
    if not reasons:
        reasons = (Reason(code=code, subject="enclave", got=f"status {answer.status}"),)
    return Rejected("; ".join(map(str, reasons)), reasons=reasons, hint=hint)


def _reasons(body: bytes) -> tuple[Reason, ...]:
    """Return the reasons of a problem document; its code comes first, as a program may branch on it."""
    try:
        fields = Fields.parse(body, what="problem")
        reasons = take_reasons(fields, "reasons") if "reasons" in fields else ()
        code = fields.text("code", cap=64, floor=1) if "code" in fields else ""
        detail = fields.text("detail", cap=1000) if "detail" in fields else ""
    except Malformed:
        return ()
    if not code or (reasons and reasons[0].code == code):
        return reasons
    return (Reason(code=code, subject="enclave", got=detail[:200]), *reasons)
