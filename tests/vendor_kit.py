"""Every synthetic vendor in one table: what its attester makes, the scheme that trusts it, a policy of its own.

``side(name)`` is made once; knobs are turned by making another side of the same vendor (``replace``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import tpm_kit
import tpm_log
from cloister.attest.amd.products import Product
from cloister.attest.binding import ReleaseBinding, fold
from cloister.attest.nvidia.devicechain import Arch
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, Nonce, TeeKind
from cloister.attest.schemes.tpm import TPM_TEE, TpmScheme, tpm_policy
from cloister.attest.software import SoftwareManifest
from cloister.attest.tpm.ek import device_of
from cloister.attest.tpm.policy import software_pcr_value
from cloister.attest.verifier import Verifier
from cloister.errors import Rejected
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot, SimulatedScheme, simulated_policy
from cloister.testing.vendors.amd import AmdAttester, Chip, ReportValues, SyntheticAmd
from cloister.testing.vendors.arm import CLASSIC, RMM_2, CcaPlatform, CcaToken, PsaDevice, PsaToken
from cloister.testing.vendors.aws import NitroVendor
from cloister.testing.vendors.azure import AzureAttester, Hardware, SnpHardware, TdxHardware
from cloister.testing.vendors.gce import GceAttester, SyntheticGoogle
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.nvidia import NvidiaVendor
from cloister.testing.vendors.tokens import TokenVendor
from cloister.testing.vendors.tokens import claims as said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.attest.policy import Policy
    from cloister.attest.rats import AttestationResult, VerifiedClaims
    from cloister.attest.verifier import Scheme
    from cloister.enclave.attesters import Attester
    from cloister.wire import Json

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
_REGISTERED = ("exp", "iat", "iss", "nbf")
MANIFEST = SoftwareManifest(code="11" * 32, python="3.13", packages={}, settings={})
DIGEST = hashlib.sha256(MANIFEST.dump()).digest()
BINDING = ReleaseBinding(
    nonce=Nonce(bytes(32)), custodian=b"c" * 32, instance_pub=b"i" * 32, kem_pub=b"k" * 1216, software=MANIFEST.dump()
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One attester and who verifies it. ``collect`` makes evidence that carries folded report data."""

    scheme: Scheme
    collect: Callable[[bytes], Evidence]
    policy: Policy
    endorsements: Mapping[str, bytes]
    now: datetime = NOW

    @property
    def tee(self) -> TeeKind:
        return self.scheme.tee

    def evidence(self) -> Evidence:
        """Return evidence that carries ``BINDING``."""
        return self.collect(fold(BINDING.report_data(), field_bytes=self.scheme.report_data_bytes))

    def verified(self) -> VerifiedClaims:
        """Return what the scheme proves."""
        return self.scheme.verify(self.evidence(), self.endorsements, self.now)

    def result(self, policy: Policy | None = None, evidence: Evidence | None = None) -> AttestationResult:
        """Return the result under ``policy``; under its own where none is given."""
        shown = evidence or self.evidence()
        return Verifier([self.scheme]).verify(shown, BINDING, policy or self.policy, self.now, self.endorsements)

    def refusal(self, policy: Policy | None = None, evidence: Evidence | None = None) -> dict[str, str]:
        """Return the code of every reason by its subject; nothing where the evidence is accepted."""
        try:
            self.result(policy, evidence)
        except Rejected as refused:
            return {reason.subject: reason.code for reason in refused.reasons}
        return {}


def of(attester: Attester, scheme: Scheme, policy: Policy, endorsements: Mapping[str, bytes]) -> Side:
    """Return the side of an attester."""
    return Side(scheme=scheme, collect=attester.collect, policy=policy, endorsements=endorsements)


@cache
def intel() -> SyntheticIntel:
    return SyntheticIntel.generate()


def sgx(body: EnclaveBody | None = None, vendor: SyntheticIntel | None = None) -> Side:
    chosen = vendor or intel()
    attester = chosen.sgx_attester(body)
    return of(attester, chosen.sgx_scheme(), attester.policy(), attester.endorsements)


