"""Alarms that a custodian computes by itself, for sites without a monitoring system (docs/reference/observability.md).

Each has a code that does not change. The watch runs beside the sweep; what it raises and clears is in the audit log,
once, however many custodians are over a database. Reading alarms writes nothing.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

from cloister.custodian.metrics import ALARMS as ALARM_CODES
from cloister.custodian.service.figures import Gatherer, show
from cloister.custodian.service.health import Health, Report, State
from cloister.custodian.service.recent import Recent
from cloister.custodian.store.alarms import active_alarms, clear_alarm, raise_alarm
from cloister.custodian.tokens import SYSTEM
from cloister.errors import CloisterError
from cloister.lending.events import EventKind
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.service.endorsements import HomeBundle
    from cloister.custodian.service.figures import Figures
    from cloister.wire import Json

__all__ = ["Alarm", "Severity", "Watch"]

_HEALTH_WITHIN_S = 30.0  # seconds between two looks of the watch's own at what can be written
_STALE = timedelta(seconds=60)  # that entries may wait for the checkpoint outside
_PATIENCE = timedelta(days=1)  # that a request for more may wait for a person
_NAMED = 20  # subjects of one alarm that are named
_DAY_S = 86_400
_MIB = 1 << 20


class Severity(Enum):
    """How soon somebody has to come."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something is wrong. ``local``: this custodian sees it, and another over the same database need not."""

    code: str
    severity: Severity
    subjects: tuple[str, ...]
    local: bool = False
    since: datetime | None = None

    def to_json(self) -> Json:
        """Return it as staff sees it."""
        return {
            "code": self.code,
            "count": len(self.subjects),
            "severity": self.severity.value,
            "since": None if self.since is None else dump_time(self.since),
            "subjects": list(dict.fromkeys(self.subjects))[:_NAMED],
        }


