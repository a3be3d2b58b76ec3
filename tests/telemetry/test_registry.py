"""Metrics: closed sets of labels, exact numbers, and two formats that other people's readers read."""

from __future__ import annotations

import shutil
import subprocess
import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from cloister.errors import UsageError
from cloister.telemetry.exposition import (
    OPENMETRICS_TYPE,
    PROMETHEUS_TYPE,
    negotiated,
    openmetrics_text,
    prometheus_text,
)
from cloister.telemetry.registry import Bars, Registry, Together, counter, gauge, histogram

FAMILIES = {
    "cloister_asks_total": counter("Asked.", "code"),
    "cloister_pairs_total": counter("Asked by two.", "route", "code"),
    "cloister_level": gauge('A level, with "quotes" and a \\.'),
    "cloister_took_seconds": histogram("Took.", "route", buckets=(0.1, 1.0)),
}
SENT_BY_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
LABELS = {"code": {"ok", "late"}, "route": {"GET /v1/loans/{loan}", 'a "b"'}}


def made() -> Registry:
    return Registry(FAMILIES, LABELS)


def test_a_value_that_is_in_no_set_raises_whatever_is_done_with_it() -> None:
    registry = made()
    for name, label in (
        ("cloister_asks_total", "alice@example.org"),
        ("cloister_asks_total", ""),
        ("cloister_asks_total", ("ok",)),
        ("cloister_pairs_total", "ok"),
        ("cloister_pairs_total", ("ok", 'a "b"')),
        ("cloister_none_total", "ok"),
    ):
        for use in (registry.add, registry.set):
            with pytest.raises(UsageError):
                use(name, 1, label)
        with pytest.raises(UsageError):
            registry.value(name, label)
    with pytest.raises(UsageError):
        registry.observe("cloister_took_seconds", 1, "other")
    with pytest.raises(UsageError):
        registry.observe("cloister_asks_total", 1, "ok")
    with pytest.raises(UsageError):
        registry.add("cloister_took_seconds", 1, 'a "b"')
    assert "alice" not in prometheus_text(registry)


def test_what_is_hidden_is_counted_and_shown_to_nobody() -> None:
    registry = made()
    registry.hide("cloister_asks_total")
    registry.add("cloister_asks_total", 1, "ok")
    assert registry.value("cloister_asks_total", "ok") == 1
    for text in (prometheus_text(registry), openmetrics_text(registry)):
        assert "cloister_asks" not in text
        assert "cloister_pairs" in text
    with pytest.raises(UsageError):
        registry.hide("cloister_absent_total")


def test_registries_together_are_one_text_and_no_family_is_in_two() -> None:
    other = Registry({"cloister_left": gauge("Left.")})
    both = Together(made())
    both.join(other)
    other.set("cloister_left", 7)
    assert prometheus_text(both) == prometheus_text(made()) + prometheus_text(other)
    assert openmetrics_text(both).count("# EOF") == 1
    with pytest.raises(UsageError, match="twice"):
        both.join(made())


def test_a_set_is_closed_unless_the_table_says_that_it_grows() -> None:
    with pytest.raises(UsageError):
        made().grow("code", ["other"])
    with pytest.raises(UsageError):
        made().grow("", ["other"])
    registry = Registry({"cloister_left": gauge("Left.", "loan")}, {"loan": ()}, growing=frozenset({"loan"}))
    assert prometheus_text(registry).count("\n") == 2
    registry.grow("loan", ["loan-a", "loan-b"])
    registry.set("cloister_left", 7, "loan-a")
    registry.grow("loan", ["loan-a", "loan-c"])
    assert registry.value("cloister_left", "loan-a") == 7
    assert registry.value("cloister_left", "loan-c") == 0
    with pytest.raises(UsageError):
        registry.grow("loan", ["loan\n"])


