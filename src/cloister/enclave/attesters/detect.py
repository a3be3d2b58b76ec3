"""Which TEE is this machine in? Every interface is looked at, and says what was found or why nothing was.

``look`` asks the machine, ``choose`` decides and touches nothing. Hardware that encrypts memory comes before a cloud's
virtual TPM, that before a token of a cloud, and a TPM alone comes last: it measures, and keeps nobody out. GPUs
are devices beside a CPU and are never chosen. Two kinds of one strength are for a person to decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from cloister.attest.azure.hcl import HardwareKind, HclReport
from cloister.attest.rats import TeeKind
from cloister.enclave.attesters.azure_vtpm import HCL_REPORT_INDEX
from cloister.enclave.attesters.confidential_space import TEESERVER
from cloister.enclave.attesters.configfs_tsm import PROVIDERS, REPORTS, tsm_provider
from cloister.enclave.attesters.files import read_part
from cloister.enclave.attesters.gce_vtpm import TEMPLATE_INDICES
from cloister.enclave.attesters.gramine import ATTESTATION_TYPE
from cloister.enclave.attesters.nsm import NSM
from cloister.enclave.attesters.nvml import count_gpus
from cloister.enclave.attesters.sev_guest import SEV_GUEST
from cloister.errors import CloisterError, Unavailable, UsageError
from cloister.tpm.commands import Tpm
from cloister.tpm.nv import nv_indices, nv_read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloister.enclave.attesters.files import Filesystem
    from cloister.enclave.attesters.machine import Machine

__all__ = ["Choice", "Finding", "Strength", "choose", "look"]

TDX_GUEST = "dev/tdx_guest"
_MAX_TEXT_BYTES = 64


class Strength(IntEnum):
    """What an interface is worth, best first."""

    HARDWARE = 1
    VTPM = 2
    TOKEN = 3
    TPM = 4
    DEVICE = 5

    @property
    def words(self) -> str:
        """Return what to call it."""
        return _WORDS[self]


_WORDS = {
    Strength.HARDWARE: "hardware tee",
    Strength.VTPM: "virtual tpm of a cloud",
    Strength.TOKEN: "token of a cloud",
    Strength.TPM: "tpm",
    Strength.DEVICE: "device",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one interface is here: a way to evidence of kind ``tee``, or none and ``note`` says why."""

    interface: str
    note: str
    tee: TeeKind | None = None
    strength: Strength | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The TEE to use, the interface it is reached by, and why it and no other."""

    tee: TeeKind
    interface: str
    why: str


def look(machine: Machine) -> tuple[Finding, ...]:
    """Ask every interface of the machine, better ways to the same evidence first. What is missing is a finding too."""
    files = machine.files
    return (
        _configfs_tsm(files),
        _device(files, SEV_GUEST, "snp"),
        _tdx_guest(files),
        _device(files, NSM, "nitro"),
        _gramine(files),
        *_tpm(machine),
        _teeserver(files),
        Finding(interface="psa", note="linux has no interface: name a file or socket that gives tokens"),
        _gpus(machine),
    )


def choose(findings: Sequence[Finding]) -> Choice:
    """Return the strongest.

    Raises ``Unavailable`` where there is none and ``UsageError`` where several kinds are equally strong, with the list.
    """
    found = [item for item in findings if item.tee and item.strength and item.strength is not Strength.DEVICE]
    if not found:
        listed = "; ".join(f"{item.interface}: {item.note}" for item in findings)
        msg = f"no tee found: {listed}"
        raise Unavailable(msg, hint="run inside a confidential guest, or name what there is with --tee")
    best = min(item.strength for item in found if item.strength)
    strongest = [item for item in found if item.strength is best]
    kinds = sorted({str(item.tee) for item in strongest})
    if len(kinds) > 1:
        listed = ", ".join(f"{item.tee} ({item.interface})" for item in strongest)
        msg = f"several tees of one strength: {listed}"
        raise UsageError(msg, hint=f"name one: --tee {kinds[0]}")
    chosen = strongest[0]
    weaker = [f"{item.tee} ({item.strength.words})" for item in found if item.strength and item.strength > best]
    why = f"{best.words}, " + (f"before {', '.join(weaker)}" if weaker else "nothing else was found")
    return Choice(tee=TeeKind(kinds[0]), interface=chosen.interface, why=why)


def _said(interface: str, exc: CloisterError) -> str:
    """Return what an interface answered, without its name in front."""
    return exc.message.removeprefix(f"{interface}: ")


def _configfs_tsm(files: Filesystem) -> Finding:
    interface = "configfs-tsm"
    if not files.exists(REPORTS):
        return Finding(interface=interface, note=f"/{REPORTS}: not there (not mounted, or linux before 6.7)")
    try:
        provider = tsm_provider(files)
    except CloisterError as exc:
        return Finding(interface=interface, note=f"mounted, but {_said(interface, exc)}")
    tee = PROVIDERS.get(provider)
    note = f"mounted, provider {provider[:_MAX_TEXT_BYTES]}"
    if tee is None:
        return Finding(interface=interface, note=f"{note}, which is unknown here")
    return Finding(interface=interface, note=note, tee=tee, strength=Strength.HARDWARE)


def _device(files: Filesystem, path: str, tee: str) -> Finding:
    if not files.exists(path):
        return Finding(interface=f"/{path}", note="not there")
    return Finding(interface=f"/{path}", note="there", tee=TeeKind(tee), strength=Strength.HARDWARE)


def _tdx_guest(files: Filesystem) -> Finding:
    """Say that this device alone is no way: its report leaves the machine only as a quote."""
    there = files.exists(TDX_GUEST)
    note = "there, but quotes come through configfs-tsm alone: mount it (linux 6.7 and later)" if there else "not there"
    if there and files.exists(REPORTS):
        note = "there; quotes come through configfs-tsm"
    return Finding(interface=f"/{TDX_GUEST}", note=note)


def _gramine(files: Filesystem) -> Finding:
    interface = "gramine"
    if not files.exists(ATTESTATION_TYPE):
        return Finding(interface=interface, note=f"/{ATTESTATION_TYPE}: not there")
    try:
        kind = (
            read_part(files, ATTESTATION_TYPE, cap=_MAX_TEXT_BYTES, what="gramine").decode("ascii", "replace").strip()
        )
    except CloisterError as exc:
        return Finding(interface=interface, note=_said(interface, exc))
    if kind != "dcap":
        return Finding(interface=interface, note=f"attestation type {kind!r}, want 'dcap'")
    return Finding(interface=interface, note="attestation type dcap", tee=TeeKind("sgx"), strength=Strength.HARDWARE)


def _tpm(machine: Machine) -> Iterator[Finding]:
    """Yield what kind of TPM this is: a cloud's leaves marks in its NV memory."""
    place = machine.tpm_place
    if not machine.tpm and not machine.files.exists("dev/tpmrm0"):
        yield Finding(interface="tpm", note="/dev/tpmrm0: not there")
        return
    try:
        transport = machine.open_tpm()
        try:
            yield from _vtpm(Tpm(transport))
        finally:
            transport.close()
    except CloisterError as exc:
        yield Finding(interface="tpm", note=_said("tpm", exc))
        return
    yield Finding(interface="tpm", note=f"{place} answers", tee=TeeKind("tpm"), strength=Strength.TPM)


