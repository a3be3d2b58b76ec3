"""How an enclave comes to serve, and stops: lease request, lease, refusal, close (docs/spec/lease.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from cloister.crypto.sign import Label
from cloister.lending.messages.form import (
    DIGEST_BYTES,
    Units,
    open_payload,
    take_consumers,
    take_instance,
    take_models,
    take_units,
    units_json,
)
from cloister.lending.terms import (
    DIGEST,
    MAX_CEILING,
    Consumer,
    InstanceId,
    ModelDigest,
)
from cloister.lending.watch import WatchKind
from cloister.wire import Json, dump_b64u, dump_json, dump_time, reason_json, take_reasons

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from cloister.errors import Reason
    from cloister.wire import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """E to K: settle what was used and ask for higher ceilings. Signed by the instance key.

    ``used``, ``reserved`` and ``want`` are absolute per meter; ``want`` are the ceilings asked for.
    ``served`` is the index of the last usage record, ``chain_head`` the head after it, ``alarms`` how many of each kind
    there were since the request before this one that was answered: totals, of no consumer by name.
    """

    LABEL: ClassVar = Label.LEASE_REQUEST

    instance: InstanceId
    epoch: int
    seq: int
    req_nonce: bytes
    used: Units
    reserved: Units
    want: Units
    served: int
    chain_head: bytes
    alarms: Mapping[WatchKind, int] = field(default_factory=dict)

    def dump(self) -> bytes:
        """Return the canonical payload."""
        alarms: Json = {kind.value: count for kind, count in self.alarms.items()}
        return dump_json(
            ({"alarms": alarms} if alarms else {})
            | {
                "chain_head": dump_b64u(self.chain_head),
                "epoch": self.epoch,
                "instance": self.instance,
                "req_nonce": dump_b64u(self.req_nonce),
                "reserved": units_json(self.reserved),
                "seq": self.seq,
                "served": self.served,
                "used": units_json(self.used),
                "v": 1,
                "want": units_json(self.want),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> LeaseRequest:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "lease request")
        message = cls(
            instance=take_instance(fields),
            epoch=fields.integer("epoch", floor=1),
            seq=fields.integer("seq", floor=1),
            req_nonce=fields.b64u("req_nonce", size=16),
            used=take_units(fields, "used"),
            reserved=take_units(fields, "reserved"),
            want=take_units(fields, "want"),
            served=fields.integer("served"),
            chain_head=fields.b64u("chain_head", size=DIGEST_BYTES),
            alarms=_alarms(fields) if "alarms" in fields else {},
        )
        fields.end()
        return message


def _alarms(fields: Fields) -> dict[WatchKind, int]:
    """Return how many alarms there were of each kind: at least one of at least one."""
    counts = fields.fields("alarms")
    found = {kind: counts.integer(kind.value, floor=1) for kind in WatchKind if kind.value in counts}
    counts.end()
    if not found:
        fields.fail("alarms", "want at least one, or no such member")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """K to E: serve until ``used + reserved`` reaches ``limits``, for ``ttl`` from when you asked.

    ``limits`` are absolute ceilings per meter. ``models`` and ``consumers`` are those not blocked now
    (None: anybody); ``balances`` is what the allowance still holds beyond all ceilings, for display.
    ``issued_at`` is the custodian's time of the commit, against which the enclave holds its own; ``unserved`` is N
    where this instance's is smaller than the terms say; ``issuers`` is the version of those whose word counts for
    consumers, 0 where nobody's does.
    """

    LABEL: ClassVar = Label.LEASE

    instance: InstanceId
    epoch: int
    seq: int
    req_digest: bytes
    limits: Units
    balances: Units
    ttl: timedelta
    models: tuple[ModelDigest, ...]
    consumers: tuple[Consumer, ...] | None
    policy_digest: str
    block_version: int
    issued_at: datetime | None = None
    unserved: int | None = None
    issuers: int = 0

    def dump(self) -> bytes:
        """Return the canonical payload."""
        more: dict[str, Json] = {} if self.issued_at is None else {"issued_at": dump_time(self.issued_at)}
        if self.unserved is not None:
            more["unserved"] = self.unserved
        if self.issuers:
            more["issuers"] = self.issuers
        return dump_json(
            more
            | {
                "balances": units_json(self.balances),
                "block_version": self.block_version,
                "consumers": None if self.consumers is None else [item.to_json() for item in self.consumers],
                "epoch": self.epoch,
                "instance": self.instance,
                "limits": units_json(self.limits),
                "models": list(self.models),
                "policy_digest": self.policy_digest,
                "req_digest": dump_b64u(self.req_digest),
                "seq": self.seq,
                "ttl_s": int(self.ttl.total_seconds()),
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Lease:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "lease")
        message = cls(
            instance=take_instance(fields),
            epoch=fields.integer("epoch", floor=1),
            seq=fields.integer("seq", floor=1),
            req_digest=fields.b64u("req_digest", size=DIGEST_BYTES),
            limits=take_units(fields, "limits"),
            balances=take_units(fields, "balances"),
            ttl=fields.seconds("ttl_s", floor=1),
            models=take_models(fields),
            consumers=take_consumers(fields),
            policy_digest=fields.match("policy_digest", DIGEST),
            block_version=fields.integer("block_version"),
            issued_at=fields.optional("issued_at", fields.time),
            unserved=fields.optional("unserved", lambda name: fields.integer(name, floor=1, cap=MAX_CEILING)),
            issuers=fields.optional("issuers", lambda name: fields.integer(name, floor=1)) or 0,
        )
        fields.end()
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """K to E: no lease for this request. ``stop`` ends the instance; else ask again after ``retry_after``."""

    LABEL: ClassVar = Label.REFUSAL

    instance: InstanceId
    req_digest: bytes
    reasons: tuple[Reason, ...]
    stop: bool
    retry_after: timedelta
    block_version: int

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "block_version": self.block_version,
                "instance": self.instance,
                "reasons": [reason_json(reason) for reason in self.reasons],
                "req_digest": dump_b64u(self.req_digest),
                "retry_after_s": int(self.retry_after.total_seconds()),
                "stop": self.stop,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Refusal:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "refusal")
        message = cls(
            instance=take_instance(fields),
            req_digest=fields.b64u("req_digest", size=DIGEST_BYTES),
            reasons=take_reasons(fields, "reasons"),
            stop=fields.boolean("stop"),
            retry_after=fields.seconds("retry_after_s"),
            block_version=fields.integer("block_version"),
        )
        fields.end()
        if not message.reasons:
            fields.fail("reasons", "want at least one")
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """E to K: I have erased my keys; this is the last count. Signed by the instance key."""

    LABEL: ClassVar = Label.CLOSE

    instance: InstanceId
    epoch: int
    seq: int
    used: Units
    served: int
    chain_head: bytes

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "chain_head": dump_b64u(self.chain_head),
                "epoch": self.epoch,
                "instance": self.instance,
                "seq": self.seq,
                "served": self.served,
                "used": units_json(self.used),
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Close:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "close")
        message = cls(
            instance=take_instance(fields),
            epoch=fields.integer("epoch", floor=1),
            seq=fields.integer("seq", floor=1),
            used=take_units(fields, "used"),
            served=fields.integer("served"),
            chain_head=fields.b64u("chain_head", size=DIGEST_BYTES),
        )
        fields.end()
        return message
