"""What a lease looks like from outside: its state, a reservation, a snapshot to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.lending.conditions import Caller
    from cloister.lending.consumer_meters import Mark
    from cloister.lending.messages import Units
    from cloister.lending.terms import InstanceId, Meter, ModelTerms
    from cloister.lending.watch import WatchKind

__all__ = ["LeaseSnapshot", "LeaseState", "Pending", "Reservation"]


class LeaseState(Enum):
    """Where an instance stands. Only ACTIVE serves; REVOKED and CLOSED are final."""

    STARTING = "starting"
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
    CLOSED = "closed"


@hot_value
class Reservation:
    """Units set aside for one inference, on every meter it is charged to. Worth nothing elsewhere.

    ``mark`` says where the consumer's budgets counted them.
    """

    number: int
    model: ModelTerms
    consumer: Caller
    units: int
    meters: tuple[Meter, ...]
    mark: Mark = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An unanswered request: the bytes to send again (E2), SHA-256 over its payload, and what it tells.

    That is the last record it speaks of, and the alarms since the request before it.
    """

    statement: bytes
    digest: bytes
    served: int = 0
    alarms: Mapping[WatchKind, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSnapshot:
    """What there is to show: nothing here is secret."""

    instance: InstanceId
    state: LeaseState
    epoch: int
    seq: int
    limits: Units
    used: Units
    reserved: Units
    balances: Units
    deadline: datetime | None
    served: int
    unreported: int
    chain_head: bytes
    block_version: int
