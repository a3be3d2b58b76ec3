"""Sub-allowances: what a borrower lets somebody use of its loan, as a chain that can only narrow.

Block 0 is signed by the borrower's key in the loan's contract; every further block by the key that the block
before names as its holder. Every caveat of every block must hold, so that adding a block cannot widen anything
(docs/spec/sub-allowance.md). Whoever presents a chain proves that it holds the secret of the last block.

Pure: ``now`` is passed in. Not done here: counting (``sub_meters``), the loan's own conditions (``conditions``).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NewType, Self

from cloister.crypto.sign import Label, SigningKey, VerifyKey
from cloister.errors import Malformed, Reason, Rejected, UsageError
from cloister.lending.clauses import MAX_PRECISION, MAX_PURPOSE_CHARS, take_hours
from cloister.lending.terms import DIGEST, LOAN_ID, MAX_MODELS, MAX_UNITS, NAME, InstanceId, LoanId
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time, parse_b64u

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.lending.clauses import Window

__all__ = [
    "MAX_BLOCKS",
    "MAX_CHAIN_BYTES",
    "MAX_LIFE",
    "Block",
    "BlockId",
    "Caveats",
    "Chain",
    "SubAllowance",
    "verify_chain",
]

BlockId = NewType("BlockId", str)
"""SHA-256 over a block and all before it, hex: what is counted is counted under this."""

MAX_BLOCKS = 8  # blocks of one chain
MAX_CHAIN_BYTES = 16 * 1024  # bytes of one dumped chain
MAX_LIFE = timedelta(days=31)  # how far ahead the end of a sub-allowance may be when it is presented
SECRET_BYTES = 32
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Caveats:
    """What one block demands. Absent means that this block says nothing about it.

    ``units`` is a total and ``per_minute`` a cap for each minute of the clock, both **per enclave instance**:
    each live instance counts for itself. ``hours`` are UTC. ``name`` and ``purpose`` are for people.
    """

    name: str = ""
    purpose: str = ""
    models: tuple[str, ...] | None = None
    units: int | None = None
    per_minute: int | None = None
    hours: tuple[Window, ...] | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    precision: int | None = None
    instance: InstanceId | None = None

    def to_json(self) -> dict[str, Json]:
        """Return the JSON object of docs/spec/sub-allowance.md: what is said, and nothing else."""
        members: dict[str, Json] = {
            "hours": None if self.hours is None else [window.to_json() for window in self.hours],
            "instance": self.instance,
            "models": None if self.models is None else list(self.models),
            "name": self.name or None,
            "not_after": None if self.not_after is None else dump_time(self.not_after),
            "not_before": None if self.not_before is None else dump_time(self.not_before),
            "per_minute": self.per_minute,
            "precision": self.precision,
            "purpose": self.purpose or None,
            "units": self.units,
        }
        return {name: value for name, value in members.items() if value is not None}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="caveats")
        caveats = cls(
            name=fields.match("name", NAME) if "name" in fields else "",
            purpose=fields.text("purpose", cap=MAX_PURPOSE_CHARS, floor=1) if "purpose" in fields else "",
            models=fields.optional("models", lambda name: _models(fields, name)),
            units=fields.optional("units", lambda name: fields.integer(name, cap=MAX_UNITS)),
            per_minute=fields.optional("per_minute", lambda name: fields.integer(name, cap=MAX_UNITS)),
            hours=fields.optional("hours", lambda name: take_hours(fields, name)),
            not_before=fields.optional("not_before", fields.time),
            not_after=fields.optional("not_after", fields.time),
            precision=fields.optional("precision", lambda name: fields.integer(name, cap=MAX_PRECISION)),
            instance=fields.optional("instance", lambda name: InstanceId(fields.match(name, DIGEST))),
        )
        fields.end()
        return caveats

    def misfits(self, *, model: str, instance: InstanceId, now: datetime) -> tuple[Reason, ...]:
        """Return why a use does not satisfy these caveats, counts aside; empty where it does."""
        found = []
        if self.models is not None and model not in self.models:
            found.append(_scope("model", got=model, want=", ".join(self.models)[:400]))
        if self.instance is not None and self.instance != instance:
            found.append(_scope("instance", got=instance, want=self.instance))
        if self.hours is not None and not any(window.holds(now) for window in self.hours):
            found.append(Reason(code="outside_hours", subject="sub-allowance", got=dump_time(now)))
        if self.not_before is not None and now < self.not_before:
            found.append(_time(now, want=f"not before {dump_time(self.not_before)}"))
        if self.not_after is not None and now >= self.not_after:
            found.append(_time(now, want=f"before {dump_time(self.not_after)}"))
        return tuple(found)


def _models(fields: Fields, name: str) -> tuple[str, ...]:
    models = fields.texts(name, cap=MAX_MODELS, item_cap=64)
    if list(models) != sorted(set(models)) or not all(NAME.fullmatch(model) for model in models):
        fields.fail(name, "want names of models, in order, each once")
    return models


def _scope(subject: str, *, got: str, want: str) -> Reason:
    return Reason(code="sub_allowance_scope", subject=f"sub-allowance: {subject}", got=got[:80], want=want)


def _time(now: datetime, *, want: str) -> Reason:
    return Reason(code="sub_allowance_expired", subject="sub-allowance", got=dump_time(now), want=want)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One link: caveats, and the public key of whom they are for. ``payload`` is the exact signed bytes."""

    payload: bytes
    signature: bytes = field(repr=False)
    holder: VerifyKey
    caveats: Caveats
    loan: LoanId | None
    previous: BlockId | None

    @classmethod
    def parse(cls, payload: bytes, signature: bytes) -> Self:
        """Parse one signed block. Checks no signature. Raises ``Malformed``."""
        fields = Fields.parse(payload, what="sub-allowance block", cap=MAX_CHAIN_BYTES, canonical=True)
        fields.literal("v", 1)
        block = cls(
            payload=payload,
            signature=signature,
            holder=VerifyKey.take(fields, "holder"),
            caveats=Caveats.from_json(fields.take("caveats")),
            loan=fields.optional("loan", lambda name: LoanId(fields.match(name, LOAN_ID))),
            previous=fields.optional("previous", lambda name: BlockId(fields.match(name, DIGEST))),
        )
        fields.end()
        return block


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Blocks as they came, links in form: the first names the loan and its end, each other the block before.

    Not verified: see ``verify_chain``.
    """

    blocks: tuple[Block, ...]

    @property
    def ids(self) -> tuple[BlockId, ...]:
        """The id of every block, each over all blocks before it."""
        found: list[BlockId] = []
        for block in self.blocks:
            found.append(_block_id(found[-1] if found else None, block.payload))
        return tuple(found)

    @classmethod
    def start(cls, borrower: SigningKey, *, loan: LoanId, holder: VerifyKey, caveats: Caveats) -> Self:
        """Return a new chain, signed by the borrower. Raises ``UsageError`` for one without an end."""
        if caveats.not_after is None:
            msg = "sub-allowance: has no end"
            raise UsageError(msg, hint="say until when; calling it back reaches only enclaves that are told")
        members: dict[str, Json] = {"caveats": caveats.to_json(), "holder": holder.dump(), "loan": loan, "v": 1}
        return cls._signed((), members, borrower)

    def narrow(self, secret: SigningKey, *, holder: VerifyKey, caveats: Caveats) -> Self:
        """Return the chain with one more block, signed by the holder of the last. Raises ``UsageError``."""
        if secret.verify_key != self.blocks[-1].holder:
            msg = "sub-allowance: this secret is not the holder's"
            raise UsageError(msg)
        if len(self.blocks) >= MAX_BLOCKS:
            msg = f"sub-allowance: {len(self.blocks)} blocks, which is the most there may be"
            raise UsageError(msg)
        members: dict[str, Json] = {
            "caveats": caveats.to_json(), "holder": holder.dump(), "previous": self.ids[-1], "v": 1,
        }  # fmt: skip
        return self._signed(self.blocks, members, secret)

    @classmethod
    def _signed(cls, before: tuple[Block, ...], members: dict[str, Json], key: SigningKey) -> Self:
        payload = dump_json(members)
        chain = cls(blocks=(*before, Block.parse(payload, key.sign(Label.SUB_ALLOWANCE, payload))))
        size = len(chain.dump())
        if size > MAX_CHAIN_BYTES:
            msg = f"sub-allowance: {size} bytes, want at most {MAX_CHAIN_BYTES}"
            raise UsageError(msg)
        return chain

    def dump(self) -> bytes:
        """Return the chain: canonical JSON."""
        blocks: list[Json] = [
            {"payload": dump_b64u(block.payload), "sig": dump_b64u(block.signature)} for block in self.blocks
        ]
        return dump_json({"blocks": blocks, "v": 1})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse. Checks no signature. Raises ``Malformed``."""
        fields = Fields.parse(data, what="sub-allowance", cap=MAX_CHAIN_BYTES, canonical=True)
        fields.literal("v", 1)
        blocks = tuple(_take_block(item) for item in fields.items("blocks", cap=MAX_BLOCKS))
        fields.end()
        if not blocks:
            fields.fail("blocks", "none")
        first, *others = blocks
        if first.loan is None or first.previous is not None or first.caveats.not_after is None:
            fields.fail("blocks", "the first names the loan and its end, and no block before it")
        if any(block.loan is not None or block.previous is None for block in others):
            fields.fail("blocks", "each after the first names the block before it, and no loan")
        return cls(blocks=blocks)