def tdx(body: TdBody | None = None, vendor: SyntheticIntel | None = None, log: bytes | None = None) -> Side:
    chosen = vendor or intel()
    attester = chosen.tdx_attester(body, log)
    return of(attester, chosen.tdx_scheme(), attester.policy(), attester.endorsements)


@cache
def amd(product: Product = Product.MILAN) -> SyntheticAmd:
    return SyntheticAmd.generate(product)


@cache
def chip(product: Product = Product.MILAN, number: int = 1, csp: str = "") -> Chip:
    return Chip(amd(product), number=number, csp=csp)


def snp(values: ReportValues | None = None, on: Chip | None = None) -> Side:
    attester = AmdAttester(on or chip(), values)
    vendor = (on or chip()).vendor
    return of(attester, vendor.scheme(), attester.policy(), attester.endorsements)


@cache
def aws() -> NitroVendor:
    return NitroVendor.generate()


def nitro(**members: object) -> Side:
    vendor = aws()
    return of(vendor.attester(lambda: NOW, **members), vendor.scheme(), vendor.policy(), vendor.endorsements)


@cache
def psa_device(*, shared: bool = False) -> PsaDevice:
    return PsaDevice.symmetric() if shared else PsaDevice.generate()


def psa(device: PsaDevice | None = None, token: PsaToken | None = None) -> Side:
    chosen, shaped = device or psa_device(), token or PsaToken(nonce=b"")
    return Side(
        scheme=chosen.scheme(),
        collect=lambda nonce: chosen.evidence(replace(shaped, nonce=nonce)),
        policy=chosen.policy(),
        endorsements={},
    )


@cache
def cca_platform() -> CcaPlatform:
    return CcaPlatform.generate()


def cca(token: CcaToken | None = None) -> Side:
    platform = cca_platform()
    return of(platform.attester(token), platform.scheme(), platform.policy(), {})


@cache
def nvidia() -> NvidiaVendor:
    return NvidiaVendor.generate()


def device(arch: Arch = Arch.HOPPER) -> Side:
    attester = nvidia().attester(arch)
    return of(attester, nvidia().scheme(attester.tee), attester.policy(), attester.endorsements)


@cache
def azure_attester(kind: str) -> AzureAttester:
    hardware = SnpHardware(chip()) if kind == "snp" else TdxHardware(intel())
    return AzureAttester(hardware, DIGEST)


def azure(kind: str, attester: AzureAttester | None = None) -> Side:
    chosen = attester or azure_attester(kind)
    usual = azure_attester(kind)
    return of(chosen, usual.scheme(), usual.policy(), chosen.endorsements)


def talkative(hardware: Hardware) -> Side:
    """Return the side of an Azure machine whose paravisor says everything it can say."""
    attester = AzureAttester(hardware, DIGEST)
    attester.configuration |= {"interactive-console-enabled": False, "filtered-vpci-devices-allowed": False}
    return of(attester, attester.scheme(), attester.policy(), attester.endorsements)


@cache
def google() -> SyntheticGoogle:
    return SyntheticGoogle.generate()


def gce(attester: GceAttester | None = None) -> Side:
    chosen = attester or GceAttester(google(), DIGEST)
    return of(chosen, google().scheme(), chosen.policy(), {})


@cache
def issuer(kind: str) -> TokenVendor:
    return TokenVendor.generate(TeeKind(kind))


def token(kind: str, claims: Callable[[bytes], dict[str, Json]] | None = None, **changes: Json) -> Side:
    """Return the side of an issuer of tokens; ``claims`` says what it says, ``changes`` what else."""
    vendor = issuer(kind)

    def collect(report_data: bytes) -> Evidence:
        if claims is None and not changes:
            data = vendor.token(report_data, NOW)
        else:
            usual = vendor.claims(report_data, NOW)
            says = usual if claims is None else {name: usual[name] for name in _REGISTERED} | claims(report_data)
            data = vendor.sign({**says, **changes})
        return Evidence(tee=vendor.kind.profile.tee, payload=dump_parts({"token": data}))

    return Side(scheme=vendor.scheme(), collect=collect, policy=vendor.policy(), endorsements=vendor.endorsements)


