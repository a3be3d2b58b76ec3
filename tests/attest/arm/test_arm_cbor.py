"""CBOR from strangers: the subset, its limits, and that nothing else comes out than Malformed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cbor2
import pytest

from cloister.attest.cbor import MAX_CBOR_DEPTH, MAX_CBOR_ITEMS, CborMap, dump_cbor, parse_cbor, take_tag
from cloister.errors import Malformed
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attest.cbor import Cbor

CAP = 1 << 16


def parse(data: bytes, *, indefinite: bool = False) -> Cbor:
    return parse_cbor(data, what="test", cap=CAP, indefinite=indefinite)


VALUES: list[Cbor] = [
    0,
    23,
    24,
    255,
    256,
    65535,
    65536,
    2**32 - 1,
    2**32,
    2**64 - 1,
    -1,
    -24,
    -25,
    -(2**64),
    b"",
    b"x" * 24,
    "",
    "\u00e9",
    True,
    False,
    None,
    [],
    {},
    [[], [[]], {}],
    {1: {"a": [b"", None]}, -1: "x", "1": 2},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_is_in_the_subset_comes_back(value: Cbor) -> None:
    assert parse(dump_cbor(value)) == value


BAD = {
    "nothing": "",
    "bytes after the end": "0000",
    "a head cut short": "19ff",
    "a string cut short": "42ff",
    "an array cut short": "8200",
    "a map cut short": "a100",
    "reserved head 28": "1c",
    "reserved head 30": "fe",
    "a break alone": "ff",
    "a break in an array of known length": "81ff",
    "a float of 16 bits": "f90000",
    "a float of 32 bits": "fa00000000",
    "a float of 64 bits": "fb0000000000000000",
    "undefined": "f7",
    "simple value 0": "e0",
    "simple value 255": "f8ff",
    "false as a long simple value": "f814",
    "a date": "c11a514b67b0",
    "a bignum": "c249010000000000000000",
    "a shared reference inside": "81d81d00",
    "a regular expression": "d8236161",
    "a tag on a key": "a1c10000",
    "a string in pieces": "5f4100ff",
    "text in pieces": "7f6161ff",
    "text that is no utf-8": "61ff",
    "text with half a surrogate": "63eda080",
    "a key twice": "a201000100",
    "a text key twice": "a2616100616100",
    "a key twice, deeper": "81a201000100",
    "a key of bytes": "a1410000",
    "a key of an array": "a18000",
    "a key of a map": "a1a000",
    "a key true": "a1f500",
    "a key null": "a1f600",
    "0 in two bytes": "1800",
    "23 in two bytes": "1817",
    "255 in three bytes": "1900ff",
    "65535 in five bytes": "1a0000ffff",
    "a length of 4 in nine bytes": "5b000000000000000400000000",
    "2^32-1 in nine bytes": "1b00000000ffffffff",
    "an array of 2^32-1": "9affffffff",
    "a map of 2^64-1": "bbffffffffffffffff",
    "a byte string of 2^64-1": "5bffffffffffffffff",
    "an indefinite array": "9fff",
    "an indefinite map": "bfff",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_not_in_the_subset_is_malformed(data: str) -> None:
    with pytest.raises(Malformed):
        parse(bytes.fromhex(data))


@pytest.mark.parametrize(("data", "value"), [("9fff", []), ("bfff", {}), ("9f01bf0203ff9fffff", [1, {2: 3}, []])])
def test_indefinite_lengths_are_read_where_they_are_admitted(data: str, value: Cbor) -> None:
    assert parse(bytes.fromhex(data), indefinite=True) == value


@pytest.mark.parametrize("data", ["bf01ff", "9f", "9f01", "bf0102", "5f4100ff", "81ff", "bf01020103ff"])
def test_indefinite_lengths_end_where_they_may(data: str) -> None:
    with pytest.raises(Malformed):
        parse(bytes.fromhex(data), indefinite=True)


def test_depth_is_bounded_before_anything_is_decoded() -> None:
    assert parse(b"\x81" * MAX_CBOR_DEPTH + b"\x00")
    for data in (b"\x81" * (MAX_CBOR_DEPTH + 1) + b"\x00", b"\x81" * 60_000, b"\x9f" * 60_000, b"\xbf\x01" * 30_000):
        with pytest.raises(Malformed):
            parse(data, indefinite=True)


def test_items_and_bytes_are_bounded() -> None:
    assert parse(dump_cbor([0] * (MAX_CBOR_ITEMS - 1)))
    with pytest.raises(Malformed):
        parse(dump_cbor([0] * MAX_CBOR_ITEMS))
    with pytest.raises(Malformed):
        parse_cbor(bytes(9), what="test", cap=8)


def test_the_tag_in_front_is_the_callers() -> None:
    assert take_tag(b"\xd2\x80", what="test") == (18, b"\x80")
    assert take_tag(b"\xd9\x01\x8f\xa0", what="test") == (399, b"\xa0")
    assert take_tag(b"\x80", what="test") == (None, b"\x80")
    assert take_tag(b"", what="test") == (None, b"")
    for data in (b"\xdf", b"\xdc", b"\xd9\x01", b"\xd8\x12"):
        with pytest.raises(Malformed):
            take_tag(data, what="test")


def test_nothing_but_malformed_comes_out_and_what_comes_out_was_in_the_subset() -> None:
    good = dump_cbor({10: b"n" * 64, 265: "profile", 2399: [{1: "a", 2: b"h" * 32}], "x": [None, True, -1]})
    for damaged in mutated(good):
        try:
            value = parse(damaged, indefinite=True)
        except Malformed:
            continue
        assert cbor2.loads(damaged) == value


TAKES: dict[str, Callable[[CborMap], object]] = {
    "data of another size": lambda fields: fields.data("bytes", (4,)),
    "data of a size out of range": lambda fields: fields.data("bytes", range(4, 9)),
    "data that is text": lambda fields: fields.data("text", range(9)),
    "text that is bytes": lambda fields: fields.text("bytes", cap=9),
    "text too long": lambda fields: fields.text("text", cap=2),
    "text that is empty": lambda fields: fields.text("empty", cap=2),
    "text that steers a terminal": lambda fields: fields.text("steering", cap=9),
    "an integer that is true": lambda fields: fields.integer("true", floor=0, cap=9),
    "an integer too small": lambda fields: fields.integer("five", floor=6, cap=9),
    "an integer too large": lambda fields: fields.integer("five", floor=0, cap=4),
    "a truth that is a number": lambda fields: fields.boolean("five"),
    "an array that is text": lambda fields: fields.items("text", floor=0, cap=9),
    "an array too short": lambda fields: fields.items("list", floor=3, cap=9),
    "an array too long": lambda fields: fields.items("list", floor=0, cap=1),
    "a member that is missing": lambda fields: fields.take(7),
    "members left over": lambda fields: fields.end(),
}


@pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)
def test_a_member_that_is_not_what_it_should_be_is_malformed(take: Callable[[CborMap], object]) -> None:
    members: dict[int | str, Cbor] = {
        "bytes": b"abc",
        "text": "abc",
        "empty": "",
        "steering": "a\x1b[2J",
        "true": True,
        "five": 5,
        "list": [1, 2],
    }
    with pytest.raises(Malformed):
        take(CborMap(members, what="test"))


def test_a_member_is_taken_once_and_what_is_left_is_known() -> None:
    fields = CborMap({1: True, "b": 2, 3: "x"}, what="test")
    assert fields.boolean(1) is True
    assert fields.optional("b", fields.take) == 2
    assert fields.optional(9, fields.take) is None
    assert 1 not in fields
    assert fields.left == ("3",)
    assert fields.text(3, cap=1) == "x"
    fields.end()
    with pytest.raises(Malformed):
        fields.take(1)


def test_a_map_is_demanded() -> None:
    with pytest.raises(Malformed):
        CborMap([1], what="test")
