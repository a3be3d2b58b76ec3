"""The synthetic NVIDIA as a whole, and an attester that makes its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.nvidia.collateral import Relaxed, ocsp_name
from cloister.attest.nvidia.devicechain import Arch, DeviceChain
from cloister.attest.nvidia.evidence import dump_nvidia_evidence
from cloister.attest.nvidia.report import Report
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.rules import Exact, OneOf, Rule
from cloister.attest.schemes.nvidia import NVIDIA_GPU, NVIDIA_SWITCH, NvidiaScheme
from cloister.errors import UsageError
from cloister.testing.vendors.nvidia.device import BLOCKS, CHIPS, Device, attestation_key, golden_value, opaque_fields
from cloister.testing.vendors.nvidia.issuing import ALWAYS, Issuer, answer, usage
from cloister.testing.vendors.nvidia.manifests import build_manifest, sign_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.chain import Certificate
    from cloister.testing.vendors.nvidia.issuing import Window

__all__ = ["NvidiaAttester", "NvidiaVendor"]

_VBIOS_INDICES = frozenset({0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12})
_DRIVER_INDICES = frozenset({7, *range(21, 42)})
_DEMANDED = Relaxed()


class NvidiaVendor:
    """Roots of devices and of manifests, and what is below them."""

    def __init__(self) -> None:
        """Make new keys: two roots, and the authorities under each."""
        self.device_root = Issuer.root("synthetic NVIDIA Device Identity CA")
        self.identity = self.device_root.authority("synthetic NVIDIA Identity")
        self.provisioner = self.identity.authority("synthetic NVIDIA Provisioner ICA 1")
        self.rim_root = Issuer.root("synthetic NVIDIA CoRIM signing Root CA")
        self.rim_authority = self.rim_root.authority("synthetic NVIDIA Reference Value CA")

    @classmethod
    def generate(cls) -> NvidiaVendor:
        """Return a new vendor."""
        return cls()

    def device(self, arch: Arch = Arch.HOPPER, *, leaf: Issuer | None = None, rom: Issuer | None = None) -> Device:
        """Return a chip in the state that its manifests call right."""
        key = rom or self.rom(arch)
        attestation = leaf or attestation_key(key, arch)
        above = (key, self.provisioner, self.identity, self.device_root)
        return Device(
            arch=arch,
            issuer=key,
            leaf=attestation,
            chain=(attestation.certificate, *(item.certificate for item in above)),
            measurements={index + 1: golden_value(arch, index) for index in range(BLOCKS[arch])},
            fields=opaque_fields(arch),
        )

    def rom(self, arch: Arch = Arch.HOPPER, serial: int = 0x412921CE551E4EEDA3) -> Issuer:
        """Return the key in a chip's ROM, certified at the factory."""
        processor = "FSP" if arch.is_switch else "GSP"
        return self.provisioner.authority(f"{CHIPS[arch]} A01 {processor} BROM", serial=serial)

    def signer(self, window: Window = ALWAYS, *, signs: bool = True) -> Issuer:
        """Return a signer of manifests."""
        extensions = [(usage(signs=signs), True)]
        return self.rim_authority.issue("synthetic RIM signer", extensions=extensions, window=window)

    def driver_rim(self, device: Device, *, signer: Issuer | None = None, **other: str) -> bytes:
        """Return the manifest of the device's driver. ``version`` and ``product`` make another one."""
        golden = {index: [golden_value(device.arch, index)] for index in _DRIVER_INDICES}
        return self._rim(device, golden, other.get("version", self._report(device).driver), other, signer)

    def vbios_rim(self, device: Device, *, signer: Issuer | None = None, **other: str) -> bytes:
        """Return the manifest of the device's VBIOS; measurement 12 has two right values."""
        indices = range(BLOCKS[device.arch]) if device.arch.is_switch else _VBIOS_INDICES
        golden = {index: [golden_value(device.arch, index)] for index in indices}
        golden[12] = [bytes(48), *golden[12]]
        return self._rim(device, golden, other.get("version", self._report(device).vbios), other, signer)

    def _rim(
        self,
        device: Device,
        golden: Mapping[int, list[bytes]],
        version: str,
        other: Mapping[str, str],
        signer: Issuer | None,
    ) -> bytes:
        product = other.get("product", CHIPS[device.arch].replace("_", ""))
        above = [self.rim_authority.certificate, self.rim_root.certificate]
        return sign_manifest(build_manifest(version, product, golden), signer or self.signer(), above)

    @staticmethod
    def _report(device: Device) -> Report:
        return Report.parse(device.report(bytes(32)))

    def answers(self, device: Device) -> dict[str, bytes]:
        """Return good answers by name about every certificate of the device that one can be asked about."""
        pairs = (
            (device.issuer, self.provisioner),
            (self.provisioner, self.identity),
            (self.identity, self.device_root),
        )
        return {ocsp_name(item.certificate): answer(item.certificate, above) for item, above in pairs}

    def rim_answers(self, signer: Certificate) -> dict[str, bytes]:
        """Return good answers by name about a signer of manifests and the authority above it."""
        authority = self.rim_authority.certificate
        found = {ocsp_name(signer): answer(signer, self.rim_authority)}
        return {**found, ocsp_name(authority): answer(authority, self.rim_root)}

    def scheme(self, tee: TeeKind = NVIDIA_GPU, relaxed: Relaxed = _DEMANDED) -> NvidiaScheme:
        """Return a scheme that trusts this vendor."""
        roots, rim_roots = (self.device_root.certificate,), (self.rim_root.certificate,)
        return NvidiaScheme(tee, device_roots=roots, rim_roots=rim_roots, relaxed=relaxed)

    def attester(self, arch: Arch = Arch.HOPPER) -> NvidiaAttester:
        """Return an attester on a new device of ``arch``."""
        return NvidiaAttester(self, self.device(arch))


