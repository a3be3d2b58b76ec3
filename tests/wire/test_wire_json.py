"""Canonical JSON: the examples of RFC 8785, and what I-JSON (RFC 7493) refuses."""

from __future__ import annotations

import json
import struct
import tracemalloc

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import Malformed, UsageError
from cloister.wire import MAX_DEPTH, MAX_INT, Json, dump_json, parse_json
from mutations import mutated

# RFC 8785 section 3.2.2 and 3.2.4
_SAMPLE = rb"""{
  "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}"""
_SAMPLE_CANONICAL = bytes.fromhex(
    "7b226c69746572616c73223a5b6e756c6c2c747275652c66616c73655d2c226e"
    "756d62657273223a5b3333333333333333332e333333333333332c31652b3330"
    "2c342e352c302e3030322c31652d32375d2c22737472696e67223a22e282ac24"
    "5c75303030665c6e41274225225c5c5c5c5c222f227d".replace("25225c", "5c225c")
)


def test_the_sample_of_rfc_8785() -> None:
    assert dump_json(parse_json(_SAMPLE, what="x")) == _SAMPLE_CANONICAL
    assert parse_json(_SAMPLE_CANONICAL, what="x", canonical=True) == parse_json(_SAMPLE, what="x")


def test_members_are_sorted_by_utf_16_code_units() -> None:
    # RFC 8785 section 3.2.3
    unsorted = (
        rb'{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",'
        rb'"\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}'
    )
    value = parse_json(unsorted, what="x")
    assert isinstance(value, dict)
    assert list(json.loads(dump_json(value)).values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]


# RFC 8785 appendix B
@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
    ],
)
def test_the_numbers_of_rfc_8785(bits: str, text: str) -> None:
    assert dump_json(struct.unpack(">d", bytes.fromhex(bits))[0]) == text.encode()


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_not_a_number_and_infinity_are_never_written(bits: str) -> None:
    with pytest.raises(UsageError):
        dump_json(struct.unpack(">d", bytes.fromhex(bits))[0])


@pytest.mark.parametrize(
    "value",
    [2**53, -(2**53), 1e20, 9.007199254740992e15, "\ud800", {"\udfff": 1}, {"a": [1e16]}, b"bytes", {1: 2}, {"a": {1}}],
    ids=repr,
)
def test_what_json_cannot_carry_exactly_is_our_mistake(value: Json) -> None:
    with pytest.raises(UsageError):
        dump_json(value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"nul",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"[1,]",
        b'{"a":1,}',
        b"{a:1}",
        b"{'a':1}",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x10",
        b"1_000",
        b"-0",
        b"-0.0",
        b"-0e5",
        b"1e400",
        b"1e20",
        b"9007199254740992.0",
        b"-1e400",
        b"1e-400",
        b"9007199254740992",
        b"-9007199254740992",
        b"18446744073709551616",
        b"1" + b"0" * 5000,
        b'"\x01"',
        b'"\n"',
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b'["\\ude00\\ud83d"]',
        b'"\\x41"',
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'[{"a":{"b":1,"b":1}}]',
        b"1 2",
        b"[1]]",
        b"// no\n1",
        b"\xef\xbb\xbf1",
        b"\xff\xfe1\x00",
        b"1\x00",
        "1".encode("utf-16"),
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
    ],
    ids=repr,
)
def test_what_is_no_strict_json_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed, match=r"^x: "):
        parse_json(text, what="x")


@pytest.mark.parametrize(("text", "value"), [(b"9007199254740991", MAX_INT), (b"-9007199254740991", -MAX_INT)])
def test_the_largest_integers_are_kept(text: bytes, value: int) -> None:
    assert parse_json(text, what="x", canonical=True) == value


@pytest.mark.parametrize(
    "text",
    [
        b" 1",
        b"1\n",
        b"1.0",
        b"1E2",
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'"\\u0041"',
        b'"\\/"',
        b'"\\u00E9"',
        b"0.10",
    ],
    ids=repr,
)
def test_a_second_spelling_is_refused_where_canonical_is_wanted(text: bytes) -> None:
    parse_json(text, what="x")
    with pytest.raises(Malformed, match="not canonical"):
        parse_json(text, what="x", canonical=True)


