"""Spans over OTLP/HTTP, by OpenTelemetry's SDK: the one file that needs the extra ``otel`` (ADR 0049).

What is sent, where and how often is said by settings alone: no variable of the environment counts, no header or trace
of a caller decides what is sampled. A collector that does not answer costs nobody anything: spans are dropped.

Not done here: metrics and logs over OTLP.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2

from cloister.errors import CloisterError, Rejected, UsageError
from cloister.telemetry.spans import SEMCONV, TraceParent, verify_attributes, verify_name

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
except ImportError as exc:  # pragma: no cover - the tests have the extra
    raise UsageError("traces: opentelemetry is not installed", hint="pip install 'cloister[otel]'") from exc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from cloister.telemetry.spans import Attribute, Span

__all__ = ["OtlpSpans", "TracesPlace", "parse_traces_place"]

_PATH = "/v1/traces"
_TIMEOUT_S = 5
_QUEUE, _BATCH, _EVERY_MS = 2048, 256, 2000
_NEVER_SEEN = 0  # of events, links and attributes that the table does not have


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesPlace:
    """Where spans go, and how many of a hundred traces do."""

    endpoint: str
    percent: int = 100


def parse_traces_place(url: str, percent: int) -> TracesPlace:
    """Return the collector at a base URL. Raises ``UsageError``, also for plain http beyond this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as exc:
        msg = "traces: not a url"
        raise UsageError(msg) from exc
    plain = parts.scheme == "http" and _is_loopback(host)
    if not host or "@" in parts.netloc or parts.query or parts.fragment or not (parts.scheme == "https" or plain):
        msg = "traces: want https://HOST[:PORT] of a collector"
        raise UsageError(msg, hint="plain http is for a collector on this machine")
    return TracesPlace(endpoint=url.rstrip("/") + _PATH, percent=percent)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class OtlpSpans:
    """Makes spans and sends them. Threads and tasks may share one."""

    def __init__(self, place: TracesPlace, *, service: str, version: str) -> None:
        """Send to ``place`` as ``service``; a thread of its own sends."""
        resource = Resource({"service.name": service, "service.version": version}, SEMCONV)
        limits = SpanLimits(
            max_span_attributes=32, max_events=_NEVER_SEEN, max_links=_NEVER_SEEN, max_event_attributes=_NEVER_SEEN,
            max_link_attributes=_NEVER_SEEN, max_span_attribute_length=160, max_attribute_length=160, max_attributes=32,
        )  # fmt: skip
        self._provider = TracerProvider(
            resource=resource, sampler=_Ours(place.percent / 100), span_limits=limits, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                _Sender(place.endpoint),
                max_queue_size=_QUEUE,
                schedule_delay_millis=_EVERY_MS,
                max_export_batch_size=_BATCH,
                export_timeout_millis=_TIMEOUT_S * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("cloister", version, schema_url=SEMCONV)

    @contextlib.contextmanager
    def span(
        self, name: str, attributes: Mapping[str, Attribute] | None = None, *, parent: TraceParent | None = None
    ) -> Iterator[Span]:
        """Run a span (``Spans.span``)."""
        verify_name(name)
        verify_attributes(attributes or {})
        with self._tracer.start_as_current_span(
            name,
            context=None if parent is None else _within(parent),
            attributes=dict(attributes or {}),
            record_exception=False,  # its text may say what nobody should read
            set_status_on_exception=False,
        ) as span:
            running = _Running(span)
            try:
                yield running
            except BaseException as exc:
                running.note({"error.type": _kind(exc)})
                span.set_status(trace.Status(trace.StatusCode.ERROR))
                raise

    def close(self) -> None:
        """Send what waits (``Spans.close``)."""
        self._provider.force_flush(_TIMEOUT_S * 1000)
        self._provider.shutdown()


class _Running:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, attributes: Mapping[str, Attribute]) -> None:
        """Add attributes (``Span.note``)."""
        verify_attributes(attributes)
        self._span.set_attributes(dict(attributes))


def _kind(error: BaseException) -> str:
    if isinstance(error, Rejected):
        return error.code
    return error.fault if isinstance(error, CloisterError) else "internal"


def _within(parent: TraceParent) -> Context:
    """Return a context of somebody else's trace, and of nothing that runs here."""
    remote = trace.SpanContext(parent.trace_id, parent.span_id, is_remote=True)
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())


class _Ours(Sampler):
    """Decides by our own randomness: who chose the trace id, or a flag, chooses nothing. A trace is whole or not."""

    def __init__(self, ratio: float) -> None:
        """Sample so many traces of one."""
        self._ratio = ratio

    def should_sample(  # noqa: PLR0917 - as the library calls it
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: object = None,
        attributes: Any = None,
        links: object = None,
        trace_state: object = None,
    ) -> SamplingResult:
        """Decide; the trace id is the caller's choice, and so are flags and state that came with it."""
        del trace_id, name, kind, links, trace_state
        parent = trace.get_current_span(parent_context).get_span_context()
        if parent.is_valid and not parent.is_remote:
            sampled = parent.trace_flags.sampled
        else:
            sampled = random.random() < self._ratio  # noqa: S311 - no secret
        decision = Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP
        return SamplingResult(decision, attributes)

    def get_description(self) -> str:
        """Name it."""
        return "cloister"


class _Sender(SpanExporter):
    """Posts spans as OTLP protobuf. No redirect, no proxy and no authority of the environment."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._client = httpx2.Client(timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Post them once; what does not get through is dropped."""
        body = encode_spans(spans).SerializeToString()
        headers = {"content-type": "application/x-protobuf", "user-agent": "cloister"}
        try:
            answer = self._client.post(self._endpoint, content=body, headers=headers)
        except httpx2.HTTPError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS if answer.is_success else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the connection."""
        self._client.close()