class Watch:
    """Looks after one custodian: figures, health, alarms."""

    def __init__(self, context: Context, bundle: HomeBundle, home: Path) -> None:
        """Look at nothing yet."""
        self._context = context
        self._gatherer = Gatherer(context, bundle, home)
        self._recent = Recent(timedelta(seconds=context.config.alarm_window_s))
        self._lock = threading.Lock()
        self.health = Health(context, bundle, home)

    def leave_to_host(self) -> None:
        """Leave to a host what is the host's: its certificate, whose end this custodian cannot know, and its disk.

        How much is free there would tell what others do; that too little is free is told as before.
        """
        self._gatherer.listens = False
        self._context.metrics.hide("cloister_custodian_certificate_seconds_left", "cloister_custodian_disk_free_bytes")

    def measure(self) -> None:
        """Bring gauges up to date, writing nothing. What cannot be had keeps its last value."""
        try:
            self._look()
        except CloisterError:
            return

    def look(self) -> tuple[Alarm, ...]:
        """Return the alarms that are active now, worst first. Raises ``Unavailable`` where nothing can be read."""
        alarms = self._look()
        with self._context.reading() as connection:
            known = active_alarms(connection, self._places)
        found = [self._dated(alarm, known) for alarm in alarms]
        return tuple(sorted(found, key=lambda one: (one.severity is not Severity.CRITICAL, one.code)))

    def keep(self) -> None:
        """Look, and write down what has begun and what is over. Raises ``Unavailable``."""
        self.health.report(within_s=_HEALTH_WITHIN_S)
        current = {(alarm.code, self._place(alarm)): alarm for alarm in self._look()}
        with self._context.reading() as connection:
            known = active_alarms(connection, self._places)
        if current.keys() == known.keys():
            return

        def work(transaction: Transaction) -> None:
            before = active_alarms(transaction.connection, self._places)  # another custodian may have been faster
            for key in sorted(current.keys() - before.keys()):
                raise_alarm(transaction.connection, *key, transaction.now)
                count = len(current[key].subjects)
                transaction.record(EventKind.ALARM_RAISED, SYSTEM, key[0], codes=key[0], size=count)
            for key in sorted(before.keys() - current.keys()):
                clear_alarm(transaction.connection, *key)
                transaction.record(EventKind.ALARM_CLEARED, SYSTEM, key[0], codes=key[0])

        self._context.transact(work)

    def _look(self) -> tuple[Alarm, ...]:
        context = self._context
        report = self.health.last or Report(checks=())
        with self._lock:
            figures = self._gatherer.gather()
            with context.reading() as connection:
                self._recent.read(connection, size=context.size, now=context.now())
            alarms = (*self._of_the_log(), *self._of_figures(figures), *_of_health(report))
        show(context, figures)
        active = {alarm.code for alarm in alarms}
        for code in ALARM_CODES:
            context.metrics.set("cloister_custodian_alarms", int(code in active), code)
        return alarms

    def _of_the_log(self) -> Iterator[Alarm]:
        refused = self._recent.of(EventKind.ATTESTATION_REFUSED)
        if len(refused) >= self._context.config.alarm_attestations:
            yield Alarm(code="attestations_failing", severity=Severity.WARNING, subjects=refused)
        yield from _if_any("clock_anomaly", Severity.WARNING, self._recent.of(EventKind.CLOCK_ANOMALY))
        yield from _if_any("extraction", Severity.WARNING, self._recent.of(EventKind.EXTRACTION_ALARM))
        forks = self._recent.of(EventKind.FORK_DETECTED, EventKind.OVERDRAFT_DETECTED)
        yield from _if_any("fork_detected", Severity.CRITICAL, forks)

    def _of_figures(self, found: Figures) -> Iterator[Alarm]:
        config, now = self._context.config, found.at
        gone = self._recent.of(EventKind.INSTANCE_WRITTEN_OFF)
        yield from _if_any("heartbeat_missing", Severity.CRITICAL, (*found.late, *gone))
        yield from _if_any("allowance_low", Severity.WARNING, found.low)
        yield from _if_any("witness_behind", Severity.WARNING, found.witnesses_behind)
        if found.oldest_ask is not None and now - found.oldest_ask > _PATIENCE:
            yield Alarm(code="requests_waiting", severity=Severity.WARNING, subjects=("requests",) * found.asks)
        if config.key_age_days and (now - found.key_made_at).total_seconds() > config.key_age_days * _DAY_S:
            yield Alarm(code="key_old", severity=Severity.WARNING, subjects=("keys",))
        soon = now + timedelta(days=config.certificate_days)
        ending = tuple(name for name, until in found.certificates.items() if until < soon)
        yield from _if_any("certificate_ending", Severity.WARNING, ending, local=True)
        if found.unwritten and now - found.checkpointed_at > _STALE:
            yield Alarm(code="checkpoint_stale", severity=Severity.CRITICAL, subjects=("checkpoint",), local=True)
        low = tuple(place for place, free in found.disk.items() if free < config.disk_floor_mib * _MIB)
        yield from _if_any("disk_low", Severity.CRITICAL, low, local=True)

    @property
    def _places(self) -> tuple[str, ...]:
        """The places whose alarms are ours to raise and clear: those of all, and those of this custodian alone."""
        return ("", self._context.config.checkpoint)

    def _place(self, alarm: Alarm) -> str:
        return self._context.config.checkpoint if alarm.local else ""

    def _dated(self, alarm: Alarm, known: Mapping[tuple[str, str], datetime]) -> Alarm:
        since = known.get((alarm.code, self._place(alarm)), self._context.now())
        return Alarm(code=alarm.code, severity=alarm.severity, subjects=alarm.subjects, local=alarm.local, since=since)


def _of_health(report: Report) -> Iterator[Alarm]:
    failed = tuple(check.name for check in report.checks if check.state is State.FAILED)
    yield from _if_any("unhealthy", Severity.CRITICAL, failed, local=True)
    for check in report.checks:
        if check.name == "vault" and check.state is not State.OK:
            yield Alarm(code="vault_failing", severity=Severity.CRITICAL, subjects=(check.code,), local=True)
        if check.name == "endorsements" and check.state is not State.OK:
            yield Alarm(code="endorsements_ending", severity=Severity.WARNING, subjects=(check.code,), local=True)


def _if_any(code: str, severity: Severity, subjects: Iterable[str], *, local: bool = False) -> Iterator[Alarm]:
    named = tuple(subjects)
    if named:
        yield Alarm(code=code, severity=severity, subjects=named, local=local)
