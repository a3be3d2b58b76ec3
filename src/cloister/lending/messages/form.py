"""What several messages share: units per meter, reasons, lists of models and consumers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cloister.lending.terms import (
    DIGEST,
    MAX_CONSUMERS,
    MAX_MODELS,
    MAX_STANDING,
    MAX_UNITS,
    METER,
    NAME,
    Consumer,
    ConsumerId,
    InstanceId,
    Meter,
    ModelDigest,
)
from cloister.wire import Fields, Json

if TYPE_CHECKING:
    from collections.abc import Mapping

Units: TypeAlias = "Mapping[Meter, int]"
"""Units per meter, 0 to ``MAX_UNITS``."""

_MAX_METERS = 1 + MAX_MODELS + MAX_CONSUMERS
DIGEST_BYTES = 32
MAX_KEM_BYTES = 2048
MAX_SOFTWARE_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 1 << 20


def units_json(units: Units) -> Json:
    """Return units as the JSON object of docs/spec/lease.md."""
    return {str(meter): count for meter, count in units.items()}


def take_units(fields: Fields, name: str) -> dict[Meter, int]:
    """Return the units in member ``name``; an unknown kind of meter is ``Malformed``."""
    members = fields.members(name, cap=_MAX_METERS)
    inner = Fields(members, what=name)
    for meter in members:
        if not METER.fullmatch(meter):
            fields.fail(name, "unknown meter")
    return {Meter(meter): inner.integer(meter, cap=MAX_UNITS) for meter in members}


def open_payload(data: bytes, what: str, *, version: int = 1, cap: int = _MAX_MESSAGE_BYTES) -> Fields:
    """Return the members of a canonical payload of this version, of at most ``cap`` bytes."""
    fields = Fields.parse(data, what=what, cap=cap, canonical=True)
    fields.literal("v", version)
    return fields


def take_instance(fields: Fields) -> InstanceId:
    """Return the instance id in member ``instance``."""
    return InstanceId(fields.match("instance", DIGEST))


def take_models(fields: Fields) -> tuple[ModelDigest, ...]:
    """Return the digests in member ``models``."""
    digests = fields.texts("models", cap=MAX_STANDING, item_cap=64)
    if not all(DIGEST.fullmatch(digest) for digest in digests):
        fields.fail("models", "want sha-256 digests")
    return tuple(ModelDigest(digest) for digest in digests)


def take_consumer(fields: Fields) -> ConsumerId | None:
    """Return the id in member ``consumer``; null means nobody in particular."""
    value = fields.take("consumer")
    return None if value is None else ConsumerId(Fields({"consumer": value}, what="consumer").match("consumer", NAME))


def take_consumers(fields: Fields) -> tuple[Consumer, ...] | None:
    """Return the consumers in member ``consumers``; null means anybody."""
    value = fields.take("consumers")
    if value is None:
        return None
    items = Fields({"consumers": value}, what="lease").items("consumers", cap=MAX_CONSUMERS)
    return tuple(Consumer.from_json(item) for item in items)
