"""The loan as a value: which models, which borrower, which consumers, on what terms.

A **meter** is one thing that is counted. Every loan has the meter ``loan``; it may have meters for a
model (``model:NAME``) and for a consumer (``consumer:ID``). An inference is charged to every meter it
falls under and needs room in all of them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, NewType

from cloister.lending.clauses import NO_CLAUSES, Clauses
from cloister.lending.names import NAME
from cloister.wire import Fields, Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

__all__ = [
    "LOAN_METER",
    "MAX_CONSUMERS",
    "MAX_MODELS",
    "MAX_STANDING",
    "MAX_UNITS",
    "MAX_VERSIONS",
    "NAME",
    "NO_TOKEN",
    "Consumer",
    "ConsumerId",
    "InstanceId",
    "LoanId",
    "Meter",
    "ModelDigest",
    "ModelTerms",
    "OutageRule",
    "Terms",
    "consumer_meter",
    "instance_id",
    "leased_meters",
    "meters_in",
    "meters_of",
    "model_meter",
    "unserved_cap",
]

LoanId = NewType("LoanId", str)
InstanceId = NewType("InstanceId", str)
"""SHA-256 over the instance's raw Ed25519 public key, lower-case hex."""
ModelDigest = NewType("ModelDigest", str)
"""SHA-256 over the exact bytes of the signed manifest, lower-case hex."""
ConsumerId = NewType("ConsumerId", str)
Meter = NewType("Meter", str)

LOAN_METER = Meter("loan")
MAX_UNITS = 2**53 - 1  # units; the largest integer every JSON reader keeps exactly
MAX_MODELS = 32  # models per loan
MAX_STANDING = 2 * MAX_MODELS  # digests in a lease: each model, and the version that it replaces
MAX_VERSIONS = 32  # versions of one model over the life of a loan
MAX_CONSUMERS = 1000  # consumers per loan
MAX_TTL_S = 3600  # seconds a lease may live
MAX_CEILING = 1_000_000  # units one instance may hold unserved
_UNTRUSTED_SHARE = 10  # the part of N that an instance with an untrusted clock may hold, where a loan names none
_LEAST_UNTRUSTED = 5  # units: below that, serving would wait for a renewal after every few answers

