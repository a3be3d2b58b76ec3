"""Whether a custodian can really do its work: each part is tried, not asked for its opinion.

A row is written and committed, the checkpoint outside is written again, the vault wraps and unwraps, the clock is held
against what was written, free space and the bundle of endorsements are looked at. What ``failed`` keeps keys from
being released; what is ``degraded`` will, or keeps some. Answers are codes and never texts: anybody may ask.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cloister.custodian.config import BUILT_AT_YEAR
from cloister.custodian.store.faults import Contended
from cloister.custodian.store.figures import probe
from cloister.errors import CloisterError, Unavailable
from cloister.lending.clock import custodian_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloister.custodian.service.context import Context
    from cloister.custodian.service.endorsements import HomeBundle
    from cloister.wire import Json

__all__ = ["Check", "Health", "Report", "State", "disk_free"]

_FRESH_S = 1.0  # seconds that an answer is good for: anybody may ask, and each look costs two writes
_PROBE = b"cloister/custodian/health"
_MIB = 1 << 20
_DAY_S = 86_400
_DATABASE = (
    ("SQLITE_FULL", "disk_full"),
    ("53100", "disk_full"),
    ("SQLITE_READONLY", "database_read_only"),
    ("25006", "database_read_only"),
    ("SQLITE_CANTOPEN", "database_missing"),
    ("another custodian", "database_taken"),
    ("until a restart", "database_stopped"),
)
"""What a fault of the database says, and the code that it is told by."""


class State(Enum):
    """How one part stands."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


_WORST = (State.OK, State.DEGRADED, State.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One part: its name, its state and why."""

    name: str
    state: State
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All parts, as they stood at one moment."""

    checks: tuple[Check, ...]

    @property
    def state(self) -> State:
        """The worst of them."""
        return max((check.state for check in self.checks), key=_WORST.index, default=State.OK)

    def to_json(self) -> Json:
        """Return it as anybody may see it."""
        return {
            "checks": [{"code": one.code, "name": one.name, "state": one.state.value} for one in self.checks],
            "status": self.state.value,
        }


class Health:
    """Looks after the parts of one custodian. Threads may ask at once: they share a look."""

    def __init__(self, context: Context, bundle: HomeBundle, home: Path) -> None:
        """Look at nothing yet."""
        self._context, self._bundle, self._home = context, bundle, home
        self._lock = threading.Lock()
        self._seen = 0.0
        self._failures = 0
        self.last: Report | None = None

    def report(self, *, within_s: float | None = None) -> Report:
        """Return how everything stands now, or ``within_s`` seconds ago; one by default. Raises nothing.

        What had failed is tried again, and what was well too once a transaction failed since.
        """
        within_s = _FRESH_S if within_s is None else within_s
        with self._lock:
            old = time.monotonic() - self._seen > within_s or self._failures != self._context.failures
            if self.last is None or old or self.last.state is State.FAILED:
                self._failures = self._context.failures
                looks = (self._checkpoint, self._clock, self._database, self._disk, self._endorsements, self._vault)
                self.last = Report(checks=tuple(look() for look in looks))
                self._seen = time.monotonic()
                self._show(self.last)
            return self.last

    def _show(self, report: Report) -> None:
        for check in report.checks:
            for state in State:
                value = int(check.state is state)
                self._context.metrics.set("cloister_custodian_health", value, (check.name, state.value))

    def _database(self) -> Check:
        """Commit a row."""
        store = self._context.store
        try:
            with store.writing() as connection:
                probe(connection, self._context.now())
        except Contended:
            pass  # it answered: another wrote the same row
        except CloisterError as exc:
            found = (code for sign, code in _DATABASE if sign in exc.message)
            return _failed("database", next(found, "database_unavailable"))
        return _ok("database")

    def _checkpoint(self) -> Check:
        """Write the checkpoint again, on whichever disk it lies."""
        try:
            self._context.rewrite_checkpoint()
        except CloisterError:
            return _failed("checkpoint", "checkpoint_unwritable")
        return _ok("checkpoint")

    def _vault(self) -> Check:
        """Wrap and unwrap; and see that the file is there from which the next start opens it."""
        vault = self._context.vault
        try:
            if vault.unwrap(vault.wrap(_PROBE, aad=_PROBE), aad=_PROBE) != _PROBE:
                return _failed("vault", "vault_wrong_key")
        except Unavailable:
            return _failed("vault", "vault_locked")
        except CloisterError:
            return _failed("vault", "vault_wrong_key")
        if not os.access(self._home / "vault.json", os.R_OK):
            return Check(name="vault", state=State.DEGRADED, code="vault_file_missing")
        return _ok("vault")

    def _clock(self) -> Check:
        now = self._context.now()
        if now.year < BUILT_AT_YEAR:
            return _failed("clock", "clock_unset")
        try:
            custodian_time(now, latest=self._context.latest)
        except Unavailable:
            return _failed("clock", "clock_behind")
        return _ok("clock")

    def _disk(self) -> Check:
        floor = self._context.config.disk_floor_mib * _MIB
        try:
            low = any(free < floor for free in disk_free(self._context, self._home).values())
        except OSError:
            return Check(name="disk", state=State.DEGRADED, code="disk_unknown")
        return Check(name="disk", state=State.DEGRADED, code="disk_low") if low else _ok("disk")

    def _endorsements(self) -> Check:
        now = self._context.now()
        code, until = self._bundle.standing(now)
        if until is not None:
            left_s = (until - now).total_seconds()
            if left_s <= 0:
                code = "bundle_expired"
            elif left_s < self._context.config.certificate_days * _DAY_S:
                code = "bundle_ending"
        good = code in {"no_bundle", "bundle_good"}
        return Check(
            name="endorsements", state=State.OK if good else State.DEGRADED, code="ok" if until and good else code
        )


def disk_free(context: Context, home: Path) -> Mapping[str, int]:
    """Return the bytes free where database and checkpoint lie. Raises ``OSError``."""
    places = {"checkpoint": context.checkpoint_path.parent}
    if not context.store.shared:
        places["database"] = (home / context.config.database).parent
    found = {}
    for place, path in places.items():
        status = os.statvfs(path)
        found[place] = status.f_bavail * status.f_frsize
    return found


def _ok(name: str) -> Check:
    return Check(name=name, state=State.OK, code="ok")


def _failed(name: str, code: str) -> Check:
    return Check(name=name, state=State.FAILED, code=code)
