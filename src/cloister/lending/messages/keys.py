"""The custodian's word on its keys: which leases are older, whose keys did not come along (docs/spec/key-status.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

from cloister.crypto.sign import Label, VerifyKey
from cloister.lending.messages.form import open_payload
from cloister.lending.terms import DIGEST, LOAN_ID, InstanceId, LoanId, ModelDigest
from cloister.wire import Fields, Json, dump_json, dump_time

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["MAX_BEHIND", "MAX_KEYS", "MAX_STUCK", "Behind", "KekStanding", "KeyStatus", "Stuck", "StuckCause"]

MAX_BEHIND: Final = 1000  # instances listed in one statement
MAX_KEYS: Final = 1000  # key-encryption keys listed in one statement
MAX_STUCK: Final = 1000  # models listed in one statement
_KEK_ID = re.compile(r"kek:[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KekStanding:
    """One key-encryption key: current, retired or destroyed. The vault file's own has epoch 1."""

    kek_id: str
    key_epoch: int
    retired_at: datetime | None
    destroyed_at: datetime | None

    def to_json(self) -> Json:
        """Return the JSON object."""
        times = {"destroyed_at": self.destroyed_at, "retired_at": self.retired_at}
        told = {name: dump_time(at) for name, at in times.items() if at is not None}
        return {"kek_id": self.kek_id, "key_epoch": self.key_epoch, **told}

    @classmethod
    def from_json(cls, value: Json) -> KekStanding:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="key status: key")
        key = cls(
            kek_id=fields.match("kek_id", _KEK_ID),
            key_epoch=fields.integer("key_epoch", floor=1),
            retired_at=fields.optional("retired_at", fields.time),
            destroyed_at=fields.optional("destroyed_at", fields.time),
        )
        fields.end()
        if key.destroyed_at is not None and (key.retired_at is None or key.destroyed_at < key.retired_at):
            fields.fail("destroyed_at", "want a key that was retired before")
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """An instance that may serve until ``dead_at`` by a lease of an older key epoch."""

    instance: InstanceId
    loan: LoanId
    key_epoch: int
    dead_at: datetime

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {
            "dead_at": dump_time(self.dead_at),
            "instance": self.instance,
            "key_epoch": self.key_epoch,
            "loan": self.loan,
        }

    @classmethod
    def from_json(cls, value: Json) -> Behind:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="key status: instance")
        item = cls(
            instance=InstanceId(fields.match("instance", DIGEST)),
            loan=LoanId(fields.match("loan", LOAN_ID)),
            key_epoch=fields.integer("key_epoch", floor=1),
            dead_at=fields.time("dead_at"),
        )
        fields.end()
        return item


class StuckCause(Enum):
    """Why a model's key is not wrapped under the key in use."""

    DUE = "due"
    """It opens, and moves at the next sweep."""

    MALFORMED = "malformed"
    NO_RECIPIENT = "no_recipient"
    NO_VERSION = "no_version"
    WRONG_KEY = "wrong_key"
    WRONG_MODEL = "wrong_model"


_CAUSES = re.compile("|".join(cause.value for cause in StuckCause))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """A model whose key stays under an older key-encryption key, or opens by none."""

    model: ModelDigest
    cause: StuckCause

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {"cause": self.cause.value, "model": self.model}

    @classmethod
    def from_json(cls, value: Json) -> Stuck:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="key status: model")
        item = cls(model=ModelDigest(fields.match("model", DIGEST)), cause=StuckCause(fields.match("cause", _CAUSES)))
        fields.end()
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """K to whoever staff shows it to: all ``live`` leases were granted in ``key_epoch``, but for those behind.

    ``behind_count`` counts those behind, ``behind`` lists them, longest-lived first, up to ``MAX_BEHIND``;
    ``stuck`` likewise lists models whose keys are not wrapped under the key in use.
    """

    LABEL: ClassVar = Label.KEY_STATUS

    custodian: VerifyKey
    issued_at: datetime
    key_epoch: int
    keys: tuple[KekStanding, ...]
    models: int
    live: int
    behind_count: int
    behind: tuple[Behind, ...]
    stuck_count: int
    stuck: tuple[Stuck, ...]

    @property
    def moved(self) -> bool:
        """Tell whether every live lease is of the newest key epoch, and every model's key under its key."""
        return self.behind_count == 0 and self.stuck_count == 0

    def dump(self) -> bytes:
        """Return the payload."""
        return dump_json(
            {
                "behind": [item.to_json() for item in self.behind],
                "behind_count": self.behind_count,
                "custodian": self.custodian.dump(),
                "issued_at": dump_time(self.issued_at),
                "key_epoch": self.key_epoch,
                "keys": [item.to_json() for item in self.keys],
                "live": self.live,
                "models": self.models,
                "stuck": [item.to_json() for item in self.stuck],
                "stuck_count": self.stuck_count,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> KeyStatus:
        """Parse. Raises ``Malformed``, also where the figures contradict each other."""
        fields = open_payload(data, what="key status")
        status = cls(
            custodian=VerifyKey.take(fields, "custodian"),
            issued_at=fields.time("issued_at"),
            key_epoch=fields.integer("key_epoch", floor=1),
            keys=tuple(KekStanding.from_json(item) for item in fields.items("keys", cap=MAX_KEYS)),
            models=fields.integer("models"),
            live=fields.integer("live"),
            behind_count=fields.integer("behind_count"),
            behind=tuple(Behind.from_json(item) for item in fields.items("behind", cap=MAX_BEHIND)),
            stuck_count=fields.integer("stuck_count"),
            stuck=tuple(Stuck.from_json(item) for item in fields.items("stuck", cap=MAX_STUCK)),
        )
        fields.end()
        status._agree(fields)
        return status

    def _agree(self, fields: Fields) -> None:
        current = [item.key_epoch for item in self.keys if item.retired_at is None]
        if current != [self.key_epoch] or max(item.key_epoch for item in self.keys) != self.key_epoch:
            fields.fail("keys", "want one key in use, that of key_epoch, and none newer")
        if len({item.key_epoch for item in self.keys}) != len(self.keys):
            fields.fail("keys", "one is there twice")
        if self.behind_count > self.live or len(self.behind) != min(self.behind_count, MAX_BEHIND):
            fields.fail("behind", "does not fit behind_count and live")
        if any(item.key_epoch >= self.key_epoch or item.dead_at <= self.issued_at for item in self.behind):
            fields.fail("behind", "want live leases of older key epochs")
        if len({item.instance for item in self.behind}) != len(self.behind):
            fields.fail("behind", "one is there twice")
        if len(self.stuck) != min(self.stuck_count, MAX_STUCK):
            fields.fail("stuck", "does not fit stuck_count")
        if len({item.model for item in self.stuck}) != len(self.stuck):
            fields.fail("stuck", "one is there twice")