LOAN_ID = re.compile(r"loan-[a-z2-7]{16}")
DIGEST = re.compile(r"[0-9a-f]{64}")
NO_TOKEN = bytes(32)
"""What nobody's token hashes to."""
METER = re.compile(r"loan|(?:model|consumer):[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


def model_meter(name: str) -> Meter:
    """Return the meter that counts one model of a loan."""
    return Meter(f"model:{name}")


def consumer_meter(consumer: ConsumerId) -> Meter:
    """Return the meter that counts one consumer of a loan."""
    return Meter(f"consumer:{consumer}")


def instance_id(instance_pub: bytes) -> InstanceId:
    """Return the id of the enclave instance that owns this public key."""
    return InstanceId(hashlib.sha256(instance_pub).hexdigest())


class OutageRule(Enum):
    """What an enclave does while it cannot renew. OFFLINE takes an offline term and signed vouchers."""

    STOP = "stop"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTerms:
    """One lent model: the name consumers ask for, the exact sealed model, whether it has its own meter.

    ``ticketed`` says that each inference takes one signature of the custodian. ``replaces`` are the versions before,
    newest first: the newest of them may still be served where it runs already, none is released any more, and what
    was served of all of them is still counted under this name.
    """

    name: str
    digest: ModelDigest
    metered: bool = False
    ticketed: bool = False
    replaces: tuple[ModelDigest, ...] = ()

    @property
    def standing(self) -> tuple[ModelDigest, ...]:
        """The versions that may be served: this one, and the one before it while instances move on."""
        return (self.digest, *self.replaces[:1])

    @property
    def versions(self) -> tuple[ModelDigest, ...]:
        """Every version that was ever lent under this name, newest first."""
        return (self.digest, *self.replaces)

    def at(self, digest: ModelDigest) -> ModelTerms | None:
        """Return these terms for one of the versions that may be served, None for any other."""
        if digest == self.digest:
            return self
        return replace(self, digest=digest, replaces=self.replaces[1:]) if digest in self.standing else None

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/lease.md."""
        members: dict[str, Json] = {"digest": self.digest, "metered": self.metered, "name": self.name}
        if self.replaces:
            members["replaces"] = list(self.replaces)
        return members | ({"ticketed": True} if self.ticketed else {})

    @classmethod
    def from_json(cls, value: Json) -> ModelTerms:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="model terms")
        terms = cls(
            name=fields.match("name", NAME),
            digest=ModelDigest(fields.match("digest", DIGEST)),
            metered=fields.boolean("metered"),
            ticketed="ticketed" in fields,
            replaces=_replaces(fields) if "replaces" in fields else (),
        )
        if len(set(terms.versions)) != len(terms.versions):
            fields.fail("replaces", "want each version once")
        if terms.ticketed and not fields.boolean("ticketed"):
            fields.fail("ticketed", "want true, or no such member")
        fields.end()
        return terms


def _replaces(fields: Fields) -> tuple[ModelDigest, ...]:
    texts = fields.texts("replaces", cap=MAX_VERSIONS - 1, item_cap=64)
    if not texts or not all(DIGEST.fullmatch(text) for text in texts):
        fields.fail("replaces", "want digests, or no such member")
    return tuple(ModelDigest(text) for text in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """One consumer of a loan, known to the enclave by the SHA-256 of its bearer token.

    ``NO_TOKEN`` in its place: it has none, and comes by the word of an issuer (``identity``) alone.
    """

    id: ConsumerId
    token_sha256: bytes
    metered: bool = False

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/lease.md."""
        return {"id": self.id, "metered": self.metered, "token_sha256": self.token_sha256.hex()}

    @classmethod
    def from_json(cls, value: Json) -> Consumer:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="consumer")
        consumer = cls(
            id=ConsumerId(fields.match("id", NAME)),
            token_sha256=fields.hex("token_sha256", size=32),
            metered=fields.boolean("metered"),
        )
        fields.end()
        return consumer


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What custodian and borrower agreed on. ``consumers`` None means anybody who reaches the enclave.

    ``ttl`` is T of docs/spec/lease.md (lease time-to-live), ``rate_cap`` units per second (0 = no cap),
    ``max_ceiling`` the most units one instance may hold unserved (the hard part of N), ``untrusted_ceiling`` the same
    for an instance whose clock is not to be trusted (None: ``unserved_cap`` says), ``max_instances`` how many
    enclave instances may live at once, ``clauses`` what else was agreed on.
    """

    loan: LoanId
    borrower: str
    models: tuple[ModelTerms, ...]
    consumers: tuple[Consumer, ...] | None
    ttl: timedelta = timedelta(seconds=60)
    rate_cap: int = 0
    max_ceiling: int = 1000
    untrusted_ceiling: int | None = None
    max_instances: int = 4
    outage: OutageRule = OutageRule.STOP
    clauses: Clauses = NO_CLAUSES
    version: int = 1

    @property
    def holds(self) -> timedelta:
        """How long an instance may stand without a word: T, or the offline term where that is longer."""
        return self.ttl if self.clauses.offline is None else max(self.ttl, self.clauses.offline.lasts)

    def to_json(self) -> dict[str, Json]:
        """Return the JSON object of docs/spec/lease.md."""
        clauses = self.clauses.to_json()
        members: dict[str, Json] = {
            "borrower": self.borrower,
            "consumers": None if self.consumers is None else [consumer.to_json() for consumer in self.consumers],
            "loan": self.loan,
            "max_ceiling": self.max_ceiling,
            "max_instances": self.max_instances,
            "models": [model.to_json() for model in self.models],
            "outage": self.outage.value,
            "rate_cap": self.rate_cap,
            "ttl_s": int(self.ttl.total_seconds()),
            "v": 1,
            "version": self.version,
        }
        if self.untrusted_ceiling is not None:
            members["untrusted_ceiling"] = self.untrusted_ceiling
        return members | ({"clauses": clauses} if clauses else {})

    def dump(self) -> bytes:
        """Return the canonical bytes, over which the loan's digest is taken."""
        return dump_json(self.to_json())

    @classmethod
    def from_json(cls, value: Json) -> Terms:
        """Parse. Raises ``Malformed``, also for double names and for a loan of no model."""
        fields = Fields(value, what="terms")
        fields.literal("v", 1)
        models = tuple(ModelTerms.from_json(item) for item in fields.items("models", cap=MAX_MODELS))
        consumers = _consumers(fields)
        terms = cls(
            loan=LoanId(fields.match("loan", LOAN_ID)),
            borrower=fields.text("borrower", cap=200, floor=1),
            models=models,
            consumers=consumers,
            ttl=fields.seconds("ttl_s", floor=1, cap=MAX_TTL_S),
            rate_cap=fields.integer("rate_cap", cap=MAX_CEILING),
            max_ceiling=fields.integer("max_ceiling", floor=1, cap=MAX_CEILING),
            untrusted_ceiling=fields.optional("untrusted_ceiling", lambda name: fields.integer(name, floor=1)),
            max_instances=fields.integer("max_instances", floor=1, cap=1000),
            outage=_outage(fields),
            clauses=_clauses(fields) if "clauses" in fields else NO_CLAUSES,
            version=fields.integer("version", floor=1),
        )
        fields.end()
        if terms.untrusted_ceiling is not None and terms.untrusted_ceiling > terms.max_ceiling:
            fields.fail("untrusted_ceiling", "want at most max_ceiling")
        if not models or len({model.name for model in models}) != len(models):
            fields.fail("models", "want at least one, each name once")
        paid = {digest for item in models if item.ticketed for digest in item.versions}
        if any(digest in paid for item in models if not item.ticketed for digest in item.versions):
            fields.fail("models", "one sealed model with tickets and without")
        if consumers is not None and len({consumer.id for consumer in consumers}) != len(consumers):
            fields.fail("consumers", "double id")
        if (terms.outage is OutageRule.OFFLINE) != (terms.clauses.offline is not None):
            fields.fail("outage", "want offline exactly where the clauses have an offline term")
        misfit = terms.clauses.misfit({model.name for model in models}, max_instances=terms.max_instances)
        if misfit is not None:
            fields.fail("clauses", misfit)
        return terms

    def model(self, name: str) -> ModelTerms | None:
        """Return the lent model of that name, or None."""
        for model in self.models:  # on the way of every inference: a generator costs as much as all the rest
            if model.name == name:
                return model
        return None

    def differs_in_versions_only(self, other: Terms) -> bool:
        """Tell whether ``other`` lends the same models by name on the same terms, perhaps in other versions.

        Who the consumers are, and the version of the terms, is no matter.
        """
        return self._but_versions() == other._but_versions()

    def _but_versions(self) -> Terms:
        none = ModelDigest("")
        models = tuple(replace(model, digest=none, replaces=()) for model in self.models)
        return replace(self, models=models, consumers=None if self.consumers is None else (), version=1)


