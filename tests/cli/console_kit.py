"""A custodian's answers, made up: for views that are given what was heard, and no network."""

from __future__ import annotations

import base64
import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cloister.cli.consoles.custodian_view import CustodianView, Custody
from cloister.cli.consoles.doc import Doc
from cloister.cli.consoles.enclave_view import EnclaveView, Inside
from cloister.cli.consoles.feed import Standing, entries_of
from cloister.cli.consoles.glyphs import FULL
from cloister.cli.consoles.heard import AlarmHeard, InstanceHeard, LoanHeard, Spending
from cloister.cli.consoles.loan_view import LoanView, Watched
from cloister.cli.consoles.scrape import parse_look
from cloister.enclave.metrics import Metrics
from cloister.telemetry.exposition import prometheus_text
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from cloister.cli.consoles.glyphs import Glyphs
    from cloister.cli.consoles.screen import View

NOW = datetime(2026, 11, 30, 12, 0, 30, tzinfo=UTC)
NAMES = ("Hospital of the Holy Ghost", "St. Elsewhere", "Northern Lights Imaging", "Clínica São João", "大学病院")


def loan_json(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a loan as the API shows it."""
    units = changes.pop("left", 7200)
    return {
        "balances": {"loan": units - 40}, "block_version": 0, "blocked_consumers": [], "blocked_models": [],
        "borrower": NAMES[number % len(NAMES)], "bound": {"seconds": 62.06, "units": 40},
        "created_at": dump_time(NOW - timedelta(days=3, seconds=number)), "live_instances": 1,
        "loan": f"loan-{number:016d}", "models": [{"digest": "ab" * 32, "name": "digits"}], "policy_version": 1,
        "state": "active", **changes,
    }  # fmt: skip


def spending_json(loans: dict[str, Sequence[int]], *, granted: int = 10_000, step_s: int = 60) -> dict[str, Any]:
    """Return what these loans spent in each step, the last of them half over."""
    steps = max((len(units) for units in loans.values()), default=1)
    return {
        "from": dump_time(NOW - timedelta(seconds=step_s * steps - step_s / 2)), "to": dump_time(NOW),
        "step_s": step_s,
        "loans": [
            {
                "loan": loan, "granted": granted, "spent": sum(units), "written_off": 0, "spent_steps": list(units),
                "added_steps": [0] * len(units),
            }
            for loan, units in loans.items()
        ],
    }  # fmt: skip


def instance_json(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return an instance as the API shows it."""
    heard = NOW - timedelta(seconds=changes.pop("silent_s", 12))
    return {
        "id": f"{number:02x}" * 32, "loan": f"loan-{number:016d}", "tee": "simulated", "tier": "affirming",
        "state": "active", "live": True, "limits": {"loan": 50}, "used": {"loan": 10},
        "committed_at": dump_time(heard), "dead_at": dump_time(heard + timedelta(seconds=61)), **changes,
    }  # fmt: skip


def entry_json(index: int, kind: str = "more_requested", /, **details: Any) -> dict[str, Any]:
    """Return an entry of the log as the API shows it."""
    return {
        "index": index, "at": dump_time(NOW - timedelta(seconds=100 - index)), "kind": kind, "actor": "token-7f3a",
        "subject": "loan-0000000000000001", "details": details,
    }  # fmt: skip


def request_json(**changes: Any) -> dict[str, Any]:
    """Return a request for more as the API shows it."""
    return {
        "answer": None, "created_at": dump_time(NOW), "decided_at": None, "granted": None, "id": "req-1",
        "meter": "loan", "reason": "the ward is full", "state": "open", "units": 5000, **changes,
    }  # fmt: skip


def summary_json(**changes: Any) -> dict[str, Any]:
    """Return a loan as its borrower is shown it."""
    counts = {"balance": 7160, "granted": 10_000, "held": 40, "owed": 0, "spent": 2300, "written_off": 500}
    return {
        **loan_json(1), "instances": [instance_json(1)], "meters": {"loan": counts},
        "requests": [request_json()], **changes,
    }  # fmt: skip


def busy(number: int, steps: int = 60) -> list[int]:
    """Return what a loan spent: ups and downs, the same each time."""
    rng = random.Random(number)
    return [max(0, int(rng.gauss(20 * (number % 7), 15))) for _ in range(steps)]


def custody(loans: Sequence[dict[str, Any]], *, instances: Sequence[Any] = (), alarms: Sequence[Any] = ()) -> Custody:
    """Return what a custodian says that has these loans, all busy."""
    spent = Spending.all_of(spending_json({one["loan"]: busy(number) for number, one in enumerate(loans, 1)}))
    return Custody(
        at=NOW,
        loans=tuple(LoanHeard.of(one, spent) for one in loans),
        instances=tuple(InstanceHeard.of(Doc(one)) for one in instances),
        alarms=tuple(AlarmHeard.of(Doc(one)) for one in alarms),
    )


def standing(data: Any, entries: Sequence[Any] = (), **changes: Any) -> Standing[Any]:
    """Return what stands after an answer of just now."""
    members = {"data": data, "heard_at": NOW, "entries": tuple(entries_of(entries)), "quiet": "", **changes}
    return Standing(**members)


def custodian_view(known: Standing[Any], *, keys: bool = True, glyphs: Glyphs = FULL) -> CustodianView:
    """Return the view of a custodian."""

    def opened(loan: str) -> View:
        return loan_view(standing(Watched.of(summary_json(loan=loan), spending_json({loan: busy(3, 120)}))))

    return CustodianView(
        lambda: known, where="https://clinic.example:8443", glyphs=glyphs, interval=timedelta(seconds=2),
        opened=opened if keys else None, now=lambda: NOW,
    )  # fmt: skip


def loan_view(
    known: Standing[Any], *, keys: bool = True, glyphs: Glyphs = FULL, named: str = "loan-0000000000000001"
) -> LoanView:
    """Return the view of a loan."""
    return LoanView(
        lambda: known, named=named, glyphs=glyphs, interval=timedelta(seconds=2), keys=keys,
        now=lambda: NOW,
    )  # fmt: skip


def plain(lines: Sequence[Text]) -> str:
    """Return a frame as text."""
    return "\n".join(line.plain for line in lines)


def metrics_text(served: int = 0) -> bytes:
    """Return the metrics of an enclave that served so many inferences, as it shows them."""
    metrics = Metrics(("digits", "scan"))
    metrics.set("cloister_lease_active", 1)
    metrics.set("cloister_lease_seconds_left", 41.3)
    metrics.set("cloister_lease_ceiling_units", 1000)
    metrics.set("cloister_lease_used_units", served)
    metrics.set("cloister_models_bytes", 345 << 20)
    metrics.set("cloister_memory_budget_bytes", 8 << 30)
    metrics.set("cloister_exchanges_running", 3)
    metrics.set("cloister_queue_length", 2)
    metrics.set("cloister_model_loaded", 1, "digits")
    metrics.set("cloister_units_remaining", 7200 - served, "digits")
    metrics.add("cloister_renewals_total", 9, "lease")
    if served:
        metrics.add("cloister_inferences_total", served, "digits")
        metrics.add("cloister_units_total", served, "digits")
        metrics.add("cloister_engine_seconds_total", served * 0.0042, "digits")
        metrics.add("cloister_answers_total", served, "ok")
        metrics.add("cloister_answers_total", 3, "allowance_exhausted")
        metrics.add("cloister_exchanges_total", served + 3, "answered")
        metrics.add("cloister_exchanges_total", 1, "replayed")
    for number in range(served):
        metrics.observe("cloister_exchange_seconds", 0.004 + 0.0001 * (number % 97))
    return prometheus_text(metrics).encode()


def inside(served: int = 0, *, seconds: float = 0.0, state: str = "active", **changes: Any) -> Inside:
    """Return what an enclave tells after it served so many."""
    at = NOW + timedelta(seconds=seconds)
    checks = tuple((name, "ok", "ok") for name in ("custodian", "keyset", "lease", "models", "serving"))
    members = {"at": at, "state": state, "checks": checks, "look": parse_look(metrics_text(served), at=at), **changes}
    return Inside(**members)


def enclave_view(*looks: Inside, glyphs: Glyphs = FULL, width: int = 80, **changes: Any) -> EnclaveView:
    """Return the view of an enclave that was looked at so many times."""
    current = [looks[0]]
    view = EnclaveView(
        lambda: standing(current[0], **changes), where="http://127.0.0.1:8440", glyphs=glyphs,
        interval=timedelta(seconds=2), keys=True, now=lambda: NOW,
    )  # fmt: skip
    for look in looks:
        current[0] = look
        view.frame(width, 24)
    return view


_UNITS = (7200, 300, 0, 9000, 52_000, 14, 640)
_STATES = ("active", "active", "exhausted", "blocked", "active", "active", "active")
_HAPPENED: tuple[tuple[str, int, str, dict[str, Any]], ...] = (
    ("loan_created", 6, "lender:tok-51c0", {}),
    ("key_released", 1, "borrower:tok-7f3a", {"tee": "simulated"}),
    ("lease_granted", 1, "instance", {"units": 50}),
    ("more_requested", 0, "borrower:tok-20c1", {"units": 5000, "meter": "loan"}),
    ("blocked", 3, "admin:tok-903b", {"kind": "loan"}),
    ("allowance_added", 4, "lender:tok-51c0", {"units": 50_000, "meter": "loan"}),
)


def _digest(number: int) -> str:
    return hashlib.sha256(bytes([number])).hexdigest()


def _name(number: int) -> str:
    return "loan-" + base64.b32encode(bytes.fromhex(_digest(number)))[:16].decode().lower()


def screens() -> dict[str, str]:
    """Return the screens that docs/reference/consoles.md shows."""
    names = [_name(number) for number in range(1, 8)]
    given = zip(names, _UNITS, _STATES, strict=True)
    loans = [
        loan_json(number, loan=name, left=left, state=state) for number, (name, left, state) in enumerate(given, 1)
    ]
    alarm = {
        "code": "heartbeat_missing", "severity": "critical", "since": dump_time(NOW - timedelta(minutes=4)),
        "count": 1, "subjects": [names[1]],
    }  # fmt: skip
    instances = [
        instance_json(1, loan=names[0], id=_digest(1)),
        instance_json(2, loan=names[1], id=_digest(2), silent_s=70),
    ]
    known = custody(loans, instances=instances, alarms=[alarm])
    entries = [
        {**entry_json(40 + number, kind, **details), "subject": names[loan], "actor": actor}
        for number, (kind, loan, actor, details) in enumerate(_HAPPENED)
    ]
    summary = summary_json(loan=names[0], instances=instances[:1], requests=[request_json(id="req-8e72")])
    one = Watched.of(summary, spending_json({names[0]: busy(3, 120)}, step_s=30))
    looks = [inside(served, seconds=2 * number) for number, served in enumerate((0, 40, 130, 180, 300))]
    return {
        "custodian top": _text(custodian_view(standing(known, entries)).frame(80, 24)),
        "loan watch": _text(loan_view(standing(one, entries[3:4]), named=names[0]).frame(80, 27)),
        "enclave top": _text(enclave_view(*looks).frame(80, 14)),
    }


def _text(lines: Sequence[Text]) -> str:
    return "\n".join(line.plain.rstrip() for line in lines)
