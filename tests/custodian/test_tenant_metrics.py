"""A tenant's metrics: its own, for its own staff, with nothing of another tenant and nothing of the host (T79, T85)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from custodian_kit import Bench, bearer
from tenant_kit import HostBench, answer_of

from cloister.custodian.metrics import METRICS
from cloister.custodian.routes import ROUTES
from cloister.telemetry.exposition import OPENMETRICS_TYPE, PROMETHEUS_TYPE, prometheus_text
from cloister.verifier.metrics import METRICS as OF_THE_SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAFF = ("admin", "lender", "auditor", "viewer")
OF_THE_HOST = {"cloister_custodian_certificate_seconds_left", "cloister_custodian_disk_free_bytes"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostBench]:
    with HostBench(tmp_path) as made:
        yield made


def samples(text: str) -> dict[str, float]:
    """Return every series with its value."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def families(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def test_each_tenants_staff_reads_its_own_numbers(host: HostBench) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    acme.lend(allowance=7).boot()
    zenith.lend(allowance=1000)
    for role in STAFF:
        mine, theirs = (samples(bench.get("/v1/metrics", bench.token(role)).text) for bench in (acme, zenith))
        assert mine["cloister_custodian_instances_live"] == 1
        assert theirs["cloister_custodian_instances_live"] == 0
        assert theirs["cloister_custodian_units_left"] == 1000
        assert mine['cloister_custodian_events_total{event="key_released"}'] == 1
        assert theirs['cloister_custodian_events_total{event="key_released"}'] == 0
        assert mine["cloister_custodian_log_entries"] == acme.service.context.size


def test_a_tenant_that_asks_for_anothers_metrics_is_a_stranger_there(host: HostBench) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    borrower = acme.lend().token
    nobody = answer_of(host.client.get("/t/nobody-at-all/v1/metrics", headers=bearer("clst_" + "A" * 43)))
    assert nobody[0] == 401
    before = zenith.service.context.size
    for headers in (*(acme.token(role) for role in STAFF), borrower, host.operator):
        assert answer_of(host.client.get("/t/zenith/v1/metrics", headers=headers)) == nobody
    assert zenith.service.context.size == before
    assert acme.get("/v1/metrics", borrower).status_code == 403
    for path in (b"/t/acme/../zenith/v1/metrics", b"/t/acme/%2e%2e/zenith/v1/metrics", b"/t/acme//zenith/v1/metrics"):
        assert host.raw(path, acme.admin)[0] == 404


def test_no_line_of_a_tenants_metrics_names_another_tenant_or_tells_of_the_host(host: HostBench) -> None:
    acme, zenith = host.tenant("acme", settings={"metrics_loans": True}), host.tenant("zenith")
    mine, theirs = acme.lend(), zenith.lend()
    theirs.boot()
    text = acme.get("/v1/metrics").text
    assert f'loan="{mine.id}"' in text
    for foreign in ("zenith", "acme", theirs.id, zenith.digest, str(host.home), "operator"):
        assert foreign not in text
    assert families(text) == METRICS.keys() - OF_THE_HOST
    labels = set(re.findall(r'[{,]([a-z_]+)="', text))
    assert labels == {label for name in families(text) for label in METRICS[name].labels} | {"le"}
    routes = set(re.findall(r'route="([^"]+)"', text))
    assert routes == {f"{route.method} {route.path}" for route in ROUTES}


def test_the_hosts_own_metrics_hold_nothing_of_a_tenants(host: HostBench) -> None:
    acme = host.tenant("acme", settings={"metrics_loans": True})
    lent = acme.lend(allowance=1234)
    lent.boot()
    assert acme.get("/v1/metrics").status_code == 200
    host.host.book.watch.measure()
    text = prometheus_text(host.host.book.metrics)
    assert families(text) == METRICS.keys()
    for secret in (lent.id, "acme", "/v1/loans", acme.digest):
        assert secret not in text
    found = samples(text)
    assert found["cloister_custodian_units_left"] == found["cloister_custodian_instances_live"] == 0
    assert host.client.get("/v1/metrics", headers=host.operator).status_code == 404
    assert host.client.get("/operator/metrics", headers=host.operator).status_code == 404


@pytest.mark.parametrize(
    ("accept", "kind", "end"),
    [
        ("", PROMETHEUS_TYPE, ""),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", OPENMETRICS_TYPE, "# EOF\n"),
    ],
)
def test_the_format_is_the_listeners(host: HostBench, accept: str, kind: str, end: str) -> None:
    acme = host.tenant("acme")
    answer = acme.client.get("/v1/metrics", headers={**acme.token("viewer"), "accept": accept})
    assert answer.headers["content-type"] == kind
    assert answer.text.endswith(end)
    assert answer.headers["cache-control"] == "no-store"


def test_a_suspended_tenants_metrics_are_nobodys(host: HostBench) -> None:
    acme = host.tenant("acme")
    viewer = acme.token("viewer")
    host.change("acme", "suspend")
    there, nobody = (host.client.get(f"/t/{name}/v1/metrics", headers=viewer) for name in ("acme", "nobody"))
    assert answer_of(there) == answer_of(nobody)
    host.change("acme", "resume")
    assert acme.get("/v1/metrics", viewer).status_code == 200


def test_a_tenant_is_not_told_that_a_certificate_ends_which_nobody_is_shown(host: HostBench) -> None:
    """A tenant's home has a certificate for who takes it elsewhere; below a host nothing renews it."""
    acme = host.tenant("acme")
    host.clock.advance(89 * 86_400)
    codes = {alarm["code"] for alarm in acme.get("/v1/alarms").json()["alarms"]}
    assert "certificate_ending" not in codes


def test_a_custodian_alone_shows_its_metrics_to_its_staff_too(tmp_path: Path) -> None:
    with Bench(tmp_path) as bench:
        bench.lend(allowance=7)
        text = bench.get("/v1/metrics", bench.token("viewer")).text
        assert families(text) == METRICS.keys()
        assert samples(text)["cloister_custodian_units_left"] == 7
        assert samples(text)['cloister_custodian_disk_free_bytes{place="database"}'] > 0
        assert bench.client.get("/v1/metrics").status_code == 401


def test_no_family_of_the_service_has_the_name_of_one_of_the_custodians() -> None:
    assert not METRICS.keys() & OF_THE_SERVICE.keys()
