"""The figures of a custodian, gathered for metrics and alarms: what its database, its files and its log say now.

Nothing is written. A figure that cannot be had is left out, not guessed: metrics go on without it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509

from cloister.custodian.service.health import disk_free
from cloister.custodian.store.book import read_epoch
from cloister.custodian.store.figures import (
    balances,
    cosigned_sizes,
    entry_since,
    granted_to,
    open_asks,
    standing_rows,
)
from cloister.custodian.store.keys import current_kek
from cloister.custodian.store.loans import find_loan
from cloister.lending.tlog.note import NoteKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from cloister.custodian.service.context import Context
    from cloister.custodian.service.endorsements import HomeBundle
    from cloister.custodian.store.figures import StandingRow
    from cloister.lending.terms import LoanId

__all__ = ["Figures", "Gatherer", "show"]

_RENEWALS = 2  # renewal intervals without a word that make an instance late (T77)
_INTERVALS = 3  # of T: an honest instance asks at T/3
_SLACK = timedelta(seconds=1)
_GRANTED_FOR_S = 60.0  # seconds that what a loan was granted is remembered: only a person changes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was found at ``at``."""

    at: datetime
    live: int
    late: tuple[LoanId, ...]
    left: Mapping[LoanId, int]
    low: tuple[LoanId, ...]
    asks: int
    oldest_ask: datetime | None
    key_made_at: datetime
    log_size: int
    unwritten: int
    checkpointed_at: datetime
    witnesses_behind: tuple[str, ...]
    certificates: Mapping[str, datetime] = field(default_factory=dict)
    endorsements_until: datetime | None = None
    disk: Mapping[str, int] = field(default_factory=dict)


class Gatherer:
    """Gathers figures, again and again."""

    def __init__(self, context: Context, bundle: HomeBundle, home: Path) -> None:
        """Gather from these."""
        self._context, self._bundle, self._home = context, bundle, home
        self._granted: dict[LoanId, tuple[float, float]] = {}
        self.listens = True
        """Whether it shows a certificate of its own: not below a host."""

    def gather(self) -> Figures:
        """Return the figures. Raises ``Unavailable`` where the database cannot be read."""
        context = self._context
        now = context.now()
        with context.reading() as connection:
            standing = standing_rows(connection)
            left = balances(connection)
            asks, oldest = open_asks(connection)
            kek = current_kek(connection)
            epoch = read_epoch(connection)
            return Figures(
                at=now,
                live=sum(1 for row in standing if now < row.dead_at),
                late=self._late(connection, standing, now),
                left=left,
                low=self._low(connection, standing, left),
                asks=asks,
                oldest_ask=oldest,
                key_made_at=epoch.latest if kek is None else kek.made_at,
                log_size=context.size,
                unwritten=context.unwritten,
                checkpointed_at=context.checkpointed_at,
                witnesses_behind=self._behind(connection, now),
                certificates=self._certificates(),
                endorsements_until=self._bundle.standing(now)[1],
                disk=self._disk(),
            )

    def _late(self, connection: Connection, standing: Sequence[StandingRow], now: datetime) -> tuple[LoanId, ...]:
        """Return the loan of each instance that was not heard of for two renewal intervals of its own T."""
        late = []
        for row in standing:
            loan = find_loan(connection, row.loan) if row.is_active else None
            if loan is not None and now - row.committed_at > loan.terms.ttl * _RENEWALS / _INTERVALS + _SLACK:
                late.append(row.loan)
        return tuple(late)

    def _low(
        self, connection: Connection, standing: Sequence[StandingRow], left: Mapping[LoanId, int]
    ) -> tuple[LoanId, ...]:
        """Return the loans with instances whose balance is below the settings' share of what they were granted."""
        share = self._context.config.allowance_low_percent / 100
        used = sorted({row.loan for row in standing})
        return tuple(loan for loan in used if left.get(loan, 0) < share * self._granted_to(connection, loan))

    def _granted_to(self, connection: Connection, loan: LoanId) -> float:
        granted, at = self._granted.get(loan, (0.0, -_GRANTED_FOR_S))
        if time.monotonic() - at >= _GRANTED_FOR_S:
            granted, at = granted_to(connection, loan), time.monotonic()
            self._granted[loan] = granted, at
        return granted

    def _behind(self, connection: Connection, now: datetime) -> tuple[str, ...]:
        """Return the witnesses that have not cosigned what was in the log when they last should have."""
        config, size = self._context.config, self._context.size
        if not config.witnesses:
            return ()
        due = entry_since(connection, now - timedelta(seconds=config.witness_late_s), size=size)
        cosigned = cosigned_sizes(connection, config.witnesses)
        return tuple(NoteKey.parse(text).name for text in config.witnesses if cosigned.get(text, 0) < due)

    def _certificates(self) -> Mapping[str, datetime]:
        found = {}
        config = self._context.config
        if config.tls and self.listens:
            own = {"authority": "tls/ca.pem", "server": "tls/server.pem"}
            places = {"server": config.tls_certificate} if config.tls_certificate else own
            if config.acme_directory and (self._home / "tls" / "acme.pem").exists():
                places = {"server": "tls/acme.pem"}
            for name, place in places.items():
                with contextlib.suppress(OSError, ValueError):
                    pem = (self._home / place).read_bytes()
                    found[name] = x509.load_pem_x509_certificate(pem).not_valid_after_utc
        return found

    def _disk(self) -> Mapping[str, int]:
        try:
            return disk_free(self._context, self._home)
        except OSError:
            return {}


def show(context: Context, found: Figures) -> None:
    """Bring the gauges up to date."""
    metrics, now = context.metrics, found.at
    values = {
        "instances_live": found.live,
        "instances_late": len(found.late),
        "units_left": sum(found.left.values()),
        "loans_low": len(found.low),
        "requests_open": found.asks,
        "log_entries": found.log_size,
        "checkpoint_behind_entries": found.unwritten,
        "checkpoint_age_seconds": max(0.0, (now - found.checkpointed_at).total_seconds()),
        "witnesses_behind": len(found.witnesses_behind),
        "key_age_seconds": max(0.0, (now - found.key_made_at).total_seconds()),
        "endorsements_seconds_left": _left(found.endorsements_until, now),
    }
    for name, value in values.items():
        metrics.set(f"cloister_custodian_{name}", value)
    for name, until in found.certificates.items():
        metrics.set("cloister_custodian_certificate_seconds_left", _left(until, now), name)
    for place, free in found.disk.items():
        metrics.set("cloister_custodian_disk_free_bytes", free, place)
    if context.config.metrics_loans:
        metrics.grow("loan", found.left)
        for loan, units in found.left.items():
            metrics.set("cloister_custodian_loan_units_left", units, loan)


def _left(until: datetime | None, now: datetime) -> float:
    return 0.0 if until is None else max(0.0, (until - now).total_seconds())
