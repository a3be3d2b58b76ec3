"""What the custodian knows of a loan and of one enclave instance, as values (30-metering, "State").

The store keeps these as rows, ``lease_grant`` and ``release`` decide over them, nobody else changes
them. Not here: keys, content, the borrower's or consumers' tokens in clear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

from cloister.lending.receipt import GENESIS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.messages import Units
    from cloister.lending.terms import ConsumerId, InstanceId, LoanId, Meter, ModelDigest, Terms

__all__ = ["DEFAULT_EVIDENCE_AGE", "Alarm", "AlarmKind", "InstanceState", "InstanceStatus", "LoanState"]

DEFAULT_EVIDENCE_AGE = timedelta(days=7)  # an instance older than this must attest again


class InstanceStatus(Enum):
    """Where an instance stands with the custodian. All but ACTIVE are final: a restart is a new instance."""

    ACTIVE = "active"
    BLOCKED = "blocked"
    FORKED = "forked"
    OVERDRAWN = "overdrawn"
    DEAD = "dead"
    CLOSED = "closed"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceState:
    """One registered enclave instance.

    ``limits`` and ``used`` are absolute and never decrease. ``req_digest`` and ``reply`` belong to
    request ``seq``. ``dead_at`` is when no lease given to it can be alive any more (C8);
    ``written_off`` says that its escrow was emptied, ``clone_proof`` that the appraised policy excludes
    copying its memory, ``clock_trusted`` that its attested clock is outside the host's control (``clock_trust``).

    ``filed`` is the part of ``used`` that a file told and no lease request has told since, ``reach`` are ceilings
    with the overdraft that vouchers promised, ``voucher_until`` is when no voucher can be alive any more.
    """

    id: InstanceId
    loan: LoanId
    key: VerifyKey
    epoch: int
    policy_digest: str
    attested_at: datetime
    committed_at: datetime
    dead_at: datetime
    status: InstanceStatus = InstanceStatus.ACTIVE
    limits: Units = field(default_factory=dict)
    used: Units = field(default_factory=dict)
    chain_head: bytes = GENESIS
    seq: int = 0
    req_digest: bytes | None = None
    reply: bytes | None = None
    written_off: bool = False
    clone_proof: bool = False
    clock_trusted: bool = False
    filed: Units = field(default_factory=dict)
    reach: Units = field(default_factory=dict)
    voucher_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoanState:
    """One loan as it stands inside the transaction that decides.

    ``balances`` is what the allowance still holds per meter. ``block_version`` counts every block and
    unblock of this custodian. ``refund_on_close`` gives the unserved rest of a closing instance back,
    and only where the instance is ``clone_proof``: a copy could go on serving what was given back.
    ``countersigned`` says that the borrower's signature over exactly these terms and this policy is there;
    ``agreed_at`` is since when instances must have attested under the contract in force, None where there is none;
    ``issuers`` the version of those whose word counts for its consumers.
    """

    terms: Terms
    balances: Mapping[Meter, int]
    policy_digest: str
    block_version: int
    blocked: bool = False
    blocked_models: frozenset[ModelDigest] = frozenset()
    blocked_consumers: frozenset[ConsumerId] = frozenset()
    evidence_age: timedelta = DEFAULT_EVIDENCE_AGE
    refund_on_close: bool = False
    countersigned: bool = False
    agreed_at: datetime | None = None
    issuers: int = 0


class AlarmKind(Enum):
    """What a person must look at."""

    FORK = "fork"
    OVERDRAWN = "overdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Evidence that an instance is not the one honest copy it should be."""

    kind: AlarmKind
    instance: InstanceId
    detail: str
