"""One construction, one label for each use: no two uses and no two splits meet."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.attest.binding import ChannelBinding, ReleaseBinding, fold
from cloister.attest.rats import Nonce
from cloister.errors import UsageError

RELEASE = ReleaseBinding(
    nonce=Nonce(b"\x11" * 32),
    custodian=b"\x12" * 32,
    instance_pub=b"\x13" * 32,
    kem_pub=b"\x14" * 48,
    software=b"{}",
    devices=b"gpu",
)
CHANNEL = ChannelBinding(nonce=Nonce(b"\x21" * 32), keyset=b"{}", devices=b"")


def test_the_construction_is_the_documented_one() -> None:
    def part(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    release = b"cloister/attest/v1" + part(b"\x11" * 32) + part(b"\x12" * 32) + part(b"\x13" * 32)
    release += part(b"\x14" * 48) + part(b"{}")
    assert RELEASE.report_data() == hashlib.sha512(release + part(b"gpu")).digest()
    channel = b"cloister/report-data/v1" + part(b"\x21" * 32) + part(b"{}") + part(b"")
    assert CHANNEL.report_data() == hashlib.sha512(channel).digest()


def test_a_device_binds_nonce_and_keys_under_labels_of_its_own() -> None:
    def part(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    release = b"cloister/attest-device/v1" + part(b"\x11" * 32) + part(b"\x12" * 32) + part(b"\x13" * 32)
    release += part(b"\x14" * 48) + part(b"{}")
    assert RELEASE.device_report_data() == hashlib.sha512(release).digest()
    channel = b"cloister/report-data-device/v1" + part(b"\x21" * 32) + part(b"{}")
    assert CHANNEL.device_report_data() == hashlib.sha512(channel).digest()


def test_known_answers() -> None:
    assert RELEASE.report_data().hex().startswith("a7182f3c8fa730534ddd64dc6b6cd100")
    assert CHANNEL.report_data().hex().startswith("721e811ca777452196571e170147d21a")


@pytest.mark.parametrize(
    ("field_bytes", "want"),
    [(32, b"\x07" * 32), (48, b"\x07" * 48), (64, b"\x07" * 64), (80, b"\x07" * 64 + bytes(16))],
)
def test_the_digest_is_folded_to_the_field(field_bytes: int, want: bytes) -> None:
    assert fold(b"\x07" * 64, field_bytes=field_bytes) == want


@pytest.mark.parametrize("field_bytes", [-1, 0, 16, 31])
def test_a_field_too_short_to_bind_anything_is_refused(field_bytes: int) -> None:
    with pytest.raises(UsageError):
        fold(b"\x07" * 64, field_bytes=field_bytes)


@given(st.lists(st.binary(max_size=4), min_size=5, max_size=5), st.lists(st.binary(max_size=4), min_size=5, max_size=5))
def test_two_different_splits_of_the_same_bytes_never_meet(first: list[bytes], second: list[bytes]) -> None:
    def made(parts: list[bytes]) -> bytes:
        nonce, custodian, instance_pub, kem_pub, software = parts
        return ReleaseBinding(
            nonce=Nonce(nonce), custodian=custodian, instance_pub=instance_pub, kem_pub=kem_pub, software=software
        ).report_data()

    assert (made(first) == made(second)) == (first == second)


def test_every_part_is_bound() -> None:
    seen = {RELEASE.report_data(), CHANNEL.report_data()}
    for name in ("nonce", "custodian", "instance_pub", "kem_pub", "software", "devices"):
        seen.add(replace(RELEASE, **{name: b"other"}).report_data())
    for name in ("nonce", "keyset", "devices"):
        seen.add(replace(CHANNEL, **{name: b"other"}).report_data())
    assert len(seen) == 11


def test_what_is_bound_is_given_by_name_without_the_nonce() -> None:
    assert set(RELEASE.bound()) == {"custodian", "devices", "instance_pub", "kem_pub", "software"}
    assert set(CHANNEL.bound()) == {"keyset", "devices"}
