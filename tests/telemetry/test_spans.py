"""Spans: attributes of a closed table, sampling by us alone, sent to where the settings say and nowhere else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any

import pytest
from otlp_receiver import Receiver, attributes

from cloister.errors import Rejected, UsageError
from cloister.telemetry.otlp import OtlpSpans, TracesPlace, parse_traces_place
from cloister.telemetry.spans import ATTRIBUTES, TraceParent, parse_traceparent, spanned

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def spans_to(receiver: Receiver, percent: int = 100) -> OtlpSpans:
    return OtlpSpans(parse_traces_place(receiver.url, percent), service="cloister-test", version="1")


def test_a_trace_arrives_whole_with_names_and_attributes_of_the_table() -> None:
    with Receiver() as receiver:
        spans = spans_to(receiver)
        with spans.span("enclave.boot"), spans.span("enclave.attest", {"cloister.tee": "simulated"}) as inner:
            inner.note({"cloister.models": 2})
        spans.close()
        outer, inner_seen = receiver.named("enclave.boot")[0], receiver.named("enclave.attest")[0]
        assert inner_seen.parent_span_id == outer.span_id
        assert inner_seen.trace_id == outer.trace_id
        assert attributes(inner_seen) == {"cloister.tee": "simulated", "cloister.models": 2}
        told = {item.key: item.value.string_value for item in receiver.resources[0].attributes}
        assert told == {"service.name": "cloister-test", "service.version": "1"}


def test_an_error_is_told_by_its_code_and_never_by_its_text() -> None:
    with Receiver() as receiver:
        spans = spans_to(receiver)
        for error in (Rejected.because("nonce_used", "canary-subject", got="canary-got"), ValueError("canary-text")):
            with contextlib.suppress(Rejected, ValueError), spans.span("evidence.verify"):
                raise error
        spans.close()
        assert [attributes(span)["error.type"] for span in receiver.spans] == ["nonce_used", "internal"]
        assert all(span.status.code == 2 and not span.status.message and not span.events for span in receiver.spans)
        assert b"canary" not in b"".join(receiver.raw)


@pytest.mark.parametrize(
    "bad",
    [
        {"enduser.id": "alice"},
        {"gen_ai.input.messages": "what is wrong with me"},
        {"gen_ai.request.model": "a model with blanks"},
        {"cloister.units": "12"},
        {"cloister.units": True},
        {"cloister.tee": 5},
        {"http.route": "/v1/loans/loan-x?token=y"},
        {"error.type": "Something went wrong: alice@example.org"},
    ],
)
def test_what_is_not_in_the_table_or_not_in_its_form_cannot_be_written(bad: dict[str, Any]) -> None:
    with Receiver() as receiver:
        spans = spans_to(receiver)
        with pytest.raises(UsageError) as caught, spans.span("enclave.boot", bad):
            pass
        assert "alice" not in str(caught.value)
        with pytest.raises(UsageError), spans.span("enclave.boot") as span:
            span.note(bad)
        with pytest.raises(UsageError), spans.span("a name with blanks"):
            pass
        spans.close()
        assert b"alice" not in b"".join(receiver.raw)


def test_no_attribute_could_hold_content() -> None:
    """Each is a number or short and of few characters: no blank, no quotation, no at sign fits anywhere."""
    for name, form in ATTRIBUTES.items():
        if isinstance(form, type):
            continue
        for text in ("alice@example.org", "two words", "\n", "x" * 300, '{"a":1}', "Ω"):
            assert form.fullmatch(text) is None, name


@pytest.mark.parametrize(
    "text",
    [
        None, "", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TRACE.upper(), TRACE + "-x", TRACE[:-1], "x" * 1000,
    ],
)  # fmt: skip
def test_a_traceparent_that_is_none_is_no_parent(text: str | None) -> None:
    assert parse_traceparent(text) is None


def test_a_traceparent_names_a_trace_and_decides_nothing() -> None:
    parent = parse_traceparent(TRACE)
    assert parent == TraceParent(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    with Receiver() as receiver:
        spans = spans_to(receiver)
        with spans.span("enclave.boot"), spans.span("infer m", parent=parent):
            pass
        spans.close()
        found = receiver.named("infer m")[0]
        assert found.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
        assert found.parent_span_id.hex() == "b7ad6b7169203331"
        assert not found.trace_state


def test_who_chooses_the_trace_id_does_not_choose_what_is_sampled() -> None:
    """An id of zeros would be sampled by every rule that looks at the id, one of all ones by none."""
    with Receiver() as receiver:
        spans = spans_to(receiver, percent=50)
        for number in range(200):
            low = TraceParent(1 + number, 1)
            with spans.span("infer low", parent=low), spans.span("lease.renew"):
                pass
            with spans.span("infer high", parent=TraceParent((1 << 128) - 1 - number, 1)):
                pass
        spans.close()
        assert 50 < len(receiver.named("infer low")) < 150
        assert 50 < len(receiver.named("infer high")) < 150
        whole = {span.span_id for span in receiver.named("infer low")}
        assert {span.parent_span_id for span in receiver.named("lease.renew")} == whole, "a trace is whole or not there"


def test_no_variable_of_the_environment_decides_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver, Receiver() as other:
        for name, value in {
            "OTEL_EXPORTER_OTLP_ENDPOINT": other.url, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": other.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary", "OTEL_RESOURCE_ATTRIBUTES": "host.name=canary",
            "OTEL_SERVICE_NAME": "canary", "OTEL_TRACES_SAMPLER": "always_off", "OTEL_BSP_MAX_QUEUE_SIZE": "1",
            "HTTP_PROXY": other.url, "http_proxy": other.url,
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        spans = spans_to(receiver)
        with spans.span("enclave.boot"):
            pass
        spans.close()
        assert len(receiver.spans) == 1
        assert other.raw == []
        assert b"canary" not in b"".join(receiver.raw) + str(receiver.heads).encode()


def test_a_collector_that_refuses_or_is_not_there_costs_nobody_an_answer() -> None:
    with Receiver(status=503) as receiver:
        refused = spans_to(receiver)
        with refused.span("enclave.boot"):
            pass
        refused.close()
    gone = OtlpSpans(TracesPlace(endpoint="http://127.0.0.1:9/v1/traces"), service="cloister-test", version="1")
    for _ in range(5000):
        with gone.span("enclave.boot"):
            pass
    gone.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://collector.example:4318",
        "ftp://127.0.0.1",
        "https://",
        "https://u:p@host",
        "https://h/?a=b",
        "http://[::1",
    ],
)
def test_plain_http_is_for_this_machine_alone(url: str) -> None:
    with pytest.raises(UsageError):
        parse_traces_place(url, 100)
    assert (
        parse_traces_place("https://collector.example/otlp/", 5).endpoint == "https://collector.example/otlp/v1/traces"
    )


def test_without_a_place_a_span_is_nothing() -> None:
    with spanned(None, "whatever it is called") as span:
        span.note({"anything": 1})


WITHOUT = """
import sys
class Nobody:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ImportError(name)
sys.meta_path.insert(0, Nobody())
import cloister.enclave.serve, cloister.custodian.serve
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
from cloister.errors import UsageError
try:
    import cloister.telemetry.otlp
except UsageError as exc:
    print(exc.hint)
"""


def test_without_the_extra_nothing_is_loaded_and_asking_for_it_says_how() -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True, env=dict(os.environ)
    )  # fmt: skip
    assert done.stdout.strip() == "pip install 'cloister[otel]'"
