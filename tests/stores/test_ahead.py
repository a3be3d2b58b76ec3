"""Fetching ahead changes when bytes are fetched, and nothing else: each segment once, bounded, errors kept."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hostile_server import HostileServer
from sealed_kit import PLAIN, SEGMENT, noise, seal
from stores_kit import HASTY, small_model

from cloister.errors import Rejected, Unavailable
from cloister.sealed.manifest import MAX_SEGMENT_BYTES
from cloister.sealed.open import open_model
from cloister.stores import open_source
from cloister.stores.ahead import ReadAhead, depth_for

PART = "blobs/" + "0" * 32


class Slow:
    """A part in memory; reads end when ``gate`` opens, and are noted."""

    def __init__(self, data: bytes) -> None:
        self.data, self.gate = data, threading.Event()
        self.reads: list[int] = []
        self.fail = -1

    def size(self, _: str) -> int:
        return len(self.data)

    def read(self, _: str, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    def read_into(self, _: str, offset: int, out: memoryview) -> int:
        self.reads.append(offset)
        self.gate.wait(30)
        if offset == self.fail:
            msg = "the store failed"
            raise Unavailable(msg)
        data = self.data[offset : offset + len(out)]
        out[: len(data)] = data
        return len(data)


def test_each_segment_is_fetched_once_whatever_the_order_of_two_readers() -> None:
    source = Slow(noise(40 * 100 + 7))
    source.gate.set()
    got: dict[int, bytes] = {}
    with ReadAhead(source) as ahead, ThreadPoolExecutor(2) as pool:

        def one(place: int) -> None:
            out = bytearray(min(100, len(source.data) - place))
            assert ahead.read_into(PART, place, memoryview(out)) == len(out)
            got[place] = bytes(out)

        # in pairs that are swapped, as threads that overtake each other ask
        places = [place for pair in range(0, 4000, 200) for place in (pair + 100, pair)] + [4000]
        list(pool.map(one, places))
    assert b"".join(got[place] for place in sorted(got)) == source.data
    assert len(source.reads) <= len(got) + len(got) // 2  # a place that was asked for out of order may be fetched twice


def test_in_order_each_segment_is_fetched_exactly_once() -> None:
    source = Slow(noise(40 * 100 + 7))
    source.gate.set()
    out = bytearray(100)
    with ReadAhead(source) as ahead:
        got = [bytes(out[: ahead.read_into(PART, place, memoryview(out))]) for place in range(0, 4007, 100)]
    assert b"".join(got) == source.data
    assert sorted(source.reads) == list(range(0, 4007, 100))


def test_no_more_is_on_its_way_than_allowed() -> None:
    source = Slow(noise(4000))
    with ReadAhead(source) as ahead:
        reader = threading.Thread(target=ahead.read_into, args=(PART, 0, memoryview(bytearray(100))))
        reader.start()
        while len(source.reads) < 9:  # the one asked for, and eight behind it
            time.sleep(0.001)
        assert sorted(source.reads) == list(range(0, 900, 100))
        source.gate.set()
        reader.join()
    assert depth_for(MAX_SEGMENT_BYTES) * MAX_SEGMENT_BYTES == 32 << 20


def test_an_error_of_what_was_fetched_ahead_comes_where_it_is_read() -> None:
    source = Slow(noise(1000))
    source.gate.set()
    source.fail = 300
    out = memoryview(bytearray(100))
    with ReadAhead(source) as ahead:
        for place in (0, 100, 200):
            assert ahead.read_into(PART, place, out) == 100
        with pytest.raises(Unavailable, match="the store failed"):
            ahead.read_into(PART, 300, out)


def test_a_longer_read_than_what_was_fetched_is_still_whole() -> None:
    source = Slow(noise(1000))
    source.gate.set()
    with ReadAhead(source) as ahead:
        out = bytearray(900)
        assert ahead.read_into(PART, 0, memoryview(out)[:100]) == 100
        assert ahead.read_into(PART, 100, memoryview(out)) == 900
        assert bytes(out) == source.data[100:]
        assert ahead.read_into(PART, 1000, memoryview(out)) == 0
        assert ahead.read_into(PART, 0, memoryview(bytearray())) == 0


def test_a_model_opens_the_same_and_each_segment_crosses_the_wire_once() -> None:
    model = seal({"a.bin": noise(30 * PLAIN), "b.bin": noise(3 * PLAIN, 2)})
    with HostileServer(model.source.parts) as server:
        with (
            open_source(server.url, patience=HASTY, whole=True) as source,
            open_model(source, model.verified(), model.dek) as opened,
        ):
            assert opened.read("a.bin", 0, 30 * PLAIN) == model.plain["a.bin"]
        bodies = [one for one in server.seen if one.name == model.blob("a.bin")]
        assert sum(one.headers["range"] == f"bytes=0-{SEGMENT - 1}" for one in bodies) == 1


def test_altered_bytes_are_refused_all_the_same() -> None:
    model = small_model()
    blob = model.blob("weights/one.bin")
    body = model.source.parts[blob]
    altered = model.edit(blob, body[:-1] + bytes([body[-1] ^ 1]))
    with (
        HostileServer(altered.source.parts) as server,
        open_source(server.url, patience=HASTY, whole=True) as source,
        pytest.raises(Rejected, match="digest_mismatch"),
    ):
        open_model(source, altered.verified(), altered.dek)
