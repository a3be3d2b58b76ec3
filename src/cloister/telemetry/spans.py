"""Spans: what took how long, with attributes from a closed table (docs/reference/observability.md, "Traces").

Every attribute has a form; free text, inputs, outputs, tokens and consumers have none, so they cannot be written.
Names follow OpenTelemetry's semantic conventions 1.44, GenAI ones among them, where those have one. What exports spans
is in ``otlp``, of the extra ``otel``; without it, or without a place to send them to, there is None in its stead.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

__all__ = [
    "ATTRIBUTES",
    "SEMCONV",
    "Attribute",
    "Span",
    "Spans",
    "TraceParent",
    "parse_traceparent",
    "spanned",
    "verify_attributes",
    "verify_name",
]

SEMCONV = "https://opentelemetry.io/schemas/1.44.0"
Attribute: TypeAlias = "str | int | bool"

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}|[45][0-9]{2}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")
ATTRIBUTES: Mapping[str, re.Pattern[str] | type[int | bool]] = {
    "cloister.models": int,
    "cloister.result": _WORD,
    "cloister.tee": re.compile(r"[a-z][a-z0-9_-]{0,31}"),
    "cloister.units": int,
    "error.type": _CODE,
    "gen_ai.operation.name": _WORD,
    "gen_ai.provider.name": _WORD,
    "gen_ai.request.model": re.compile(r"[a-z0-9._-]{1,64}"),
    "gen_ai.usage.input_tokens": int,
    "gen_ai.usage.output_tokens": int,
    "http.request.method": re.compile(r"GET|HEAD|POST|DELETE"),
    "http.response.status_code": int,
    "http.route": re.compile(r"/[A-Za-z0-9_{}./-]{0,127}"),
}
"""The allow-list: every attribute that a span may have, and its form. A route is a template, never a path."""
_NAME = re.compile(r"[a-z_]+(?:\.[a-z_]+)*|(?:GET|POST|DELETE) /[A-Za-z0-9_{}./-]{0,127}|infer [a-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Span(Protocol):
    """A span that runs."""

    def note(self, attributes: Mapping[str, Attribute]) -> None:
        """Add attributes. Raises ``UsageError`` for one that is not in the table, or not in its form."""
        ...


class Spans(Protocol):
    """Where spans go."""

    def span(
        self, name: str, attributes: Mapping[str, Attribute] | None = None, *, parent: TraceParent | None = None
    ) -> AbstractContextManager[Span]:
        """Run a span while the block runs, inside the one around it, or as part of somebody else's trace.

        An exception is noted by its kind and goes on. Raises ``UsageError`` as ``Span.note``.
        """
        ...

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        ...


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Whose trace a span is part of (W3C Trace Context). Its sampling flag is not here: it decides nothing."""

    trace_id: int
    span_id: int


def parse_traceparent(text: str | None) -> TraceParent | None:
    """Return the parent that a ``traceparent`` field names; None for none, and for all that is not of version 00."""
    found = None if text is None else _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    trace_id, span_id = int(found[1], 16), int(found[2], 16)
    return TraceParent(trace_id, span_id) if trace_id and span_id else None


def verify_name(name: str) -> None:
    """Prove that a span's name is in its form. Raises ``UsageError``."""
    if not _NAME.fullmatch(name):
        msg = "span: name is not in its form"
        raise UsageError(msg)


def verify_attributes(attributes: Mapping[str, Attribute]) -> None:
    """Prove that every attribute is allowed and in its form. Raises ``UsageError``, and never shows a value."""
    for name, value in attributes.items():
        form = ATTRIBUTES.get(name)
        if form is None:
            msg = f"span: attribute {name[:64]!r} is not in the table"
            raise UsageError(msg)
        fits = form.fullmatch(str(value)) is not None if isinstance(form, re.Pattern) else type(value) is form
        if not fits or (isinstance(form, re.Pattern) and not isinstance(value, str)):
            msg = f"span: attribute {name} is not in its form"
            raise UsageError(msg)


class _Nothing:
    """A span that nobody sees."""

    def note(self, attributes: Mapping[str, Attribute]) -> None:
        """Forget them."""


_NOTHING = contextlib.nullcontext(_Nothing())


def spanned(
    spans: Spans | None, name: str, attributes: Mapping[str, Attribute] | None = None
) -> AbstractContextManager[Span]:
    """Return a span where spans go anywhere, else a block that costs nothing."""
    return _NOTHING if spans is None else spans.span(name, attributes)
