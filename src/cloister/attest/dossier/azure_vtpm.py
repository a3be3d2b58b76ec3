"""Azure vTPM evidence from one file: ``evidence``, JSON in any of the shapes projects publish (``azure.evidence``).

The hardware half is judged as its own dossier judges it: SNP without a revocation list, TDX without collateral, for
such a document carries neither; the result says so. Members of the policy object that this file does not know are the
hardware's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.amd.authority import pinned_trust
from cloister.attest.azure.evidence import AzureEvidence
from cloister.attest.azure.hcl import HardwareKind, HclReport, RuntimeClaims
from cloister.attest.dossier import Case, snp, tdx
from cloister.attest.dossier.expectations import bare, carried, demand_files, refuse_member, rule_of
from cloister.attest.dossier.tpm import NONCES, is_pcr, pcr_rules
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.roots import vendor_certificate
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.azure_vtpm import SETTINGS, AzureVtpmScheme
from cloister.attest.schemes.snp import SnpScheme
from cloister.attest.schemes.tdx import TdxScheme
from cloister.attest.tpm.measured import dump_pcrs
from cloister.attest.tpm.structures import Quote
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.dossier import Bound
    from cloister.attest.rules import Rule
    from cloister.attest.verifier import Scheme
    from cloister.wire import Json

__all__ = ["open_case"]

_USER_DATA_BYTES = 64
_SNP_CLAIMS = ("measurement", "product", "reported_tcb", "version", "vmpl")
_TDX_CLAIMS = ("fmspc", "mrtd", "report_data", "rtmr0", "td_attributes")
_NO_COLLATERAL = "none: check signature chain only"
_OWN = {"hcl_version": "hcl_version", "report_type": "report_type", "secure_boot": "vm.secure_boot", **SETTINGS}
"""Policy members about the vTPM's machine, and the claims they are about."""


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Open one document. Raises ``Malformed``, ``Rejected`` (``unsupported_format``) and ``Unavailable``."""
    demand_files(files, ("evidence",))
    document = AzureEvidence.parse(files["evidence"])
    hcl = HclReport.parse(document.hcl_report)
    runtime = RuntimeClaims.parse(hcl.claims)
    quote = Quote.parse(document.attest)
    rules, bound, left = _read(quote, runtime, expectations)
    hardware = _open_hardware(document, hcl, left)
    scheme = AzureVtpmScheme(_scheme(hcl.kind))
    evidence = Evidence(tee=scheme.tee, payload=_payload(document, hcl))
    return Case(
        claims=_claims(document, hcl, runtime, quote) | _hardware_claims(hcl.kind, hardware.claims),
        verify=lambda now: scheme.verify(evidence, {}, now),
        rules={**hardware.rules, **rules},
        bound=(*bound, *hardware.bound),
    )


def _read(
    quote: Quote, runtime: RuntimeClaims, expectations: Mapping[str, Json]
) -> tuple[dict[str, Rule], tuple[Bound, ...], dict[str, Json]]:
    """Return rules and what has to be carried by members of this file, and the members that are the hardware's."""
    rules: dict[str, Rule] = {}
    bound: list[Bound] = []
    left: dict[str, Json] = {}
    for name, value in expectations.items():
        if name in NONCES:
            bound.append(carried("nonce_mismatch", name, value, quote.extra_data))
        elif name == "user_data":
            got = bytes.fromhex(runtime.user_data)
            bound.append(carried("report_data_mismatch", name, _filled(value), got))
        elif name == "vm" and isinstance(value, dict):
            rules |= {SETTINGS.get(item) or refuse_member(item): rule_of(item, want) for item, want in value.items()}
        elif name in _OWN:
            rules[_OWN[name]] = rule_of(name, value)
        elif is_pcr(name):
            rules |= pcr_rules(name, value)
        elif name in {kind.value for kind in HardwareKind} and isinstance(value, dict):
            left |= value
        else:
            left[name] = value
    return rules, tuple(bound), left


def _filled(value: Json) -> Json:
    """Return hex with zeros at the end up to the size of NV index 0x01400002."""
    text = bare(value)
    return text.lower().ljust(2 * _USER_DATA_BYTES, "0") if isinstance(text, str) else text


def _open_hardware(document: AzureEvidence, hcl: HclReport, expectations: Mapping[str, Json]) -> Case:
    if (hcl.kind is HardwareKind.TDX) != bool(document.td_quote):
        msg = f"azure evidence: hcl report of {hcl.kind.value}, and no evidence of it"
        raise Malformed(msg)
    if hcl.kind is HardwareKind.TDX:
        return tdx.open_case({"quote": document.td_quote}, {"collateral": _NO_COLLATERAL, **expectations})
    return snp.open_case({"report": hcl.hardware, **_certificates(document)}, expectations)


def _certificates(document: AzureEvidence) -> dict[str, bytes]:
    chain = {"intermediate": document.chain} if document.chain else {}
    return {"leaf": document.leaf, **chain}


def _scheme(kind: HardwareKind) -> Scheme:
    if kind is HardwareKind.TDX:
        root = vendor_certificate("intel-sgx-root")
        return TdxScheme([root], without_collateral=NotChecked("the document carries no collateral"))
    return SnpScheme(pinned_trust(), revocation=NotChecked("the document carries no revocation list"))


def _payload(document: AzureEvidence, hcl: HclReport) -> bytes:
    inner = {"td_quote": document.td_quote} if hcl.kind is HardwareKind.TDX else _certificates(document)
    return dump_parts(
        {
            "hcl_report": document.hcl_report,
            "pcrs": dump_pcrs(document.pcrs),
            "quote": document.attest,
            "signature_tpmt": document.signature,
            **inner,
        }
    )


def _claims(document: AzureEvidence, hcl: HclReport, runtime: RuntimeClaims, quote: Quote) -> dict[str, Json]:
    claims: dict[str, Json] = {f"pcr{index}": document.pcrs[index].hex() for index in (0, 4) if index in document.pcrs}
    return claims | {
        "hcl_version": hcl.version,
        "nonce": quote.extra_data.hex(),
        "report_type": hcl.kind.value,
        "user_data": runtime.user_data,
        "vm": dict(runtime.configuration),
    }


def _hardware_claims(kind: HardwareKind, claims: Mapping[str, Json]) -> dict[str, Json]:
    """Return the hardware's claims that the index has for this TEE."""
    names = _SNP_CLAIMS if kind is HardwareKind.SNP else _TDX_CLAIMS
    return {kind.value: {name: claims[name] for name in names}}
