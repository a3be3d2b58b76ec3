"""The consumer's SDK: verify once, then ask. Sync and async over the same plans.

    trust = Trust.load("trust.json")
    with Client.verify("https://enclave.example:8443", trust, token_file="clinic.token") as client:
        answer = client.infer("digits", image="seven.png")

There is no way to make a client that has not verified its enclave.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from cloister.channel.ohttp import DEFAULT_MAX_MESSAGE_BYTES
from cloister.client.batch import group_inputs
from cloister.client.contract import contract
from cloister.client.credentials import GivenToken, TokenSource, one_token, read_token
from cloister.client.inference import Question, bearer, describe, infer
from cloister.client.many import Run, infer_again
from cloister.client.plan import drive, drive_async
from cloister.client.receipts import ReceiptChain
from cloister.client.session import Session
from cloister.client.sub_allowance import take_field
from cloister.client.transport import AsyncEnclaveTransport, EnclaveTransport
from cloister.client.trust_file import parse_origin
from cloister.client.way import Way
from cloister.client.wire import DEFAULT_TIMEOUT, AsyncWire, Wire
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta
    from pathlib import Path
    from types import TracebackType

    import httpx2

    from cloister.attest.verifier import Scheme
    from cloister.channel.fields import FieldLines
    from cloister.client.batch import Answers, Group
    from cloister.client.contract import AgreedContract
    from cloister.client.inference import Inference
    from cloister.client.many import Progress
    from cloister.client.model_info import ModelInfo
    from cloister.client.plan import Plan
    from cloister.client.sub_allowance import HeldSubAllowance
    from cloister.client.trust import VerifiedEnclave
    from cloister.client.trust_file import Trust

__all__ = ["AsyncClient", "Client", "read_token"]


def _now() -> datetime:
    return datetime.now(UTC)


class _Asker:
    """What both clients share: a session, the consumer's token, what is known of models, the receipts."""

    def __init__(self, session: Session, token: TokenSource | None, held: HeldSubAllowance | None = None) -> None:
        self._session = session
        self._source = token
        self._fields = take_field(held)
        self._models: dict[tuple[str, str], ModelInfo] = {}
        self._chain = ReceiptChain()

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

    def _infer(self, question: Question) -> Plan[Inference]:
        info = yield from self._known(question.model, question.token)
        return (yield from infer(self._session, question, info, self._chain))

    def _question(self, model: str, inputs: object, image: object, token: str | None, **rest: Any) -> Question:
        fields = self._beside(token)
        return Question(model=model, inputs=inputs, image=image, token=token or self._token, fields=fields, **rest)

    def _each(self, question: Question, info: ModelInfo) -> Callable[[Group], Plan[Inference]]:
        """Return what asks one request of many, each under a key of its own."""
        return lambda group: infer_again(self._session, replace(question, inputs=group.inputs), info, self._chain)

    def _beside(self, token: str | None) -> FieldLines:
        """Return what goes beside a token: our sub-allowance beside our own, nothing beside another's."""
        return self._fields if self._fields and token in (None, self._token) else ()

    def _contract(self) -> Plan[AgreedContract]:
        return (yield from contract(self._session, (*bearer(self._token), *self._fields)))


