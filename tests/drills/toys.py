"""Enclaves without a process: the real lease state machine and real statements, over HTTPS to a real custodian.

For what needs many of them, or every single message in hand. They hold a loan of their own, whose policy admits the
kit's software; the clock is the machine's.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import httpx2
from custodian_kit import SOFTWARE, Lent, Toy

from cloister.testing.simulated import simulated_policy

if TYPE_CHECKING:
    import ssl

    from drill_house import DrillHouse


def lend_to_toys(house: DrillHouse, **terms: Any) -> dict[str, Any]:
    """Make a loan that toys can take, and return what the custodian answered."""
    body = {
        "borrower": "Hospital of the Holy Ghost",
        "consumers": None,
        "models": [{"digest": house.digest, "name": "digits"}],
        "policy": simulated_policy(SOFTWARE).to_json(),
    }
    return dict(house.call("POST", "/v1/loans", body | terms))


class ToyBox:
    """One way to the custodian, and the toys that go it. Use it in a ``with`` block, from one thread."""

    def __init__(self, house: DrillHouse, made: dict[str, Any], *, url: str, context: ssl.SSLContext) -> None:
        self._client = httpx2.Client(base_url=url, verify=context, timeout=20, trust_env=False)
        bench: Any = SimpleNamespace(
            client=self._client, clock=lambda: datetime.now(UTC), init=house.made, rng=os.urandom, root=house.simulated
        )
        self.lent = Lent(bench, made)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def new(self) -> Toy:
        """Return a toy that has not attested yet."""
        return Toy(self.lent)

    def boot(self) -> Toy:
        """Return a toy that holds its grant."""
        return self.lent.boot()