@cache
def enrolment() -> tuple[tpm_kit.Authority, tpm_kit.SoftTpm]:
    """Return an enrolment authority and a machine it knows, booted by the log of ``tpm_log``."""
    pcrs = {**tpm_log.PCRS, 10: b"\x10" * 32, 16: bytes(32), 23: software_pcr_value(DIGEST)}
    return tpm_kit.Authority(), tpm_kit.SoftTpm(pcrs=pcrs)


def tpm() -> Side:
    authority, machine = enrolment()
    chain = (authority.certify(machine), authority.certificate)
    boot = {index: (machine.pcrs[index].hex(),) for index in range(8)}

    def collect(report_data: bytes) -> Evidence:
        made = machine.evidence(report_data, chain, software=DIGEST, event_log=tpm_log.LOG)
        return Evidence(tee=TPM_TEE, payload=made.dump())

    return Side(
        scheme=TpmScheme([authority.certificate]),
        collect=collect,
        policy=tpm_policy([device_of(machine.ek)], [DIGEST.hex()], boot),
        endorsements={},
        now=tpm_kit.NOW,
    )


@cache
def simulated_root() -> SimulatedRoot:
    return SimulatedRoot.generate()


def simulated() -> Side:
    root = simulated_root()
    attester = SimulatedAttester(root, MANIFEST, b"c" * 32)
    return of(attester, SimulatedScheme(root.public), simulated_policy(MANIFEST), {})


def _ita_enclave(report_data: bytes) -> dict[str, Json]:
    """Return what Trust Authority says of an enclave on a platform that has advisories."""
    return {
        "attester_advisory_ids": ["INTEL-SA-00001"],
        "attester_tcb_status": "UpToDate",
        "attester_type": "SGX",
        "dbgstat": "disabled",
        "policy_ids_unmatched": [{"id": "00000000-0000-4000-8000-000000000004"}],
        "sgx_is_debuggable": False,
        "sgx_isvprodid": 3,
        "sgx_isvsvn": 2,
        "sgx_mrenclave": said.MRENCLAVE,
        "sgx_mrsigner": "51" * 32,
        "sgx_report_data": report_data.hex(),
        "tdx_is_migratable": False,
    }


def _maa_windows(report_data: bytes) -> dict[str, Json]:
    """Return what Azure Attestation says of a machine whose system it knows."""
    known: dict[str, Json] = {
        "dbvalidated": True,
        "dbxvalidated": True,
        "default-securebootkeysvalidated": True,
        "flightsigning-enabled": False,
        "hypervisordebug-enabled": False,
        "osbuild": "NotApplication",
        "osversion-minor": 4,
        "signingdisabled": False,
        "testsigning-enabled": False,
    }
    claims = {**said.maa_azurevm_claims(report_data), "attester_advisory_ids": []}
    claims["x-ms-isolation-tee"] = {**claims["x-ms-isolation-tee"], "attester_advisory_ids": ["INTEL-SA-00001"]}  # type: ignore[dict-item]  # an object
    return claims | {f"x-ms-azurevm-{name}": value for name, value in known.items()}


def _overridden(report_data: bytes) -> dict[str, Json]:
    """Return what Google says of a container that was started otherwise than its image wants."""
    claims = said.confidential_space_claims(report_data)
    container = claims["submods"]["container"]  # type: ignore[index,call-overload]  # objects
    container |= {"cmd_override": ["--model", "/other"], "env_override": {"DEBUG": "1"}}  # type: ignore[operator]  # an object
    return claims


