"""Alerts and dashboard as they are shipped: every metric, label and value in them is in a table of the source."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cloister.custodian.metrics import ALARMS, CustodianMetrics
from cloister.relay.metrics import RelayMetrics
from cloister.telemetry.listener import MetricsListener, MetricsPlace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.telemetry.registry import Family

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "observability"
ALERTS = FOLDER / "alerts.yml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
BOARD: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
PANELS = BOARD["panels"]
EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel.get("targets", [])
    },
}
OF_PROMETHEUS = {"instance", "job", "le"}
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")


def promtool_says(*words: str) -> None:
    """Run Prometheus' own tool; it must have nothing to say against us."""
    done = subprocess.run(["promtool", *words], check=False, capture_output=True, text=True)  # noqa: S603, S607 - Debian's
    assert done.returncode == 0, done.stdout + done.stderr


def families() -> tuple[Mapping[str, Family], Mapping[str, set[str]]]:
    """Return every family of every server, and all values of every label."""
    spec = importlib.util.spec_from_file_location("metrics_page", ROOT / "scripts" / "pages" / "metrics_page.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found: dict[str, Family] = {}
    values: dict[str, set[str]] = {}
    for _, metrics, labels in script.tables().values():
        found |= metrics
        for label, named in labels.items():
            values.setdefault(label, set()).update(named)
    return found, values


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield every metric of an expression with its matchers."""
    for match in re.finditer(r"(cloister_[a-z0-9_]+)(?:\{([^}]*)\})?", expression):
        matchers = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', match[2] or "")
        yield match[1], [(label, how, value) for label, how, value in matchers]


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_every_metric_label_and_value_is_in_a_table(name: str) -> None:
    known, values = families()
    expression = EXPRESSIONS[name]
    found = list(selectors(expression))
    assert found, "an expression over nothing of ours"
    for metric, matchers in found:
        family = known.get(metric) or known[re.sub(r"_(bucket|sum|count)$", "", metric)]
        assert (metric in known) is (family.kind.value != "histogram"), metric
        for label, _, value in matchers:
            assert label in {*family.labels, *OF_PROMETHEUS}, f"{metric} has no label {label}"
            if label not in OF_PROMETHEUS:
                assert set(value.split("|")) <= values[label], f"{label}={value}"
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        labels = {label.strip() for label in grouped.split(",")}
        allowed = {label for metric, _ in found for label in known.get(metric, known.get(_bare(metric))).labels}  # type: ignore[union-attr]  # one of both
        assert labels <= allowed | OF_PROMETHEUS


def _bare(metric: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", metric)


def test_every_alert_is_named_once_and_says_what_it_means_and_how_bad_it_is() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names)) > 20
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert 10 < len(rule["annotations"]["summary"]) < 90


def test_what_a_custodian_alarms_about_prometheus_does_too() -> None:
    words = " ".join(rule["alert"] for rule in RULES)
    alike = {
        "attestations_failing": "AttestationsFailing", "heartbeat_missing": "HeartbeatMissing", "key_old": "KeyOld",
        "clock_anomaly": "ClockAnomaly", "fork_detected": "ForkDetected", "allowance_low": "AllowanceLow",
        "requests_waiting": "RequestsWaiting", "certificate_ending": "CertificateEnding", "disk_low": "DiskLow",
        "endorsements_ending": "EndorsementsEnding", "witness_behind": "WitnessBehind", "unhealthy": "Unhealthy",
        "checkpoint_stale": "CheckpointStale", "extraction": "Extraction", "vault_failing": "VaultErrors",
    }  # fmt: skip
    assert set(alike) == ALARMS
    assert all(f"Cloister{name}" in words or f"Custodian{name}" in words for name in alike.values())


def test_the_page_lists_every_alert() -> None:
    page = (ROOT / "docs" / "reference" / "observability.md").read_text()
    assert {rule["alert"] for rule in RULES} == set(re.findall(r"`(Cloister\w+)`", page))


@promtool
def test_promtool_accepts_the_alerts_and_they_fire_when_they_should(tmp_path: Path) -> None:
    promtool_says("check", "rules", str(ALERTS))
    story = tmp_path / "story.yml"
    story.write_text((Path(__file__).parent / "alerts_test.yml").read_text().replace("ALERTS", str(ALERTS)))
    promtool_says("test", "rules", str(story))


@promtool
def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(EXPRESSIONS.values())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool_says("check", "rules", str(path))


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    assert BOARD["uid"] == "cloister"
    assert BOARD["schemaVersion"] >= 36
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
    variables = {item["name"] for item in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(PANELS)))
    assert used <= variables


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_a_real_prometheus_scrapes_us_and_loads_the_alerts(tmp_path: Path) -> None:
    """Two servers of ours, one with a token, behind a Prometheus with the shipped rules: it reads both."""
    asyncio.run(_scraped(tmp_path))


async def _scraped(folder: Path) -> None:
    custodian, relay = CustodianMetrics(["simulated"]), RelayMetrics()
    custodian.set("cloister_custodian_instances_late", 1)
    secret = "scraper-0123456789"  # noqa: S105 - for a test
    (folder / "token").write_text(secret)
    async with (
        MetricsListener(MetricsPlace(host="127.0.0.1", port=0, token=secret), custodian) as first,
        MetricsListener(MetricsPlace(host="127.0.0.1", port=0), relay) as second,
    ):
        targets = [shown.url.removeprefix("http://").removesuffix("/metrics") for shown in (first, second)]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {"job_name": "custodian", "authorization": {"credentials_file": str(folder / "token")},
                 "static_configs": [{"targets": targets[:1]}]},
                {"job_name": "relay", "static_configs": [{"targets": targets[1:]}]},
            ],
        }  # fmt: skip
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        found = await asyncio.to_thread(_ask_prometheus, folder)
    assert {target["health"] for target in found["targets"]} == {"up"}, found
    assert "CloisterHeartbeatMissing" in found["alerts"]


def _ask_prometheus(folder: Path) -> dict[str, Any]:
    """Run Prometheus until it has scraped both and evaluated the rules; return what it says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)  # noqa: S603 - Debian's
        try:
            end = time.monotonic() + 40
            found: dict[str, Any] = {"targets": [], "alerts": set()}
            while time.monotonic() < end:
                time.sleep(0.5)
                try:
                    found = _asked(port)
                except OSError:
                    continue
                if found["alerts"] and all(target["health"] == "up" for target in found["targets"]):
                    break
            return found
        finally:
            process.terminate()
            process.wait(10)


def _asked(port: int) -> dict[str, Any]:
    def get(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=5) as answer:
            return json.load(answer)["data"]

    alerts = {alert["labels"]["alertname"] for alert in get("alerts")["alerts"]}
    return {"targets": get("targets")["activeTargets"], "alerts": alerts}
