"""/dev/sev-guest and /dev/nsm, whose structures are read and written byte by byte as a kernel does."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, Any
from uuid import UUID

import cbor2
import pytest
from guest_fakes import FakeDevices, NitroModule, SecureProcessor

from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind
from cloister.enclave.attesters import nsm, sev_guest
from cloister.enclave.attesters.files import LocalFiles, cannot
from cloister.enclave.attesters.nsm import NsmAttester
from cloister.enclave.attesters.sev_guest import SevGuestAttester
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from mutations import mutated

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(64))
CAPS = {"report": 4096, "certs": 1 << 16, "document": 1 << 16}
VCEK, ARK = UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes, UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes


def table(*, pages: int = 1, size: int = 100) -> bytes:
    """Return a certificate table with two entries, in whole pages."""
    head = VCEK + struct.pack("<II", 72, size) + ARK + struct.pack("<II", 72 + size, 10) + bytes(24)
    return (head + b"v" * size + b"a" * 10).ljust(4096 * pages, b"\x00")


def snp(processor: SecureProcessor, *, vmpl: int = 0) -> dict[str, bytes]:
    devices = FakeDevices(sev_guest=processor)
    evidence = SevGuestAttester(devices, vmpl=vmpl).collect(DATA)
    assert evidence.tee == TeeKind("snp")
    assert devices.open == 0
    return parse_parts(evidence.payload, what="snp", caps=CAPS)


def test_structures_have_the_layout_of_the_headers() -> None:
    assert ctypes.sizeof(sev_guest.ReportRequest) == 96
    assert ctypes.sizeof(sev_guest.ReportResponse) == 4000
    assert ctypes.sizeof(sev_guest.ExtReportRequest) == 112
    assert ctypes.sizeof(sev_guest.GuestRequest) == 32
    assert bytes(sev_guest.GuestRequest(1, 2, 3, 4)) == struct.pack("<B7xQQQ", 1, 2, 3, 4)
    request = sev_guest.ReportRequest(vmpl=3)
    request.user_data[:] = DATA
    extended = sev_guest.ExtReportRequest(data=request, certs_address=0x1122, certs_len=4096)
    assert bytes(extended) == DATA + struct.pack("<I28xQI4x", 3, 0x1122, 4096)
    assert bytes(nsm.Raw(1, 2, 3, 4)) == struct.pack("<QQQQ", 1, 2, 3, 4)
    assert 3 << 30 | 32 << 16 | ord("S") << 8 == sev_guest.SNP_GET_REPORT
    assert sev_guest.SNP_GET_EXT_REPORT == sev_guest.SNP_GET_REPORT | 2
    assert nsm.NSM_IOCTL_RAW == 3 << 30 | 32 << 16 | 0x0A << 8


def test_a_report_carries_the_data_and_the_level_it_was_asked_for() -> None:
    processor = SecureProcessor()
    parts = snp(processor, vmpl=2)
    assert set(parts) == {"report"}
    assert parts["report"][:68] == DATA + struct.pack("<I", 2)
    assert len(parts["report"]) == 1184
    assert processor.asked == [(DATA, 2)]


def test_certificates_come_without_the_rest_of_their_pages() -> None:
    certs = table()
    assert snp(SecureProcessor(certs=certs))["certs"] == certs[: 72 + 110]


def test_a_buffer_that_was_too_small_is_made_as_large_as_the_host_says() -> None:
    certs = table(pages=4, size=9000)
    processor = SecureProcessor(certs=certs)
    devices = FakeDevices(sev_guest=processor)
    evidence = SevGuestAttester(devices).collect(DATA)
    assert devices.calls == [0xC0205302, 0xC0205302]
    assert parse_parts(evidence.payload, what="snp", caps=CAPS)["certs"] == certs[: 72 + 9010]


@pytest.mark.parametrize("size", [4096 * 5, 4096 * 2 + 1])
def test_a_host_that_wants_more_than_the_driver_takes_is_malformed(size: int) -> None:
    with pytest.raises(Malformed, match="whole pages"):
        snp(SecureProcessor(certs=bytes(size)))


def test_a_host_whose_certificates_grow_at_every_call_is_given_up_on() -> None:
    processor = SecureProcessor()

    def growing(_: int, argument: int) -> None:
        processor.certs = bytes(min(len(processor.certs) + 4096, 16384))
        ctypes.memmove(argument + 24, struct.pack("<Q", 1 << 32), 8)
        data = int.from_bytes(ctypes.string_at(argument + 8, 8), "little")
        ctypes.memmove(data + 104, struct.pack("<I", len(processor.certs)), 4)

    with pytest.raises(Unavailable, match="changed the size"):
        SevGuestAttester(FakeDevices(sev_guest=growing)).collect(DATA)


@pytest.mark.parametrize(("offset", "length"), [(8192, 1), (8000, 193), (0xFFFFFFFF, 0xFFFFFFFF), (0, 8193)])
def test_certificates_outside_their_pages_are_malformed(offset: int, length: int) -> None:
    with pytest.raises(Malformed, match="behind the end"):
        snp(SecureProcessor(certs=VCEK + struct.pack("<II", offset, length)))


def test_a_table_without_its_end_is_malformed() -> None:
    with pytest.raises(Malformed, match="bytes left"):
        snp(SecureProcessor(certs=(VCEK + bytes(8)) * 341 + b"\x01" * 8))


def test_an_older_driver_gives_the_report_alone() -> None:
    devices = FakeDevices(sev_guest=SecureProcessor(certs=table(), extended=False))
    evidence = SevGuestAttester(devices).collect(DATA)
    assert set(parse_parts(evidence.payload, what="snp", caps=CAPS)) == {"report"}
    assert devices.calls == [0xC0205302, 0xC0205300]


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize(
    ("exitinfo2", "shown"), [(0x16, "firmware error 0x16"), (0x27 | 7 << 32, "firmware error 0x27"), (1 << 63, "0x80")]
)
def test_what_firmware_or_hypervisor_refuse_is_rejected_with_their_number(
    *, extended: bool, exitinfo2: int, shown: str
) -> None:
    for error in (errno.EIO, 0):
        with pytest.raises(Rejected, match=shown) as refused:
            snp(SecureProcessor(extended=extended, exitinfo2=exitinfo2, error=error))
        assert refused.value.code == "tee_refused"


@pytest.mark.parametrize("extended", [True, False])
def test_a_throttled_guest_tries_again_later(*, extended: bool) -> None:
    with pytest.raises(Unavailable, match="throttles") as refused:
        snp(SecureProcessor(extended=extended, exitinfo2=2 << 32, error=errno.EIO))
    assert refused.value.retry_after_s == 2


@pytest.mark.parametrize("exitinfo2", [0, 0xFFFFFFFFFFFFFFFF])
def test_a_request_that_never_reached_the_firmware_is_unavailable(exitinfo2: int) -> None:
    with pytest.raises(Unavailable, match="input/output error"):
        snp(SecureProcessor(exitinfo2=exitinfo2, error=errno.EIO))


def test_a_status_in_the_response_is_a_refusal() -> None:
    with pytest.raises(Rejected, match="status 0x16"):
        snp(SecureProcessor(status=0x16))


@pytest.mark.parametrize("size", [0, 1183, 1185, 4000, 0xFFFFFFFF])
def test_reports_of_another_size_are_malformed(size: int) -> None:
    processor = SecureProcessor()

    def lying(request: int, argument: int) -> None:
        processor(request, argument)
        response = int.from_bytes(ctypes.string_at(argument + 16, 8), "little")
        ctypes.memmove(response + 4, struct.pack("<I", size), 4)

    with pytest.raises(Malformed, match=f"report of {size} bytes"):
        SevGuestAttester(FakeDevices(sev_guest=lying)).collect(DATA)


@pytest.mark.parametrize("vmpl", [-1, 4])
def test_privilege_levels_outside_0_to_3_are_refused(vmpl: int) -> None:
    with pytest.raises(UsageError, match="vmpl"):
        SevGuestAttester(FakeDevices(), vmpl=vmpl)


def nitro(module: NitroModule) -> bytes:
    devices = FakeDevices(nsm=module)
    evidence = NsmAttester(devices).collect(DATA)
    assert evidence.tee == TeeKind("nitro")
    assert devices.open == 0
    return parse_parts(evidence.payload, what="nitro", caps=CAPS)["document"]


def test_a_nitro_document_is_asked_for_with_the_data_as_user_data() -> None:
    module = NitroModule()
    assert nitro(module) == b"document " + DATA
    assert module.asked == [{"Attestation": {"user_data": DATA, "nonce": None, "public_key": None}}]


@pytest.mark.parametrize("word", ["InvalidArgument", "InputTooLarge", "InternalError"])
def test_what_the_module_refuses_is_rejected_with_its_word(word: str) -> None:
    with pytest.raises(Rejected, match=word) as refused:
        nitro(NitroModule(answer={"Error": word}))
    assert refused.value.code == "tee_refused"


def test_a_word_that_steers_the_terminal_is_not_shown() -> None:
    with pytest.raises(Rejected, match="unprintable"):
        nitro(NitroModule(answer={"Error": "\x1b[2J"}))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff",
        {},
        [],
        7,
        {"Attestation": {}},
        {"Attestation": {"document": "text"}},
        {"Attestation": b"document"},
        {"Error": 7},
        {"GetRandom": {"random": b"1"}},
        cbor2.dumps({"Attestation": {"document": b"d"}}) + b"\x00",
        cbor2.dumps({"Attestation": {"document": b"d"}})[:-1],
    ],
)
def test_answers_of_another_form_are_malformed(answer: Any) -> None:
    with pytest.raises(Malformed, match="nsm response"):
        nitro(NitroModule(answer=answer))


@pytest.mark.parametrize("length", [0x3001, 1 << 63])
def test_an_answer_longer_than_its_room_is_malformed(length: int) -> None:
    with pytest.raises(Malformed, match="at most 12288"):
        nitro(NitroModule(length=length))


def test_only_our_errors_come_out_of_ten_thousand_damaged_answers() -> None:
    good = cbor2.dumps({"Attestation": {"document": bytes(range(200))}})
    for data in mutated(good):
        try:
            nsm.parse_answer(data)
        except (Malformed, Rejected):
            continue
    for data in mutated(table()[:256]):
        try:
            sev_guest.trimmed_table(data)
        except Malformed:
            continue


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_report_data_of_another_size_are_refused(size: int) -> None:
    for attester in (SevGuestAttester(FakeDevices()), NsmAttester(FakeDevices())):
        with pytest.raises(UsageError, match="want 64"):
            attester.collect(bytes(size))


def test_a_device_that_is_not_there_is_unavailable_with_its_path(tmp_path: Path) -> None:
    for attester, path in (
        (SevGuestAttester(LocalFiles(tmp_path)), "/dev/sev-guest"),
        (NsmAttester(LocalFiles(tmp_path)), "/dev/nsm"),
    ):
        with pytest.raises(Unavailable, match=f"{path}: no such file") as refused:
            attester.collect(DATA)
        assert "detect" in (refused.value.hint or "")


def test_a_device_that_is_none_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nsm").write_bytes(b"")
    with pytest.raises(Unavailable, match="inappropriate ioctl"):
        NsmAttester(LocalFiles(tmp_path)).collect(DATA)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_who_may_not_use_a_device_is_told_how(number: int) -> None:
    with pytest.raises(Unavailable) as refused:
        nitro(NitroModule(error=number))
    assert refused.value.hint == "run as root, or join the group that owns it"


def test_an_error_without_a_number_is_told_too() -> None:
    assert "no reason given" in cannot("thing", OSError("odd")).message
    assert cannot("thing", OSError(errno.EBUSY, os.strerror(errno.EBUSY))).retry_after_s == 1


class Window(ctypes.Structure):
    """struct winsize."""

    _fields_ = (("rows", ctypes.c_ushort), ("columns", ctypes.c_ushort), ("x", ctypes.c_ushort), ("y", ctypes.c_ushort))


def test_a_real_device_writes_into_the_structure_it_was_given(tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    try:
        (tmp_path / "pty").symlink_to(os.ttyname(terminal))
        with LocalFiles(tmp_path).device("pty") as device:
            device.ioctl(0x5414, Window(rows=7, columns=9))  # TIOCSWINSZ
            got = Window()
            device.ioctl(0x5413, got)  # TIOCGWINSZ
            assert (got.rows, got.columns) == (7, 9)
            with pytest.raises(OSError, match="Inappropriate"):
                device.ioctl(0xC0200A00, nsm.Raw())
    finally:
        os.close(terminal)
        os.close(controller)