def switches() -> Side:
    """Return the side of an issuer that found something wrong with a switch."""
    vendor = issuer("nras")

    def collect(report_data: bytes) -> Evidence:
        payload = {**vendor.claims(report_data, NOW), "aud": "custodian"}
        switch = {**said.gpu_claims(report_data), **{name: payload[name] for name in _REGISTERED}}
        switch |= {"x-nvidia-device-type": "switch", "x-nvidia-switch-bios-version": "96.10.57.00.01"}
        switch |= {"x-nvidia-switch-arch-check": False}
        return Evidence(tee=vendor.kind.profile.tee, payload=dump_parts({"token": vendor.bundle(payload, [switch])}))

    return Side(scheme=vendor.scheme(), collect=collect, policy=vendor.policy(), endorsements=vendor.endorsements)


_NEW_PSA, _OLD_PSA = "http://arm.com/psa/2.0.0", "PSA_IOT_PROFILE_1"
_MAKERS: Mapping[str, Callable[[], Side]] = {
    "azure-snp-vtpm": lambda: azure("snp"),
    "azure-snp-vtpm on turin": lambda: talkative(SnpHardware(chip(Product.TURIN))),
    "azure-tdx-vtpm": lambda: azure("tdx"),
    "azure-tdx-vtpm 1.5": lambda: talkative(TdxHardware(intel(), TdBody(kind=4))),
    "cca": cca,
    "cca of the first profile": lambda: cca(CcaToken(challenge=b"", profile=CLASSIC)),
    "cca of the second rmm": lambda: cca(CcaToken(challenge=b"", profile=RMM_2, platform={2403: b"\x01\x02"})),
    "confidential-space": lambda: token("confidential-space"),
    "confidential-space with overrides": lambda: token("confidential-space", _overridden),
    "ear": lambda: token("ear"),
    "ear for somebody": lambda: token("ear", aud="custodian"),
    "gce-vtpm": gce,
    "ita": lambda: token("ita"),
    "ita of a td with a gpu": lambda: token("ita", said.ita_v2_claims),
    "ita of an enclave": lambda: token("ita", _ita_enclave, aud="custodian"),
    "maa": lambda: token("maa"),
    "maa of a td": lambda: token("maa", said.maa_tdx_claims),
    "maa of a virtual machine": lambda: token("maa", said.maa_azurevm_claims),
    "maa of a virtual machine it knows": lambda: token("maa", _maa_windows, aud="custodian"),
    "maa of an enclave": lambda: token("maa", said.maa_sgx_claims),
    "nitro": nitro,
    "nitro with a nonce and a key": lambda: nitro(nonce=b"nonce", public_key=b"key"),
    "nras": lambda: token("nras"),
    "nras of a bad switch": switches,
    "nvidia-gpu": device,
    "nvidia-gpu blackwell": lambda: device(Arch.BLACKWELL),
    "nvidia-switch": lambda: device(Arch.LS10),
    "psa": psa,
    "psa of the first profile": lambda: psa(token=PsaToken(nonce=b"", profile=_OLD_PSA)),
    "psa of the second profile": lambda: psa(token=PsaToken(nonce=b"", profile=_NEW_PSA)),
    "psa with a shared secret": lambda: psa(psa_device(shared=True)),
    "sgx": sgx,
    "simulated": simulated,
    "snp": snp,
    "snp genoa, version 3": lambda: snp(ReportValues(version=3), chip(Product.GENOA)),
    "snp milan, version 2": lambda: snp(ReportValues(version=2)),
    "snp turin": lambda: snp(on=chip(Product.TURIN)),
    "snp with a vlek": lambda: snp(on=chip(csp="CN=cloud.example")),
    "tdx": tdx,
    "tdx 1.5": lambda: tdx(TdBody(kind=3)),
    "tdx 1.5 with a service td": lambda: tdx(TdBody(kind=4)),
    "tpm": tpm,
}
NAMES = tuple(_MAKERS)
"""Sides by name; each begins with its TEE."""


@cache
def side(name: str) -> Side:
    """Return the side of this name."""
    return _MAKERS[name]()


@cache
def claims(name: str) -> VerifiedClaims:
    """Return what is proven of it."""
    return side(name).verified()
