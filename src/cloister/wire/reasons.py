"""The reasons of a rejection as JSON, in messages, problem documents and what commands print."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.errors import Reason
from cloister.wire.fields import Fields

if TYPE_CHECKING:
    from cloister.wire.json import Json

__all__ = ["CODE", "reason_json", "take_reasons"]

CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_REASONS = 64


def reason_json(reason: Reason) -> Json:
    """Return one reason as a JSON object."""
    return {"code": reason.code, "got": reason.got, "subject": reason.subject, "want": reason.want}


def take_reasons(fields: Fields, name: str) -> tuple[Reason, ...]:
    """Return the reasons in member ``name``. Raises ``Malformed``."""
    reasons = []
    for item in fields.items(name, cap=_MAX_REASONS):
        entry = Fields(item, what="reason")
        reasons.append(
            Reason(
                code=entry.match("code", CODE),
                subject=entry.text("subject"),
                got=entry.text("got"),
                want=entry.text("want"),
            )
        )
        entry.end()
    return tuple(reasons)
