"""Files of Intel SGX and TDX explained: quotes, collateral, boot logs, signature files.

Nothing is verified here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.describe import Description, Field
from cloister.attest.intel.collateral import Collateral, pem_certificates
from cloister.attest.intel.eventlog import CcelLog, rtmrs_of
from cloister.attest.intel.pck import Pck
from cloister.attest.intel.quote import INTEL_QE_VENDOR, TEE_SGX, TEE_TDX, Quote
from cloister.attest.intel.sigstruct import SIGSTRUCT_BYTES, Sigstruct
from cloister.attest.intel.td import TdReport
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.crl import RevocationList
    from cloister.attest.rats import ClaimValue

__all__ = ["CcelDescriber", "IntelCollateralDescriber", "SgxQuoteDescriber", "SigstructDescriber", "TdxQuoteDescriber"]

_VERSIONS = (3, 4, 5)
_SIGSTRUCT_FRONT = bytes.fromhex("06000000e1000000")
_NO_ACTION = bytes.fromhex("03000000")
_COLLATERAL = b'"tcb_info_issuer_chain"'
_FRONT_BYTES = 64 * 1024  # of a file that is asked whether it is collateral

_QUOTE_MEANINGS = {
    "version": "format of the quote: 3 for SGX, 4 and 5 for TDX",
    "tee_type": "0 is SGX, 129 is TDX",
    "body_type": "1 enclave, 2 TD 1.0, 3 TD 1.5, 4 TD 1.5 extended",
    "qe_vendor": f"whose Quoting Enclave signed; Intel's is {INTEL_QE_VENDOR.hex()}",
    "qe_svn": "what the host says of the Quoting Enclave; the certified value is qe_isvsvn",
    "pce_svn": "what the host says of the PCE; the certified value is pck.pcesvn",
    "user_data": "20 bytes of the platform, usually the first 16 name it",
    "attestation_key": "P-256 key that signs quotes on this platform, for as long as its Quoting Enclave keeps it",
    "qe_mrsigner": "who signed the Quoting Enclave; compare with the identity Intel publishes",
    "qe_isvsvn": "version of the Quoting Enclave; Intel publishes which are stale",
    "report_data": "what the software put in: a nonce and keys; look for your own nonce's hash",
    "padding": "bytes behind the quote; nobody signs them",
}
_MEANINGS = {
    "attributes": "flags and XFRM of the enclave; bit 1 is debug, bit 4 the provisioning key",
    "configid": "what the loader configured at launch (KSS), zero where it did not",
    "configsvn": "version of that configuration",
    "cpusvn": "security version of the processor in a form only it can read; pck.cpusvn is the readable one",
    "debug": "true: the host may read and write its memory; refuse it in production",
    "fmspc": "family, model, stepping, platform: names the TCB information that applies",
    "isvextprodid": "extended product number (KSS)",
    "isvfamilyid": "family of products (KSS)",
    "isvprodid": "product number the signer chose",
    "isvsvn": "security version the signer chose; demand at least the one that has your fixes",
    "miscselect": "extra state saved on exits; zero is usual",
    "mrconfigid": "what the host or owner configured: not measured by the TD, but fixed at launch",
    "mrenclave": "digest of the enclave's code and data: the identity to pin",
    "mrowner": "owner, as the host set it at launch",
    "mrownerconfig": "the owner's configuration, as the host set it at launch",
    "mrseam": "digest of the TDX module that ran at launch",
    "mrservicetd": "digest of service TDs bound to it (a migration TD); zero is none",
    "mrsigner": "digest of the key that signed the enclave",
    "mrsignerseam": "who signed the TDX module; zero is Intel",
    "mrtd": "digest of the TD's initial memory: the firmware, the identity to pin",
    "pceid": "which Provisioning Certification Enclave; 0000 is Intel's",
    "ppid": "identity of the processor package: names this machine for ever",
    "provisioning": "true: may derive the platform's provisioning key, as only Intel's own enclaves should",
    "rtmr0": "firmware configuration, from the boot log",
    "rtmr1": "boot loader, kernel, from the boot log",
    "rtmr2": "command line, initial file system, from the boot log",
    "rtmr3": "for the running system, often zero",
    "seam_attributes": "attributes of the TDX module; zero is production",
    "service_td": "true: another TD may move or serve this one; refuse it unless you know which",
    "td_attributes": "the TD's attributes as they stand; their bits follow",
    "td_id": "random identity of this launch of the TD",
    "tee_tcb_svn": "security versions of the TDX module and its parts at launch",
    "tee_tcb_svn2": "the same for the module that runs now",
    "xfam": "processor features the TD may use",
    "xfam.valid": "false: a bit is missing that every TD has, or one is set that no processor knows",
    "pck.cached_keys": "true: the platform's keys are cached by Intel",
    "pck.cpusvn": "security versions of the parts of the platform, as certified",
    "pck.dynamic": "true: packages may be added to the platform",
    "pck.pcesvn": "security version of the PCE, as certified",
    "pck.sgx_type": "memory protection: 0 standard, 1 scalable, 2 scalable with integrity",
    "pck.smt": "true: simultaneous multithreading is on",
    "td_attributes.key_locker": "true: may use Key Locker",
    "td_attributes.migratable": "true: may be moved to another platform while it runs",
    "td_attributes.perfmon": "true: may use performance counters",
    "td_attributes.pks": "true: may use supervisor protection keys",
    "td_attributes.profiling": "true: the host may profile it, a side channel; refuse it",
    "td_attributes.reserved": "true: a bit is set that nobody defined; refuse it",
    "td_attributes.sept_ve_disable": "false: the host may make memory accesses fault into the TD's handlers; refuse it",
    "td_attributes.servtd_ext": "true: its service TD may be replaced while it runs",
}


def _shown(value: ClaimValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _fields(values: Mapping[str, ClaimValue], meanings: Mapping[str, str], *, ours: str = "") -> tuple[Field, ...]:
    """Return a field for each value; one whose meaning is its family's says that."""
    found = []
    for name, value in values.items():
        meaning = meanings.get(name) or meanings.get(name.partition(".")[0]) or ours
        found.append(Field(name=name, value=_shown(value), meaning=meaning))
    return tuple(found)