def _consumers(fields: Fields) -> tuple[Consumer, ...] | None:
    if "consumers" not in fields:
        fields.fail("consumers", "missing; null means anybody")
    value = fields.take("consumers")
    if value is None:
        return None
    items = Fields({"consumers": value}, what="terms").items("consumers", cap=MAX_CONSUMERS)
    return tuple(Consumer.from_json(item) for item in items)


def _outage(fields: Fields) -> OutageRule:
    text = fields.text("outage", cap=32)
    found = next((rule for rule in OutageRule if rule.value == text), None)
    if found is None:
        fields.fail("outage", "want stop or offline")
    return found


def _clauses(fields: Fields) -> Clauses:
    clauses = Clauses.from_json(fields.take("clauses"))
    if clauses == NO_CLAUSES:
        fields.fail("clauses", "want at least one, or no such member")
    return clauses


def meters_of(model: ModelTerms, consumer: Consumer | None, leased: Container[Meter] = ()) -> tuple[Meter, ...]:
    """Return every meter that one inference of ``model`` for ``consumer`` is charged to.

    A meter that is ``leased`` is charged, whatever the terms say: they may be older.
    """
    meters = [LOAN_METER]
    if model.metered or model_meter(model.name) in leased:
        meters.append(model_meter(model.name))
    if consumer is not None and (consumer.metered or consumer_meter(consumer.id) in leased):
        meters.append(consumer_meter(consumer.id))
    return tuple(meters)


def meters_in(terms: Terms) -> tuple[Meter, ...]:
    """Return every meter that these terms have, the loan's first."""
    models = tuple(model_meter(model.name) for model in terms.models if model.metered)
    consumers = tuple(consumer_meter(consumer.id) for consumer in terms.consumers or () if consumer.metered)
    return (LOAN_METER, *models, *consumers)


def unserved_cap(terms: Terms, *, trusted: bool = True) -> int:
    """Return N: the most units of one meter that one instance may hold unserved, and one crash may lose.

    Where its clock is not ``trusted`` N is what a frozen clock can win, so it is smaller: ``untrusted_ceiling``, or a
    tenth of N and at least 5 where the loan names none. Never more than N of a trusted clock.
    """
    cap = terms.max_ceiling
    if terms.rate_cap:
        cap = min(cap, terms.rate_cap * int(terms.ttl.total_seconds()))
    if trusted:
        return cap
    untrusted = terms.untrusted_ceiling
    return min(cap, max(_LEAST_UNTRUSTED, cap // _UNTRUSTED_SHARE) if untrusted is None else untrusted)


def leased_meters(
    terms: Terms, consumers: tuple[Consumer, ...] | None, leased: Iterable[Meter] = ()
) -> tuple[Meter, ...]:
    """Return the meters that ceilings are for, ``leased`` ones too; what is served by ticket needs none."""
    plain = tuple(model for model in terms.models if not model.ticketed)
    if not plain:
        return ()
    ticketed = {model_meter(model.name) for model in terms.models if model.ticketed}
    models = (model_meter(model.name) for model in plain if model.metered)
    named = (consumer_meter(consumer.id) for consumer in consumers or () if consumer.metered)
    return tuple(meter for meter in dict.fromkeys((LOAN_METER, *models, *named, *leased)) if meter not in ticketed)
