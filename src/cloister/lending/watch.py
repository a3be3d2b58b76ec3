"""What a contract watches for in the way a consumer asks, as a clause (docs/spec/watches.md).

Not done here: noticing it (``enclave.guard``), doing something about it (``consumer_meters``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Self

from cloister.wire import Fields, Json

__all__ = ["MAX_ABOVE", "Watch", "WatchAction", "WatchKind", "take_watches"]

MAX_ABOVE = 10**9


class WatchKind(Enum):
    """What is noticed. Each is a total over one consumer's inputs or answers, never one of them."""

    DISTINCT = "distinct"
    """Different inputs, estimated: an alarm for every ``above`` of them."""
    NEAR = "near"
    """More than ``above`` percent of recent inputs almost equal an earlier one: differences, sweeps, gradients."""
    REGULAR = "regular"
    """Recent inputs lie more evenly apart than ``above`` in a thousand: noise and grids, not things that happen."""
    SPREAD = "spread"
    """Answers fell into more than ``above`` percent of the directions there are: for embeddings."""
    UNSURE = "unsure"
    """More than ``above`` percent of recent answers are close between two classes: for classifiers."""


class WatchAction(Enum):
    """What an alarm does to its consumer, beside being counted."""

    NOTE = "note"
    SLOW = "slow"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One thing that is watched for, and what follows."""

    kind: WatchKind
    above: int
    action: WatchAction = WatchAction.NOTE

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/watches.md."""
        members: dict[str, Json] = {"above": self.above, "kind": self.kind.value}
        return members | ({"action": self.action.value} if self.action is not WatchAction.NOTE else {})

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="watch")
        watch = cls(
            kind=_kind(fields),
            above=fields.integer("above", floor=1, cap=MAX_ABOVE),
            action=_action(fields) if "action" in fields else WatchAction.NOTE,
        )
        fields.end()
        return watch


def take_watches(fields: Fields, name: str) -> tuple[Watch, ...]:
    """Return the watches: at least one, in order of their kinds, one for each. Raises ``Malformed``."""
    watches = tuple(Watch.from_json(item) for item in fields.items(name, cap=len(WatchKind)))
    kinds = [watch.kind.value for watch in watches]
    if not watches or kinds != sorted(set(kinds)):
        fields.fail(name, "want at least one watch, in order of their kinds, one for each")
    return watches


def _kind(fields: Fields) -> WatchKind:
    text = fields.text("kind", cap=16)
    found = next((kind for kind in WatchKind if kind.value == text), None)
    if found is None:
        fields.fail("kind", "want " + ", ".join(kind.value for kind in WatchKind))
    return found


def _action(fields: Fields) -> WatchAction:
    text = fields.text("action", cap=16)
    found = next((action for action in WatchAction if action.value == text and action is not WatchAction.NOTE), None)
    if found is None:
        fields.fail("action", "want slow or stop, or no such member")
    return found