class NvidiaAttester:
    """Collects evidence of one synthetic device: the nonce of its report is the report data."""

    report_data_bytes = 32

    def __init__(self, vendor: NvidiaVendor, device: Device) -> None:
        """Take the device, and manifests and answers that call it right."""
        self._vendor = vendor
        self._device = device
        signer = vendor.signer()
        report, chain = Report.parse(device.report(bytes(32))), DeviceChain.parse(device.chain_pem)
        name = report.vbios_rim_id(switch=device.arch.is_switch)
        found = {f"nvidia/rim/{name}": vendor.vbios_rim(device, signer=signer)}
        if not device.arch.is_switch:
            found[f"nvidia/rim/{report.driver_rim_id(chain.chip)}"] = vendor.driver_rim(device, signer=signer)
        self._endorsements = found | vendor.answers(device) | vendor.rim_answers(signer.certificate)

    @property
    def tee(self) -> TeeKind:
        """The kind of device."""
        return NVIDIA_SWITCH if self._device.arch.is_switch else NVIDIA_GPU

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """Manifests and revocation answers, by name."""
        return self._endorsements

    def collect(self, report_data: bytes) -> Evidence:
        """Return evidence with ``report_data`` as the nonce of the request."""
        if len(report_data) != self.report_data_bytes:
            msg = f"synthetic nvidia nonce: {len(report_data)} bytes, want {self.report_data_bytes}"
            raise UsageError(msg)
        payload = dump_nvidia_evidence(self._device.report(report_data), self._device.chain_pem)
        return Evidence(tee=self.tee, payload=payload)

    def policy(self, version: int = 1) -> Policy:
        """Return a policy that accepts exactly this device at its versions, with its manifests."""
        report = Report.parse(self._device.report(bytes(32)))
        device = f"{self._device.issuer.certificate.x509.serial_number:x}"
        rules: dict[str, Rule] = {
            "arch": Exact(self._device.arch.value),
            "device": OneOf((device,)),
            "rim.vbios": Exact("match"),
            "vbios": OneOf((report.vbios,)),
        }
        if not self._device.arch.is_switch:
            rules |= {"driver": OneOf((report.driver,)), "rim.driver": Exact("match")}
        return Policy(version=version, tees={self.tee: TeePolicy(rules)})