def _session(
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


class Client(_Asker):
    """A consumer of one verified enclave. Safe to use from several threads; ``close`` it, or use ``with``."""

    def __init__(
        self, session: Session, wire: Wire, token: TokenSource | None, held: HeldSubAllowance | None = None
    ) -> None:
        """Take over a verified session; use ``Client.verify``."""
        super().__init__(session, token, held)
        self._wire = wire

    @classmethod
    def verify(
        cls,
        url: str,
        trust: Trust,
        *,
        token: GivenToken = None,
        token_file: Path | str | None = None,
        certificate_file: Path | str | None = None,
        sub_allowance: HeldSubAllowance | Path | str | None = None,
        schemes: Iterable[Scheme] = (),
        endorsements: Mapping[str, bytes] | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        max_response_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        way: Way | str = Way.AUTO,
        transport: httpx2.BaseTransport | None = None,
        clock: Callable[[], datetime] = _now,
        rng: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Return a client of the enclave at ``url`` once that satisfies ``trust``.

        A token is a string, a file that is read again when it changes, or a function that returns the one to use now.
        ``certificate_file`` (PEM, key and chain, mode 0600) is shown in TLS, which ends in the enclave then.
        ``sub_allowance`` takes the place of a token. ``schemes`` are evidence schemes besides the production ones:
        the simulated TEE, by whoever insists.
        ``endorsements`` by name take the place of those that the enclave sends along (docs/reference/endorsements.md);
        keys of token services come from here alone.
        ``way``: ``"ohttp"`` encapsulates each request; ``"pinned"`` goes straight over TLS 1.3 under an attested key,
        which costs less and shows sizes; ``"auto"`` does that where the key exchange can be held to be post-quantum.
        ``transport``, ``clock`` and ``rng`` are seams for tests. Raises ``Malformed``, ``Rejected`` with
        every mismatch, ``Unavailable``, ``UsageError``.
        """
        session = _session(
            url,
            trust,
            schemes=schemes,
            endorsements=endorsements or {},
            clock=clock,
            rng=rng,
            max_response_bytes=max_response_bytes,
            way=Way.of(way) if certificate_file is None else Way.of(way).with_certificate(),
        )
        secret, held = one_token(token, token_file, sub_allowance)
        wire = Wire(session.url, trust, timeout=timeout, transport=transport, certificate=certificate_file)
        try:
            drive(session.verify(), wire.take)
        except BaseException:
            wire.close()
            raise
        return cls(session, wire, secret, held)

    def reverify(self) -> VerifiedEnclave:
        """Verify again now, with a fresh nonce. Raises as ``verify``; then the client asks nothing more."""
        return drive(self._session.verify(), self._wire.take)

    def model(self, name: str, *, token: str | None = None) -> ModelInfo:
        """Return inputs, outputs, card and remaining units of a model; costs nothing."""
        return drive(self._describe(name, token), self._wire.take)

    def contract(self) -> AgreedContract:
        """Return the contract of the loan, proven to be signed and bound by the enclave's evidence; costs nothing.

        Raises ``Rejected`` with every mismatch, or where the loan has none.
        """
        return drive(self._contract(), self._wire.take)

    def infer(
        self,
        model: str,
        inputs: object = None,
        *,
        image: object = None,
        token: str | None = None,
        wait: timedelta | None = None,
        idempotency_key: str | None = None,
        on_wait: Callable[[Any, timedelta], None] | None = None,
    ) -> Inference:
        """Return the enclave's answer, whole and with a proven receipt.

        ``inputs``: arrays by input name (NumPy, torch, lists), or one array; ``image``: a path or Pillow
        image, made into the input as the model's card says. ``wait`` asks again while the allowance is
        exhausted, so long at most; ``on_wait(refusal, time left)`` is told. Raises ``UsageError``,
        ``Rejected`` (``allowance_exhausted``, ``blocked``, ...), ``TruncatedResponse``, ``Unavailable``.
        """
        question = self._question(model, inputs, image, token, wait=wait, key=idempotency_key, on_wait=on_wait)
        return drive(self._infer(question), self._wire.take)

    def infer_many(
        self,
        model: str,
        inputs: object,
        *,
        batch: int | None = None,
        concurrency: int = 4,
        token: str | None = None,
        wait: timedelta | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Answers:
        """Return the proven answers to many questions, in their order.

        ``inputs``: a list with a question in each item, or arrays with one in each row. Rows go together into
        requests of up to ``batch`` rows where the model's first dimension is open, ``concurrency`` requests at a time.
        What may be asked again is, under the same key. Raises ``UsageError`` before anything is asked, ``Incomplete``
        with what was answered: at an exhausted allowance, a refusal, an enclave that stays away.
        """
        question = self._question(model, None, None, token, wait=wait)
        info = drive(self._known(model, token), self._wire.take)
        ask = self._each(question, info)
        run = Run(group_inputs(info, inputs, batch=batch), concurrency, on_progress)
        return run.threads(lambda group: drive(ask(group), self._wire.take))

    def transport(self) -> EnclaveTransport:
        """Return a transport for ``httpx2.Client(transport=..., base_url=client.url)``; lives as this client."""
        return EnclaveTransport(self._session, self._wire)

    def close(self) -> None:
        """Close every connection."""
        self._wire.close()

    def __enter__(self) -> Self:
        """Use in a ``with`` block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()


class AsyncClient(_Asker):
    """``Client`` for asyncio; made by ``await AsyncClient.verify(...)``."""

    def __init__(
        self, session: Session, wire: AsyncWire, token: TokenSource | None, held: HeldSubAllowance | None = None
    ) -> None:
        """Take over a verified session; use ``AsyncClient.verify``."""
        super().__init__(session, token, held)
        self._wire = wire

    @classmethod
    async def verify(
        cls,
        url: str,
        trust: Trust,
        *,
        token: GivenToken = None,
        token_file: Path | str | None = None,
        certificate_file: Path | str | None = None,
        sub_allowance: HeldSubAllowance | Path | str | None = None,
        schemes: Iterable[Scheme] = (),
        endorsements: Mapping[str, bytes] | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - between bytes, not for the whole call
        max_response_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        way: Way | str = Way.AUTO,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Callable[[], datetime] = _now,
        rng: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Return a client as ``Client.verify`` does."""
        session = _session(
            url,
            trust,
            schemes=schemes,
            endorsements=endorsements or {},
            clock=clock,
            rng=rng,
            max_response_bytes=max_response_bytes,
            way=Way.of(way) if certificate_file is None else Way.of(way).with_certificate(),
        )
        secret, held = one_token(token, token_file, sub_allowance)
        wire = AsyncWire(session.url, trust, timeout=timeout, transport=transport, certificate=certificate_file)
        try:
            await drive_async(session.verify(), wire.take)
        except BaseException:
            await wire.close()
            raise
        return cls(session, wire, secret, held)

    async def reverify(self) -> VerifiedEnclave:
        """Verify again now, as ``Client.reverify``."""
        return await drive_async(self._session.verify(), self._wire.take)

    async def model(self, name: str, *, token: str | None = None) -> ModelInfo:
        """Return what the enclave says of a model, as ``Client.model``."""
        return await drive_async(self._describe(name, token), self._wire.take)

    async def contract(self) -> AgreedContract:
        """Return the proven contract of the loan, as ``Client.contract``."""
        return await drive_async(self._contract(), self._wire.take)

    async def infer(
        self,
        model: str,
        inputs: object = None,
        *,
        image: object = None,
        token: str | None = None,
        wait: timedelta | None = None,
        idempotency_key: str | None = None,
        on_wait: Callable[[Any, timedelta], None] | None = None,
    ) -> Inference:
        """Return the enclave's answer, as ``Client.infer``."""
        question = self._question(model, inputs, image, token, wait=wait, key=idempotency_key, on_wait=on_wait)
        return await drive_async(self._infer(question), self._wire.take)

    async def infer_many(
        self,
        model: str,
        inputs: object,
        *,
        batch: int | None = None,
        concurrency: int = 4,
        token: str | None = None,
        wait: timedelta | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Answers:
        """Return the proven answers to many questions, as ``Client.infer_many``."""
        question = self._question(model, None, None, token, wait=wait)
        info = await drive_async(self._known(model, token), self._wire.take)
        ask = self._each(question, info)
        run = Run(group_inputs(info, inputs, batch=batch), concurrency, on_progress)
        return await run.tasks(lambda group: drive_async(ask(group), self._wire.take))

    def transport(self) -> AsyncEnclaveTransport:
        """Return a transport for ``httpx2.AsyncClient``; lives as this client."""
        return AsyncEnclaveTransport(self._session, self._wire)

    async def close(self) -> None:
        """Close every connection."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        """Use in an ``async with`` block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()
