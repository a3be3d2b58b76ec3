"""Rotations among enclaves that serve: everything that can happen to keys, and what must hold all the while.

R1: every model opens by the keys that are held; one whose envelope was damaged does once the damage is undone.
    A key is never destroyed while a live lease's model, or any other, depends on it.
R2: a status that says moved is true: every lease that is served by was granted since the last rotation, and every
    model's envelope names the key in use. Nobody is listed that has moved.
R3: no inference is lost, and nobody is kept from starting, by a rotation.
R4: a rotation that is asked for, or due, happens: it moves every model whose envelope opens.

The truth is what the world did, what the log says, and the secrets that models were sealed with. ``verify`` runs after
every operation and raises ``Violation``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

from books import Violation

from cloister.custodian.service.rewrapping import held_keks
from cloister.custodian.store.models import find_model, replace_envelope
from cloister.custodian.vaults import unwrap_dek
from cloister.errors import CloisterError
from cloister.lending.lease import LeaseState
from cloister.lending.terms import ModelDigest
from cloister.sealed.envelope import Envelope
from cloister.testing.simulator import CrashPoint, Simulator
from cloister.testing.simulator.loan import publish
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.testing.simulator import SealedToy, SimulatedConsumer, SimulatedEnclave

TTL_S = 30
EVERY_S = 60
_SWEEP_S = 5


def _entry(**changes: int | str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        made = json.loads(data)
        made["recipients"][0].update(changes)
        return dump_json(made)

    return change


DAMAGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data[:-9],
    lambda _: b"",
    _entry(kid="another"),
    _entry(key_version=4000),
    _entry(kek_id="kek:" + "0" * 32),
)


class RotationWorld:
    """One custodian, two models in one loan, and enclaves that serve all the time. Use it in a ``with`` block."""

    def __init__(self, seed: int = 0) -> None:
        """Lend, launch one enclave, and let a consumer verify it."""
        settings = {"kek_retention_days": 0, "sweep_interval_s": _SWEEP_S}  # gone at the next sweep
        self.sim = Simulator(seed=seed, settings=settings)
        self.custodian = self.sim.custodian
        self.models: list[SealedToy] = [self.sim.seal("toy"), self.sim.seal("other")]
        self.loan = self.sim.lend(
            allowance=100_000, models=dict.fromkeys(self.models), consumers={"alice": None}, ttl_s=TTL_S,
            max_instances=16,
        )  # fmt: skip
        self.served: list[tuple[SimulatedEnclave, SimulatedConsumer]] = []
        self.pristine: dict[str, bytes] = {}
        """Envelopes as they were before they were damaged, by the model's digest."""
        self.scheduled = False
        self.launch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sim.__exit__()

    # what happens

    def launch(self) -> None:
        """Start another enclave; whoever's models are whole can."""
        try:
            enclave = self.sim.launch(self.loan)
            self.served.append((enclave, self.sim.consumer(enclave, "alice")))
        except CloisterError as exc:
            if not self.pristine:
                raise Violation("R3", f"nobody could start: {exc.message}") from exc
        self.verify()

    def crash_enclave(self, number: int) -> None:
        """End one enclave, as long as another is left."""
        if len(self.served) > 1:
            enclave, _ = self.served.pop(number % len(self.served))
            enclave.crash()
        self.verify()

    def rotate(self, *, incident: bool = False, crash: CrashPoint | None = None) -> None:
        """Rotate by hand; with ``crash`` the custodian's process ends there, and is started again."""
        before = self._rotations()
        if crash is not None:
            self.custodian.crash_at(crash)
        try:
            self.custodian.rotate(incident=incident, reason="drill" if incident else "")
        except CloisterError as exc:
            if crash is None:
                raise Violation("R4", f"a rotation was refused: {exc.message}") from exc
        if crash is not None:
            self.custodian.restart()
        if self._rotations() == before and crash is not CrashPoint.BEFORE_COMMIT:
            raise Violation("R4", "a rotation that was answered did not happen")
        self.verify(rotated=self._rotations() > before)

    def schedule(self, *, every: bool) -> None:
        """Let the custodian rotate by itself, or no more."""
        self.custodian.schedule_rotation(EVERY_S if every else 0)
        self.scheduled = every
        self.verify()

    def wait(self, seconds: float) -> None:
        """Let time pass; who is served asks all the while."""
        before, began = self._rotations(), self.sim.now
        for _ in range(3):
            self.sim.advance(seconds / 3)
            self.ask()
        passed = (self.sim.now - began).total_seconds()
        if self.scheduled and self._rotations() - before < int(passed // (EVERY_S + _SWEEP_S)):
            raise Violation("R4", "a rotation was due and did not happen")
        self.verify()

    def ask(self) -> None:
        """Have every consumer ask for an inference."""
        for enclave, consumer in self.served:
            try:
                consumer.infer([[1.0]])
            except CloisterError as exc:
                raise Violation("R3", f"{enclave.name} answered nothing: {exc.message}") from exc

    def cut(self, number: int) -> None:
        """Keep one enclave from its custodian for less than its lease lasts, while keys rotate; then let it renew."""
        enclave, _ = self.served[number % len(self.served)]
        enclave.link.cut()
        self.rotate()
        self.sim.advance(TTL_S / 6)
        self.ask()
        enclave.link.heal()
        self.sim.advance(TTL_S / 3)
        self.ask()
        self.verify()

    def damage(self, number: int, kind: int) -> None:
        """Spoil a model's envelope in the database."""
        model = self.models[number % len(self.models)]
        if model.digest not in self.pristine:
            good = self._stored(model)
            self.pristine[model.digest] = good
            self._put(model, DAMAGES[kind % len(DAMAGES)](good))
        self.verify()

    def mend(self, number: int, *, republish: bool) -> None:
        """Undo the damage: by putting the envelope back, or by publishing the model again."""
        model = self.models[number % len(self.models)]
        if model.digest in self.pristine:
            if republish:
                publish(self.custodian, model)
            else:
                self._put(model, self.pristine[model.digest])
            del self.pristine[model.digest]
            self.sim.advance(_SWEEP_S + 1)
            if model.digest in {item.model for item in self.custodian.key_status().stuck}:
                raise Violation("R4", f"{model.name} was mended and is still stuck")
        self.verify()

    def crash_custodian(self) -> None:
        """End the custodian's process and start it again."""
        self.custodian.crash()
        self.custodian.restart()
        self.verify()

    # what must hold

    def verify(self, *, rotated: bool = False) -> None:
        """Raise ``Violation`` if one of R1, R2 and R4 does not hold now."""
        vault = self.custodian.service.context.vault
        with self.custodian.service.context.reading() as connection:
            held = held_keks(connection, vault)
            for model in self.models:
                data = self.pristine.get(model.digest, self._stored(model))
                try:
                    opened, _ = unwrap_dek(vault, Envelope.parse(data), held)
                except CloisterError as exc:
                    raise Violation("R1", f"{model.name} opens no more: {exc.message}") from exc
                if opened != model.dek:
                    raise Violation("R1", f"{model.name} opens to another key")
        self._verify_status(rotated=rotated)

    def _verify_status(self, *, rotated: bool) -> None:
        status, entries = self.custodian.key_status(), self.custodian.audit()
        turned = max((item.index for item in entries if item.kind.value == "keys_rotated"), default=-1)
        granted = {item.actor: item.index for item in entries if item.kind.value == "lease_granted"}
        listed = {item.instance for item in status.behind}
        for enclave, _ in self.served:
            if enclave.is_up and enclave.snapshot.state is LeaseState.ACTIVE:
                late = granted[enclave.id] < turned
                if late and (status.moved or enclave.id not in listed):
                    raise Violation("R2", f"{enclave.name} serves by a lease of before, and is not listed")
                if not late and enclave.id in listed:
                    raise Violation("R2", f"{enclave.name} has moved, and is listed")
        behind = {model.digest for model in self.models if not self._is_current(model, status.keys[0].kek_id)}
        if behind != {item.model for item in status.stuck} or (behind and status.moved):
            raise Violation("R2", f"{len(behind)} models are not under the key in use, {status.stuck_count} are listed")
        if rotated and not behind <= set(self.pristine):
            raise Violation("R4", "a model that opens was left behind")

    def _is_current(self, model: SealedToy, kek_id: str) -> bool:
        """Tell whether a model's envelope names the key in use, read without the product's code."""
        try:
            made = json.loads(self._stored(model))
        except ValueError:
            return False
        kid = self.custodian.service.context.vault.kid
        names = [item["kek_id"] for item in made["recipients"] if item["kid"] == kid]
        return made["manifest"] == model.digest and names == [kek_id]

    def _rotations(self) -> int:
        return self.custodian.events().count("keys_rotated")

    def _stored(self, model: SealedToy) -> bytes:
        with self.custodian.service.context.reading() as connection:
            row = find_model(connection, ModelDigest(model.digest))
        assert row is not None
        return row.envelope

    def _put(self, model: SealedToy, data: bytes) -> None:
        with self.custodian.service.context.store.writing() as connection:
            replace_envelope(connection, ModelDigest(model.digest), data)
