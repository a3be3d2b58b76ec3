"""What the parts of a ``LeaseHolder`` see of it: ``OfflineHolder`` and ``TicketHolder`` share its key and counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.lending.answers import Answer
    from cloister.lending.conditions import Caller
    from cloister.lending.lease_state import Reservation
    from cloister.lending.messages import Lease, Refusal, Units, Voucher
    from cloister.lending.terms import InstanceId, ModelTerms

__all__ = ["Counters", "Owner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Where an instance stands; ``index`` is that of its latest receipt."""

    instance: InstanceId
    epoch: int
    used: Units
    reserved: Units
    chain_head: bytes
    index: int


class Owner(Protocol):
    """The holder of which something is a part."""

    custodian: VerifyKey

    def observe(self, now: datetime) -> datetime:
        """Show a reading to every clock and return the time to act at."""

    def signing_key(self) -> SigningKey:
        """Return the instance key. Raises ``Rejected`` once the instance has ended."""

    def counters(self) -> Counters:
        """Return where this instance stands."""

    def cut_report(self) -> None:
        """End a usage report here: what is signed next names this chain head, and its reader demands to know it."""

    def reported(self, upto: int) -> None:
        """Note that the custodian has the usage reports up to this index."""

    def wanted(self, cap: int) -> Units:
        """Return ceilings with room for ``cap`` units each."""

    def prove(self, answer: Answer, what: str, pending: bytes | None) -> None:
        """Prove that an answer is ours, to the request with digest ``pending``, and not old. Raises ``Rejected``."""

    def take_word(self, word: Lease | Voucher) -> None:
        """Take ceilings, models and consumers from an answer that was proven."""

    def take_refusal(self, refusal: Refusal) -> None:
        """Take a refusal that was proven."""

    def demand_live(self, model: ModelTerms, consumer: Caller, now: datetime) -> None:
        """Prove that bytes may leave now for this model and consumer. Raises ``Rejected``."""

    def demand_open(self, reservation: Reservation) -> None:
        """Prove that this reservation is the holder's and not settled. Raises ``UsageError``."""

    def is_open(self, number: int) -> bool:
        """Tell whether this reservation is not settled yet."""
