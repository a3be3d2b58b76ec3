"""Two persons: which operations one alone may only propose (T89, docs/spec/proposal.md).

An operation is what a setting can name. A route that carries one out has a ``Duty``: whether this very call needs a
second person, and what of the present state was looked at when it was asked for. To put another operation under the
rule: a member here, ``duty=`` on its route, whose handler works through ``Call.run`` or ``Call.change``.

What is done with the vault file on the custodian's own machine is no call. ``key_export`` has a route that makes a
signed permit for it; ``key_recovery`` is for when no custodian can run: there the holders of shares are the persons
(docs/adr/0054-key-export.md).

Not done here: proposing and approving (``service.proposals``), stopping. No stop waits for a second person, unless a
site spells out that removing an issuer does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.custodian.calls import Call
    from cloister.custodian.config import Config
    from cloister.custodian.service import Transaction
    from cloister.wire import Json

__all__ = ["AS_THE_PROFILE_SAYS", "IN_PRODUCTION", "Approved", "Duty", "Operation", "named_operations"]

AS_THE_PROFILE_SAYS = "profile"
"""The one word of the setting ``two_person`` that is no operation: in production ``IN_PRODUCTION``, else none."""


class Operation(Enum):
    """What a second person may have to approve."""

    POLICY = "policy"
    UNBLOCK = "unblock"
    PERSON = "person"
    ROTATION = "rotation"
    ERASURE = "erasure"
    ISSUER = "issuer"
    KEY_EXPORT = "key_export"
    KEY_RECOVERY = "key_recovery"


IN_PRODUCTION = frozenset(Operation) - {Operation.ISSUER}
"""What the profile ``production`` asks two persons for. Removing an issuer is a stop: only where it is spelled out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What a route owes to the rule. ``basis`` is what a proposal was made on; it is read again when it is approved.

    ``applies`` reads the call's body, so it may raise ``Malformed``.
    """

    operation: Operation
    basis: Callable[[Transaction, Call], Json]
    applies: Callable[[Call], bool] = lambda _call: True


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """What a call is carried out on: a proposal, its digest, who asked for it and who approved it, as the log says."""

    proposal: str
    digest: bytes
    by: str
    approved_by: str


def named_operations(config: Config) -> frozenset[Operation]:
    """Return the operations that the settings put under the rule."""
    if config.two_person == (AS_THE_PROFILE_SAYS,):
        return IN_PRODUCTION if config.is_production else frozenset()
    return frozenset(Operation(name) for name in config.two_person)
