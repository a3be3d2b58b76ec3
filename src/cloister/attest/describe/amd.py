"""SNP reports and endorsement certificates explained (docs/spec/evidence-snp.md sections 3 and 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.amd.bits import PLATFORM_BITS, POLICY_BITS
from cloister.attest.amd.certificates import parse_certificates
from cloister.attest.amd.products import Product
from cloister.attest.amd.report import REPORT_BYTES, VERSIONS, Report
from cloister.attest.amd.tcb import Tcb
from cloister.attest.amd.vek import Vek
from cloister.attest.describe import Description, Field
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.attest.amd.bits import Bit

__all__ = ["SnpCertificateDescriber", "SnpReportDescriber"]

_ARC = bytes.fromhex("2b06010401 9c7801")  # 1.3.6.1.4.1.3704.1 in DER: only VCEKs and VLEKs have it
_VMPL_OF_HOST = 0xFFFFFFFF


class SnpReportDescriber:
    """Explains an attestation report."""

    kind = "snp"

    def recognises(self, data: bytes) -> bool:
        """Tell whether size and version are those of a report."""
        return len(data) == REPORT_BYTES and int.from_bytes(data[:4], "little") in VERSIONS

    def describe(self, data: bytes) -> Description:
        """Explain every field, in the order of the bytes. Raises ``Malformed``."""
        report = Report.parse(data)
        fields = (*_guest(report), *_platform(report), *_end(report))
        return Description(kind=self.kind, title="AMD SEV-SNP attestation report", fields=fields)


class SnpCertificateDescriber:
    """Explains a VCEK or VLEK certificate."""

    kind = "snp-certificate"

    def recognises(self, data: bytes) -> bool:
        """Tell whether this is DER with AMD's extensions."""
        return data[:1] == b"\x30" and _ARC in data

    def describe(self, data: bytes) -> Description:
        """Explain what the certificate says beside its key. Raises ``Malformed``."""
        found = parse_certificates(data, zero_serial=True)
        if len(found) != 1:
            msg = f"amd endorsement certificate: {len(found)} in one file, want 1"
            raise Malformed(msg)
        vek = Vek.parse(found[0])
        return Description(kind=self.kind, title=f"AMD {vek.kind.name} certificate", fields=tuple(_certificate(vek)))


def _certificate(vek: Vek) -> Iterator[Field]:
    inner = vek.certificate.x509
    yield Field(name="subject", value=vek.certificate.shown, meaning="SEV-VCEK is a chip's key, SEV-VLEK a cloud's")
    yield Field(
        name="issuer",
        value=inner.issuer.rfc4514_string()[:120],
        meaning="AMD's authority for one line of processors; its own certificate has to lead to a pinned root",
    )
    yield Field(name="notBefore", value=inner.not_valid_before_utc.isoformat(), meaning="valid from here")
    yield Field(name="notAfter", value=inner.not_valid_after_utc.isoformat(), meaning="to here")
    yield Field(name="productName", value=vek.product_name, meaning="line of processors, and perhaps a stepping")
    yield Field(
        name="TCB",
        value=str(Tcb.read(vek.tcb, vek.product)),
        meaning="security patch levels the key was derived from; a report has to carry exactly these as REPORTED_TCB",
    )
    if vek.hwid:
        yield Field(name="hwID", value=vek.hwid.hex(), meaning="the one chip that has this key; equals CHIP_ID")
    else:
        yield Field(name="cspID", value=vek.csp, meaning="the cloud that loads this key into its chips")


def _guest(report: Report) -> Iterator[Field]:
    known = "known" if report.version in VERSIONS else "unknown: nothing below can be relied on"
    yield Field(name="VERSION", value=str(report.version), meaning=f"format of the report, {known}")
    yield Field(name="GUEST_SVN", value=str(report.guest_svn), meaning="version of the guest, from its identity block")
    yield Field(name="POLICY", value=f"{report.policy:#x}", meaning="what the guest's owner allows the hypervisor")
    abi = f"{report.policy >> 8 & 0xFF}.{report.policy & 0xFF}"
    yield Field(name="POLICY.ABI", value=abi, meaning="oldest firmware interface that the guest puts up with")
    yield from _bits("POLICY", POLICY_BITS, report.policy)
    yield Field(name="FAMILY_ID", value=report.family_id.hex(), meaning="chosen by the owner, from the identity block")
    yield Field(name="IMAGE_ID", value=report.image_id.hex(), meaning="chosen by the owner, from the identity block")
    yield Field(name="VMPL", value=str(report.vmpl), meaning=_vmpl(report.vmpl))
    yield Field(
        name="SIGNATURE_ALGO", value=str(report.signature_algorithm), meaning="1 is ECDSA P-384 with SHA-384, no other"
    )


