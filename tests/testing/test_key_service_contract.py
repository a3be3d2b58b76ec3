"""The contract of key services holds for every kind of the house, and finds what does not hold to it."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import pytest
from key_service_kit import LocalService

from cloister.errors import Rejected, Unavailable
from cloister.testing.key_service_contract import broken_promises

if TYPE_CHECKING:
    from collections.abc import Callable


class Renamed(LocalService):
    """Has another name each time."""

    count = 0

    def __init__(self) -> None:
        Renamed.count += 1
        super().__init__(name=f"local:{Renamed.count}")


class Echo(LocalService):
    """Writes the key beside it."""

    def wrap(self, key: bytes, *, context: str) -> bytes:
        return super().wrap(key, context=context) + key

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        return super().unwrap(wrapped[:-32], context=context)


class Careless(LocalService):
    """Looks at no context."""

    def wrap(self, key: bytes, *, context: str) -> bytes:
        return super().wrap(key, context=context[:0])

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        return super().unwrap(wrapped, context=context[:0])


class Prefix(LocalService):
    """Looks at all of the context but its last character."""

    def wrap(self, key: bytes, *, context: str) -> bytes:
        return super().wrap(key, context=context[:-1])

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        return super().unwrap(wrapped, context=context[:-1])


class Forgetful(LocalService):
    """Has another key at each connection."""

    def __init__(self) -> None:
        super().__init__(key=os.urandom(32))


class Loose(LocalService):
    """Raises errors of its own."""

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        try:
            return super().unwrap(wrapped, context=context)
        except Rejected as exc:
            raise ValueError(context) from exc


class Vague(LocalService):
    """Has no word for a wrong key."""

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        try:
            return super().unwrap(wrapped, context=context)
        except Rejected as exc:
            raise Unavailable(context) from exc


class Chatty(LocalService):
    """Logs keys."""

    def wrap(self, key: bytes, *, context: str) -> bytes:
        logging.getLogger("chatty").debug("wrapping %s in %s", key.hex(), context)
        return super().wrap(key, context=context)


class Telling(LocalService):
    """Shows a key in a refusal."""

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        try:
            return super().unwrap(wrapped, context=context)
        except Rejected:
            key = super().unwrap(super().wrap(SEEN[0], context="c"), context="c")
            raise Rejected.because("wrong_key", self.name, got=key.hex()) from None

    def wrap(self, key: bytes, *, context: str) -> bytes:
        SEEN.insert(0, SEEN[0] if SEEN else key)
        return super().wrap(key, context=context)


SEEN: list[bytes] = []


class Texts(LocalService):
    """Wraps into text."""

    def wrap(self, key: bytes, *, context: str) -> Any:
        return super().wrap(key, context=context).hex()


class Short(LocalService):
    """Gives half a key back."""

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        return super().unwrap(wrapped, context=context)[:16]


BROKEN: dict[str, tuple[Callable[[], LocalService], str]] = {
    "another name each time": (Renamed, "two connections to the same key have two names"),
    "a name of any shape": (lambda: LocalService(name="my service"), "name is not KIND:REST"),
    "the key beside it": (Echo, "holds the key in clear"),
    "no context": (Careless, "in another context does not refuse as wrong_key: it opens"),
    "most of the context": (Prefix, "in another context does not refuse as wrong_key: it opens"),
    "another key at each connection": (Forgetful, "does not give back what was wrapped (wrong_key)"),
    "errors of its own": (Loose, "ValueError, which is none of the errors of the contract"),
    "no word for a wrong key": (Vague, "does not refuse as wrong_key (Unavailable"),
    "a log": (Chatty, "a key stands in a log"),
    "a key in an error": (Telling, "a key stands in a log, an error"),
    "text": (Texts, "wrap returns no bytes"),
    "half a key": (Short, "does not give back what was wrapped"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_promise_is_named(fault: str) -> None:
    make, words = BROKEN[fault]
    assert any(words in sentence for sentence in broken_promises(make)), broken_promises(make)


def test_a_sound_service_breaks_none() -> None:
    assert broken_promises(LocalService, another=lambda: LocalService(key=bytes(32))) == ()


def test_another_key_that_opens_is_named() -> None:
    assert broken_promises(LocalService, another=LocalService) == ("another key is not refused: it opens",)
