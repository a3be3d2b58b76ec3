"""Azure's and Google's virtual TPMs, played by a real TPM 2.0 (swtpm) and a paravisor that renews its report."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind
from cloister.attest.schemes.azure_vtpm import AzureVtpmScheme
from cloister.attest.tpm.eventlog import EventLog
from cloister.attest.tpm.structures import b2
from cloister.enclave.attesters.azure_vtpm import (
    AK_CERTIFICATE_INDEX,
    AK_HANDLE,
    HCL_REPORT_INDEX,
    USER_DATA_INDEX,
    AzureVtpmAttester,
)
from cloister.enclave.attesters.detect import choose, look
from cloister.enclave.attesters.gce_vtpm import GceVtpmAttester
from cloister.enclave.attesters.machine import Machine
from cloister.enclave.attesters.table import Given, tpm_attester
from cloister.enclave.attesters.tpm import measure_software
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.testing.vendors.azure import SnpHardware, TdxHardware, hcl_report, jwk
from cloister.testing.vendors.gce import Instance, SyntheticGoogle, certificate
from cloister.testing.vendors.vtpm import SyntheticVtpm
from cloister.tpm.codec import Code, Handle
from cloister.tpm.commands import Tpm
from cloister.tpm.keys import AkKind, _ak_template, attestation_key
from cloister.tpm.nv import NvAttribute, nv_define, nv_indices, nv_public, nv_read, nv_undefine, nv_write
from cloister.tpm.transport import SocketTransport
from cloister.wire import dump_b64u, parse_b64u
from swtpm import start_swtpm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cloister.testing.vendors.azure import Hardware
    from swtpm import Swtpm

pytestmark = pytest.mark.tpm
NOW = datetime(2026, 6, 1, tzinfo=UTC)
DATA = bytes(range(32))
SOFTWARE = hashlib.sha256(b"manifest").digest()
OWNER = NvAttribute.OWNER_READ | NvAttribute.OWNER_WRITE
BOTH = OWNER | NvAttribute.AUTH_READ | NvAttribute.AUTH_WRITE
LOG = SyntheticVtpm().event_log
CAPS = dict.fromkeys(("ak_public_tpmt", "chain", "pcrs", "quote", "signature_tpmt"), 1 << 18)
NV_BYTES = 2048  # the most that one index of swtpm holds; Azure's has 2,600
AZURE_SNP, AZURE_TDX, GCE = TeeKind("azure-snp-vtpm"), TeeKind("azure-tdx-vtpm"), TeeKind("gce-vtpm")


@pytest.fixture(scope="module")
def swtpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    """Return a TPM that firmware has measured a boot into, with an attestation key at Azure's handle."""
    with start_swtpm(tmp_path_factory.mktemp("tpm")) as running:
        with SocketTransport(running.socket) as transport:
            tpm = Tpm(transport)
            for event in EventLog.parse(LOG).events:
                tpm.pcr_extend(event.pcr, event.digests[0x000B])
            with attestation_key(tpm, AkKind.RSA_2048) as (handle, _):
                tpm.persist(handle, AK_HANDLE)
        yield running


@pytest.fixture
def transport(swtpm: Swtpm) -> Iterator[SocketTransport]:
    """Return the TPM, cleared of NV indices afterwards."""
    with SocketTransport(swtpm.socket) as opened:
        tpm = Tpm(opened)
        before = nv_indices(tpm)
        measure_software(opened, SOFTWARE)
        yield opened
        for index in nv_indices(tpm) - before:
            nv_undefine(tpm, index)
        assert not tpm.handles(0x80000000), "something was left in the TPM"


def keep(tpm: Tpm, index: int, data: bytes, access: NvAttribute = OWNER) -> None:
    nv_define(tpm, index, len(data), access)
    nv_write(tpm, index, data)


