"""Evidence from a TPM: a quote over boot and software, with the certificate that enrolment gave.

``measure_software`` puts the digest of the software manifest into PCR 23 before anything else runs. PCR 23
is the one PCR an operating system may reset, so it says what the booted system said it started; it is
worth exactly what the PCRs of the boot chain, quoted beside it, make of that system.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.tpm.eventlog import MAX_LOG_BYTES, EventLog, replay
from cloister.attest.tpm.evidence import TPM, TpmEvidence
from cloister.attest.tpm.policy import SOFTWARE_PCR, software_pcr_value
from cloister.errors import Rejected, Unavailable, UsageError
from cloister.tpm.commands import Tpm
from cloister.tpm.keys import AkKind, attestation_key
from cloister.tpm.quoting import quote_pcrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.tpm.transport import Transport

__all__ = ["BOOT_PCRS", "EVENT_LOG", "TpmAttester", "explaining", "measure_software", "read_event_log"]

BOOT_PCRS = (*range(10), SOFTWARE_PCR)
"""Firmware, its settings, boot loader and kernel (PFP 1.06 section 3.3), and our software."""

EVENT_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
_REPORT_DATA_BYTES = 32


def measure_software(transport: Transport, digest: bytes) -> None:
    """Reset PCR 23 and extend it once with ``digest``, SHA-256 of the dumped software manifest."""
    tpm = Tpm(transport)
    tpm.pcr_reset(SOFTWARE_PCR)
    tpm.pcr_extend(SOFTWARE_PCR, digest)
    got = tpm.pcr_read((SOFTWARE_PCR,))[SOFTWARE_PCR]
    want = software_pcr_value(digest)
    if got != want:
        raise Rejected.because("pcr_mismatch", f"pcr {SOFTWARE_PCR} after measuring", got=got.hex(), want=want.hex())


def read_event_log(path: Path = EVENT_LOG) -> bytes:
    """Return the firmware's event log, empty where the kernel has none. Raises ``Unavailable``."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LOG_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as exc:
        msg = f"event log: cannot read {path}: {exc.strerror}"
        raise Unavailable(msg, hint="the log is readable for root") from exc
    if len(data) > MAX_LOG_BYTES:
        msg = f"event log: {path} has more than {MAX_LOG_BYTES} bytes"
        raise Unavailable(msg)
    return data


def explaining(log: EventLog | None, pcrs: Mapping[int, bytes]) -> bytes:
    """Return the events that explain ``pcrs`` as they are: systems extend some later, outside the firmware's log."""
    if log is None:
        return b""
    replayed = replay(log)
    return log.only([index for index, value in pcrs.items() if replayed.get(index) == value]).dump()


class TpmAttester:
    """Quotes with the attestation key of this machine. Slots in the TPM are free between two calls."""

    tee: Final = TeeKind(TPM)
    report_data_bytes: Final = _REPORT_DATA_BYTES

    def __init__(
        self,
        transport: Transport,
        certificates: Sequence[bytes],
        *,
        software: bytes = b"",
        pcrs: Sequence[int] = BOOT_PCRS,
        event_log: bytes = b"",
        ak: AkKind = AkKind.ECC_P256,
    ) -> None:
        """Attest with the key that ``certificates`` (DER, own first) are for.

        ``software`` is what ``measure_software`` was given; of ``event_log`` what explains the PCRs is sent.
        """
        if not certificates:
            msg = "tpm attester: no certificate for the attestation key"
            raise UsageError(msg, hint="enrol the device first")
        self._tpm = Tpm(transport)
        self._certificates = tuple(certificates)
        self._software = software
        self._pcrs = tuple(sorted(set(pcrs)))
        self._log = EventLog.parse(event_log) if event_log else None
        self._ak = ak
        self._turn = threading.Lock()  # commands and answers must not interleave

    def collect(self, report_data: bytes) -> Evidence:
        """Return a quote over ``report_data`` and the PCRs as they are now. Raises ``Unavailable``, ``Rejected``."""
        if len(report_data) != _REPORT_DATA_BYTES:
            msg = f"tpm report data: {len(report_data)} bytes, want {_REPORT_DATA_BYTES}"
            raise UsageError(msg)
        with self._turn, attestation_key(self._tpm, self._ak) as (handle, public):
            quoted = quote_pcrs(self._tpm, handle, extra=report_data, pcrs=self._pcrs)
        evidence = TpmEvidence(
            attest=quoted.attest,
            signature=quoted.signature,
            ak_public=public.dump(),
            certificates=self._certificates,
            pcrs=quoted.pcrs,
            software=self._software,
            event_log=explaining(self._log, quoted.pcrs),
        )
        return Evidence(tee=self.tee, payload=evidence.dump())
