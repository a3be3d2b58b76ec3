"""Padding: few sizes, little waste, nothing lost."""

from __future__ import annotations

import pytest

from cloister.channel.bhttp import BinaryRequest
from cloister.channel.padding import PADDING_FLOOR_BYTES, pad, padded_size


@pytest.mark.parametrize(
    ("size", "want"),
    [(0, 1024), (1, 1024), (1024, 1024), (1025, 1088), (1089, 1152), (4096, 4096), (4097, 4352), (100_000, 100_352)],
)
def test_buckets_are_those_of_padme(size: int, want: int) -> None:
    assert padded_size(size) == want


def test_buckets_hold_grow_and_cost_at_most_an_eighth() -> None:
    previous = 0
    for size in range(PADDING_FLOOR_BYTES, 70_000, 7):
        bucket = padded_size(size)
        assert size <= bucket <= size + size // 8
        assert bucket >= previous
        assert padded_size(bucket) == bucket
        previous = bucket


def test_a_megabyte_of_sizes_shows_few_buckets() -> None:
    assert len({padded_size(size) for size in range(0, 1 << 20, 64)}) < 250


def test_padding_does_not_change_a_message() -> None:
    message = BinaryRequest(method="GET", path="/v2", body=b"x" * 5000)
    assert len(pad(message.dump())) == padded_size(len(message.dump()))
    assert BinaryRequest.parse(pad(message.dump())) == message
