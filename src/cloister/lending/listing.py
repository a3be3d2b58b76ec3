"""Whom the custodian's latest word lets ask: made once for each word, and asked several times for each inference."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.lending.terms import NO_TOKEN

if TYPE_CHECKING:
    from cloister.lending.terms import Consumer, ConsumerId

__all__ = ["Listing"]


class Listing:
    """The consumers of a lease, and those of the grant that it names no more.

    Found by the digest of their tokens: what the time of a look-up tells of a digest tells nothing of the token.
    """

    __slots__ = ("_by_id", "_by_token", "_current", "_granted", "_ids")

    def __init__(self, current: tuple[Consumer, ...] | None, granted: tuple[Consumer, ...] | None) -> None:
        """List ``current``, None where the loan is open to anybody; those ``granted`` before are known and not listed.

        A token that the lease has replaced is nobody's.
        """
        self._current, self._granted = current, granted
        self._ids = None if current is None else frozenset(consumer.id for consumer in current)
        self._by_token: dict[bytes, Consumer] = {}
        self._by_id: dict[ConsumerId, Consumer] = {}
        former = (consumer for consumer in granted or () if consumer.id not in (self._ids or ()))
        for consumer in (*(current or ()), *former):
            self._by_id[consumer.id] = consumer
            if consumer.token_sha256 != NO_TOKEN:
                self._by_token.setdefault(consumer.token_sha256, consumer)

    def is_of(self, current: tuple[Consumer, ...] | None, granted: tuple[Consumer, ...] | None) -> bool:
        """Tell whether it was made of these very words."""
        return self._current is current and self._granted is granted

    def find(self, token: bytes | None) -> Consumer | None:
        """Return whose token this is, blocked or not; None in a loan for anybody.

        Raises ``Rejected`` (``unauthorized``).
        """
        if self._ids is None:
            return None
        found = None if token is None else self._by_token.get(hashlib.sha256(token).digest())
        if found is None:
            raise Rejected.because("unauthorized", "consumer", hint="pass the consumer token of this loan")
        return found

    def named(self, consumer: ConsumerId) -> Consumer | None:
        """Return the consumer of this name, blocked or not; None in a loan for anybody.

        For who was proven to be that consumer by other means than a token. Raises ``Rejected`` (``unauthorized``).
        """
        if self._ids is None:
            return None
        found = self._by_id.get(consumer)
        if found is None:
            raise Rejected.because("unauthorized", "consumer", got=consumer, want="a consumer of this loan")
        return found

    def demand(self, consumer: Consumer | None) -> None:
        """Prove that a consumer is listed now. Raises ``Rejected`` (``blocked``)."""
        if consumer is not None and self._ids is not None and consumer.id not in self._ids:
            raise Rejected.because("blocked", f"consumer {consumer.id}")
