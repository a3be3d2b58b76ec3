"""What to fuzz of Intel SGX and TDX: each parser with inputs of the synthetic vendor's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.chain import Certificate
from cloister.attest.intel.collateral import Collateral
from cloister.attest.intel.eventlog import CcelLog, rtmrs_of
from cloister.attest.intel.pck import Pck
from cloister.attest.intel.quote import Quote
from cloister.attest.intel.sigstruct import verify_sigstruct
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.eventlogs import ccel
from cloister.testing.vendors.intel.sigstructs import make_key, sigstruct

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS"]


def _quotes() -> list[bytes]:
    vendor = SyntheticIntel.generate()
    bodies = (EnclaveBody(), TdBody(), TdBody(kind=3), TdBody(kind=4))
    return [vendor.quote(body).dump() for body in bodies]


def _collateral() -> list[bytes]:
    vendor = SyntheticIntel.generate()
    return [vendor.published(tdx=tdx).dump() for tdx in (False, True)]


def _logs() -> list[bytes]:
    return [ccel([(1, b"firmware"), (4, b"container")]), ccel([(2, b"kernel")], size=600)]


def _sigstructs() -> list[bytes]:
    return [sigstruct(EnclaveBody(), make_key())]


def _certificates() -> list[bytes]:
    return [SyntheticIntel.generate().pck.certificate.der]


def _replay(data: bytes) -> object:
    return rtmrs_of(CcelLog.parse(data))


def _platform(data: bytes) -> object:
    return Pck.parse(Certificate.parse(data))


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "intel-ccel": (_replay, _logs),
    "intel-collateral": (Collateral.parse, _collateral),
    "intel-pck": (_platform, _certificates),
    "intel-quote": (Quote.parse, _quotes),
    "intel-sigstruct": (verify_sigstruct, _sigstructs),
}
