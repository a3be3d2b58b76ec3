"""The contract as consumers are shown it (docs/spec/contract.md, section 6): the document, and who may ask now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from cloister.lending.contract import SignedContract
    from cloister.lending.terms import Consumer
    from cloister.wire import Json

__all__ = ["contract_json"]


def contract_json(contract: SignedContract | None, consumers: tuple[Consumer, ...] | None) -> Json:
    """Return what ``GET /v2/contract`` answers. Raises ``Rejected`` (``not_found``) for a loan without a contract."""
    if contract is None:
        raise Rejected.because("not_found", "contract", hint="this loan is older than contracts")
    ids: list[Json] | None = None if consumers is None else [str(consumer.id) for consumer in consumers]
    return {"consumers": ids, "contract": dump_b64u(contract.dump())}
