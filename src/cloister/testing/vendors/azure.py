"""A synthetic Azure: confidential VMs with a paravisor's vTPM, and the certificates of its key.

    SnpHardware, TdxHardware   what signs the paravisor's report: a synthetic AMD chip, a synthetic Intel platform
    hcl_report                 the report of NV index 0x01400001, every field a knob
    SyntheticAzure             the authorities of attestation key certificates
    AzureAttester              one VM: parts, evidence, documents, a policy

Structurally what Azure hands out; worth nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from cloister.attest.azure.hcl import HardwareKind
from cloister.attest.parts import dump_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence
from cloister.attest.rules import Exact, OneOf
from cloister.attest.schemes.azure_vtpm import AzureVtpmScheme
from cloister.attest.tpm.akcert import AK_USAGE
from cloister.attest.tpm.ek import EK_USAGE
from cloister.attest.tpm.measured import dump_pcrs
from cloister.errors import UsageError
from cloister.testing.vendors.amd import AmdAttester, Chip, ReportValues, SyntheticAmd
from cloister.testing.vendors.gce import Issue, certificate
from cloister.testing.vendors.intel import SyntheticIntel, TdxAttester
from cloister.testing.vendors.intel.bodies import TdBody
from cloister.testing.vendors.vtpm import SyntheticVtpm, rsa_key
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.chain import Certificate
    from cloister.attest.rats import TeeKind
    from cloister.attest.rules import NotChecked, Rule
    from cloister.attest.verifier import Scheme
    from cloister.wire import Json

__all__ = ["AzureAttester", "Hardware", "HclValues", "SnpHardware", "SyntheticAzure", "TdxHardware", "hcl_report"]

NV_REPORT_BYTES = 2600  # bytes of NV index 0x01400001
_HARDWARE_BYTES = 1184
_TDREPORT_BYTES = 1024
_TDREPORT_DATA_AT = 128
_BOOT_PCRS = range(8)
_USER_DATA = "00" * 64
_VM_ID = "0F0E0D0C-0B0A-4908-8706-050403020100"


class Hardware(Protocol):
    """What vouches for a paravisor."""

    @property
    def kind(self) -> HardwareKind:
        """Which TEE."""
        ...

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """What a custodian has to fetch."""
        ...

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Rules that accept this hardware and this paravisor."""
        ...

    def scheme(self, *, relaxed: NotChecked | None = None) -> Scheme:
        """Return a scheme that trusts its vendor; ``relaxed`` does without lists and collateral."""
        ...

    def report(self, report_data: bytes) -> tuple[bytes, dict[str, bytes]]:
        """Return the report inside an HCL report, and the parts that go with it."""
        ...


class SnpHardware:
    """A paravisor in an SNP guest on a synthetic chip."""

    kind = HardwareKind.SNP

    def __init__(self, chip: Chip | None = None, values: ReportValues | None = None) -> None:
        """Run on ``chip``; ``values`` are what its reports say, but for the report data."""
        self.chip = chip or Chip(SyntheticAmd.generate())
        self.values = values or ReportValues()

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """AMD's authority and revocation list."""
        return self.chip.vendor.endorsements

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Those of the chip's own attester."""
        attester = AmdAttester(self.chip, self.values)
        return attester.policy().tees[attester.tee].rules

    def scheme(self, *, relaxed: NotChecked | None = None) -> Scheme:
        """Return the scheme of the chip's vendor."""
        return self.chip.vendor.scheme(revocation=relaxed)

    def report(self, report_data: bytes) -> tuple[bytes, dict[str, bytes]]:
        """Return an SNP report; the chip's certificate and its authority go with it."""
        parts = self.chip.parts(replace(self.values, report_data=report_data))
        return parts["report"], {"leaf": parts["leaf"], "intermediate": parts["intermediate"]}


