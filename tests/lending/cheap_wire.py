"""A wire that costs next to nothing, for simulations in which nobody forges or mangles a message.

Signatures are hashes over key, label and payload: what was signed by another key or as another kind of
statement is refused as ever. What was dumped is remembered, so that parsing it returns the value at once;
every hundredth parse is done for true as well, and must come to the same. That Ed25519 keeps strangers out
and that parsers refuse what is malformed is proven in ``tests/crypto`` and ``tests/lending``; some seeds of
every simulation run on the true wire.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cloister.crypto.sign import Label, SigningKey, Statement, VerifyKey, pae
from cloister.errors import Rejected
from cloister.lending.audit import Checkpoint
from cloister.lending.messages import (
    AttestRequest,
    Close,
    Grant,
    Lease,
    LeaseRequest,
    Receipt,
    Refusal,
    UsageAck,
    UsageReport,
)
from cloister.wire import json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MESSAGES: tuple[Any, ...] = (
    *(AttestRequest, Checkpoint, Close, Grant, Lease, LeaseRequest, Receipt, Refusal, Statement),
    *(UsageAck, UsageReport),
)
_TRULY = 100  # one parse of so many is done for true


def _mark(key: VerifyKey, label: Label, payload: bytes) -> bytes:
    return hashlib.sha512(key.raw + pae(label, payload)).digest()


def _sign(self: SigningKey, label: Label, payload: bytes) -> bytes:
    return _mark(self.verify_key, label, payload)


def _verify(self: VerifyKey, label: Label, payload: bytes, signature: bytes) -> None:
    if signature != _mark(self, label, payload):
        raise Rejected.because("signature_invalid", label.value)


class _Memory:
    """What was dumped of one kind of message."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.real = (kind.dump, kind.__dict__["parse"])
        self.known: dict[bytes, Any] = {}
        self.asked = 0

    def dump(self) -> Callable[[Any], bytes]:
        real, known = self.real[0], self.known

        def dump(message: Any) -> bytes:
            data: bytes = real(message)
            known[data] = message
            return data

        return dump

    def parse(self) -> Callable[..., Any]:
        real = self.real[1].__get__(None, self.kind)

        def parse(data: bytes, *, label: Label | None = None) -> Any:
            found = self.known.get(data)
            if found is None or (label is not None and found.label is not label):
                return real(data) if label is None else real(data, label=label)
            self.asked += 1
            if self.asked % _TRULY == 0:
                truly = real(data) if label is None else real(data, label=label)
                assert truly == found, (truly, found)
            return found

        return parse


@contextmanager
def cheap_wire() -> Iterator[None]:
    """Let every message that is signed, dumped, parsed and verified inside be a cheap one."""
    memories = [_Memory(kind) for kind in _MESSAGES]
    real = SigningKey.sign, VerifyKey.verify
    SigningKey.sign, VerifyKey.verify = _sign, _verify  # type: ignore[method-assign]  # a seam of simulations only
    plain, json._is_plain = json._is_plain, lambda _value: True  # nothing here has floats or names beyond ASCII
    for memory in memories:
        memory.kind.dump, memory.kind.parse = memory.dump(), staticmethod(memory.parse())
    try:
        yield
    finally:
        SigningKey.sign, VerifyKey.verify = real  # type: ignore[method-assign]  # back to Ed25519
        json._is_plain = plain
        for memory in memories:
            memory.kind.dump, memory.kind.parse = memory.real


__all__ = ["cheap_wire"]
