"""Byte strings: exact, bounded, to the end; varints of RFC 9000."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import Malformed, UsageError
from cloister.wire import Reader, dump_varint, lp
from mutations import mutated


def reader(data: bytes) -> Reader:
    return Reader(data, what="thing")


def test_reads_front_to_back_and_knows_where_it_is() -> None:
    r = reader(bytes.fromhex("01 0203 04050607 08090a0b0c0d0e0f 10 ffee".replace(" ", "")))
    assert (r.u8(), r.u16(), r.u32(), r.u64()) == (1, 0x0203, 0x04050607, 0x08090A0B0C0D0E0F)
    assert (r.position, r.left) == (15, 3)
    r.expect(b"\x10")
    assert r.uint(2, little=True) == 0xEEFF
    r.end()


@pytest.mark.parametrize("size", [-1, 4, 2**31, 2**63, 2**64])
def test_a_length_past_the_end_is_refused_before_anything_is_taken(size: int) -> None:
    r = reader(b"abc")
    with pytest.raises(Malformed, match="thing: 3 bytes left at 0"):
        r.take(size)
    assert r.position == 0


@pytest.mark.parametrize("read", ["u8", "u16", "u32", "u64", "varint"])
def test_nothing_is_read_from_nothing(read: str) -> None:
    with pytest.raises(Malformed):
        getattr(reader(b""), read)()


@pytest.mark.parametrize("cut", range(8))
def test_an_integer_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(Malformed):
        reader(b"\xff" * cut).u64()


def test_bytes_after_the_end_are_refused() -> None:
    r = reader(b"abc")
    r.take(2)
    with pytest.raises(Malformed, match="1 bytes after the end"):
        r.end()


def test_another_literal_is_refused() -> None:
    with pytest.raises(Malformed, match="want 6162 at 0"):
        reader(b"ax").expect(b"ab")


def test_rest_takes_all_and_may_be_empty() -> None:
    r = reader(memoryview(b"abc"))
    assert (r.take(1), r.rest(), r.rest()) == (b"a", b"bc", b"")


# RFC 9000 appendix A.1
@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
        ("4025", 37),
    ],
)
def test_varint_examples_of_rfc_9000(encoded: str, value: int) -> None:
    r = reader(bytes.fromhex(encoded))
    assert r.varint() == value
    r.end()


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (63, "3f"),
        (64, "4040"),
        (16_383, "7fff"),
        (16_384, "80004000"),
        (2**30 - 1, "bfffffff"),
        (2**30, "c000000040000000"),
        (2**62 - 1, "ff" * 8),
    ],
)
def test_varint_is_written_shortest_at_every_boundary(value: int, encoded: str) -> None:
    assert dump_varint(value).hex() == encoded


@pytest.mark.parametrize("value", [-1, 2**62, 2**64])
def test_varint_out_of_range_is_our_mistake(value: int) -> None:
    with pytest.raises(UsageError):
        dump_varint(value)


@given(st.integers(0, 2**62 - 1))
def test_varint_round_trip(value: int) -> None:
    r = reader(dump_varint(value))
    assert r.varint() == value
    r.end()


@pytest.mark.parametrize(
    ("encoded", "cut"), [("c2197c5eff14e88c", n) for n in range(8)] + [("7bbd", 1), ("9d7f3e7d", 3)]
)
def test_a_varint_cut_short_is_refused(encoded: str, cut: int) -> None:
    with pytest.raises(Malformed):
        reader(bytes.fromhex(encoded)[:cut]).varint()


@pytest.mark.parametrize("size_bytes", [1, 2, 4, 8])
def test_a_prefixed_part_is_bounded_by_its_cap_and_by_what_is_there(size_bytes: int) -> None:
    good = (3).to_bytes(size_bytes, "big") + b"abc"
    assert reader(good).prefixed(size_bytes, cap=3) == b"abc"
    with pytest.raises(Malformed, match="want at most 2"):
        reader(good).prefixed(size_bytes, cap=2)
    with pytest.raises(Malformed):
        reader(good[:-1]).prefixed(size_bytes, cap=3)
    with pytest.raises(Malformed, match="want at most 200"):
        reader(b"\xff" * size_bytes).prefixed(size_bytes, cap=200)


def test_a_varint_prefixed_part_is_bounded() -> None:
    assert reader(b"\x03abc").prefixed_varint(cap=3) == b"abc"
    with pytest.raises(Malformed, match="want at most 16"):
        reader(b"\xff" * 8 + b"abc").prefixed_varint(cap=16)


def test_length_prefixes_keep_parts_apart() -> None:
    assert lp(b"ab", b"c") != lp(b"a", b"bc")
    assert lp(b"ab", b"") == bytes.fromhex("00000002616200000000")
    assert lp() == b""


def test_ten_thousand_mutations_only_malformed() -> None:
    honest = b"MAGIC" + b"\x00\x03abc" + dump_varint(300) + bytes(300) + b"\x00\x00\x00\x2a"

    def parse(data: bytes) -> None:
        r = reader(data)
        r.expect(b"MAGIC")
        r.prefixed(2, cap=100)
        r.prefixed_varint(cap=1000)
        r.u32()
        r.end()

    parse(honest)
    refused = 0
    for data in mutated(honest):
        try:
            parse(data)
        except Malformed:
            refused += 1
    assert refused > 5_000
