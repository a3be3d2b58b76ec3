"""One inference on its way through the engine: what was asked, by whom, and what has come of it so far."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.lending.receipt import SALT_BYTES
from cloister.lending.sub_allowance import SubAllowance
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from cloister.enclave.engines import RunningModel
    from cloister.enclave.engines.tensor import Tensor
    from cloister.enclave.oip import InferRequest
    from cloister.enclave.served import ServedModel
    from cloister.enclave.withholding import Withholding
    from cloister.lending.conditions import Caller
    from cloister.lending.lease import Reservation
    from cloister.lending.terms import ConsumerId

__all__ = ["Job", "Salts"]


@hot_value
class Salts:
    """The salts of the two commitments of one receipt."""

    request: bytes = field(repr=False)
    response: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> Salts:
        """Return new ones; both from one call, for each asks the kernel."""
        both = secrets.token_bytes(2 * SALT_BYTES)
        return cls(request=both[:SALT_BYTES], response=both[SALT_BYTES:])


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A request that fits its model. Its units are set aside when its run starts (E4), and not before.

    ``who`` is who asks as ``Metering.reserve`` takes it, ``caller`` whose turn it takes, ``until`` the time of the
    event loop by which it must start, ``withheld`` what its caller is shown of the outputs, ``body`` what the receipt
    commits to.
    """

    who: bytes | SubAllowance | ConsumerId | None = field(repr=False)
    caller: Caller
    units: int
    until: float | None
    model: ServedModel
    running: RunningModel
    asked: InferRequest = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    withheld: Withholding
    body: bytes = field(repr=False)
    salts: Salts = field(default_factory=Salts.fresh, repr=False)
    reservation: Reservation | None = None
    ticket: bytes | None = field(default=None, repr=False)

    @property
    def payer(self) -> str:
        """Whose turn it takes: a consumer's, or that of whoever the borrower gave a sub-allowance, however narrowed."""
        if self.caller is None:
            return ""
        return f"sub {self.caller.ids[0]}" if isinstance(self.caller, SubAllowance) else f"consumer {self.caller.id}"

    @property
    def size(self) -> int:
        """Bytes of its inputs."""
        return sum([tensor.array.nbytes for tensor in self.tensors])

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that were asked for: all that are shown where none is named."""
        return tuple([item.name for item in self.asked.outputs]) or self.withheld.names
