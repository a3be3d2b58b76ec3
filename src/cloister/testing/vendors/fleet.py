"""A machine of every vendor at once: attesters, schemes, policies and endorsements that fit together.

For flows and the demo: the whole of a release on synthetic hardware, and the same machine with one thing wrong. It
protects nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.amd.products import Product
from cloister.attest.intel.chain import PCK_NAME
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import Exact, OneOf
from cloister.attest.schemes.nitro import NITRO
from cloister.attest.schemes.nvidia import NVIDIA_GPU
from cloister.attest.schemes.sgx import SGX
from cloister.attest.schemes.snp import SNP
from cloister.attest.schemes.tdx import TDX
from cloister.testing.vendors.amd import AmdAttester, Chip, ReportValues, SyntheticAmd
from cloister.testing.vendors.arm import CcaPlatform, PsaDevice
from cloister.testing.vendors.aws import NitroVendor, sample_pcrs
from cloister.testing.vendors.azure import AzureAttester, Hardware, SnpHardware, TdxHardware
from cloister.testing.vendors.gce import GceAttester, SyntheticGoogle
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.nvidia import NvidiaAttester, NvidiaVendor
from cloister.testing.vendors.tokens import TokenVendor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.verifier import Scheme
    from cloister.enclave.attesters import Attester

__all__ = ["MACHINES", "Fault", "Machine"]

_DEBUG_TD, _DEBUG_ENCLAVE, _DEBUG_GUEST = 1 << 0, 0x02, 1 << 19  # the bit of each kind's attributes or policy
_STALE_FMSPC = bytes.fromhex("00906ed50000")
_SINCE, _LONG_AGO = timedelta(days=1), timedelta(days=3 * 365)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A machine with one thing wrong: what it collects then, and the codes that it is refused with."""

    attester: Attester
    codes: frozenset[str]
    devices: tuple[Attester, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine with what its custodian has to know about its makers, and what can be wrong with it, by name."""

    attester: Attester
    schemes: tuple[Scheme, ...]
    policy: Policy
    endorsements: Mapping[str, bytes]
    devices: tuple[Attester, ...] = field(default=())
    roots: Mapping[TeeKind, Mapping[str, Certificate]] = field(default_factory=dict)
    faults: Mapping[str, Fault] = field(default_factory=dict)

    @property
    def tee(self) -> TeeKind:
        """The kind of the CPU's evidence."""
        return self.attester.tee


def _stale(vendor: SyntheticIntel, now: datetime) -> SyntheticIntel:
    """Return the same vendor with another platform, whose collateral ended a year before ``now``."""
    platform = replace(vendor.platform, fmspc=_STALE_FMSPC)
    pck = vendor.issuer.issue(PCK_NAME, platform=platform)
    return replace(vendor, platform=platform, pck=pck, issued=now - _LONG_AGO)


def _intel(clock: Callable[[], datetime]) -> tuple[SyntheticIntel, SyntheticIntel]:
    """Return a vendor whose collateral is of today, and its stale platform."""
    now = clock().replace(microsecond=0)
    vendor = replace(SyntheticIntel.generate(), issued=now - _SINCE)
    return vendor, _stale(vendor, now)


def _sgx(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software
    vendor, old = _intel(clock)
    attester, stale, honest = vendor.sgx_attester(), old.sgx_attester(), EnclaveBody()
    debug = replace(honest, attributes=bytes((honest.attributes[0] | _DEBUG_ENCLAVE,)) + honest.attributes[1:])
    return Machine(
        attester=attester,
        schemes=(vendor.sgx_scheme(),),
        policy=attester.policy(),
        endorsements={**attester.endorsements, **stale.endorsements},
        roots={SGX: {"root": vendor.root.certificate}},
        faults={
            "debug on": Fault(attester=vendor.sgx_attester(debug), codes=frozenset({"debug_enabled"})),
            "another image": Fault(
                attester=vendor.sgx_attester(replace(honest, mrenclave=bytes(32))),
                codes=frozenset({"measurement_mismatch"}),
            ),
            "stale collateral": Fault(attester=stale, codes=frozenset({"collateral_expired"})),
        },
    )


def _tdx(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software
    vendor, old = _intel(clock)
    attester, stale, honest = vendor.tdx_attester(), old.tdx_attester(), TdBody()
    debug = replace(honest, td_attributes=honest.td_attributes | _DEBUG_TD)
    return Machine(
        attester=attester,
        schemes=(vendor.tdx_scheme(),),
        policy=attester.policy(),
        endorsements={**attester.endorsements, **stale.endorsements},
        roots={TDX: {"root": vendor.root.certificate}},
        faults={
            "debug on": Fault(attester=vendor.tdx_attester(debug), codes=frozenset({"debug_enabled"})),
            "another image": Fault(
                attester=vendor.tdx_attester(replace(honest, mrtd=bytes(48))),
                codes=frozenset({"measurement_mismatch"}),
            ),
            "stale collateral": Fault(attester=stale, codes=frozenset({"collateral_expired"})),
        },
    )


def _snp(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software, clock
    vendor, honest = SyntheticAmd.generate(Product.TURIN), ReportValues()
    chip = Chip(vendor)
    attester = AmdAttester(chip, honest)
    return Machine(
        attester=attester,
        schemes=(vendor.scheme(),),
        policy=attester.policy(),
        endorsements=attester.endorsements,
        roots={SNP: {vendor.product.key: vendor.ark}},
        faults={
            "debug on": Fault(
                attester=AmdAttester(chip, replace(honest, policy=honest.policy | _DEBUG_GUEST)),
                codes=frozenset({"debug_enabled"}),
            ),
            "another image": Fault(
                attester=AmdAttester(chip, replace(honest, measurement=bytes(48))),
                codes=frozenset({"measurement_mismatch"}),
            ),
        },
    )


_GPU_SERIALS = (0x412921CE551E4EEDA3, 0x412921CE551E4EEDA4)


def _snp_gpu(software: bytes, clock: Callable[[], datetime]) -> Machine:
    """Return an SEV-SNP machine with two GPUs that its policy demands."""
    cpu, vendor = _snp(software, clock), NvidiaVendor.generate()
    gpus = tuple(NvidiaAttester(vendor, vendor.device(rom=vendor.rom(serial=serial))) for serial in _GPU_SERIALS)
    rules = dict(gpus[0].policy().tees[NVIDIA_GPU].rules)
    known = [rule.values for gpu in gpus if isinstance(rule := gpu.policy().tees[NVIDIA_GPU].rules["device"], OneOf)]
    rules["device"] = OneOf(tuple(dict.fromkeys(value for values in known for value in values)))
    demanded = {**cpu.policy.tees[SNP].rules, "devices.nvidia_gpu": Exact(len(gpus))}
    hidden = Fault(attester=cpu.attester, devices=gpus[:1], codes=frozenset({"devices_mismatch"}))
    return Machine(
        attester=cpu.attester,
        schemes=(*cpu.schemes, vendor.scheme()),
        policy=Policy(version=1, tees={SNP: TeePolicy(demanded), NVIDIA_GPU: TeePolicy(rules)}),
        endorsements={**cpu.endorsements, **gpus[0].endorsements, **gpus[1].endorsements},
        devices=gpus,
        roots={
            **cpu.roots,
            NVIDIA_GPU: {"rim_root": vendor.rim_root.certificate, "root": vendor.device_root.certificate},
        },
        faults={
            **{name: replace(fault, devices=gpus) for name, fault in cpu.faults.items()},
            "a hidden GPU": hidden,
        },
    )


def _nitro(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software
    vendor, pcrs = NitroVendor.generate(), sample_pcrs()
    return Machine(
        attester=vendor.attester(clock),
        schemes=(vendor.scheme(),),
        policy=vendor.policy(),
        endorsements=vendor.endorsements,
        roots={NITRO: {"root": vendor.root}},
        faults={
            "debug on": Fault(  # the module measures nothing then
                attester=vendor.attester(clock, pcrs={**pcrs, 0: bytes(48), 1: bytes(48), 2: bytes(48)}),
                codes=frozenset({"debug_enabled", "pcr_mismatch"}),
            ),
            "another image": Fault(
                attester=vendor.attester(clock, pcrs={**pcrs, 0: b"\xff" * 48}), codes=frozenset({"pcr_mismatch"})
            ),
            "an old document": Fault(
                attester=vendor.attester(lambda: clock() - timedelta(hours=1)), codes=frozenset({"age_mismatch"})
            ),
        },
    )


def _psa(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software, clock
    vendor = PsaDevice.generate()
    return Machine(
        attester=vendor.attester(),
        schemes=(vendor.scheme(),),
        policy=vendor.policy(),
        endorsements=vendor.endorsements,
    )


def _cca(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software, clock
    vendor = CcaPlatform.generate()
    return Machine(
        attester=vendor.attester(),
        schemes=(vendor.scheme(),),
        policy=vendor.policy(),
        endorsements=vendor.endorsements,
    )


def _azure(hardware: Hardware, software: bytes) -> Machine:
    attester = AzureAttester(hardware, software)
    return Machine(
        attester=attester, schemes=(attester.scheme(),), policy=attester.policy(), endorsements=attester.endorsements
    )


def _gce(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del clock
    vendor = SyntheticGoogle.generate()
    attester = GceAttester(vendor, software)
    return Machine(
        attester=attester, schemes=(vendor.scheme(),), policy=attester.policy(), endorsements=attester.endorsements
    )


def _token(tee: str) -> Callable[[bytes, Callable[[], datetime]], Machine]:
    def make(software: bytes, clock: Callable[[], datetime]) -> Machine:
        del software
        vendor = TokenVendor.generate(TeeKind(tee))
        return Machine(
            attester=vendor.attester(clock),
            schemes=(vendor.scheme(),),
            policy=vendor.policy(),
            endorsements=vendor.endorsements,
        )

    return make


MACHINES: Mapping[str, Callable[[bytes, Callable[[], datetime]], Machine]] = {
    "azure-snp-vtpm": lambda software, _: _azure(SnpHardware(), software),
    "azure-tdx-vtpm": lambda software, _: _azure(TdxHardware(), software),
    "cca": _cca,
    "confidential-space": _token("confidential-space"),
    "gce-vtpm": _gce,
    "ita": _token("ita"),
    "maa": _token("maa"),
    "nitro": _nitro,
    "psa": _psa,
    "sgx": _sgx,
    "snp": _snp,
    "snp+gpu": _snp_gpu,
    "tdx": _tdx,
}
"""How to make a machine of each kind, given SHA-256 of its software manifest and its clock."""
