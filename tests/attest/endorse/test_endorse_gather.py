"""What evidence needs is asked for in two rounds: the signers of manifests are known once these are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloister.attest.binding import NO_DEVICES
from cloister.attest.devices import dump_devices
from cloister.attest.endorse import Given
from cloister.attest.endorse.gather import gather
from cloister.attest.nvidia.collateral import Relaxed
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.nvidia import NVIDIA_GPU
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected, Unavailable
from endorse_kit import NOW, intel, nvidia

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate


class Asked(Given):
    """Remembers the rounds in which it was asked."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        super().__init__(objects)
        self.rounds: list[tuple[tuple[str, ...], int]] = []

    def fetch(
        self, names: Sequence[str], now: datetime, certificates: Sequence[Certificate] = ()
    ) -> Mapping[str, bytes]:
        self.rounds.append((tuple(names), len(certificates)))
        return super().fetch(names, now, certificates)


def verifier(relaxed: Relaxed | None = None) -> Verifier:
    gpu = nvidia().scheme(NVIDIA_GPU, relaxed) if relaxed else nvidia().scheme(NVIDIA_GPU)
    return Verifier([intel().tdx_scheme(), gpu])


def test_a_cpu_and_its_gpus_get_everything_that_verifying_them_wants() -> None:
    cpu, gpu = intel().tdx_attester(), nvidia().attester()
    evidence, device = cpu.collect(bytes(64)), gpu.collect(bytes(32))
    source = Asked({**cpu.endorsements, **gpu.endorsements})
    found = gather(verifier(), source, evidence, dump_devices([device]), NOW)
    nvidia().scheme(NVIDIA_GPU).verify(device, found, NOW)
    intel().tdx_scheme().verify(evidence, found, NOW)
    assert set(found) == {*cpu.endorsements, *gpu.endorsements}
    (first, sent), (second, more) = source.rounds
    assert set(first).isdisjoint(second)
    assert all(name.startswith("nvidia/ocsp/") for name in second)
    assert more > sent > 0, "whom to ask about is told by the certificates that came along"


def test_manifests_whose_signers_are_not_asked_about_need_one_round() -> None:
    gpu = nvidia().attester()
    source = Asked(gpu.endorsements)
    relaxed = Relaxed(rim_revocation=NotChecked("an air gap"))
    gather(verifier(relaxed), source, gpu.collect(bytes(32)), NO_DEVICES, NOW)
    assert len(source.rounds) == 1


def test_nothing_is_asked_where_nothing_is_needed() -> None:
    source = Asked({})
    why = NotChecked("an air gap")
    relaxed = Relaxed(revocation=why, rim_revocation=why, driver_rim=why, vbios_rim=why)
    assert gather(verifier(relaxed), source, nvidia().attester().collect(bytes(32)), NO_DEVICES, NOW) == {}
    assert not source.rounds


def test_one_missing_answer_is_unavailable() -> None:
    gpu = nvidia().attester()
    for name in gpu.endorsements:
        less = {key: value for key, value in gpu.endorsements.items() if key != name}
        with pytest.raises(Unavailable, match=name.rpartition("/")[2]):
            gather(verifier(), Given(less), gpu.collect(bytes(32)), NO_DEVICES, NOW)


def test_noise_and_strangers_are_refused_before_anybody_is_asked() -> None:
    source = Asked({})
    with pytest.raises(Malformed):
        gather(verifier(), source, Evidence(tee=NVIDIA_GPU, payload=b"noise"), NO_DEVICES, NOW)
    with pytest.raises(Rejected):
        gather(verifier(), source, Evidence(tee=TeeKind("other"), payload=b""), NO_DEVICES, NOW)
    assert not source.rounds


def test_a_manifest_that_is_none_is_malformed() -> None:
    gpu = nvidia().attester()
    broken = {name: b"<a/>" if name.startswith("nvidia/rim/") else data for name, data in gpu.endorsements.items()}
    with pytest.raises(Malformed):
        gather(verifier(), Given(broken), gpu.collect(bytes(32)), NO_DEVICES, NOW)
