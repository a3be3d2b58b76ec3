"""Where a server shows its metrics: the options that name the place, and the place they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.telemetry.listener import MetricsPlace

__all__ = ["metrics_options", "metrics_place"]

F = TypeVar("F", bound="Callable[..., Any]")


def metrics_options(command: F) -> F:
    """Add ``--metrics`` and ``--metrics-token-file``."""
    path = click.Path(path_type=Path, dir_okay=False)
    text = "File with the token a scraper shows (mode 0600)."
    command = click.option("--metrics-token-file", type=path, help=text)(command)
    return click.option("--metrics", metavar="HOST:PORT", help="Show metrics at this address of their own.")(command)


def metrics_place(metrics: str | None, token_file: Path | None) -> MetricsPlace | None:
    """Return the place that the options name, None for nowhere. Raises ``UsageError``."""
    from cloister.telemetry.listener import parse_metrics_place, read_metrics_token  # noqa: PLC0415 - of servers alone

    if metrics is None:
        if token_file is not None:
            msg = "--metrics-token-file: want --metrics too"
            raise UsageError(msg)
        return None
    return parse_metrics_place(metrics, None if token_file is None else read_metrics_token(token_file))
