"""A machine of every vendor at once: attesters, schemes, policies and endorsements that fit together.

For flows and the demo: the whole of a release on synthetic hardware. It protects nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.attest.amd.products import Product
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import Exact, OneOf
from cloister.attest.schemes.nvidia import NVIDIA_GPU
from cloister.attest.schemes.snp import SNP
from cloister.testing.vendors.amd import AmdAttester, Chip, SyntheticAmd
from cloister.testing.vendors.arm import CcaPlatform, PsaDevice
from cloister.testing.vendors.aws import NitroVendor
from cloister.testing.vendors.azure import AzureAttester, Hardware, SnpHardware, TdxHardware
from cloister.testing.vendors.gce import GceAttester, SyntheticGoogle
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.nvidia import NvidiaAttester, NvidiaVendor
from cloister.testing.vendors.tokens import TokenVendor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloister.attest.verifier import Scheme
    from cloister.enclave.attesters import Attester

__all__ = ["MACHINES", "Machine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine with what its custodian has to know about its makers."""

    attester: Attester
    schemes: tuple[Scheme, ...]
    policy: Policy
    endorsements: Mapping[str, bytes]
    devices: tuple[Attester, ...] = field(default=())

    @property
    def tee(self) -> TeeKind:
        """The kind of the CPU's evidence."""
        return self.attester.tee


def _sgx(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software, clock
    vendor = SyntheticIntel.generate()
    attester = vendor.sgx_attester()
    return Machine(
        attester=attester,
        schemes=(vendor.sgx_scheme(),),
        policy=attester.policy(),
        endorsements=attester.endorsements,
    )


def _tdx(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software, clock
    vendor = SyntheticIntel.generate()
    attester = vendor.tdx_attester()
    return Machine(
        attester=attester,
        schemes=(vendor.tdx_scheme(),),
        policy=attester.policy(),
        endorsements=attester.endorsements,
    )


def _snp(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software, clock
    vendor = SyntheticAmd.generate(Product.TURIN)
    attester = AmdAttester(Chip(vendor))
    return Machine(
        attester=attester, schemes=(vendor.scheme(),), policy=attester.policy(), endorsements=attester.endorsements
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
    return Machine(
        attester=cpu.attester,
        schemes=(*cpu.schemes, vendor.scheme()),
        policy=Policy(version=1, tees={SNP: TeePolicy(demanded), NVIDIA_GPU: TeePolicy(rules)}),
        endorsements={**cpu.endorsements, **gpus[0].endorsements, **gpus[1].endorsements},
        devices=gpus,
    )


def _nitro(software: bytes, clock: Callable[[], datetime]) -> Machine:
    del software
    vendor = NitroVendor.generate()
    return Machine(
        attester=vendor.attester(clock),
        schemes=(vendor.scheme(),),
        policy=vendor.policy(),
        endorsements=vendor.endorsements,
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
