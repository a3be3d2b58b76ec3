"""Members that Intel's published JSON documents share: hex in either case, dates, levels.

Intel signs them and adds members over the years: unknown ones are passed over, double ones refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.attest.intel.tcb import ComponentLevel, TcbStatus
from cloister.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["MAX_LEVELS", "take_advisories", "take_component_levels", "take_each", "take_hex", "take_status"]

MAX_LEVELS = 256  # levels of one document; 30 are usual
MAX_ADVISORIES = 128  # advisories of one level
_ADVISORY = re.compile(r"[A-Z0-9][A-Z0-9-]{2,31}")
_COMPONENT_STATUSES = (TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED)


def take_hex(fields: Fields, name: str, size: int) -> bytes:
    """Return ``size`` bytes of hex. Raises ``Malformed``."""
    return bytes.fromhex(fields.match(name, re.compile(rf"[0-9A-Fa-f]{{{2 * size}}}")))


def take_each(fields: Fields, name: str, *, cap: int = MAX_LEVELS) -> Iterator[Fields]:
    """Yield the objects of an array. Raises ``Malformed``."""
    for item in fields.items(name, cap=cap):
        yield Fields(item, what=name)


def take_status(fields: Fields, known: Collection[TcbStatus]) -> TcbStatus:
    """Return ``tcbStatus``. Raises ``Malformed`` for a word that is none of ``known``: it cannot be judged."""
    word = fields.text("tcbStatus", cap=64)
    status = next((item for item in known if item.value == word), None)
    if status is None:
        fields.fail("tcbStatus", f"unknown status {word!r}")
    return status


def take_advisories(fields: Fields) -> tuple[str, ...]:
    """Return ``advisoryIDs``, none where there are none. Raises ``Malformed``."""
    if "advisoryIDs" not in fields:
        return ()
    found = fields.texts("advisoryIDs", cap=MAX_ADVISORIES, item_cap=32)
    if not all(_ADVISORY.fullmatch(item) for item in found):
        fields.fail("advisoryIDs", "name of an advisory out of form")
    return found


def take_component_levels(fields: Fields) -> tuple[ComponentLevel, ...]:
    """Return ``tcbLevels`` of an enclave or a module. Raises ``Malformed``."""
    return tuple(_take_component_level(item) for item in take_each(fields, "tcbLevels"))


def _take_component_level(fields: Fields) -> ComponentLevel:
    return ComponentLevel(
        isvsvn=fields.fields("tcb").integer("isvsvn", cap=0xFFFF),
        date=fields.time("tcbDate"),
        status=take_status(fields, _COMPONENT_STATUSES),
        advisories=take_advisories(fields),
    )