class Paravisor:
    """Azure's: its report names the TPM's key and what the guest wrote, as of the last time it looked."""

    def __init__(self, transport: SocketTransport, hardware: Hardware, *, late: int = 1) -> None:
        """Report once; a write of the guest is seen after ``late`` pauses."""
        self.tpm, self.hardware, self.late = Tpm(transport), hardware, late
        self.asked: list[tuple[str, str]] = []
        self.pauses: list[float] = []
        self.inner: Mapping[str, bytes] = {}
        nv_define(self.tpm, HCL_REPORT_INDEX, NV_BYTES, OWNER)
        self.report(bytes(64))

    def report(self, user_data: bytes) -> None:
        key = self.tpm.read_public(AK_HANDLE).public_key()
        claims = {"keys": [jwk(key)], "vm-configuration": {"secure-boot": True}, "user-data": user_data.hex().upper()}  # type: ignore[arg-type]
        said = json.dumps(claims).encode()
        report, self.inner = self.hardware.report(hashlib.sha256(said).digest().ljust(64, b"\x00"))
        whole = hcl_report(report, self.hardware.kind, said)
        assert not any(whole[NV_BYTES:])
        nv_write(self.tpm, HCL_REPORT_INDEX, whole[:NV_BYTES])

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == self.late:
            self.report(nv_read(self.tpm, USER_DATA_INDEX))

    def imds(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, cap: int) -> bytes:
        """Answer as the metadata service: a quote of exactly the TDREPORT that is asked about."""
        assert cap
        self.asked.append((method, path))
        if path == "/acc/tdquote":
            tdreport = parse_b64u(json.loads(body)["report"], what="report", size=1024)
            _, made = self.hardware.report(tdreport[128:192])
            return json.dumps({"quote": dump_b64u(made["td_quote"])}).encode()
        assert headers["Metadata"] == "true"
        members = {"vcekCert": self.inner["leaf"], "certificateChain": self.inner["intermediate"]}
        return json.dumps({name: pem(data) for name, data in members.items()}).encode()


def pem(data: bytes) -> str:
    from cloister.attest.chain import Certificate  # noqa: PLC0415 - here only

    return data.decode() if data.startswith(b"-----") else Certificate.parse(data, zero_serial=True).pem.decode()


def azure(transport: SocketTransport, paravisor: Paravisor, tee: TeeKind, **more: Any) -> AzureVtpmAttester:
    return AzureVtpmAttester(transport, tee, imds=paravisor.imds, pause=paravisor.pause, **more)


@pytest.mark.parametrize(
    ("tee", "hardware"), [(AZURE_SNP, SnpHardware()), (AZURE_TDX, TdxHardware())], ids=["snp", "tdx"]
)
def test_evidence_of_an_azure_vm_is_what_its_verifier_accepts(
    transport: SocketTransport, tee: TeeKind, hardware: Hardware
) -> None:
    paravisor = Paravisor(transport, hardware, late=2)
    attester = azure(transport, paravisor, tee, software=SOFTWARE, event_log=LOG)
    evidence = attester.collect(DATA)
    assert evidence.tee == attester.tee == tee
    claims = AzureVtpmScheme(hardware.scheme()).verify(evidence, hardware.endorsements, NOW)
    assert claims.report_data == DATA
    assert claims.claims["user_data"] == DATA.hex() + "00" * 32
    assert claims.claims["software"] == SOFTWARE.hex()
    assert claims.claims["secure_boot"] is True
    assert claims.claims["report_type"] == hardware.kind.value
    assert len(paravisor.pauses) == 2
    assert len(paravisor.asked) == 1


def test_the_index_for_user_data_is_made_once_and_used_again(transport: SocketTransport) -> None:
    hardware = SnpHardware()
    paravisor = Paravisor(transport, hardware)
    attester = azure(transport, paravisor, AZURE_SNP)
    attester.collect(DATA)
    tpm = Tpm(transport)
    assert nv_public(tpm, USER_DATA_INDEX).size == 64
    assert nv_read(tpm, USER_DATA_INDEX) == DATA.ljust(64, b"\x00")
    paravisor.pauses.clear()
    other = bytes(reversed(DATA))
    claims = AzureVtpmScheme(hardware.scheme()).verify(attester.collect(other), hardware.endorsements, NOW)
    assert claims.report_data == other
    assert "software" not in claims.claims


def test_an_index_of_another_size_is_made_anew(transport: SocketTransport) -> None:
    paravisor = Paravisor(transport, SnpHardware())
    keep(Tpm(transport), USER_DATA_INDEX, bytes(32))
    azure(transport, paravisor, AZURE_SNP).collect(DATA)
    assert nv_public(Tpm(transport), USER_DATA_INDEX).size == 64


def test_a_paravisor_that_never_looks_is_given_up_on(transport: SocketTransport) -> None:
    paravisor = Paravisor(transport, SnpHardware(), late=1000)
    with pytest.raises(Unavailable, match="did not take up"):
        azure(transport, paravisor, AZURE_SNP).collect(DATA)
    assert paravisor.pauses == [1.0] * 10
    assert not paravisor.asked


