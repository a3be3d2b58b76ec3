"""The client against a TPM that misbehaves, hangs up, or has less than others."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from cloister.attest.tpm.structures import b2
from cloister.enclave.attesters.tpm import measure_software, read_event_log
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.tpm.codec import PASSWORD, Code, Handle, Session, dump_command, parse_response
from cloister.tpm.commands import Tpm
from cloister.tpm.keys import EkKind, available_eks
from cloister.tpm.nv import nv_read
from cloister.tpm.transport import DeviceTransport, SocketTransport, open_transport
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OK = bytes.fromhex("80010000000a00000000")


class Scripted:
    """A TPM that gives these answers in turn, the last one for ever."""

    def __init__(self, *answers: bytes) -> None:
        """Take the answers."""
        self.answers = list(answers)
        self.commands: list[bytes] = []

    def transceive(self, command: bytes) -> bytes:
        self.commands.append(command)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def close(self) -> None:
        """Nothing to let go."""


def answer(body: bytes = b"", *, code: int = 0, tag: int = 0x8001) -> bytes:
    return tag.to_bytes(2, "big") + (10 + len(body)).to_bytes(4, "big") + code.to_bytes(4, "big") + body


def failure(code: int) -> Scripted:
    return Scripted(answer(code=code))


def test_commands_have_the_layout_of_part_3() -> None:
    command = dump_command(Code.PCR_RESET, handles=(23,), sessions=(PASSWORD,))
    assert command.hex() == "80020000001b0000013d00000017" + "00000009" + "40000009" + "0000" + "01" + "0000"
    assert dump_command(Code.GET_RANDOM, body=b"\x00\x10").hex() == "80010000000c0000017b0010"
    assert Session(Handle.PW) == PASSWORD


@pytest.mark.parametrize("code", [0x901, 0x902, 0x903, 0x908, 0x90A, 0x921, 0x923])
def test_what_passes_by_itself_is_unavailable(code: int) -> None:
    with pytest.raises(Unavailable) as refused:
        Tpm(failure(code)).get_random(8)
    assert refused.value.retry_after_s == 1


@pytest.mark.parametrize("code", [0x100, 0x101, 0x120, 0x184, 0x18B, 0x1C4, 0x98E, 0x99D, 0x907, 0x910, 0xFFFFFFFF])
def test_what_the_tpm_refuses_is_rejected_with_its_code(code: int) -> None:
    with pytest.raises(Rejected) as refused:
        Tpm(failure(code)).get_random(8)
    assert refused.value.code == "tpm_refused"
    assert refused.value.reasons[0].got.startswith(f"{code:#05x}")


def test_a_tpm_that_wants_to_be_asked_again_is_asked_again() -> None:
    scripted = Scripted(answer(code=0x922), answer(code=0x922), answer(b2(bytes(8))))
    assert Tpm(scripted).get_random(8) == bytes(8)
    assert len(set(scripted.commands)) == 1
    endless = failure(0x922)
    with pytest.raises(Unavailable):
        Tpm(endless).get_random(8)
    assert len(endless.commands) == 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        OK[:9],
        OK + b"\0",
        b"\x80\x03" + OK[2:],
        answer(b"\0\0\0\x08", tag=0x8002),
        answer(b2(bytes(4096))),
        answer(b2(bytes(9))),
        answer(b2(bytes(8)) + b"\0"),
    ],
)
def test_answers_out_of_form_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Tpm(Scripted(data)).get_random(8)


def test_fewer_random_bytes_than_asked_are_not_enough() -> None:
    with pytest.raises(Unavailable):
        Tpm(Scripted(answer(b2(bytes(4))))).get_random(8)


def test_starting_a_tpm_that_is_started_is_no_error() -> None:
    Tpm(failure(0x100)).startup()
    Tpm(Scripted(OK)).startup()
    with pytest.raises(Rejected):
        Tpm(failure(0x101)).startup()


def test_pcrs_of_another_bank_than_asked_are_malformed() -> None:
    body = bytes(4) + bytes.fromhex("00000001000403010000") + bytes.fromhex("00000001") + b2(bytes(20))
    with pytest.raises(Malformed, match="another bank"):
        Tpm(Scripted(answer(body))).pcr_read((0,))


def test_an_nv_index_without_end_is_not_read() -> None:
    public = bytes.fromhex("01c00002000b620700010000")
    with pytest.raises(Malformed, match="at most"):
        nv_read(Tpm(Scripted(answer(b2(public + b"\xff\xff")))), 0x01C00002)
    nothing = answer(bytes.fromhex("000000020000"), tag=0x8002)
    with pytest.raises(Malformed, match="nothing read"):
        nv_read(Tpm(Scripted(answer(b2(public + b"\0\x08")), nothing)), 0x01C00002)
    with pytest.raises(Malformed, match="another index"):
        nv_read(Tpm(Scripted(answer(b2(public + b"\0\x08")))), 0x01C00003)


def test_a_tpm_without_certificates_has_none() -> None:
    assert available_eks(Tpm(failure(0x18B))) == ()
    assert set(EkKind) == {EkKind.RSA_2048, EkKind.ECC_P256, EkKind.ECC_P384}


def test_a_measurement_that_did_not_arrive_is_refused() -> None:
    read = answer(bytes(4) + bytes.fromhex("00000001000b03000080") + bytes.fromhex("00000001") + b2(bytes(32)))
    with pytest.raises(Rejected) as refused:
        measure_software(Scripted(OK, OK, read), b"\1" * 32)
    assert refused.value.code == "pcr_mismatch"


def test_only_our_errors_come_out_of_ten_thousand_damaged_answers() -> None:
    good = answer(bytes(4) + bytes.fromhex("00000001000b03010000") + bytes.fromhex("00000001") + b2(bytes(32)))
    assert Tpm(Scripted(good)).pcr_read((0,)) == {0: bytes(32)}
    for data in mutated(good):
        try:
            Tpm(Scripted(data)).pcr_read((0,))
        except (Malformed, Rejected, Unavailable):
            continue
    for data in mutated(answer(bytes(4) + b2(bytes(32)))):
        try:
            parse_response(data, Code.LOAD, handle=True)
        except (Malformed, Rejected, Unavailable):
            continue


def test_a_device_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    for where in (str(tmp_path / "tpmrm0"), f"device:{tmp_path}/tpmrm0", f"unix:{tmp_path}/socket"):
        with pytest.raises(Unavailable, match="cannot"):
            open_transport(where)


def test_a_device_answers_each_write_with_one_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = DeviceTransport("/dev/null")
        with transport:
            os.dup2(ours.fileno(), transport._handle, inheritable=False)
            theirs.sendall(OK)
            assert transport.transceive(b"command") == OK
            assert theirs.recv(16) == b"command"
        transport.close()  # twice is once
        with pytest.raises(Unavailable):
            transport.transceive(b"command")


@pytest.fixture
def server(tmp_path: Path) -> Callable[[bytes], Path]:
    """Return a function that serves one connection: reads a command, writes these bytes, hangs up."""

    def serve(data: bytes) -> Path:
        path = tmp_path / "s"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()

        def answer_once() -> None:
            with listener:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    for at in range(len(data)):  # byte by byte: a stream has no packets
                        connection.send(data[at : at + 1])

        threading.Thread(target=answer_once).start()
        return path

    return serve


def test_a_transport_that_was_closed_is_unavailable(server: Callable[[bytes], Path]) -> None:
    with SocketTransport(server(OK)) as transport:
        assert transport.transceive(b"command") == OK
    with pytest.raises(Unavailable):
        transport.transceive(b"command")


def test_answers_arrive_in_pieces(server: Callable[[bytes], Path]) -> None:
    with SocketTransport(server(answer(b2(bytes(8))))) as transport:
        assert Tpm(transport).get_random(8) == bytes(8)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Unavailable),
        (OK[:5], Unavailable),
        (answer(bytes(8))[:-1], Unavailable),
        (OK[:2] + bytes(4) + OK[6:], Malformed),
        (OK[:2] + b"\xff\xff\xff\xff" + OK[6:], Malformed),
    ],
)
def test_a_socket_that_hangs_up_or_babbles(
    server: Callable[[bytes], Path], data: bytes, error: type[Exception]
) -> None:
    with SocketTransport(server(data)) as transport, pytest.raises(error):
        transport.transceive(b"command")


def test_event_logs_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert read_event_log(path) == b""
    path.write_bytes(b"log")
    assert read_event_log(path) == b"log"
    path.write_bytes(bytes(384 * 1024 + 1))
    with pytest.raises(Unavailable, match="more than"):
        read_event_log(path)
    with pytest.raises(Unavailable, match="cannot read"):
        read_event_log(tmp_path)
