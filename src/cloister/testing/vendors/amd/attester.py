"""Evidence of a synthetic chip, for flows and the demo: as configfs-tsm hands it out, report and certificate table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cloister.attest.amd.evidence import SNP
from cloister.attest.amd.report import REPORT_DATA_BYTES
from cloister.attest.parts import dump_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence
from cloister.attest.rules import AtLeast, Exact, OneOf
from cloister.errors import UsageError
from cloister.testing.vendors.amd.report import ReportValues

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rules import Rule
    from cloister.testing.vendors.amd.chip import Chip

__all__ = ["AmdAttester"]


class AmdAttester:
    """Collects evidence of a guest on ``chip``. Any claim can be had: that is the point."""

    tee: Final = SNP
    report_data_bytes: Final = REPORT_DATA_BYTES

    def __init__(self, chip: Chip, values: ReportValues | None = None) -> None:
        """Run a guest about which reports say ``values``."""
        self._chip = chip
        self._values = values or ReportValues()
        self._table = chip.table()

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """What a custodian has to fetch for this evidence, and more."""
        return self._chip.vendor.endorsements

    def collect(self, report_data: bytes) -> Evidence:
        """Return evidence that carries ``report_data``, which fills the field exactly (``binding.fold``)."""
        if len(report_data) != REPORT_DATA_BYTES:
            msg = f"snp report data: {len(report_data)} bytes, want {REPORT_DATA_BYTES}"
            raise UsageError(msg)
        report = self._chip.report(replace(self._values, report_data=report_data))
        return Evidence(tee=SNP, payload=dump_parts({"report": report, "certs": self._table}))

    def policy(self, version: int = 1) -> Policy:
        """Return a policy that accepts this guest on this chip with this firmware, and nothing that is less."""
        rules: dict[str, Rule] = {
            "chip_id": OneOf((self._chip.chip_id.hex(),)),
            "debug": Exact(value=False),
            "host_data": Exact(self._values.host_data.hex()),
            "measurement": OneOf((self._values.measurement.hex(),)),
            "migratable": Exact(value=False),
            "product": OneOf((self._chip.vendor.product.key,)),
            "vmpl": Exact(self._values.vmpl),
        }
        rules |= {f"tcb.{name}": AtLeast(level) for name, level in self._chip.levels.items()}
        return Policy(version=version, tees={SNP: TeePolicy(rules)})
