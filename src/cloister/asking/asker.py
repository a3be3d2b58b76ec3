"""The verified enclave behind the page: its models, who can read, what changed, and one question at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.asking.readers import who_can_read
from cloister.errors import CloisterError, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from cloister.asking.questions import Question
    from cloister.asking.readers import Panel
    from cloister.client.contract import AgreedContract
    from cloister.client.inference import Inference
    from cloister.client.model_info import ModelInfo
    from cloister.client.proxy.upstream import Upstream
    from cloister.client.trust import VerifiedEnclave
    from cloister.client.way import Way
    from cloister.lending.contract import Contract

__all__ = ["Asker", "Change"]

_KEPT_CHANGES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The enclave was verified anew: when, and which instance it is since."""

    at: datetime
    instance: str
    same: bool
    """Whether it is the instance that it was before, with other keys."""


class Asker:
    """What the page knows of the enclave. Of one event loop."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        place: str,
        is_open: bool,
        way: Way,
        contract_rows: Callable[[Contract, tuple[str, ...] | None], list[tuple[str, str]]],
    ) -> None:
        """Ask ``upstream`` for a page at ``place``. ``contract_rows`` says a contract in words."""
        self.upstream = upstream
        self.is_open = is_open
        self.place = place
        self._way = way
        self._rows = contract_rows
        self._seen: VerifiedEnclave | None = upstream.verified
        self._changes: deque[Change] = deque(maxlen=_KEPT_CHANGES)
        self._infos: dict[str, ModelInfo] = {}
        self._contract: tuple[str, AgreedContract] | None = None
        self._lock = asyncio.Lock()

    def now(self) -> datetime:
        """Return the time."""
        return self.upstream.now()

    def enclave(self) -> VerifiedEnclave:
        """Return the enclave as it is verified now. Raises as its verification did, or ``Unavailable``."""
        found = self.upstream.verified
        if found is None:
            refusal = self.upstream.refusal
            msg = "the enclave is not verified: its keys have ended"
            raise refusal if refusal is not None else Unavailable(msg, hint="it is verified anew within seconds")
        if self._seen is not None and found.keyset != self._seen.keyset:
            same = found.instance == self._seen.instance
            self._changes.append(Change(at=found.result.verified_at, instance=found.instance, same=same))
            self._contract = None
        self._seen = found
        return found

    @property
    def changes(self) -> tuple[Change, ...]:
        """When the enclave was verified anew with other keys, the newest last."""
        return tuple(self._changes)

    def models(self) -> tuple[str, ...]:
        """Return the models that the trust lets one ask, in the enclave's order."""
        trusted = []
        for model in self.enclave().keyset.models:
            try:
                self.upstream.demand_trusted(model.name)
            except CloisterError:
                continue
            trusted.append(model.name)
        return tuple(trusted)

    async def info(self, model: str) -> ModelInfo:
        """Return what the enclave says of a model now. Raises ``Rejected`` (``unknown_model``), and as asking does."""
        if model not in self.models():
            raise Rejected.because("unknown_model", "model", got=model[:80])
        found = await self.upstream.model(model)
        self._infos[model] = found
        return found

    def known(self, model: str) -> ModelInfo | None:
        """Return what the enclave said of a model last."""
        return self._infos.get(model)

    async def contract(self) -> AgreedContract | None:
        """Return the proven contract, asked for once for each keyset; None where the enclave shows none.

        Raises ``Rejected`` where it does not hold.
        """
        enclave = self.enclave()
        async with self._lock:
            if self._contract is None or self._contract[0] != enclave.instance:
                try:
                    self._contract = (enclave.instance, await self.upstream.contract())
                except Rejected as exc:
                    if exc.code not in ("not_found", "unauthorized"):
                        raise
                    return None
            return self._contract[1]

    async def panel(self) -> Panel:
        """Return who can read."""
        await self.contract()
        return self.panel_of(self.enclave())

    def panel_of(self, enclave: VerifiedEnclave) -> Panel:
        """Return who can read what this enclave is asked, with its contract where that is the one known."""
        kept = self._contract
        return who_can_read(
            enclave,
            place=self.place,
            is_open=self.is_open,
            pinned=self.is_pinned(enclave),
            contract=None if kept is None or kept[0] != enclave.instance else kept[1],
        )

    def is_pinned(self, enclave: VerifiedEnclave) -> bool:
        """Tell whether questions go in by TLS that ends in the enclave."""
        return self._way.is_pinned(enclave)

    def contract_rows(self, contract: AgreedContract | None) -> list[tuple[str, str]]:
        """Return what the contract says, line by line."""
        return [] if contract is None else self._rows(contract.contract, contract.consumers)

    async def ask(self, question: Question, wait: timedelta | None) -> Inference:
        """Return the proven answer; its receipt is kept where that is wished. Raises as ``Client.infer``."""
        receipts = self.upstream.receipts
        if receipts is not None:
            await receipts.demand_room()
        answer = await self.upstream.infer(question.model, question.inputs, wait=wait, idempotency_key=question.key)
        if receipts is not None:
            await receipts.keep(answer.receipt)
        return answer
