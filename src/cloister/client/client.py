"""The consumer's SDK: verify once, then ask. Sync and async over the same plans.

    trust = Trust.load("trust.json")
    with Client.verify("https://enclave.example:8443", trust, token_file="clinic.token") as client:
        answer = client.infer("digits", image="seven.png")

There is no way to make a client that has not verified its enclave.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from cloister.channel.ohttp import DEFAULT_MAX_MESSAGE_BYTES
from cloister.client.asker import Asker, new_session, now
from cloister.client.batch import group_inputs
from cloister.client.credentials import GivenToken, TokenSource, one_token, read_token
from cloister.client.many import Run
from cloister.client.plan import drive, drive_async
from cloister.client.retries import DEFAULT_RETRY
from cloister.client.transport import AsyncEnclaveTransport, EnclaveTransport
from cloister.client.way import Way
from cloister.client.wire import DEFAULT_TIMEOUT, AsyncWire, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from pathlib import Path
    from types import TracebackType

    import httpx2

    from cloister.attest.verifier import Scheme
    from cloister.client.batch import Answers
    from cloister.client.contract import AgreedContract
    from cloister.client.inference import Inference
    from cloister.client.many import Progress
    from cloister.client.model_info import ModelInfo
    from cloister.client.retries import Retry, Retrying
    from cloister.client.session import Session
    from cloister.client.sub_allowance import HeldSubAllowance
    from cloister.client.trust import VerifiedEnclave
    from cloister.client.trust_file import Trust
    from cloister.errors import Rejected

__all__ = ["AsyncClient", "Client", "read_token"]


class Client(Asker):
    """A consumer of one verified enclave. Safe to use from several threads; ``close`` it, or use ``with``."""

    def __init__(
        self,
        session: Session,
        wire: Wire,
        token: TokenSource | None,
        held: HeldSubAllowance | None = None,
        retry: Retry = DEFAULT_RETRY,
    ) -> None:
        """Take over a verified session; use ``Client.verify``."""
        super().__init__(session, token, held, retry)
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
        retry: Retry = DEFAULT_RETRY,
        transport: httpx2.BaseTransport | None = None,
        clock: Callable[[], datetime] = now,
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
        ``retry`` says how often a question without an answer is asked again. ``timeout`` is until the next byte.
        ``transport``, ``clock`` and ``rng`` are seams for tests. Raises ``Malformed``, ``Rejected`` with
        every mismatch, ``Unavailable``, ``UsageError``.
        """
        session = new_session(
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
        return cls(session, wire, secret, held, retry)

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
        on_wait: Callable[[Rejected, timedelta], None] | None = None,
        retry: Retry | None = None,
        deadline: timedelta | None = None,
        on_retry: Callable[[Retrying], None] | None = None,
    ) -> Inference:
        """Return the enclave's answer, whole and with a proven receipt.

        ``inputs``: arrays by input name (NumPy, torch, lists), or one array; ``image``: a path or Pillow
        image, made into the input as the model's card says. ``wait`` asks again while the allowance is
        exhausted, so long at most; ``on_wait(refusal, time left)`` is told. What got no answer is asked again as
        ``retry`` says (else as this client's), counted once; ``on_retry`` is told before. ``deadline`` bounds it all.
        Raises ``UsageError``, ``Rejected`` (``allowance_exhausted``, ``blocked``, ``instance_changed``, ...),
        ``TruncatedResponse``, ``Unavailable``.
        """
        again = self._again(retry, deadline, on_retry)
        question = self._question(model, inputs, image, token, wait=wait, key=idempotency_key, on_wait=on_wait, **again)
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
        retry: Retry | None = None,
        deadline: timedelta | None = None,
        on_retry: Callable[[Retrying], None] | None = None,
    ) -> Answers:
        """Return the proven answers to many questions, in their order.

        ``inputs``: a list with a question in each item, or arrays with one in each row. Rows go together into
        requests of up to ``batch`` rows where the model's first dimension is open, ``concurrency`` requests at a time.
        Asks again as ``infer`` does; ``deadline`` bounds the whole run. Raises ``UsageError`` before anything is asked,
        ``Incomplete`` with what was answered: at an exhausted allowance, a refusal, an enclave that stays away.
        """
        question = self._question(model, None, None, token, wait=wait, **self._again(retry, deadline, on_retry))
        info = drive(self._about(question), self._wire.take)
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


class AsyncClient(Asker):
    """``Client`` for asyncio; made by ``await AsyncClient.verify(...)``."""

    def __init__(
        self,
        session: Session,
        wire: AsyncWire,
        token: TokenSource | None,
        held: HeldSubAllowance | None = None,
        retry: Retry = DEFAULT_RETRY,
    ) -> None:
        """Take over a verified session; use ``AsyncClient.verify``."""
        super().__init__(session, token, held, retry)
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
        retry: Retry = DEFAULT_RETRY,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Callable[[], datetime] = now,
        rng: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Return a client as ``Client.verify`` does."""
        session = new_session(
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
        return cls(session, wire, secret, held, retry)

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
        on_wait: Callable[[Rejected, timedelta], None] | None = None,
        retry: Retry | None = None,
        deadline: timedelta | None = None,
        on_retry: Callable[[Retrying], None] | None = None,
    ) -> Inference:
        """Return the enclave's answer, as ``Client.infer``."""
        again = self._again(retry, deadline, on_retry)
        question = self._question(model, inputs, image, token, wait=wait, key=idempotency_key, on_wait=on_wait, **again)
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
        retry: Retry | None = None,
        deadline: timedelta | None = None,
        on_retry: Callable[[Retrying], None] | None = None,
    ) -> Answers:
        """Return the proven answers to many questions, as ``Client.infer_many``."""
        question = self._question(model, None, None, token, wait=wait, **self._again(retry, deadline, on_retry))
        info = await drive_async(self._about(question), self._wire.take)
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