def _quote_description(data: bytes, kind: str, title: str) -> Description:
    try:
        quote = Quote.parse(data)
    except Rejected as exc:
        raise Malformed(exc.message) from exc
    if (quote.tee == TEE_SGX) != (kind == "sgx"):
        msg = f"quote: tee type {quote.tee}, not of kind {kind}"
        raise Malformed(msg)
    pck = Pck.parse(pem_certificates(quote.pck_chain)[0])
    head: dict[str, ClaimValue] = {
        "version": quote.version,
        "tee_type": quote.tee,
        "body_type": quote.body_type,
        "qe_vendor": quote.qe_vendor.hex(),
        "qe_svn": quote.qe_svn,
        "pce_svn": quote.pce_svn,
        "user_data": quote.user_data.hex(),
    }
    body = quote.body.claims()
    if isinstance(quote.body, TdReport):  # one line for the SVNs is enough for a person
        body = {name: value for name, value in body.items() if not name.startswith("tee_tcb_svn.")}
    tail: dict[str, ClaimValue] = {
        "attestation_key": quote.attestation_key.hex(),
        "qe_mrsigner": quote.qe_report.mrsigner.hex(),
        "qe_isvsvn": quote.qe_report.isvsvn,
        "padding": len(data) - len(quote.raw),
    }
    fields = (
        *_fields(head, _QUOTE_MEANINGS),
        *_fields({"report_data": quote.body.report_data.hex()}, _QUOTE_MEANINGS),
        *_fields(body, _MEANINGS),
        *_fields(tail, _QUOTE_MEANINGS),
        Field(name="pck_subject", value=pck.certificate.shown, meaning="certificate of the platform; Intel issues it"),
        *_fields(pck.claims(), _MEANINGS),
    )
    return Description(kind=kind, title=title, fields=fields)


def _is_quote(data: bytes, tee: int) -> bool:
    version, key_type = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
    return version in _VERSIONS and key_type in (2, 3) and data[4:8] == tee.to_bytes(4, "little") and len(data) > 432  # noqa: PLR2004


class SgxQuoteDescriber:
    """Explains SGX quotes."""

    kind: Final = "sgx"

    def recognises(self, data: bytes) -> bool:
        """Tell by version, key type and tee type."""
        return _is_quote(data, TEE_SGX)

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        return _quote_description(data, self.kind, "Intel SGX quote: what an enclave is, signed by its platform")


class TdxQuoteDescriber:
    """Explains TDX quotes."""

    kind: Final = "tdx"

    def recognises(self, data: bytes) -> bool:
        """Tell by version, key type and tee type."""
        return _is_quote(data, TEE_TDX)

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        return _quote_description(data, self.kind, "Intel TDX quote: what a trust domain is, signed by its platform")


