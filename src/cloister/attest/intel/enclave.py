"""The report of an SGX enclave (Intel SDM volume 3D section 38.15; sgx_report.h), 384 bytes.

Also the body that the Quoting Enclave has signed about itself. Not done here: what a value has to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.attest.rats import ClaimValue

__all__ = ["ENCLAVE_REPORT_BYTES", "EnclaveReport"]

ENCLAVE_REPORT_BYTES = 384
_DEBUG = 0x02  # ATTRIBUTES.FLAGS bit 1 (SDM volume 3D section 38.7.1)
_PROVISION_KEY = 0x10  # bit 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """One report body; ``raw`` are its exact bytes. Reserved fields are signed and not looked at."""

    raw: bytes
    cpusvn: bytes
    miscselect: bytes
    isvextprodid: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    configid: bytes
    isvprodid: int
    isvsvn: int
    configsvn: int
    isvfamilyid: bytes
    report_data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse exactly 384 bytes. Raises ``Malformed``."""
        reader = Reader(data, what="sgx report")
        cpusvn, miscselect = reader.take(16), reader.take(4)
        reader.take(12)
        isvextprodid, attributes, mrenclave = reader.take(16), reader.take(16), reader.take(32)
        reader.take(32)
        mrsigner = reader.take(32)
        reader.take(32)
        configid = reader.take(64)
        isvprodid, isvsvn, configsvn = (reader.uint(2, little=True) for _ in range(3))
        reader.take(42)
        isvfamilyid, report_data = reader.take(16), reader.take(64)
        reader.end()
        return cls(
            raw=data,
            cpusvn=cpusvn,
            miscselect=miscselect,
            isvextprodid=isvextprodid,
            attributes=attributes,
            mrenclave=mrenclave,
            mrsigner=mrsigner,
            configid=configid,
            isvprodid=isvprodid,
            isvsvn=isvsvn,
            configsvn=configsvn,
            isvfamilyid=isvfamilyid,
            report_data=report_data,
        )

    @property
    def debug(self) -> bool:
        """Whether a debugger may read and write the enclave's memory."""
        return bool(self.attributes[0] & _DEBUG)

    @property
    def provisioning(self) -> bool:
        """Whether the enclave may derive the platform's provisioning key, as Intel's own do."""
        return bool(self.attributes[0] & _PROVISION_KEY)

    def claims(self) -> dict[str, ClaimValue]:
        """Return what the report says, flat."""
        return {
            "attributes": self.attributes.hex(),
            "configid": self.configid.hex(),
            "configsvn": self.configsvn,
            "cpusvn": self.cpusvn.hex(),
            "debug": self.debug,
            "isvextprodid": self.isvextprodid.hex(),
            "isvfamilyid": self.isvfamilyid.hex(),
            "isvprodid": self.isvprodid,
            "isvsvn": self.isvsvn,
            "miscselect": self.miscselect.hex(),
            "mrenclave": self.mrenclave.hex(),
            "mrsigner": self.mrsigner.hex(),
            "provisioning": self.provisioning,
        }