@pytest.mark.parametrize(
    ("families", "labels"),
    [
        ({"other_total": counter("No prefix.")}, {}),
        ({"cloister_asks": counter("No suffix.")}, {}),
        ({"cloister_asks_total": gauge("A gauge named as a counter.")}, {}),
        ({"cloister_asks_total": counter("A label of no set.", "code")}, {}),
        ({"cloister_took": histogram("Bounds out of order.", buckets=(2.0, 1.0))}, {}),
        ({"cloister_took": histogram("No bounds.", buckets=())}, {}),
        ({"cloister_asks_total": counter("A value with a line break.", "code")}, {"code": {"a\nb"}}),
        ({"cloister_asks_total": counter("Too many.", "code")}, {"code": {str(number) for number in range(20_001)}}),
    ],
)
def test_a_table_that_nobody_could_read_is_refused(families: dict[str, object], labels: dict[str, set[str]]) -> None:
    with pytest.raises(UsageError):
        Registry(families, labels)  # type: ignore[arg-type]  # families of every kind


def test_every_series_begins_at_zero_and_large_counts_stay_exact() -> None:
    registry = made()
    assert registry.value("cloister_asks_total", "late") == 0
    registry.add("cloister_asks_total", 123_456_789_012, "ok")
    registry.add("cloister_asks_total", 1, "ok")
    registry.set("cloister_level", 0.1 + 0.2)
    text = prometheus_text(registry)
    assert 'cloister_asks_total{code="ok"} 123456789013\n' in text
    assert "cloister_level 0.30000000000000004\n" in text


def test_a_bound_counts_to_its_own_bar_and_bars_add_up() -> None:
    registry = made()
    for value in (0.05, 0.1, 0.5, 5.0):
        registry.observe("cloister_took_seconds", value, 'a "b"')
    assert registry.bars("cloister_took_seconds", 'a "b"') == Bars(counts=(2, 1, 1), sum=5.65)
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in read_openmetrics(openmetrics_text(registry))
        for sample in family.samples
        if sample.labels.get("route") == 'a "b"'
    }
    assert samples["cloister_took_seconds_bucket", "0.1"] == 2
    assert samples["cloister_took_seconds_bucket", "1.0"] == 3
    assert samples["cloister_took_seconds_bucket", "+Inf"] == 4 == samples["cloister_took_seconds_count", None]
    assert samples["cloister_took_seconds_sum", None] == 5.65


def test_both_formats_say_the_same_to_a_reader_that_is_not_ours() -> None:
    registry = made()
    registry.add("cloister_pairs_total", 3, ("GET /v1/loans/{loan}", "late"))
    registry.set("cloister_level", -1.5)
    read = [
        {(one.name, *sorted(one.labels.items())): one.value for item in families for one in item.samples}
        for families in (read_prometheus(prometheus_text(registry)), read_openmetrics(openmetrics_text(registry)))
    ]
    assert read[0] == read[1]
    assert read[0]["cloister_pairs_total", ("code", "late"), ("route", "GET /v1/loans/{loan}")] == 3
    assert read[0]["cloister_level",] == -1.5


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_own_tool_has_nothing_to_complain_about() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],  # noqa: S607 - as its package installs it
        input=prometheus_text(made()), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "error" not in (done.stdout + done.stderr).lower()
    assert done.returncode in {0, 3}, done.stderr  # 3: advice on names


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", PROMETHEUS_TYPE),
        ("*/*", PROMETHEUS_TYPE),
        ("text/plain;version=0.0.4", PROMETHEUS_TYPE),
        ("application/openmetrics-text", OPENMETRICS_TYPE),
        (SENT_BY_PROMETHEUS, OPENMETRICS_TYPE),
        ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", PROMETHEUS_TYPE),
        ("application/openmetrics-text;q=0", PROMETHEUS_TYPE),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.8", PROMETHEUS_TYPE),
        ("application/openmetrics-text; q=nan, ;;,=", OPENMETRICS_TYPE),
        ("x" * 100_000, PROMETHEUS_TYPE),
    ],
)
def test_the_format_is_the_one_that_the_reader_likes_best(accept: str, kind: str) -> None:
    found, text = negotiated(made(), accept)
    assert found == kind
    assert text.endswith("# EOF\n") is (kind == OPENMETRICS_TYPE)


def test_counts_from_many_threads_are_all_there() -> None:
    registry = made()

    def work() -> None:
        for _ in range(2000):
            registry.add("cloister_asks_total", 1, "ok")
            registry.observe("cloister_took_seconds", 0.2, 'a "b"')

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.value("cloister_asks_total", "ok") == 16_000
    assert sum(registry.bars("cloister_took_seconds", 'a "b"').counts) == 16_000
