"""What is kept of a variant: whose it is, which tensors carry the mark, and its key, wrapped.

The wrapping authenticates all the rest, so that nobody without the vault makes a record say another name.
Not done here: wrapping, which the vault does, and files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from cloister.errors import Malformed, UsageError
from cloister.sealed.tracing.floats import MIN_ELEMENTS, SKETCH_BYTES
from cloister.sealed.tracing.mark import STRENGTHS, FloatKind
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time, lp

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["MAX_RECORD_BYTES", "MarkedTensor", "Variant"]

MAX_RECORD_BYTES: Final = 16 << 20
_MAX_TENSORS = 1 << 16
_MAX_HOLDER = 128  # characters
_MAX_ELEMENTS = 1 << 40
_MAX_WRAPPED_BYTES = 4096
_LABEL = b"cloister/trace/v1/record"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedTensor:
    """A tensor as it was when it was marked."""

    path: str
    name: str
    kind: FloatKind
    count: int
    sketch: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One sealed variant. ``holder`` is the loan or the borrower it was made for, ``bits`` its strength."""

    digest: str
    model: str
    holder: str
    created: datetime
    bits: int
    tensors: tuple[MarkedTensor, ...]
    wrapped: bytes = b""

    @property
    def aad(self) -> bytes:
        """What the wrapping of the key authenticates: all the record says."""
        return lp(_LABEL, replace(self, wrapped=b"").dump())

    def dump(self) -> bytes:
        """Return canonical JSON. Raises ``UsageError`` for what no reader would take."""
        if not 1 <= len(self.tensors) <= _MAX_TENSORS or not 1 <= len(self.holder) <= _MAX_HOLDER:
            msg = f"variant: {len(self.tensors)} float tensors for {len(self.holder)} characters"
            raise UsageError(
                msg, hint=f"1 to {_MAX_TENSORS} tensors of 64 floats or more, 1 to {_MAX_HOLDER} characters"
            )
        tensors: Json = [
            {
                "count": item.count,
                "kind": item.kind.name,
                "name": item.name,
                "path": item.path,
                "sketch": dump_b64u(item.sketch),
            }
            for item in self.tensors
        ]
        return dump_json(
            {
                "bits": self.bits,
                "created": dump_time(self.created),
                "digest": self.digest,
                "holder": self.holder,
                "model": self.model,
                "tensors": tensors,
                "v": 1,
                "wrapped": dump_b64u(self.wrapped),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse. Proves nothing: that is done by unwrapping the key with ``aad``. Raises ``Malformed``."""
        fields = Fields.parse(data, what="variant record", cap=MAX_RECORD_BYTES, canonical=True)
        fields.integer("v", floor=1, cap=1)
        variant = cls(
            bits=fields.integer("bits", floor=min(STRENGTHS.values()), cap=max(STRENGTHS.values())),
            created=fields.time("created"),
            digest=fields.hex("digest", size=32).hex(),
            holder=fields.text("holder", floor=1, cap=_MAX_HOLDER),
            model=fields.text("model", floor=1, cap=64),
            tensors=tuple(_tensor(item) for item in fields.items("tensors", cap=_MAX_TENSORS)),
            wrapped=fields.b64u("wrapped", cap=_MAX_WRAPPED_BYTES),
        )
        fields.end()
        if len({(item.path, item.name) for item in variant.tensors}) != len(variant.tensors):
            msg = "variant record: a tensor twice"
            raise Malformed(msg)
        return variant


def _tensor(value: Json) -> MarkedTensor:
    fields = Fields(value, what="variant record: tensors")
    kind = fields.text("kind", cap=8)
    if kind not in FloatKind.__members__:
        fields.fail("kind", "want one of " + ", ".join(FloatKind.__members__))
    tensor = MarkedTensor(
        count=fields.integer("count", floor=MIN_ELEMENTS, cap=_MAX_ELEMENTS),
        kind=FloatKind[kind],
        name=fields.text("name", floor=0, cap=1 << 16),
        path=fields.text("path", cap=255),
        sketch=fields.b64u("sketch", size=SKETCH_BYTES),
    )
    fields.end()
    return tensor
