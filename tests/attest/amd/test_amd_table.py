"""The certificate table of extended reports, and what is remembered: both bounded."""

from __future__ import annotations

import pytest

from cloister.attest.amd.certtable import dump_table, parse_table
from cloister.attest.amd.memo import Memo
from cloister.errors import Malformed

ENTRIES = {"vcek": b"leaf", "ask": b"issuer", "ark": b"root", "crl": b"list", "vlek": b"other"}
TABLE = dump_table(ENTRIES)
UNKNOWN = bytes(range(16))


def entry(guid: bytes, offset: int, length: int) -> bytes:
    return guid + offset.to_bytes(4, "little") + length.to_bytes(4, "little")


def test_a_table_is_read_back() -> None:
    assert parse_table(TABLE) == ENTRIES
    assert parse_table(b"") == {}
    assert parse_table(bytes(24)) == {}


def test_a_table_may_be_padded_to_whole_pages_and_hold_what_others_put_there() -> None:
    assert parse_table(TABLE.ljust(0x4000, b"\x00")) == ENTRIES
    assert parse_table(entry(UNKNOWN, 48, 2) + bytes(24) + b"xy") == {}


def test_a_table_cut_anywhere_is_malformed_or_lacks_nothing_silently() -> None:
    for size in range(1, len(TABLE)):
        with pytest.raises(Malformed):
            parse_table(TABLE[:size])


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 4), (23, 1), (47, 1), (48, 5), (52, 1), (2**32 - 1, 1), (48, 2**32 - 1)]
)
def test_an_entry_outside_the_table_is_malformed(offset: int, length: int) -> None:
    for guid in (TABLE[:16], UNKNOWN):
        with pytest.raises(Malformed):
            parse_table(entry(guid, offset, length) + bytes(24) + b"leaf")


def test_a_role_twice_an_entry_without_a_guid_and_an_endless_table_are_malformed() -> None:
    with pytest.raises(Malformed, match="two entries"):
        parse_table(entry(TABLE[:16], 72, 1) * 2 + bytes(24) + b"x")
    with pytest.raises(Malformed, match="without a guid"):
        parse_table(entry(bytes(16), 24, 1) + b"x")
    with pytest.raises(Malformed, match="entries"):
        parse_table(entry(UNKNOWN, 2400, 1) * 100 + b"x")


def test_a_stranger_cannot_fill_the_memory_and_what_went_stale_is_made_again() -> None:
    memo: Memo[int] = Memo(2)
    made = iter(range(100))
    keys = [(b"a",), (b"b",), (b"c",)]
    assert [memo.recall(key, lambda: next(made)) for key in keys] == [0, 1, 2]
    assert memo.recall(keys[2], lambda: next(made)) == 2
    assert memo.recall(keys[0], lambda: next(made)) == 3
    assert memo.recall(keys[0], lambda: next(made), lambda found: found > 3) == 4
    assert memo.recall((b"a", b""), lambda: next(made)) == 5
