"""Evidence schemes that the demo's consumer adds to the production table, by its trust file's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.testing.simulated import SimulatedScheme

if TYPE_CHECKING:
    from cloister.attest.verifier import Scheme
    from cloister.client import Trust

__all__ = ["simulated_schemes"]


def simulated_schemes(trust: Trust) -> tuple[Scheme, ...]:
    """Return the simulated TEE under the root that ``trust`` names, nothing where it names none."""
    return () if trust.simulated_root is None else (SimulatedScheme(trust.simulated_root),)