def test_depth_is_bounded_before_the_parser_runs() -> None:
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    parse_json(deepest, what="x")
    for text in (b"[" + deepest + b"]", b'{"a":' * 10_000, b"[" * 1_000_000):
        with pytest.raises(Malformed, match="nested deeper"):
            parse_json(text, what="x")


def _deepest(text: str) -> int:
    """Count brackets outside of strings one character at a time, as RFC 8259 reads; no text has escapes outside."""
    depth = most = 0
    in_string = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            in_string = not in_string
        elif in_string:
            continue
        elif char in "[{":
            depth += 1
            most = max(most, depth)
        elif char in "]}":
            depth -= 1
    return most


@given(st.text(alphabet='[{]}"\\a\n', max_size=200), st.text(alphabet='[{"\\', max_size=80))
def test_depth_is_counted_as_a_reader_of_single_characters_counts_it(before: str, behind: str) -> None:
    text = before + "[" * 20 + behind
    said = ""
    try:
        parse_json(text.encode(), what="x")
    except Malformed as exc:
        said = str(exc)
    assert ("nested deeper" in said) == (_deepest(text) > MAX_DEPTH)


def test_brackets_inside_strings_are_no_depth() -> None:
    text = json.dumps(["[" * 100 + '\\"[{' + "{" * 100]).encode()
    assert dump_json(parse_json(text, what="x")) == text


def test_the_look_at_depth_takes_no_memory_for_each_escape() -> None:
    text = b"[" + b"[]," * (MAX_DEPTH + 1) + b'"' + b'\\"' * 500_000 + b'"]'
    tracemalloc.start()
    try:
        parse_json(text, what="x")
        assert tracemalloc.get_traced_memory()[1] < 16 * len(text)
    finally:
        tracemalloc.stop()


def test_size_is_capped_before_anything_is_read() -> None:
    assert parse_json(b'"aa"', what="x", cap=4) == "aa"
    with pytest.raises(Malformed, match="5 bytes of json, want at most 4"):
        parse_json(b"\xff" * 5, what="x", cap=4)


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INT, MAX_INT)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


@given(_VALUES)
def test_what_is_written_parses_back_to_an_equal_value(value: Json) -> None:
    try:
        data = dump_json(value)
    except UsageError:
        return
    assert parse_json(data, what="x", canonical=True) == value


_ANY_TEXT = st.text(st.characters(codec=None))  # lone surrogates too
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-5, 5) | st.floats() | _ANY_TEXT,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(_ANY_TEXT, inner),
    max_leaves=12,
)


@given(_ANY)
def test_the_quick_way_and_the_reference_write_the_same_bytes(value: Json) -> None:
    """What the standard library writes for us is what rfc8785 writes, and what either refuses is refused."""
    try:
        want = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError):
        with pytest.raises(UsageError):
            dump_json(value)
        return
    try:
        got = dump_json(value)
    except UsageError:  # a float that would read back as an integer out of range: refused by us alone
        assert any(MAX_INT < abs(number) < 1e21 for number in _floats(value))
        return
    assert got == want


def _floats(value: Json) -> list[float]:
    if isinstance(value, float):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [number for item in inner for number in _floats(item)]


@pytest.mark.parametrize("code", [*range(0x100), 0x2028, 0x2029, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF])
def test_every_escape_is_the_reference_s(code: int) -> None:
    text = f"a{chr(code)}b"
    assert dump_json({"k": text, text: 1}) == rfc8785.dumps({"k": text, text: 1})


def test_ten_thousand_mutations_only_malformed() -> None:
    honest = _SAMPLE_CANONICAL + b" "
    accepted = 0
    for data in mutated(honest):
        try:
            value = parse_json(data, what="x")
        except Malformed:
            continue
        accepted += 1
        assert parse_json(dump_json(value), what="x", canonical=True) == value
    assert accepted < 8_000


def test_ten_thousand_mutations_of_numbers_only_malformed_also_where_canonical() -> None:
    for data in mutated(b"[9007199254740991,0.1,-1e-7,1e+21,-333333333.3333333,5e-324]"):
        for canonical in (False, True):
            try:
                value = parse_json(data, what="x", canonical=canonical)
            except Malformed:
                continue
            assert parse_json(dump_json(value), what="x", canonical=True) == value
