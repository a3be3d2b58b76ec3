"""Whether a report and the certificate of the key that signed it are about the same machine and firmware.

AMD 57230 (a VCEK is made from a chip's secret and a TCB version), AMD 58369 (a VLEK is a cloud's), AMD 56860 (what the
firmware keeps to: SNP_CONFIG, SNP_COMMIT).

Not done here: who issued the certificate (``authority``), whether the values are good (policy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.amd.report import VERSIONS, SigningKey
from cloister.attest.amd.signature import ECDSA_P384_SHA384, holds
from cloister.attest.amd.tcb import Tcb

if TYPE_CHECKING:
    from cloister.attest.amd.products import Product
    from cloister.attest.amd.report import Report
    from cloister.attest.amd.vek import Vek
    from cloister.attest.findings import Findings

__all__ = ["line_of", "verify_fit", "verify_form", "verify_signature"]

_MAX_VMPL = 3


def line_of(report: Report, vek: Vek) -> Product:
    """Return the line that orders the report's TCB bytes: by CPUID where the report has it."""
    return report.product or vek.product


def verify_form(report: Report, findings: Findings) -> None:
    """Look for a format that we know: ``unsupported_format``, ``algorithm_not_allowed``."""
    version = report.version
    findings.expect(version in VERSIONS, "unsupported_format", "report version", got=str(version), want="2 to 5")
    got = report.signature_algorithm
    findings.expect(
        got == ECDSA_P384_SHA384, "algorithm_not_allowed", "signature algorithm", got=str(got), want="1, ECDSA P-384"
    )


def verify_signature(report: Report, vek: Vek, findings: Findings) -> None:
    """Prove that the certified key signed every byte of the report: ``signature_invalid``."""
    key = vek.certificate.x509.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        signed = holds(key, report.signature, report.signed)
        findings.expect(signed, "signature_invalid", "report signature")


def verify_fit(report: Report, vek: Vek, findings: Findings) -> None:
    """Compare report and certificate, then the report with itself. All findings, in this order.

    ``key_binding_mismatch``, ``product_mismatch``, ``tcb_mismatch``, ``chip_id_mismatch``, ``vmpl_mismatch``,
    ``unsupported_format``.
    """
    # 1. The key that the report says signed it is of the certificate's kind.
    key = report.signing_key
    got = "reserved" if key is None else key.name
    findings.expect(key is vek.kind, "key_binding_mismatch", "signing key", got=got, want=vek.kind.name)
    # 2. Processor: since version 3 the report says so itself.
    if report.cpuid is not None:
        line = report.product.value if report.product else f"family {report.cpuid.family:#x}"
        findings.expect(
            report.product is vek.product, "product_mismatch", "processor", got=line, want=vek.product.value
        )
    # 3. TCB: the key is derived from it, so the two are equal to the byte, reserved ones too.
    product = line_of(report, vek)
    reported, certified = Tcb.read(report.reported_tcb, product), Tcb.read(vek.tcb, product)
    findings.expect(
        report.reported_tcb == vek.tcb, "tcb_mismatch", "reported tcb", got=str(reported), want=str(certified)
    )
    # 4. Chip: a VCEK is one chip's. A masked CHIP_ID leaves the certificate's, which the signature proves.
    if vek.kind is SigningKey.VCEK and not report.chip_id_masked:
        findings.equal(report.chip_id, vek.chip_id, "chip_id_mismatch", "chip id")
    # 5. What the firmware keeps to (AMD 56860, SNP_CONFIG and SNP_COMMIT). The launch TCB is left
    #    alone: a guest may have been launched elsewhere.
    current = Tcb.read(report.current_tcb, product)
    for name, raw in (("reported tcb", report.reported_tcb), ("committed tcb", report.committed_tcb)):
        tcb = Tcb.read(raw, product)
        findings.expect(not tcb.exceeds(current), "tcb_mismatch", name, got=str(tcb), want=f"at most {current}")
    findings.expect(
        report.committed.number <= report.current.number,
        "tcb_mismatch",
        "committed firmware",
        got=str(report.committed),
        want=f"at most {report.current}",
    )
    # 6. A report that the hypervisor asked for has no level, and speaks for nobody inside (SNP_HV_REPORT_REQ).
    vmpl = report.vmpl
    findings.expect(vmpl <= _MAX_VMPL, "vmpl_mismatch", "vmpl", got=str(vmpl), want="0 to 3")
    # 7. Bytes and bits without a meaning are zero: what they say in later firmware we do not know.
    got = ", ".join(report.reserved) or "zero"
    findings.expect(not report.reserved, "unsupported_format", "reserved fields", got=got, want="zero")
