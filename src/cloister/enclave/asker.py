"""Who asks, once it is known: as the lease takes it, as conditions know it, and whose replies it may be given again."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from cloister.lending.sub_allowance import SubAllowance
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from cloister.lending.conditions import Caller
    from cloister.lending.terms import ConsumerId

__all__ = ["NOBODY", "Asker"]


@hot_value
class Asker:
    """Somebody who asks.

    ``who`` is what ``Metering.reserve`` takes, ``caller`` the consumer or sub-allowance, None where the loan is open to
    anybody. ``scope`` is theirs alone: under it replies are kept for a second try with one Idempotency-Key.
    """

    who: bytes | SubAllowance | ConsumerId | None = field(repr=False)
    caller: Caller
    scope: bytes = field(repr=False)

    @classmethod
    def by_token(cls, token: bytes | None, caller: Caller) -> Asker:
        """Return who came with a token. Scope is the token, so that ids never meet, also where a loan knows nobody."""
        return cls(who=caller if isinstance(caller, SubAllowance) else token, caller=caller, scope=token or b"")


NOBODY = Asker(who=None, caller=None, scope=b"")
