"""The one table from a kind of TEE to its attester on this machine.

Not done here: deciding which kind (``detect``), measuring software into a TPM (``tpm.measure_software``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cloister.attest.rats import TeeKind
from cloister.enclave.attesters.azure_vtpm import AzureVtpmAttester
from cloister.enclave.attesters.confidential_space import TEESERVER, ConfidentialSpaceAttester
from cloister.enclave.attesters.configfs_tsm import REPORTS, TsmAttester, tsm_provider
from cloister.enclave.attesters.gce_vtpm import GceVtpmAttester
from cloister.enclave.attesters.gramine import GramineAttester
from cloister.enclave.attesters.nsm import NsmAttester
from cloister.enclave.attesters.psa_source import PsaAttester
from cloister.enclave.attesters.sev_guest import SEV_GUEST, SevGuestAttester
from cloister.enclave.attesters.tpm import EVENT_LOG, TpmAttester, read_event_log
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from cloister.enclave.attesters import Attester
    from cloister.enclave.attesters.files import Filesystem
    from cloister.enclave.attesters.machine import Machine
    from cloister.tpm.transport import Transport

__all__ = ["CPU_KINDS", "TPM_KINDS", "Given", "cpu_attester", "tpm_attester"]

CPU_KINDS: Final = frozenset(map(TeeKind, ("cca", "confidential-space", "nitro", "psa", "sgx", "snp", "tdx")))
"""Kinds that need no TPM."""

TPM_KINDS: Final = frozenset(map(TeeKind, ("azure-snp-vtpm", "azure-tdx-vtpm", "gce-vtpm", "tpm")))
"""Kinds whose quotes come from a TPM; software is measured into its PCR 23."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the machine cannot say itself.

    ``certificates`` (DER, own first): of a TPM's attestation key, or above that of a GCE vTPM. ``software``: what was
    measured into PCR 23. ``audience``: who verifies a Confidential Space token. ``psa``: where PSA tokens come from.
    """

    certificates: tuple[bytes, ...] = ()
    software: bytes = b""
    audience: str = ""
    psa: str = ""


def cpu_attester(tee: TeeKind, machine: Machine, given: Given) -> Attester:
    """Return the attester of one of ``CPU_KINDS``. Raises ``UsageError`` for another, or for what is not given."""
    files = machine.files
    match tee:
        case "snp" if files.exists(SEV_GUEST) and not _tsm_serves(files):
            return SevGuestAttester(files)
        case "cca" | "snp" | "tdx":
            return TsmAttester(files, tee)
        case "nitro":
            return NsmAttester(files)
        case "sgx":
            return GramineAttester(files)
        case "confidential-space":
            return ConfidentialSpaceAttester(machine.service(TEESERVER), audience=given.audience)
        case "psa":
            if not given.psa:
                msg = "psa: want a place that gives tokens"
                raise UsageError(msg, hint="name a file, or unix:PATH of a socket")
            return PsaAttester(given.psa)
    raise _unknown(tee, CPU_KINDS)


def tpm_attester(tee: TeeKind, transport: Transport, machine: Machine, given: Given) -> Attester:
    """Return the attester of one of ``TPM_KINDS`` over an open TPM, which stays its owner's to close.

    Raises ``UsageError`` for another kind, or where something is not given; ``Unavailable`` for an event log that may
    not be read.
    """
    log = read_event_log(machine.root / EVENT_LOG.relative_to("/")) if not machine.tpm.startswith("unix:") else b""
    match tee:
        case "azure-snp-vtpm" | "azure-tdx-vtpm":
            return AzureVtpmAttester(transport, tee, imds=machine.imds, software=given.software, event_log=log)
        case "gce-vtpm":
            return GceVtpmAttester(transport, issuers=given.certificates, software=given.software, event_log=log)
        case "tpm":
            return TpmAttester(transport, given.certificates, software=given.software, event_log=log)
    raise _unknown(tee, TPM_KINDS)


def _unknown(tee: TeeKind, kinds: frozenset[TeeKind]) -> UsageError:
    return UsageError(f"tee {tee[:64]!r}: want one of {', '.join(sorted(kinds))}")


def _tsm_serves(files: Filesystem) -> bool:
    """Tell whether configfs-tsm has a driver behind it: kernels of some clouds have the directory alone."""
    if not files.exists(REPORTS):
        return False
    try:
        return bool(tsm_provider(files))
    except Unavailable:
        return False
