"""What the blocking and the awaiting client share: every decision, as plans. They differ in who takes the steps.

Not done here: taking steps (``client``, ``wire``).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from cloister.client.contract import contract
from cloister.client.inference import Question, ask_again, bearer, describe, infer
from cloister.client.receipts import ReceiptChain
from cloister.client.retries import Attempt
from cloister.client.session import Session
from cloister.client.sub_allowance import take_field
from cloister.client.trust_file import parse_origin
from cloister.client.way import Way
from cloister.errors import UsageError
from cloister.wire.markup import tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    from cloister.attest.verifier import Scheme
    from cloister.channel.fields import FieldLines
    from cloister.client.batch import Group
    from cloister.client.contract import AgreedContract
    from cloister.client.credentials import TokenSource
    from cloister.client.inference import Inference
    from cloister.client.model_info import ModelInfo
    from cloister.client.plan import Plan
    from cloister.client.retries import Retry, Retrying
    from cloister.client.sub_allowance import HeldSubAllowance
    from cloister.client.trust import VerifiedEnclave
    from cloister.client.trust_file import Trust

__all__ = ["Asker", "new_session", "now"]


def now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


class Asker:
    """What both clients share: a session, the consumer's token, what is known of models, the receipts."""

    def __init__(
        self, session: Session, token: TokenSource | None, held: HeldSubAllowance | None, retry: Retry
    ) -> None:
        """Take over a verified session."""
        self._session = session
        self._retry = retry
        self._source = token
        self._fields = take_field(held)
        self._models: dict[tuple[str, str], ModelInfo] = {}
        self._chain = ReceiptChain()

    def __repr__(self) -> str:
        """Return whom it asks and how that was verified; never a token."""
        enclave = self._session.enclave
        known = "not verified" if enclave is None else f"{enclave.tee}, {enclave.result.tier.value}"
        return f"<{type(self).__name__} of {self._session.url}: {known}>"

    def _repr_html_(self) -> str:
        """Return the verified enclave as a notebook shows it."""
        enclave = self._session.enclave
        return tag("code", repr(self)) if enclave is None else enclave._repr_html_()

    @property
    def _token(self) -> str | None:
        """Our own token as it is now."""
        return None if self._source is None else self._source()

    @property
    def url(self) -> str:
        """The enclave's address."""
        return self._session.url

    @property
    def enclave(self) -> VerifiedEnclave:
        """The enclave as it was verified last."""
        enclave = self._session.enclave
        if enclave is None:
            msg = "client: the enclave could not be verified anew"
            raise UsageError(msg, hint="make a new client with Client.verify")
        return enclave

    def _describe(self, model: str, token: str | None) -> Plan[ModelInfo]:
        """Ask what a model is, and remember it for this instance."""
        info, enclave = yield from describe(self._session, model, token or self._token, self._beside(token))
        self._models[enclave.instance, model] = info
        return info

    def _known(self, model: str, token: str | None) -> Plan[ModelInfo]:
        """Return what is known of a model, asked once for each instance."""
        enclave = yield from self._session.current()
        place = (enclave.instance, model)
        return self._models[place] if place in self._models else (yield from self._describe(model, token))

    def _about(self, question: Question) -> Plan[ModelInfo]:
        """Return what is known of the model that is asked, asked again as the question itself is."""
        once = partial(self._known, question.model, question.token)
        info, _ = yield from ask_again(self._session, question, Attempt(end=question.end), once)
        return info

    def _infer(self, question: Question) -> Plan[Inference]:
        info = yield from self._about(question)
        return (yield from infer(self._session, question, info, self._chain))

    def _question(self, model: str, inputs: object, image: object, token: str | None, **rest: Any) -> Question:
        fields = self._beside(token)
        return Question(model=model, inputs=inputs, image=image, token=token or self._token, fields=fields, **rest)

    def _again(
        self, retry: Retry | None, deadline: timedelta | None, on_retry: Callable[[Retrying], None] | None
    ) -> dict[str, Any]:
        """Return how a question is asked again: as its caller says, else as this client does."""
        end = None if deadline is None else self._session.clock() + deadline
        return {"end": end, "on_retry": on_retry, "retry": retry or self._retry}

    def _each(self, question: Question, info: ModelInfo) -> Callable[[Group], Plan[Inference]]:
        """Return what asks one request of many, each under a key of its own."""
        return lambda group: infer(self._session, replace(question, inputs=group.inputs), info, self._chain)

    def _beside(self, token: str | None) -> FieldLines:
        """Return what goes beside a token: our sub-allowance beside our own, nothing beside another's."""
        return self._fields if self._fields and token in (None, self._token) else ()

    def _contract(self) -> Plan[AgreedContract]:
        return (yield from contract(self._session, (*bearer(self._token), *self._fields)))


def new_session(
    url: str,
    trust: Trust,
    *,
    schemes: Iterable[Scheme],
    endorsements: Mapping[str, bytes],
    clock: Callable[[], datetime],
    rng: Callable[[int], bytes],
    max_response_bytes: int,
    way: Way | str,
) -> Session:
    """Return a session that has verified nothing yet. Raises ``UsageError``."""
    return Session(
        parse_origin(url),
        trust,
        schemes=schemes,
        endorsements=endorsements,
        clock=clock,
        rng=rng,
        max_response_bytes=max_response_bytes,
        way=Way.of(way),
    )
