"""A sub-allowance as its holder keeps it: the chain, and the secret of its last block (docs/spec/sub-allowance.md).

Whoever has the file can use what is left of it, and hand out narrower ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cloister.crypto.sign import SigningKey
from cloister.lending.sub_allowance import MAX_CHAIN_BYTES, SECRET_BYTES, Caveats, Chain
from cloister.private_file import read_private
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.lending.terms import LoanId

__all__ = ["SUB_ALLOWANCE_FIELD", "HeldSubAllowance", "take_field"]

SUB_ALLOWANCE_FIELD = "cloister-sub-allowance"
_MAX_FILE_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSubAllowance:
    """A chain and the secret that presents it. Never prints the secret."""

    chain: Chain
    secret: SigningKey = field(repr=False)

    @classmethod
    def start(cls, borrower: SigningKey, *, loan: LoanId, caveats: Caveats) -> Self:
        """Return a new one, signed by the borrower, with a fresh secret."""
        secret = SigningKey.generate()
        return cls(chain=Chain.start(borrower, loan=loan, holder=secret.verify_key, caveats=caveats), secret=secret)

    def narrow(self, caveats: Caveats) -> Self:
        """Return a narrower one for somebody else, with a fresh secret. Raises ``UsageError``."""
        secret = SigningKey.generate()
        return type(self)(
            chain=self.chain.narrow(self.secret, holder=secret.verify_key, caveats=caveats), secret=secret
        )

    @property
    def token(self) -> str:
        """The bearer token: it goes to a verified enclave, encrypted, and nowhere else."""
        return dump_b64u(self.secret.seed())

    @property
    def field(self) -> str:
        """The value of the field ``cloister-sub-allowance``."""
        return dump_b64u(self.chain.dump())

    def dump(self) -> bytes:
        """Return the file, secret included."""
        return dump_json({"chain": self.field, "secret": self.token, "v": 1})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse. Raises ``Malformed``, also for a secret that is not the last holder's."""
        fields = Fields.parse(data, what="sub-allowance file", cap=_MAX_FILE_BYTES)
        fields.literal("v", 1)
        chain = Chain.parse(fields.b64u("chain", cap=MAX_CHAIN_BYTES))
        secret = SigningKey(fields.b64u("secret", size=SECRET_BYTES))
        fields.end()
        if secret.verify_key != chain.blocks[-1].holder:
            fields.fail("secret", "is not the holder's")
        return cls(chain=chain, secret=secret)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Return what a file of mode 0600 holds. Raises ``UsageError``, ``Malformed``."""
        return cls.parse(read_private(path, cap=_MAX_FILE_BYTES, holds="a secret", links=True))


def take_field(held: HeldSubAllowance | None) -> tuple[tuple[str, str], ...]:
    """Return the field line that goes beside the token, none without a sub-allowance."""
    return () if held is None else ((SUB_ALLOWANCE_FIELD, held.field),)