def _vtpm(tpm: Tpm) -> Iterator[Finding]:
    indices = nv_indices(tpm)
    if HCL_REPORT_INDEX in indices:
        kind = HclReport.parse(nv_read(tpm, HCL_REPORT_INDEX)).kind
        tee = TeeKind("azure-snp-vtpm" if kind is HardwareKind.SNP else "azure-tdx-vtpm")
        note = f"report of azure's paravisor in nv {HCL_REPORT_INDEX:#010x}, hardware {kind.value}"
        yield Finding(interface="azure vtpm", note=note, tee=tee, strength=Strength.VTPM)
    else:
        yield Finding(interface="azure vtpm", note=f"nv {HCL_REPORT_INDEX:#010x}: not there")
    found = [index for index in TEMPLATE_INDICES if index in indices]
    if found:
        note = f"template of an attestation key in nv {found[0]:#010x}"
        yield Finding(interface="gce vtpm", note=note, tee=TeeKind("gce-vtpm"), strength=Strength.VTPM)
    else:
        yield Finding(interface="gce vtpm", note=f"nv {TEMPLATE_INDICES[0]:#010x}: not there")


def _teeserver(files: Filesystem) -> Finding:
    interface = "confidential space"
    if not files.exists(TEESERVER):
        return Finding(interface=interface, note=f"/{TEESERVER}: not there")
    tee = TeeKind("confidential-space")
    return Finding(interface=interface, note=f"/{TEESERVER}: there", tee=tee, strength=Strength.TOKEN)


def _gpus(machine: Machine) -> Finding:
    try:
        count = count_gpus(machine.nvml())
    except CloisterError as exc:
        return Finding(interface="nvml", note=_said("nvml", exc))
    if not count:
        return Finding(interface="nvml", note="no gpu")
    return Finding(interface="nvml", note=f"{count} gpus", tee=TeeKind("nvidia-gpu"), strength=Strength.DEVICE)
