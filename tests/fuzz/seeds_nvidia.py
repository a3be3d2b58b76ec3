"""Parsers of NVIDIA evidence to fuzz, each with inputs that a synthetic vendor makes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from cloister.attest.chain import Certificate
from cloister.attest.nvidia.devicechain import Arch, DeviceChain
from cloister.attest.nvidia.dice import fwid_of
from cloister.attest.nvidia.evidence import NvidiaEvidence, dump_nvidia_evidence
from cloister.attest.nvidia.ocsp import parse_answers
from cloister.attest.nvidia.opaque import parse_opaque
from cloister.attest.nvidia.report import Report
from cloister.attest.nvidia.rim import Rim
from cloister.attest.nvidia.rimsignature import verify_rim_signature
from cloister.testing.vendors.nvidia import NvidiaVendor

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.testing.vendors.nvidia import Device

__all__ = ["TARGETS"]

_NONCE = bytes(range(32))


@cache
def _vendor() -> NvidiaVendor:
    return NvidiaVendor.generate()


@cache
def _devices() -> tuple[Device, ...]:
    return tuple(_vendor().device(arch) for arch in Arch)


def _reports() -> list[bytes]:
    return [device.report(_NONCE) for device in _devices()]


def _chains() -> list[bytes]:
    pem = [device.chain_pem for device in _devices()]
    return [*pem, b"".join(item.der for item in _devices()[0].chain)]


def _rims() -> list[bytes]:
    vendor, hopper = _vendor(), _devices()[0]
    return [vendor.driver_rim(hopper), vendor.vbios_rim(hopper)]


def _answers() -> list[bytes]:
    return list(_vendor().answers(_devices()[0]).values())


def _payloads() -> list[bytes]:
    return [dump_nvidia_evidence(device.report(_NONCE), device.chain_pem) for device in _devices()]


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "nvidia-report": (Report.parse, _reports),
    "nvidia-opaque": (parse_opaque, lambda: [device.opaque for device in _devices()]),
    "nvidia-chain": (lambda data: DeviceChain.parse(data).arch, _chains),
    "nvidia-dice": (
        lambda data: fwid_of(Certificate.parse(data)),
        lambda: [device.chain[0].der for device in _devices()],
    ),
    "nvidia-ocsp": (parse_answers, _answers),
    "nvidia-rim": (Rim.parse, _rims),
    "nvidia-rim-signature": (lambda data: verify_rim_signature(Rim.parse(data)), _rims),
    "nvidia-evidence": (NvidiaEvidence.parse, _payloads),
}
"""Name to parser and seeds; every parser raises ``Malformed`` or ``Rejected`` and nothing else."""