class TdxHardware:
    """A paravisor in a TD on a synthetic platform."""

    kind = HardwareKind.TDX

    def __init__(self, vendor: SyntheticIntel | None = None, body: TdBody | None = None) -> None:
        """Run on the platform of ``vendor``; ``body`` is what its quotes say, but for the report data."""
        self.vendor = vendor or SyntheticIntel.generate()
        self.body = body or TdBody()

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """The platform's collateral."""
        return {self.vendor.endorsement(tdx=True): self.vendor.published(tdx=True).dump()}

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Those of the platform's own attester, with this TD's RTMRs, which a paravisor leaves alone."""
        attester: TdxAttester = self.vendor.tdx_attester(self.body)
        values = {f"rtmr{index}": OneOf((value.hex(),)) for index, value in enumerate(self.body.rtmrs)}
        return {**attester.policy().tees[attester.tee].rules, **values}

    def scheme(self, *, relaxed: NotChecked | None = None) -> Scheme:
        """Return the scheme of the platform's vendor."""
        return self.vendor.tdx_scheme(without_collateral=relaxed)

    def report(self, report_data: bytes) -> tuple[bytes, dict[str, bytes]]:
        """Return a TDREPORT, of which only the report data matters; the quote made from it goes with it."""
        tdreport = bytes((0x81,)).ljust(_TDREPORT_DATA_AT, b"\x00") + report_data
        quote = self.vendor.quote(replace(self.body, report_data=report_data)).dump()
        return tdreport.ljust(_TDREPORT_BYTES, b"\x00"), {"td_quote": quote}


@dataclass(frozen=True, slots=True, kw_only=True)
class HclValues:
    """Fields of an HCL report. None takes what the others make of it; everything else is a fault to test."""

    magic: bytes = b"HCLA"
    version: int = 2
    size: int | None = None
    request: int = 2
    status: int = 0
    reserved: bytes = bytes(12)
    data_size: int | None = None
    data_version: int = 1
    report_type: int | None = None
    hash_type: int = 1
    claims_size: int | None = None
    padding: bytes | None = None


def hcl_report(hardware: bytes, kind: HardwareKind, claims: bytes, values: HclValues | None = None) -> bytes:
    """Return the report as NV memory has it, padded with zeros."""
    made = values or HclValues()
    extension = b"" if made.data_version == 1 else bytes(4)
    size = 20 + len(extension) + len(claims)
    report_type = {HardwareKind.SNP: 2, HardwareKind.TDX: 4}[kind]
    head = b"".join(
        (
            made.magic,
            _u32(made.version),
            _u32(32 + _HARDWARE_BYTES + size if made.size is None else made.size),
            _u32(made.request),
            _u32(made.status),
            made.reserved,
        )
    )
    data = b"".join(
        (
            _u32(size if made.data_size is None else made.data_size),
            _u32(made.data_version),
            _u32(report_type if made.report_type is None else made.report_type),
            _u32(made.hash_type),
            _u32(len(claims) if made.claims_size is None else made.claims_size),
        )
    )
    report = head + hardware.ljust(_HARDWARE_BYTES, b"\x00") + data + extension + claims
    return report.ljust(NV_REPORT_BYTES, b"\x00") if made.padding is None else report + made.padding


def _u32(value: int) -> bytes:
    return (value % (1 << 32)).to_bytes(4, "little")


