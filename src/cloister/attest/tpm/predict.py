"""PCRs 4, 9 and 11 of a machine that boots a unified kernel image, computed from files (docs/spec/evidence-vtpm.md).

    PCR 4    firmware        each image it loads, by its Authenticode digest, behind two fixed events
    PCR 9    Linux's stub    the load options (command line), then the initrd
    PCR 11   systemd-stub    each section of the image, name and contents; then systemd, the phases of the boot

Sources: TCG PC Client Platform Firmware Profile 1.06 sections 3.3.4.5 and 10.4; systemd, src/fundamental/uki.h,
TPM2_PCR_MEASUREMENTS.md and systemd-measure(1); Linux, drivers/firmware/efi/libstub/efi-stub-helper.c.

Not done here: PCRs that depend on the machine (0 to 3, 5, 7), and what a boot menu or companion files add (12, 13).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.tpm.algorithms import DIGEST_BYTES, Alg, digest
from cloister.attest.tpm.pe import PeImage
from cloister.attest.tpm.policy import extend
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["PHASES", "SECTIONS", "predict_pcr4", "predict_pcr9", "predict_pcr11", "uki_sections"]

PHASES = ("enter-initrd", "leave-initrd", "sysinit", "ready")
"""What systemd-pcrphase extends PCR 11 with, in this order; a system that is up has all four."""

SECTIONS: Mapping[str, int] = {
    ".linux": 252,
    ".osrel": 252,
    ".cmdline": 252,
    ".initrd": 252,
    ".ucode": 256,
    ".splash": 252,
    ".dtb": 252,
    ".uname": 254,
    ".sbat": 254,
    ".pcrpkey": 252,
    ".profile": 257,
    ".dtbauto": 257,
    ".hwids": 257,
    ".efifw": 258,
}
"""Sections in the order they are measured, whatever theirs in the file, and the version of systemd-stub since which
they are. ``.pcrsig`` is none of them: it signs the outcome."""

_OLDEST_STUB = 252
_BOOT_ATTEMPT = b"Calling EFI Application from Boot Option"
_SEPARATOR = bytes(4)


def predict_pcr4(images: Sequence[bytes], *, bank: Alg = Alg.SHA256) -> bytes:
    """Return PCR 4 after firmware started ``images`` in this order: first boot option, nothing failed before it.

    The order is boot loader if there is one (shim, systemd-boot), then the unified image, and, where the stub hands its
    kernel back to firmware to load (LoadImage, as systemd-stub does), the kernel inside: ``.linux``. Raises
    ``Malformed`` for what is no image, ``UsageError`` for none at all.
    """
    if not images:
        msg = "pcr 4: no image"
        raise UsageError(msg)
    measured = [digest(bank, _BOOT_ATTEMPT), digest(bank, _SEPARATOR)]
    return _extended((*measured, *(PeImage.parse(image).authenticode(bank) for image in images)), bank)


def predict_pcr9(cmdline: str | None, initrd: bytes | None, *, bank: Alg = Alg.SHA256) -> bytes:
    """Return PCR 9 after Linux's EFI stub: load options since Linux 6.1, initrd since 5.17.

    ``cmdline`` is None for a kernel that does not measure it. ``initrd`` is exactly what the loader hands over: a stub
    that adds files (``.pcrsig``, ``.pcrpkey``, credentials) appends archives to the image's own, each padded to four
    bytes. Without a GRUB before it, which measures into this PCR whatever it reads.
    """
    measured = []
    if cmdline is not None:
        measured.append(digest(bank, (cmdline + "\x00").encode("utf-16-le")))
    if initrd is not None:
        measured.append(digest(bank, initrd))
    return _extended(measured, bank)


def predict_pcr11(
    sections: Mapping[str, bytes],
    *,
    phases: Sequence[str] = PHASES,
    stub: int = 254,
    bank: Alg = Alg.SHA256,
) -> bytes:
    """Return PCR 11 after systemd-stub of version ``stub`` and the first ``phases``.

    ``sections`` are contents by name; what this stub does not measure is passed over, as it does. Raises ``UsageError``
    for phases out of order, a stub older than 252, and sections of no name known.
    """
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown or stub < _OLDEST_STUB or tuple(phases) != PHASES[: len(phases)]:
        msg = f"pcr 11: sections {unknown}, stub {stub}, phases {list(phases)}"
        raise UsageError(msg, hint=f"sections are {', '.join(SECTIONS)}, phases {', '.join(PHASES)}")
    measured: list[bytes] = []
    for name, since in SECTIONS.items():
        if name in sections and stub >= since:
            measured += [digest(bank, name.encode() + b"\x00"), digest(bank, sections[name])]
    return _extended((*measured, *(digest(bank, phase.encode()) for phase in phases)), bank)


def uki_sections(image: bytes) -> dict[str, bytes]:
    """Return the sections of a unified kernel image that some stub measures. Raises ``Malformed``."""
    parsed = PeImage.parse(image)
    found = {name: parsed.section(name) for name in SECTIONS}
    return {name: data for name, data in found.items() if data is not None}


def _extended(measured: Iterable[bytes], bank: Alg) -> bytes:
    value = bytes(DIGEST_BYTES[bank])
    for item in measured:
        value = extend(value, item, bank=bank)
    return value
