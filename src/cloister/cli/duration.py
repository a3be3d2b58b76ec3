"""Durations as people write them on the command line and in contract files."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

from cloister.errors import UsageError

__all__ = ["DURATION", "parse_duration"]

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str, *, days: int = 31) -> timedelta:
    """Return the duration that ``90``, ``90s``, ``5m``, ``2h`` or ``1d`` is, up to ``days``. Raises ``UsageError``."""
    found = re.fullmatch(r"(\d{1,7})([smhd]?)", text, re.ASCII)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= days * 86_400:
        msg = f"{text[:40]!r}: want a duration such as 90s, 5m, 2h or 1d, at most {days} days"
        raise UsageError(msg)
    return timedelta(seconds=seconds)


class _Duration(click.ParamType[timedelta]):
    """A duration: ``90``, ``90s``, ``5m``, ``2h``, ``1d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration."""
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(str(value))
        except UsageError as exc:
            self.fail(exc.message, param, ctx)


DURATION = _Duration()