def jwk(key: rsa.RSAPublicKey, kid: str = "HCLAkPub", use: str = "sign") -> dict[str, Json]:
    """Return a key as the runtime claims name it."""
    numbers = key.public_numbers()
    exponent, modulus = numbers.e.to_bytes(3, "big"), numbers.n.to_bytes(key.key_size // 8, "big")
    return {"kid": kid, "key_ops": [use], "kty": "RSA", "e": dump_b64u(exponent), "n": dump_b64u(modulus)}


class SyntheticAzure:
    """The authorities that certify attestation keys of vTPMs."""

    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Azure Virtual TPM Root Certificate Authority")])
    intermediate_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Global Virtual TPM CA - 01")])

    @classmethod
    def generate(cls) -> SyntheticAzure:
        """Return a cloud."""
        return cls()

    @property
    def intermediate_key(self) -> rsa.RSAPrivateKey:
        """The intermediate's key."""
        return rsa_key(4)

    @cached_property
    def root(self) -> Certificate:
        """The root certificate."""
        issue = Issue(subject=self.root_name, issuer=self.root_name, signer=rsa_key(3), authority=True)
        return certificate(rsa_key(3), issue)

    @cached_property
    def intermediate(self) -> Certificate:
        """The certificate that issues those of vTPMs."""
        issue = Issue(
            subject=self.intermediate_name,
            issuer=self.root_name,
            signer=rsa_key(3),
            authority=True,
            path_length=0,
            usages=(EK_USAGE.dotted_string, AK_USAGE.dotted_string),
        )
        return certificate(self.intermediate_key, issue)

    def issue(self) -> Issue:
        """Return how Azure issues the certificate of an attestation key."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "000000000001.ConfidentialVM.Azure.windows.net")])
        return Issue(
            subject=subject,
            issuer=self.intermediate_name,
            signer=self.intermediate_key,
            usages=("1.3.6.1.4.1.311.10.3.12", AK_USAGE.dotted_string),
        )


class AzureAttester:
    """Collects evidence of one confidential VM. Any claim can be had: that is the point."""

    report_data_bytes = 32

    def __init__(self, hardware: Hardware, software: bytes, *, values: HclValues | None = None) -> None:
        """Boot a VM that measures ``software`` (SHA-256 of the manifest) into PCR 23."""
        self.hardware = hardware
        self.vtpm = SyntheticVtpm(software=software)
        self.values = values
        self.configuration: dict[str, Json] = {
            "console-enabled": True,
            "root-cert-thumbprint": "",
            "secure-boot": True,
            "tpm-enabled": True,
            "tpm-persisted": True,
            "vmUniqueId": _VM_ID,
        }

    @property
    def tee(self) -> TeeKind:
        """``azure-snp-vtpm`` or ``azure-tdx-vtpm``."""
        return self.scheme().tee

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """What the hardware's scheme needs."""
        return self.hardware.endorsements

    def scheme(self, *, relaxed: NotChecked | None = None) -> AzureVtpmScheme:
        """Return a scheme that trusts this hardware's vendor."""
        return AzureVtpmScheme(self.hardware.scheme(relaxed=relaxed))

    def claims(self, **members: Json) -> bytes:
        """Return the runtime claims; ``members`` replace members, with ``_`` for ``-``."""
        key = self.vtpm.key
        if not isinstance(key, rsa.RSAPrivateKey):
            msg = "synthetic azure: attestation keys are RSA"
            raise UsageError(msg)
        made: dict[str, Json] = {
            "keys": [jwk(key.public_key()), jwk(rsa_key(5).public_key(), "HCLEkPub", "encrypt")],
            "vm-configuration": self.configuration,
            "user-data": _USER_DATA,
        }
        return json.dumps(made | {name.replace("_", "-"): value for name, value in members.items()}).encode()

    def parts(self, report_data: bytes, claims: bytes | None = None) -> dict[str, bytes]:
        """Return the parts of evidence that carries ``report_data``."""
        said = self.claims() if claims is None else claims
        report, inner = self.hardware.report(hashlib.sha256(said).digest().ljust(64, b"\x00"))
        attest = self.vtpm.quote(report_data)
        return {
            "eventlog": self.vtpm.event_log,
            "hcl_report": hcl_report(report, self.hardware.kind, said, self.values),
            "pcrs": dump_pcrs(self.vtpm.pcrs),
            "quote": attest,
            "signature_tpmt": self.vtpm.sign(attest).dump(),
            "software": self.vtpm.software,
            **inner,
        }

    def collect(self, report_data: bytes) -> Evidence:
        """Return evidence that carries ``report_data``."""
        return Evidence(tee=self.tee, payload=dump_parts(self.parts(report_data)))

    def policy(self, version: int = 1) -> Policy:
        """Return a policy that accepts this hardware, this boot and this software, and no other."""
        rules: dict[str, Rule] = {f"pcr.{index}": OneOf((self.vtpm.pcrs[index].hex(),)) for index in _BOOT_PCRS}
        rules |= {
            "secure_boot": Exact(value=True),
            "software": OneOf((self.vtpm.software.hex(),)),
            "vm.id": Exact(_VM_ID),
            "vm.secure_boot": Exact(value=True),
        }
        return Policy(version=version, tees={self.tee: TeePolicy({**self.hardware.rules, **rules})})
