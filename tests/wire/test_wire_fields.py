"""Typed members: boundaries 61 to 66 of the list of bad inputs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cloister.errors import Malformed
from cloister.wire import MAX_INT, Fields, Json

if TYPE_CHECKING:
    from collections.abc import Callable

TAKERS: dict[str, Callable[[Fields], object]] = {
    "text": lambda fields: fields.text("m"),
    "match": lambda fields: fields.match("m", re.compile("[a-z]+")),
    "integer": lambda fields: fields.integer("m"),
    "number": lambda fields: fields.number("m", floor=0, cap=10),
    "boolean": lambda fields: fields.boolean("m"),
    "b64u": lambda fields: fields.b64u("m", size=3),
    "hex": lambda fields: fields.hex("m", size=2),
    "time": lambda fields: fields.time("m"),
    "seconds": lambda fields: fields.seconds("m"),
    "fields": lambda fields: fields.fields("m"),
    "items": lambda fields: fields.items("m", cap=2),
    "texts": lambda fields: fields.texts("m", cap=2),
    "members": lambda fields: fields.members("m", cap=2),
    "literal": lambda fields: fields.literal("m", 1),
}

GOOD: list[tuple[str, Json, object]] = [
    ("text", "é 日本 😀", "é 日本 😀"),
    ("match", "abc", "abc"),
    ("integer", 0, 0),
    ("integer", MAX_INT, MAX_INT),
    ("number", 5, 5.0),
    ("number", 0.5, 0.5),
    ("boolean", False, False),
    ("b64u", "Zm9v", b"foo"),
    ("hex", "00ff", b"\x00\xff"),
    ("time", "2026-07-01T12:30:05Z", datetime(2026, 7, 1, 12, 30, 5, tzinfo=UTC)),
    ("seconds", 60, timedelta(seconds=60)),
    ("items", [1, "a"], [1, "a"]),
    ("texts", ["a", "b"], ("a", "b")),
    ("members", {"a": 1}, {"a": 1}),
    ("literal", 1, None),
]

BAD: list[tuple[str, Json]] = [
    *[
        (kind, value)
        for kind in TAKERS
        for value in (None, [[]], {"m": {}}, -1.5)
        if (kind, value) != ("members", {"m": {}})
        and not (kind == "fields" and value == {"m": {}})
        and not (kind == "items" and value == [[]])
    ],
    ("text", 5),
    ("text", True),
    ("text", "a" * 1025),
    ("text", "x" * (1 << 20)),
    ("text", "a\r\nb"),
    ("text", "a\x00b"),
    ("text", "\x1b[31mred"),
    ("text", "a\x7f"),
    ("text", "a\x9b31m"),
    ("text", "a\u2028b"),
    ("text", "\u202egnp.exe"),
    ("text", "a\u2066b"),
    ("text", "a\u200fb"),
    ("text", "\ufeffa"),
    ("match", "abc\n"),
    ("match", "ABC"),
    ("match", ""),
    ("match", "'; DROP TABLE loans"),
    ("integer", "5"),
    ("integer", True),
    ("integer", 5.0),
    ("integer", 1.5),
    ("integer", -1),
    ("integer", 2**53),
    ("integer", 2**64),
    ("number", "5"),
    ("number", True),
    ("number", 11),
    ("number", -0.1),
    ("number", float("nan")),
    ("number", float("inf")),
    ("boolean", 0),
    ("boolean", 1),
    ("boolean", "true"),
    ("b64u", "Zm9vYg"),
    ("b64u", "Zm9v="),
    ("b64u", 5),
    ("hex", "00FF"),
    ("hex", "00f"),
    ("hex", "00ff\n"),
    ("hex", "\u0660\u0660ff"),
    ("hex", 5),
    ("time", "yesterday"),
    ("time", 0),
    ("seconds", "60"),
    ("seconds", -1),
    ("seconds", 1e9),
    ("seconds", 10**10),
    ("fields", []),
    ("fields", "{}"),
    ("items", [1, 2, 3]),
    ("items", {}),
    ("items", "ab"),
    ("texts", ["a", 1]),
    ("texts", ["a", "\n"]),
    ("texts", ["a", "b", "c"]),
    ("members", {"a": 1, "b": 2, "c": 3}),
    ("members", []),
    ("literal", True),
    ("literal", "1"),
    ("literal", 1.0),
    ("literal", 2),
]


@pytest.mark.parametrize(("kind", "value", "want"), GOOD, ids=repr)
def test_a_member_of_the_right_type_is_taken_once(kind: str, value: Json, want: object) -> None:
    fields = Fields({"m": value}, what="thing")
    assert "m" in fields
    got = TAKERS[kind](fields)
    assert got == want
    assert type(got) is type(want)
    assert "m" not in fields
    fields.end()
    with pytest.raises(Malformed, match="thing: m: missing"):
        TAKERS[kind](fields)


@pytest.mark.parametrize(("kind", "value"), BAD, ids=lambda item: repr(item)[:40])
def test_a_member_of_another_type_or_out_of_bounds_is_refused(kind: str, value: Json) -> None:
    with pytest.raises(Malformed, match=r"^thing"):
        TAKERS[kind](Fields({"m": value}, what="thing"))


@pytest.mark.parametrize("kind", TAKERS)
def test_a_missing_member_is_refused(kind: str) -> None:
    with pytest.raises(Malformed, match="thing: m: missing"):
        TAKERS[kind](Fields({"n": 1}, what="thing"))


@pytest.mark.parametrize("value", [None, [], "{}", 1, True])
def test_what_is_no_object_is_refused(value: Json) -> None:
    with pytest.raises(Malformed, match="want a json object"):
        Fields(value, what="thing")


def test_an_unknown_member_is_refused_at_the_end() -> None:
    fields = Fields({"known": 1, "unknown": 2}, what="thing")
    fields.take("known")
    with pytest.raises(Malformed, match="thing: unknown: unknown member"):
        fields.end()


@pytest.mark.parametrize("name", ["\x1b[2J\u202e\n", "x" * 100_000], ids=["steers a terminal", "endless"])
def test_t84_the_name_of_an_unknown_member_is_told_short_and_as_escapes(name: str) -> None:
    with pytest.raises(Malformed) as refused:
        Fields({name: 1}, what="thing").end()
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 100


def test_the_value_given_is_not_changed_by_taking() -> None:
    value = {"m": 1}
    Fields(value, what="thing").take("m")
    assert value == {"m": 1}


def test_bounds_hold_at_both_ends() -> None:
    assert Fields({"m": "abc"}, what="t").text("m", floor=3, cap=3) == "abc"
    assert Fields({"m": 3}, what="t").integer("m", floor=3, cap=3) == 3
    for take in (
        lambda fields: fields.text("m", floor=4),
        lambda fields: fields.text("m", cap=2),
    ):
        with pytest.raises(Malformed, match="3 characters"):
            take(Fields({"m": "abc"}, what="t"))
    for floor, cap in ((4, 9), (0, 2)):
        with pytest.raises(Malformed, match="outside"):
            Fields({"m": 3}, what="t").integer("m", floor=floor, cap=cap)


def test_a_file_of_another_version_is_refused_by_its_number() -> None:
    Fields({"v": 1}, what="file").version(1)
    with pytest.raises(Malformed, match="newer format 2, this program reads 1"):
        Fields({"v": 2}, what="file").version(1)
    with pytest.raises(Malformed):
        Fields({"v": 0}, what="file").version(1)


def test_an_optional_member_may_be_absent_but_not_wrong() -> None:
    fields = Fields({"m": True}, what="t")
    assert fields.optional("absent", fields.integer) is None
    with pytest.raises(Malformed):
        fields.optional("m", fields.integer)


def test_a_document_must_be_an_object_and_canonical_where_asked() -> None:
    assert Fields.parse(b' {"m": 1}', what="t").integer("m") == 1
    for data in (b"[]", b"1", b'{"m":1', b"{" * 99):
        with pytest.raises(Malformed):
            Fields.parse(data, what="t")
    with pytest.raises(Malformed, match="not canonical"):
        Fields.parse(b' {"m": 1}', what="t", canonical=True)


def test_nested_errors_name_the_whole_path() -> None:
    with pytest.raises(Malformed, match=r"^t: outer: inner: want an integer"):
        Fields({"outer": {"inner": "5"}}, what="t").fields("outer").integer("inner")
