"""What our attesters hand out is what our verifiers take: synthetic hardware, fake kernels, real schemes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from guest_fakes import FakeDevices, FakeNvml, NitroModule, SecureProcessor, TsmKernel, http_service

from cloister.attest.intel.eventlog import MAX_CCEL_BYTES as VERIFIED_CCEL_BYTES
from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind
from cloister.attest.tokens.confidential_space import CONFIDENTIAL_SPACE_TEE
from cloister.enclave.attesters.confidential_space import TEESERVER, ConfidentialSpaceAttester
from cloister.enclave.attesters.configfs_tsm import CCEL, MAX_CCEL_BYTES, TsmAttester
from cloister.enclave.attesters.files import LocalFiles
from cloister.enclave.attesters.gramine import ATTESTATION, GramineAttester
from cloister.enclave.attesters.local_http import SocketService
from cloister.enclave.attesters.nsm import NsmAttester
from cloister.enclave.attesters.nvml import collect_gpus
from cloister.enclave.attesters.psa_source import PsaAttester
from cloister.enclave.attesters.sev_guest import SevGuestAttester
from cloister.testing.vendors.amd import AmdAttester, Chip, SyntheticAmd
from cloister.testing.vendors.arm import CcaPlatform, PsaDevice
from cloister.testing.vendors.aws import NitroVendor
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.nvidia import NvidiaVendor
from cloister.testing.vendors.tokens import TokenVendor

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.attest.verifier import Scheme
    from cloister.enclave.attesters import Attester

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DATA, NONCE = bytes(range(64)), bytes(range(32))
ROLES = ("ccel", "certs", "chain", "document", "quote", "report", "token")


def parts(attester: Attester, data: bytes) -> dict[str, bytes]:
    return parse_parts(attester.collect(data).payload, what="vendor", caps=dict.fromkeys(ROLES, 1 << 20))


def proven(ours: Attester, theirs: Attester, scheme: Scheme, data: bytes) -> None:
    """Prove that the verifier takes what we collected, and finds our data in it."""
    assert (ours.tee, ours.report_data_bytes) == (scheme.tee, scheme.report_data_bytes)
    claims = scheme.verify(ours.collect(data), theirs.endorsements, NOW)  # type: ignore[attr-defined]
    assert claims.report_data == data


def test_snp_reports_by_either_interface_are_accepted(tmp_path: Path) -> None:
    vendor = SyntheticAmd.generate()
    theirs = AmdAttester(Chip(vendor))
    table = parts(theirs, DATA)["certs"]
    kernel = TsmKernel(LocalFiles(tmp_path), make=lambda data, _: parts(theirs, data)["report"], aux=table)
    proven(TsmAttester(kernel, TeeKind("snp")), theirs, vendor.scheme(), DATA)
    pages = table.ljust(-(-len(table) // 4096) * 4096, b"\x00")
    processor = SecureProcessor(make=lambda data, _: parts(theirs, data)["report"], certs=pages)
    proven(SevGuestAttester(FakeDevices(sev_guest=processor)), theirs, vendor.scheme(), DATA)


def test_tdx_quotes_with_their_log_are_accepted(tmp_path: Path) -> None:
    vendor = SyntheticIntel.generate()
    theirs = vendor.tdx_attester()
    (tmp_path / CCEL).parent.mkdir(parents=True)
    (tmp_path / CCEL).write_bytes(parts(theirs, DATA)["ccel"])
    make = lambda data, _: parts(theirs, data)["quote"]  # noqa: E731 - a field of the fake
    kernel = TsmKernel(LocalFiles(tmp_path), provider="tdx_guest", make=make)
    proven(TsmAttester(kernel, TeeKind("tdx")), theirs, vendor.tdx_scheme(), DATA)
    assert MAX_CCEL_BYTES == VERIFIED_CCEL_BYTES


def test_sgx_quotes_are_accepted(tmp_path: Path) -> None:
    vendor = SyntheticIntel.generate()
    theirs = vendor.sgx_attester()
    folder = tmp_path / ATTESTATION
    folder.mkdir(parents=True)
    for name, data in (("attestation_type", b"dcap"), ("user_report_data", b""), ("quote", b"")):
        (folder / name).write_bytes(data)

    class Gramine(LocalFiles):
        def write(self, path: str, data: bytes) -> None:
            super().write(path, data)
            (folder / "quote").write_bytes(parts(theirs, data)["quote"])

    proven(GramineAttester(Gramine(tmp_path)), theirs, vendor.sgx_scheme(), DATA)


def test_nitro_documents_are_accepted() -> None:
    vendor = NitroVendor.generate()
    theirs = vendor.attester(lambda: NOW)
    module = NitroModule(make=lambda data: parts(theirs, data)["document"])
    ours = NsmAttester(FakeDevices(nsm=module))
    claims = vendor.scheme().verify(ours.collect(DATA), {}, NOW)
    assert claims.report_data == DATA


def test_arm_tokens_are_accepted(tmp_path: Path) -> None:
    platform = CcaPlatform.generate()
    theirs = platform.attester()
    make = lambda data, _: parts(theirs, data)["token"]  # noqa: E731 - a field of the fake
    kernel = TsmKernel(LocalFiles(tmp_path), provider="arm_cca_guest", make=make)
    assert platform.scheme().verify(TsmAttester(kernel, TeeKind("cca")).collect(DATA), {}, NOW).report_data == DATA
    device = PsaDevice.generate()
    (tmp_path / "token").write_bytes(parts(device.attester(), DATA)["token"])
    ours = PsaAttester(str(tmp_path / "token"))
    assert device.scheme().verify(ours.collect(DATA), {}, NOW).report_data == DATA


def test_gpu_reports_are_accepted() -> None:
    vendor = NvidiaVendor.generate()
    theirs = vendor.attester()

    def make(_: int, nonce: bytes) -> tuple[bytes, bytes]:
        found = parts(theirs, nonce)
        return found["report"], found["chain"]

    for evidence in collect_gpus(FakeNvml(gpus=2, make=make), NONCE):
        assert vendor.scheme().verify(evidence, theirs.endorsements, NOW).report_data == NONCE


def test_confidential_space_tokens_are_accepted(tmp_path: Path) -> None:
    vendor = TokenVendor.generate(CONFIDENTIAL_SPACE_TEE)
    token = parts(vendor.attester(lambda: NOW), NONCE)["token"]
    path = tmp_path / TEESERVER
    path.parent.mkdir(parents=True)
    with http_service({("POST", "/v1/token"): (200, token)}, socket=path):
        evidence = ConfidentialSpaceAttester(SocketService(path), audience="https://custodian.example").collect(NONCE)
    assert vendor.scheme().verify(evidence, vendor.endorsements, NOW).report_data == NONCE