def test_a_machine_of_the_other_hardware_is_said(transport: SocketTransport) -> None:
    paravisor = Paravisor(transport, SnpHardware())
    with pytest.raises(Unavailable, match="this machine is azure-snp-vtpm") as refused:
        azure(transport, paravisor, AZURE_TDX).collect(DATA)
    assert refused.value.hint == "--tee azure-snp-vtpm"


def test_a_tpm_without_a_report_is_no_azure_vm(transport: SocketTransport) -> None:
    attester = AzureVtpmAttester(transport, AZURE_SNP, imds=lambda *_, **__: b"")
    with pytest.raises(Unavailable, match="no report in nv 0x01400001"):
        attester.collect(DATA)
    assert attester.ak_certificate() == b""


def test_a_report_that_is_none_is_malformed(transport: SocketTransport) -> None:
    keep(Tpm(transport), HCL_REPORT_INDEX, bytes(NV_BYTES))
    with pytest.raises(Malformed, match="hcl report"):
        AzureVtpmAttester(transport, AZURE_SNP, imds=lambda *_, **__: b"").collect(DATA)


def test_azures_certificate_comes_as_it_lies_in_nv(transport: SocketTransport) -> None:
    keep(Tpm(transport), AK_CERTIFICATE_INDEX, b"der".ljust(1600, b"\x00"), BOTH)
    attester = AzureVtpmAttester(transport, AZURE_SNP, imds=lambda *_, **__: b"")
    assert attester.ak_certificate() == b"der".ljust(1600, b"\x00")


def test_other_kinds_are_refused(transport: SocketTransport) -> None:
    with pytest.raises(UsageError, match="want azure-snp-vtpm or azure-tdx-vtpm"):
        AzureVtpmAttester(transport, GCE, imds=lambda *_, **__: b"")
    with pytest.raises(UsageError, match="want one of azure"):
        tpm_attester(TeeKind("snp"), transport, Machine(tpm="unix:x"), Given())


GOOGLE = SyntheticGoogle.generate()
INDICES = {AkKind.ECC_P256: (0x01C10003, 0x01C10002), AkKind.RSA_2048: (0x01C10001, 0x01C10000)}


def provision(transport: SocketTransport, kind: AkKind) -> None:
    """Leave a template and a certificate in NV memory, as Google's firmware does."""
    tpm = Tpm(transport)
    template = _ak_template(kind)
    with tpm.create_primary(Handle.ENDORSEMENT, template) as (_, public):
        leaf = certificate(public, GOOGLE.issue(Instance()))  # type: ignore[arg-type]
    where, certified = INDICES[kind]
    keep(tpm, where, template.dump(), BOTH)
    keep(tpm, certified, leaf.der.ljust(len(leaf.der) + 7, b"\x00"), BOTH)


@pytest.mark.parametrize("kind", AkKind)
def test_evidence_of_a_gce_vm_is_what_its_verifier_accepts(transport: SocketTransport, kind: AkKind) -> None:
    provision(transport, kind)
    attester = GceVtpmAttester(transport, issuers=[GOOGLE.intermediate.der], software=SOFTWARE, event_log=LOG)
    claims = GOOGLE.scheme().verify(attester.collect(DATA), {}, NOW)
    assert claims.report_data == DATA
    assert claims.claims["software"] == SOFTWARE.hex()
    assert claims.claims["project"] == "synthetic-project"
    assert claims.claims["secure_boot"] is True


def test_a_template_without_its_certificate_is_passed_over(transport: SocketTransport) -> None:
    keep(Tpm(transport), 0x01C10003, _ak_template(AkKind.ECC_P256).dump(), BOTH)
    with pytest.raises(Unavailable, match="no template with a certificate"):
        GceVtpmAttester(transport).collect(DATA)
    provision(transport, AkKind.RSA_2048)
    parts = parse_parts(GceVtpmAttester(transport).collect(DATA).payload, what="gce", caps=CAPS)
    assert set(parts) == {"ak_public_tpmt", "chain", "pcrs", "quote", "signature_tpmt"}


def test_a_template_that_is_none_is_malformed(transport: SocketTransport) -> None:
    for index in INDICES[AkKind.ECC_P256]:
        keep(Tpm(transport), index, b"\xff" * 64, BOTH)
    with pytest.raises(Malformed, match="tpm public"):
        GceVtpmAttester(transport).collect(DATA)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_report_data_of_another_size_are_refused(transport: SocketTransport, size: int) -> None:
    for attester in (GceVtpmAttester(transport), AzureVtpmAttester(transport, AZURE_SNP, imds=lambda *_, **__: b"")):
        with pytest.raises(UsageError, match="want 32"):
            attester.collect(bytes(size))


