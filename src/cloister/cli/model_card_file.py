"""The file of a model card, as commands that seal take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import UsageError
from cloister.wire import Json, parse_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_card"]

_MAX_CARD_BYTES = 64 * 1024


def read_card(path: Path | None) -> Json:
    """Return the card, an empty one for no file. Raises ``UsageError``, ``Malformed``."""
    if path is None:
        return {}
    try:
        data = path.read_bytes()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    return parse_json(data, what=f"card {path.name}", cap=_MAX_CARD_BYTES)
