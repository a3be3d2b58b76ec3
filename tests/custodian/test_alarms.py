"""Alarms a custodian computes itself: each comes by what really happened, is logged once, and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from custodian_kit import STATEMENT, Bench, Toy, bearer

from cloister.crypto.sign import SigningKey
from cloister.custodian.metrics import ALARMS, CHECKS
from cloister.custodian.service.alarms import Watch
from cloister.lending.tlog.note import NoteKey, SignatureKind
from cloister.lending.watch import WatchKind
from cloister.telemetry.exposition import openmetrics_text

if TYPE_CHECKING:
    from pathlib import Path

    from custodian_kit import Lent

    from postgres_kit import PostgresServer


def active(bench: Bench) -> dict[str, dict[str, Any]]:
    """Return the alarms as staff gets them."""
    answer = bench.get("/v1/alarms")
    assert answer.status_code == 200, answer.text
    alarms: list[dict[str, Any]] = answer.json()["alarms"]
    assert {alarm["code"] for alarm in alarms} <= ALARMS
    return {alarm["code"]: alarm for alarm in alarms}


def said(bench: Bench) -> list[tuple[str, str]]:
    """Return which alarms the log says were raised and cleared."""
    kinds = {"alarm_raised": "raised", "alarm_cleared": "cleared"}
    return [(kinds[entry["kind"]], entry["subject"]) for entry in bench.audit() if entry["kind"] in kinds]


def refused(lent: Lent) -> None:
    """Attest with evidence of a debug enclave."""
    toy = Toy(lent, debug=True)
    assert lent.attest(toy.attest_statement(toy.take_challenge())).status_code == 403


def test_nothing_is_wrong_at_first(bench: Bench) -> None:
    bench.service.watch.keep()
    assert active(bench) == {}
    assert said(bench) == []


def test_refused_attestations_are_an_alarm_once_they_are_many(bench: Bench) -> None:
    lent = bench.lend()
    for _ in range(4):
        refused(lent)
    assert "attestations_failing" not in active(bench)
    refused(lent)
    alarm = active(bench)["attestations_failing"]
    assert (alarm["count"], alarm["subjects"], alarm["severity"]) == (5, [lent.id], "warning")
    for _ in range(3):
        bench.service.watch.keep()
    assert said(bench) == [("raised", "attestations_failing")]
    since = active(bench)["attestations_failing"]["since"]
    bench.clock.advance(60)
    bench.restart()
    assert active(bench)["attestations_failing"]["since"] == since, "it is the same alarm after a restart"
    bench.clock.advance(600)
    bench.service.watch.keep()
    assert active(bench) == {}
    assert said(bench) == [("raised", "attestations_failing"), ("cleared", "attestations_failing")]


def test_t77_an_instance_that_falls_silent_is_said_after_two_intervals(bench: Bench) -> None:
    """The host switches the enclave off: nothing defends against that, and it is seen."""
    toy = bench.lend(ttl_s=60).boot()
    toy.renew()
    bench.clock.advance(40)
    assert "heartbeat_missing" not in active(bench)
    bench.clock.advance(2)
    alarm = active(bench)["heartbeat_missing"]
    assert (alarm["subjects"], alarm["severity"]) == ([toy.lent.id], "critical")
    assert bench.service.context.metrics.value("cloister_custodian_instances_late") == 1
    toy.renew()
    assert "heartbeat_missing" not in active(bench)
    bench.clock.advance(70)
    bench.service.sweep()
    assert active(bench)["heartbeat_missing"]["count"] == 1, "written off is no less lost"
    assert bench.service.context.metrics.value("cloister_custodian_instances_live") == 0
    bench.clock.advance(601)
    assert "heartbeat_missing" not in active(bench)


def test_an_instance_that_ended_in_order_is_missed_by_nobody(bench: Bench) -> None:
    toy = bench.lend(ttl_s=60).boot()
    toy.renew()
    assert toy.holder is not None
    closed = toy.holder.close(bench.clock())
    answer = bench.client.post(f"/v1/instances/{toy.id}/close", content=closed, headers=STATEMENT)
    assert answer.status_code == 200, answer.text
    bench.clock.advance(300)
    bench.service.sweep()
    assert "heartbeat_missing" not in active(bench)


def test_an_allowance_that_is_nearly_gone_is_said_while_somebody_uses_it(bench: Bench) -> None:
    idle, used = bench.lend(allowance=1000), bench.lend(allowance=1000)
    toy = used.boot()
    toy.renew()
    for lent in (idle, used):
        assert bench.post(f"/v1/loans/{lent.id}/set", {"units": 50}).status_code == 200
    assert active(bench)["allowance_low"]["subjects"] == [used.id]
    assert bench.post(f"/v1/loans/{used.id}/top-up", {"units": 500}).status_code == 200
    assert "allowance_low" not in active(bench)


def test_a_renewal_that_comes_late_is_a_clock_anomaly(bench: Bench) -> None:
    toy = bench.lend(ttl_s=60).boot()
    toy.renew()
    bench.clock.advance(50)
    toy.renew()
    assert active(bench)["clock_anomaly"]["subjects"] == [toy.lent.id]
    metrics = bench.service.context.metrics
    assert metrics.value("cloister_custodian_clock_anomalies_total", "renewal_late") == 1


def test_what_an_enclave_noticed_is_told_once_and_as_a_count_by_kind(bench: Bench) -> None:
    toy = bench.lend(clauses={"watches": [{"above": 20, "kind": "near"}]}).boot()
    toy.renew()
    assert toy.holder is not None
    for _ in range(3):
        toy.holder.alarm(None, WatchKind.NEAR)
    for _ in range(3):
        bench.clock.advance(20)
        toy.renew()
    assert active(bench)["extraction"]["subjects"] == [toy.lent.id]
    metrics = bench.service.context.metrics
    assert metrics.value("cloister_custodian_extraction_alarms_total", "near") == 3
    assert metrics.value("cloister_custodian_events_total", "extraction_alarm") == 1


def test_old_keys_and_ending_certificates_are_said(bench: Bench) -> None:
    bench.clock.advance(60 * 86_400)
    assert set(active(bench)) == set()
    bench.clock.advance(10 * 86_400)
    assert active(bench)["certificate_ending"]["subjects"] == ["server"]
    assert "key_old" not in active(bench)
    bench.clock.advance(25 * 86_400)
    assert active(bench)["key_old"]["severity"] == "warning"
    assert bench.post("/v1/keys/rotate", {"reason": "age"}).status_code == 201
    assert "key_old" not in active(bench)


def test_a_witness_that_stays_away_is_said(tmp_path: Path) -> None:
    key = SigningKey(bytes(32)).verify_key
    witness = NoteKey(name="witness.example", kind=SignatureKind.COSIGNATURE, key=key).dump()
    with Bench(tmp_path, settings={"witnesses": (witness,)}) as bench:
        assert "witness_behind" not in active(bench)
        bench.clock.advance(3700)
        assert active(bench)["witness_behind"]["subjects"] == ["witness.example"]
        assert bench.service.context.metrics.value("cloister_custodian_witnesses_behind") == 1


def test_a_request_that_nobody_answers_is_said(bench: Bench) -> None:
    lent = bench.lend()
    assert bench.post(f"/v1/loans/{lent.id}/requests", {"units": 5}, token=lent.token).status_code == 201
    assert active(bench) == {}
    assert bench.service.context.metrics.value("cloister_custodian_requests_open") == 1
    bench.clock.advance(86_401)
    assert "requests_waiting" in active(bench)


def test_reading_alarms_and_metrics_writes_nothing(bench: Bench) -> None:
    lent = bench.lend()
    for _ in range(5):
        refused(lent)
    before = bench.audit()
    for _ in range(3):
        active(bench)
        bench.service.watch.measure()
    assert bench.audit() == before


def test_two_custodians_over_one_database_raise_an_alarm_once(tmp_path: Path, postgres: PostgresServer) -> None:
    with Bench(tmp_path, postgres=postgres) as bench:
        lent = bench.lend()
        for _ in range(5):
            refused(lent)
        second = Watch(bench.service.context, bench.service._bundle, bench.home)
        for watch in (bench.service.watch, second, bench.service.watch, second):
            watch.keep()
        assert said(bench) == [("raised", "attestations_failing")]


def test_metrics_say_what_happened_and_name_nobody(tmp_path: Path) -> None:
    with Bench(tmp_path) as bench:
        lent = bench.lend(allowance=100)
        toy = lent.boot()
        toy.renew()
        refused(lent)
        assert bench.client.get("/v1/loans", headers=bearer("wrong")).status_code == 401
        metrics = bench.service.context.metrics
        bench.service.watch.health.report()
        bench.service.watch.measure()
        assert metrics.value("cloister_custodian_attestations_total", ("simulated", "refused")) == 1
        assert (
            metrics.value("cloister_custodian_attestations_total", ("simulated", "warning"))
            + metrics.value("cloister_custodian_attestations_total", ("simulated", "affirming"))
            == 1
        )
        assert metrics.value("cloister_custodian_leases_total", "granted") == 1
        assert metrics.value("cloister_custodian_units_total", "granted") == 100
        assert metrics.value("cloister_custodian_requests_total", ("GET /v1/loans", "4xx")) == 1
        assert metrics.value("cloister_custodian_instances_live") == 1
        assert metrics.value("cloister_custodian_log_entries") == len(bench.audit())
        assert metrics.value("cloister_custodian_checkpoint_behind_entries") == 0
        assert metrics.value("cloister_custodian_disk_free_bytes", "database") > 0
        assert sum(metrics.bars("cloister_custodian_commit_seconds").counts) > 3
        assert all(metrics.value("cloister_custodian_health", (check, "ok")) == 1 for check in CHECKS)
        text = openmetrics_text(metrics)
        for secret in (
            str(lent.id),
            toy.id,
            bench.digest,
            bench.init.admin_token,
            "Hospital",
            lent.token["Authorization"],
        ):
            assert secret not in text


def test_loans_are_named_by_an_explicit_setting_alone(tmp_path: Path) -> None:
    with Bench(tmp_path, settings={"metrics_loans": True}) as bench:
        lent = bench.lend(allowance=70)
        bench.service.watch.measure()
        text = openmetrics_text(bench.service.context.metrics)
        assert f'cloister_custodian_loan_units_left{{loan="{lent.id}"}} 70\n' in text
        assert "Hospital" not in text


def test_metrics_are_not_where_borrowers_ask(bench: Bench) -> None:
    assert bench.get("/metrics").status_code == 404


def test_what_a_lease_was_refused_for_is_counted(bench: Bench) -> None:
    toy = bench.lend().boot()
    toy.renew()
    assert bench.post("/v1/blocks", {"kind": "loan", "subject": toy.lent.id, "reason": "test"}).status_code == 201
    toy.renew()
    assert bench.service.context.metrics.value("cloister_custodian_leases_total", "blocked") == 1
