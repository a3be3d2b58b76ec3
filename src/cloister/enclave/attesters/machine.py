"""The machine an attester speaks for: its tree, its TPM, its driver's library, its cloud's metadata service.

Everything an attester touches comes from here, so that a test's machine is a folder, a software TPM and two fakes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.enclave.attesters.files import LocalFiles
from cloister.enclave.attesters.imds import IMDS_HOST
from cloister.enclave.attesters.local_http import HostService, SocketService
from cloister.enclave.attesters.nvml import load_nvml
from cloister.tpm.transport import open_transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.enclave.attesters.files import Kernel
    from cloister.enclave.attesters.local_http import Fetch
    from cloister.enclave.attesters.nvml import NvmlLibrary
    from cloister.tpm.transport import Transport

__all__ = ["TPM_DEVICE", "Machine"]

TPM_DEVICE = "dev/tpmrm0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine. ``tpm`` is ``unix:PATH`` or a device's path where it is not the usual one below ``root``.

    ``kernel`` stands for the files and devices below ``root`` where they are more than what lies there.
    """

    root: Path = Path("/")
    tpm: str = ""
    kernel: Kernel | None = None
    imds: Fetch = field(default_factory=lambda: HostService(IMDS_HOST))
    nvml: Callable[[], NvmlLibrary] = load_nvml

    @property
    def files(self) -> Kernel:
        """Its files and devices."""
        return LocalFiles(self.root) if self.kernel is None else self.kernel

    @property
    def tpm_place(self) -> str:
        """Where its TPM is."""
        return self.tpm or str(self.root / TPM_DEVICE)

    def open_tpm(self) -> Transport:
        """Open its TPM; the caller closes it. Raises ``Unavailable``."""
        return open_transport(self.tpm_place)

    def service(self, path: str) -> Fetch:
        """Return the service behind a unix socket of its tree."""
        return SocketService(self.root / path)
