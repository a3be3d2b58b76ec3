"""A consumer: the real client over the simulated network, called as if it were not asynchronous."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from datetime import timedelta

    from cloister.client import AsyncClient, Inference, VerifiedEnclave
    from cloister.testing.simulator.clock import PartyClock
    from cloister.testing.simulator.network import Link
    from cloister.testing.simulator.world import World

__all__ = ["SimulatedConsumer"]


class SimulatedConsumer:
    """One consumer who verified one enclave. ``client`` is the product's own object."""

    def __init__(self, world: World, client: AsyncClient, *, name: str, target: str, clock: PartyClock) -> None:
        """Take over a client that has verified its enclave; made by ``Simulator.consumer``."""
        self.name = name
        self.client = client
        self.clock = clock
        self._world = world
        self._target = target

    @property
    def enclave(self) -> VerifiedEnclave:
        """The enclave as it was verified last."""
        return self.client.enclave

    @property
    def link(self) -> Link:
        """The link to the enclave."""
        return self._world.network.link(self.name, self._target)

    def infer(
        self, rows: Any = ((1.0,),), *, model: str = "toy", wait: timedelta | None = None, key: str | None = None
    ) -> Inference:
        """Ask, and return the proven answer. Raises as ``Client.infer``."""
        return self._world.run(self.inferring(rows, model=model, wait=wait, key=key))

    def inferring(
        self, rows: Any = ((1.0,),), *, model: str = "toy", wait: timedelta | None = None, key: str | None = None
    ) -> Coroutine[Any, Any, Inference]:
        """Return the same as a coroutine, for ``Simulator.together`` and ``Simulator.spawn``."""
        inputs = np.asarray(rows, dtype=np.float32)
        return self.client.infer(model, inputs, wait=wait, idempotency_key=key)

    def reverify(self) -> VerifiedEnclave:
        """Verify again now, with a fresh nonce."""
        return self._world.run(self.client.reverify())

    def remaining(self, model: str = "toy") -> int | None:
        """Return what the enclave says is left; costs nothing."""
        return self._world.run(self.client.model(model)).remaining
