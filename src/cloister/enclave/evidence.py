"""All evidence of one enclave: the CPU's and its devices', collected so that each binds the other.

Devices first, each over the nonce and keys; then the CPU's, over the devices' exact bytes (docs/spec/evidence.md
section 4). A TEE is slow and has one mailbox: one collection at a time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from cloister.attest.binding import ChannelBinding, ReleaseBinding, fold
from cloister.attest.devices import dump_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloister.attest.rats import Evidence, TeeKind
    from cloister.enclave.attesters import Attester

__all__ = ["EvidenceSource"]

Binding = TypeVar("Binding", ReleaseBinding, ChannelBinding)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSource:
    """Where evidence comes from: the CPU's attester, one for each device, and endorsements to hand on to consumers.

    ``endorsements`` returns those at hand now, for they end and are replaced. Nobody believes them because we hand them
    on: whoever verifies checks their signatures.
    """

    attester: Attester
    devices: Sequence[Attester] = ()
    endorsements: Callable[[], Mapping[str, bytes]] = dict
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def tee(self) -> TeeKind:
        """The kind of the CPU's evidence."""
        return self.attester.tee

    def collect(self, binding: Binding) -> tuple[Evidence, Binding]:
        """Return fresh evidence, and ``binding`` with the devices that it binds. Raises as the attesters do."""
        with self._turn:
            devices = [_collect(device, binding.device_report_data()) for device in self.devices]
            bound = replace(binding, devices=dump_devices(devices))
            return _collect(self.attester, bound.report_data()), bound


def _collect(attester: Attester, report_data: bytes) -> Evidence:
    return attester.collect(fold(report_data, field_bytes=attester.report_data_bytes))
