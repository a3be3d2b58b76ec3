"""Somebody between the processor and its TPM, on swtpm: listens, answers in its place, exchanges what passes."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.tpm.structures import EccKey, Public, RsaKey, b2
from cloister.errors import CloisterError, Malformed, Rejected, UsageError
from cloister.tpm.codec import Code, Handle, Session, take_protected
from cloister.tpm.commands import Tpm
from cloister.tpm.salted import Salt
from cloister.tpm.sealing import _STORAGE_ROOT, seal_to_pcrs, unseal
from cloister.tpm.transport import SocketTransport
from swtpm import start_swtpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.tpm
PCRS = (7,)


class Between:
    """A transport that keeps every byte, and lets ``change`` put other answers in the place of the TPM's."""

    def __init__(self, beneath: SocketTransport) -> None:
        self.beneath = beneath
        self.seen = b""
        self.change: Callable[[int, bytes], bytes] = lambda _code, answer: answer
        self.change_command: Callable[[int, bytes], bytes] = lambda _code, command: command

    def transceive(self, command: bytes) -> bytes:
        code = int.from_bytes(command[6:10], "big")
        command = self.change_command(code, command)
        answer = self.beneath.transceive(command)
        self.seen += command + answer
        return self.change(code, answer)

    def close(self) -> None:
        self.beneath.close()


@pytest.fixture
def between(tmp_path: Path) -> Iterator[Between]:
    with start_swtpm(tmp_path) as swtpm, SocketTransport(swtpm.socket) as transport:
        Tpm(transport).pcr_extend(7, bytes(range(32)))
        yield Between(transport)


def test_who_listens_on_the_bus_sees_no_secret_when_it_is_sealed_and_when_it_is_unsealed(between: Between) -> None:
    tpm, secret = Tpm(between), os.urandom(64)
    sealed = seal_to_pcrs(tpm, secret, tpm.pcr_read(PCRS))
    for _ in range(3):
        assert unseal(tpm, sealed) == secret
    assert len(between.seen) > 3000
    assert not any(secret[at : at + 8] in between.seen for at in range(len(secret) - 7))


def test_the_same_secret_looks_different_each_time(between: Between) -> None:
    tpm = Tpm(between)
    sealed = seal_to_pcrs(tpm, bytes(64), tpm.pcr_read(PCRS))
    answers: list[bytes] = []

    def keep(code: int, answer: bytes) -> bytes:
        if code == Code.UNSEAL:
            answers.append(answer)
        return answer

    between.change = keep
    assert [unseal(tpm, sealed) for _ in range(4)] == [bytes(64)] * 4
    assert len({answer[14:80] for answer in answers}) == 4


def forged_root(answer: bytes) -> bytes:
    """Return an answer to CreatePrimary with a public area of the listener's own."""
    size = int.from_bytes(answer[18:20], "big")
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    public = Public.parse(answer[20 : 20 + size])
    key = EccKey(curve=public.key.curve, x=numbers.x.to_bytes(32, "big"), y=numbers.y.to_bytes(32, "big"))  # type: ignore[union-attr]
    fresh = replace(public, key=key).dump()
    assert len(fresh) == size
    return answer[:20] + fresh + answer[20 + size :]


def test_a_key_that_is_put_in_the_place_of_the_storage_key_gets_no_session(between: Between) -> None:
    """The Name in the sealed secret is what the session's salt may be agreed with; nothing is unsealed before."""
    tpm = Tpm(between)
    sealed = seal_to_pcrs(tpm, b"a secret of some length", tpm.pcr_read(PCRS))
    between.seen = b""
    between.change = lambda code, answer: forged_root(answer) if code == Code.CREATE_PRIMARY else answer
    with pytest.raises(Rejected, match="tpm_refused"):
        unseal(tpm, sealed)
    assert Code.START_AUTH_SESSION.to_bytes(4, "big") not in between.seen
    assert Code.UNSEAL.to_bytes(4, "big") not in between.seen


@pytest.mark.parametrize("place", [14, 20, 60, -1, -20])
def test_an_answer_that_was_altered_on_its_way_is_refused(between: Between, place: int) -> None:
    tpm = Tpm(between)
    sealed = seal_to_pcrs(tpm, bytes(64), tpm.pcr_read(PCRS))

    def alter(code: int, answer: bytes) -> bytes:
        if code != Code.UNSEAL:
            return answer
        made = bytearray(answer)
        made[place] ^= 1
        return bytes(made)

    between.change = alter
    with pytest.raises((Rejected, Malformed)):
        unseal(tpm, sealed)


def test_an_answer_of_before_is_not_taken_for_this_one(between: Between) -> None:
    tpm = Tpm(between)
    sealed = seal_to_pcrs(tpm, bytes(64), tpm.pcr_read(PCRS))
    kept: list[bytes] = []

    def replay(code: int, answer: bytes) -> bytes:
        if code == Code.UNSEAL:
            kept.append(answer)
            return kept[0]
        return answer

    between.change = replay
    assert unseal(tpm, sealed) == bytes(64)
    with pytest.raises(Rejected, match="somebody between"):
        unseal(tpm, sealed)


def test_a_command_that_was_altered_on_its_way_is_refused_by_the_tpm(between: Between) -> None:
    """What is to be sealed, and under which policy, is the caller's: the listener makes no object of its own of it."""
    tpm = Tpm(between)

    def alter(code: int, command: bytes) -> bytes:
        return command[:-1] + bytes((command[-1] ^ 1,)) if code == Code.CREATE else command

    between.change_command = alter
    with pytest.raises(CloisterError):
        seal_to_pcrs(tpm, b"secret", tpm.pcr_read(PCRS))


def test_a_session_is_salted_to_nothing_but_a_curve_key() -> None:
    with pytest.raises(UsageError):
        Salt(replace(_STORAGE_ROOT, key=RsaKey(bits=2048, exponent=0, modulus=b"\xff" * 256)))
    with pytest.raises(Malformed):
        Salt(_STORAGE_ROOT)  # the point of a template is none


def test_no_key_of_a_session_is_printed(between: Between) -> None:
    tpm = Tpm(between)
    with (
        tpm.create_primary(Handle.OWNER, _STORAGE_ROOT) as (parent, root),
        tpm.salted_session(parent, root, policy=True) as session,
    ):
        assert repr(session) == f"SaltedSession({session.handle:#x})"
        assert repr(Salt(root)) == "Salt(...)"
    assert "hmac" not in repr(Session(1, hmac=b"x"))


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("80010000000a00000000"),  # without a session
        bytes.fromhex("8002000000130000000000000000") + b2(b"n") + b"\x01" + b"\x00",  # cut
        bytes.fromhex("8002000000130000000000000000") + b2(b"") + b"\x00" + b2(b""),  # a session that has ended
        bytes.fromhex("8002000000140000000000000000") + b2(b"") + b"\x01" + b2(b"") + b"\x00",  # more behind it
        bytes.fromhex("8002000000130000000000000009") + b2(b"") + b"\x01" + b2(b""),  # parameters beyond the end
    ],
)
def test_a_protected_answer_out_of_form_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        take_protected(data[:2] + len(data).to_bytes(4, "big") + data[6:], Code.UNSEAL)