def _take_block(value: Json) -> Block:
    fields = Fields(value, what="sub-allowance: block")
    payload, signature = fields.b64u("payload", cap=MAX_CHAIN_BYTES), fields.b64u("sig", size=_SIGNATURE_BYTES)
    fields.end()
    return Block.parse(payload, signature)


def _block_id(before: BlockId | None, payload: bytes) -> BlockId:
    start = b"" if before is None else bytes.fromhex(before)
    return BlockId(hashlib.sha256(start + hashlib.sha256(payload).digest()).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class SubAllowance:
    """A chain that is proven to be signed from end to end and presented by its holder. Made by ``verify_chain``.

    ``ids`` are those of ``caveats``, block by block.
    """

    ids: tuple[BlockId, ...]
    caveats: tuple[Caveats, ...]

    @property
    def id(self) -> BlockId:
        """The id of the whole chain."""
        return self.ids[-1]

    @property
    def precision(self) -> int | None:
        """The fewest decimal places that a block demands, None where none does."""
        return min((item.precision for item in self.caveats if item.precision is not None), default=None)

    def ends(self, upto: int | None = None) -> datetime:
        """Return when the first ``upto`` blocks (default: all) end: the earliest of their ends."""
        return min(item.not_after for item in self.caveats[:upto] if item.not_after is not None)

    def demand_in_time(self, now: datetime) -> None:
        """Prove that no block of it has ended: whoever held it once is let in to nothing. Raises ``Rejected``."""
        if now >= self.ends():
            reason = _time(now, want=f"before {dump_time(self.ends())}")
            raise Rejected(str(reason), reasons=(reason,))

    def demand(self, *, model: str, instance: InstanceId, now: datetime) -> None:
        """Prove that every caveat of every block holds for this use, counts aside.

        Raises ``Rejected`` with every reason: ``sub_allowance_scope``, ``sub_allowance_expired``, ``outside_hours``.
        """
        reasons = [reason for item in self.caveats for reason in item.misfits(model=model, instance=instance, now=now)]
        if self.ends() - now > MAX_LIFE:
            reasons.append(_time(now, want=f"an end at most {MAX_LIFE.days} days ahead"))
        if reasons:
            raise Rejected("; ".join(map(str, reasons)), reasons=tuple(reasons))


def verify_chain(data: bytes, token: bytes | None, *, borrower: VerifyKey, loan: LoanId) -> SubAllowance:
    """Return the sub-allowance once its chain is proven: loan, every link, every signature, and its holder.

    ``token`` is the bearer token that came with it: the secret of the last block's holder, base64url. It reaches
    an enclave inside the encrypted channel only. Raises ``Malformed`` and ``Rejected`` (``sub_allowance_invalid``).
    """
    chain = Chain.parse(data)
    if chain.blocks[0].loan != loan:
        raise Rejected.because("sub_allowance_invalid", "sub-allowance", got=str(chain.blocks[0].loan), want=loan)
    ids = chain.ids
    signer = borrower
    for at, block in enumerate(chain.blocks):
        if at and block.previous != ids[at - 1]:
            raise Rejected.because("sub_allowance_invalid", f"block {at}", want="the id of the block before it")
        try:
            signer.verify(Label.SUB_ALLOWANCE, block.payload, block.signature)
        except Rejected as exc:
            raise Rejected.because("sub_allowance_invalid", f"block {at}", got="signature of somebody else") from exc
        signer = block.holder
    if not hmac.compare_digest(_public(token), signer.raw):
        raise Rejected.because("sub_allowance_invalid", "token", want="the token of the last holder")
    return SubAllowance(ids=ids, caveats=tuple(block.caveats for block in chain.blocks))


def _public(token: bytes | None) -> bytes:
    """Return the public key of a holder's secret; of nothing, something that is no key."""
    try:
        secret = parse_b64u((token or b"").decode("ascii"), what="token", size=SECRET_BYTES)
        return SigningKey(secret).verify_key.raw
    except (Malformed, UnicodeDecodeError):
        return b""