def _vmpl(level: int) -> str:
    if level == _VMPL_OF_HOST:
        return "asked for by the hypervisor: speaks for nobody inside"
    return "who inside the guest asked: 0 may do most; a paravisor has 0 and its guest less"


def _bits(field: str, bits: tuple[Bit, ...], value: int) -> Iterator[Field]:
    for bit in bits:
        on = bit.of(value)
        meaning = bit.meaning if on else f"not so: {bit.meaning}"
        yield Field(name=f"{field}.{bit.name.upper()}", value="1" if on else "0", meaning=meaning)


def _platform(report: Report) -> Iterator[Field]:
    yield _tcb(report, "CURRENT_TCB", report.current_tcb, "firmware that runs now")
    yield Field(name="PLATFORM_INFO", value=f"{report.platform_info:#x}", meaning="how the machine is set up")
    yield from _bits("PLATFORM_INFO", PLATFORM_BITS, report.platform_info)
    key = report.signing_key
    yield Field(
        name="KEY_INFO.SIGNING_KEY",
        value="reserved" if key is None else key.name,
        meaning="VCEK: this chip's key; VLEK: a key its cloud loaded; NONE: not signed",
    )
    yield Field(
        name="KEY_INFO.MASK_CHIP_KEY", value=_flag(report.mask_chip_key), meaning="1: the chip's key signs nothing"
    )
    yield Field(
        name="KEY_INFO.AUTHOR_KEY_EN",
        value=_flag(report.author_key_en),
        meaning="1: an author's key signed the identity key",
    )
    for name, value, meaning in (
        ("REPORT_DATA", report.report_data, "chosen by the guest: binds nonce and keys; look here for freshness"),
        ("MEASUREMENT", report.measurement, "digest of the guest's memory at launch: compare with a reference value"),
        ("HOST_DATA", report.host_data, "chosen by the hypervisor at launch: worth what else pins it"),
        ("ID_KEY_DIGEST", report.id_key_digest, "key that signed the identity block; zeros: there was none"),
        ("AUTHOR_KEY_DIGEST", report.author_key_digest, "key that signed the identity key; zeros: there was none"),
        ("REPORT_ID", report.report_id, "this guest until it is shut down"),
        ("REPORT_ID_MA", report.report_id_ma, "its migration agent; ones: there is none"),
    ):
        yield Field(name=name, value=value.hex(), meaning=meaning)


def _end(report: Report) -> Iterator[Field]:
    yield _tcb(
        report, "REPORTED_TCB", report.reported_tcb, "levels the signing key was derived from: hold these to a minimum"
    )
    if report.cpuid is not None:
        value = f"family {report.cpuid.family:#x}, model {report.cpuid.model:#x}, stepping {report.cpuid.stepping}"
        line = report.product.value if report.product else "a processor we do not know"
        yield Field(name="CPUID", value=value, meaning=f"{line}; deny a line whose root key leaked by its name")
    chip = "hidden by the platform" if report.chip_id_masked else "this one chip; the certificate has to name it too"
    yield Field(name="CHIP_ID", value=report.chip_id.hex(), meaning=chip)
    yield _tcb(report, "COMMITTED_TCB", report.committed_tcb, "levels the firmware cannot be taken below any more")
    yield Field(name="CURRENT_VERSION", value=str(report.current), meaning="firmware that runs now")
    yield Field(
        name="COMMITTED_VERSION", value=str(report.committed), meaning="oldest firmware that can still be loaded"
    )
    yield _tcb(report, "LAUNCH_TCB", report.launch_tcb, "levels when the guest was launched or moved here")
    for name, vector in (
        ("LAUNCH_MIT_VECTOR", report.launch_mitigation),
        ("CURRENT_MIT_VECTOR", report.current_mitigation),
    ):
        if vector is not None:
            yield Field(name=name, value=f"{vector:#018x}", meaning="mitigations that were checked, a bit for each")
    r, s = report.signature
    yield Field(name="SIGNATURE", value=f"r {r:096x}, s {s:096x}", meaning="over all of the above; not checked here")
    reserved = ", ".join(report.reserved) or "zero"
    yield Field(name="reserved", value=reserved, meaning="anything but zero is a format we do not know")


def _flag(on: bool) -> str:  # noqa: FBT001 - the bit itself
    return "1" if on else "0"


def _tcb(report: Report, name: str, raw: bytes, meaning: str) -> Field:
    """Return a TCB version; without CPUID (version 2) it is read as before Turin, which reports no such version."""
    return Field(name=name, value=str(Tcb.read(raw, report.product or Product.MILAN)), meaning=meaning)