class CcelDescriber:
    """Explains boot logs of TDs."""

    kind: Final = "tdx-eventlog"

    def recognises(self, data: bytes) -> bool:
        """Tell by the first event, which declares SHA-384 alone."""
        return data[4:8] == _NO_ACTION and data[32:47] == b"Spec ID Event03" and data[56:62] == b"\x01\0\0\0\x0c\0"

    def describe(self, data: bytes) -> Description:
        """List the events and the RTMRs they make. Raises ``Malformed``."""
        log = CcelLog.parse(data)
        fields = [
            Field(name=f"rtmr{index}", value=value.hex(), meaning="where the log arrives: compare with a quote")
            for index, value in enumerate(rtmrs_of(log))
        ]
        for number, event in enumerate(log.events):
            into = "mrtd" if event.pcr == 0 else f"rtmr{event.pcr - 1}"
            digest = next(iter(event.digests.values())).hex()
            meaning = f"type {event.kind:#010x}, {len(event.data)} bytes measured into {into}"
            fields.append(Field(name=f"event {number}", value=digest, meaning=meaning))
        return Description(kind=self.kind, title="Boot log of a trust domain (CCEL)", fields=tuple(fields))


class IntelCollateralDescriber:
    """Explains collateral."""

    kind: Final = "intel-collateral"

    def recognises(self, data: bytes) -> bool:
        """Tell by the name of a member."""
        return data.lstrip()[:1] == b"{" and _COLLATERAL in data[:_FRONT_BYTES]

    def describe(self, data: bytes) -> Description:
        """Explain windows, levels and lists. Raises ``Malformed``."""
        try:
            found = Collateral.parse(data)
        except Rejected as exc:
            raise Malformed(exc.message) from exc
        info, identity = found.tcb_info, found.qe_identity
        fields = [
            Field(name="tcb_info.id", value=info.kind, meaning="the TEE these levels are for"),
            Field(name="tcb_info.fmspc", value=info.fmspc.hex(), meaning="the platforms these levels are for"),
            Field(name="tcb_info.evaluation", value=str(info.evaluation), meaning="grows with every TCB recovery"),
            Field(name="tcb_info.issued", value=info.issued.isoformat(), meaning="not believed before"),
            Field(name="tcb_info.next_update", value=info.next_update.isoformat(), meaning="not believed after"),
            Field(name="qe_identity.id", value=identity.kind, meaning="QE for SGX, TD_QE for TDX"),
            Field(name="qe_identity.mrsigner", value=identity.mrsigner.hex(), meaning="who signs Quoting Enclaves"),
            Field(name="qe_identity.issued", value=identity.issued.isoformat(), meaning="not believed before"),
            Field(name="qe_identity.next_update", value=identity.next_update.isoformat(), meaning="not believed after"),
            Field(name="root_crl", value=_revoked(found.root_crl), meaning="authorities the root has revoked"),
            Field(name="pck_crl", value=_revoked(found.pck_crl), meaning="platforms that are revoked"),
        ]
        for level in info.levels:
            needs = f"{bytes(level.sgx).hex()} pce {level.pcesvn}" + (
                f" tdx {bytes(level.tdx).hex()}" if level.tdx else ""
            )
            meaning = f"{level.status.value} since {level.date.date()}; {', '.join(level.advisories) or 'no advisory'}"
            fields.append(Field(name="tcb_level", value=needs, meaning=meaning))
        return Description(kind=self.kind, title="What Intel publishes about a platform", fields=tuple(fields))


def _revoked(listed: RevocationList | None) -> str:
    return str(len(listed.revoked)) if listed is not None else "no list"


class SigstructDescriber:
    """Explains signature files of enclaves."""

    kind: Final = "sgx-sigstruct"

    def recognises(self, data: bytes) -> bool:
        """Tell by size and header."""
        return len(data) == SIGSTRUCT_BYTES and data.startswith(_SIGSTRUCT_FRONT)

    def describe(self, data: bytes) -> Description:
        """Explain what the enclave will measure. Raises ``Malformed``."""
        found = Sigstruct.parse(data)
        fields = (
            Field(name="date", value=found.date, meaning="when it was signed, as the signer says"),
            Field(name="vendor", value=f"{found.vendor:#x}", meaning="0x8086 for enclaves of Intel's, else 0"),
            *_fields(found.reference_values(), _MEANINGS),
            *_fields({"attributes": found.attributes.hex()}, _MEANINGS),
            Field(name="attributemask", value=found.attributemask.hex(), meaning="which attributes are enforced"),
        )
        return Description(kind=self.kind, title="Signature file of an SGX enclave (SIGSTRUCT)", fields=fields)