def machine(swtpm: Swtpm, tmp_path: Path) -> Machine:
    return Machine(root=tmp_path, tpm=f"unix:{swtpm.socket}")


def test_a_tpm_is_told_apart_by_what_a_cloud_left_in_it(swtpm: Swtpm, tmp_path: Path) -> None:
    with SocketTransport(swtpm.socket) as transport:
        Paravisor(transport, TdxHardware())
    choice = choose(look(machine(swtpm, tmp_path)))
    assert (choice.tee, choice.interface) == (AZURE_TDX, "azure vtpm")
    assert choice.why == "virtual tpm of a cloud, before tpm (tpm)"
    with SocketTransport(swtpm.socket) as transport:
        provision(transport, AkKind.ECC_P256)
    with pytest.raises(UsageError, match=r"azure-tdx-vtpm \(azure vtpm\), gce-vtpm \(gce vtpm\)") as refused:
        choose(look(machine(swtpm, tmp_path)))
    assert refused.value.hint == "name one: --tee azure-tdx-vtpm"
    with SocketTransport(swtpm.socket) as transport:
        nv_undefine(Tpm(transport), HCL_REPORT_INDEX)
    assert choose(look(machine(swtpm, tmp_path))).tee == GCE
    with SocketTransport(swtpm.socket) as transport:
        for index in INDICES[AkKind.ECC_P256]:
            nv_undefine(Tpm(transport), index)
    choice = choose(look(machine(swtpm, tmp_path)))
    assert (choice.tee, choice.why) == (TeeKind("tpm"), "tpm, nothing else was found")


def test_a_report_of_an_unknown_tee_is_a_finding_and_no_crash(swtpm: Swtpm, tmp_path: Path) -> None:
    with SocketTransport(swtpm.socket) as transport:
        keep(Tpm(transport), HCL_REPORT_INDEX, b"HCLA" + bytes(2000))
    notes = {item.interface: item.note for item in look(machine(swtpm, tmp_path))}
    assert "hcl report" in notes["tpm"]
    with SocketTransport(swtpm.socket) as transport:
        nv_undefine(Tpm(transport), HCL_REPORT_INDEX)


def test_nv_memory_longer_than_one_command_is_written_and_read_whole(transport: SocketTransport) -> None:
    tpm = Tpm(transport)
    data = bytes(range(256)) * 5 + b"end"
    for index, access in ((0x01800001, OWNER), (0x01800002, BOTH)):
        keep(tpm, index, data, access)
        assert nv_read(tpm, index) == data
        assert index in nv_indices(tpm)
    with pytest.raises(Rejected) as refused:
        nv_write(tpm, 0x01800001, bytes(2000))
    assert refused.value.code == "tpm_refused"


class Scripted:
    """A TPM that gives one answer for ever."""

    def __init__(self, body: bytes) -> None:
        """Take the parameters of the answer."""
        self.answer = (0x8001).to_bytes(2, "big") + (10 + len(body)).to_bytes(4, "big") + bytes(4) + body

    def transceive(self, command: bytes) -> bytes:
        assert int.from_bytes(command[6:10], "big") in tuple(Code)
        return self.answer

    def close(self) -> None:
        """Nothing to let go."""


@pytest.mark.parametrize(
    "body",
    [
        b"\x00" + bytes(4) + bytes(4),
        b"\x00" + (1).to_bytes(4, "big") + (65).to_bytes(4, "big") + bytes(260),
        b"\x00" + (1).to_bytes(4, "big") + (1).to_bytes(4, "big"),
        b"\x00" + (1).to_bytes(4, "big") + bytes(4) + b"\x00",
    ],
)
def test_lists_of_handles_out_of_form_are_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        nv_indices(Tpm(Scripted(body)))


@pytest.mark.parametrize(
    "area",
    [b"", bytes(13), bytes.fromhex("01c00002000c00000000000000400000"), bytes.fromhex("01c0000200ff000000000000")],
)
def test_public_areas_out_of_form_are_malformed(area: bytes) -> None:
    with pytest.raises(Malformed):
        nv_public(Tpm(Scripted(b2(area))), 0x01C00002)
