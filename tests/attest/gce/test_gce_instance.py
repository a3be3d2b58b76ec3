"""Google's instance extension: exact DER, one spelling, nothing left over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloister.attest.gce.instance import GceInstance
from cloister.errors import Malformed
from cloister.testing.vendors.gce import Instance, der
from mutations import mutated

INSTANCE = Instance()
GOOD = INSTANCE.dump()


def test_instance_is_read_whole() -> None:
    found = GceInstance.parse(GOOD)
    assert (found.zone, found.project, found.instance_name) == (INSTANCE.zone, INSTANCE.project, INSTANCE.name)
    assert (found.project_number, found.instance) == (INSTANCE.project_number, INSTANCE.instance)
    assert found.production


@pytest.mark.parametrize(
    ("properties", "production"),
    [(None, False), ((), False), ((0,), False), ((0, False), False), ((0, True), True), ((3, True, 1, False), True)],
)
def test_production_is_the_second_property_and_false_without(
    properties: tuple[int | bool, ...] | None, *, production: bool
) -> None:
    assert GceInstance.parse(replace(INSTANCE, properties=properties).dump()).production is production


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**63 - 1, 2**63, 2**64 - 1])
def test_numbers_use_all_of_64_bits(number: int) -> None:
    assert GceInstance.parse(replace(INSTANCE, instance=number).dump()).instance == number


def test_long_names_need_long_lengths() -> None:
    assert GceInstance.parse(replace(INSTANCE, project="p" * 128).dump()).project == "p" * 128


BAD = {
    "negative number": replace(INSTANCE, instance=-1).dump(),
    "number too large": replace(INSTANCE, project_number=2**72).dump(),
    "zone of no form": replace(INSTANCE, zone="Europe West").dump(),
    "empty name": replace(INSTANCE, name="").dump(),
    "name too long": replace(INSTANCE, name="n" * 64).dump(),
    "bytes behind": GOOD + b"\x00",
    "another tag": b"\x31" + GOOD[1:],
    "too long": der(0x30, bytes(600)),
    "number in a longer form": GOOD.replace(b"\x02\x05\x1c", b"\x02\x05\x00\x1c", 1),
    "boolean neither true nor false": GOOD.replace(b"\xa1\x03\x01\x01\xff", b"\xa1\x03\x01\x01\x01"),
    "property of another type": GOOD.replace(b"\xa1\x03\x01\x01\xff", b"\xa1\x03\x02\x01\x01"),
    "properties out of order": GOOD.replace(b"\xa2\x03", b"\xa0\x03", 1),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_anything_else_is_malformed(data: bytes) -> None:
    assert data != GOOD
    with pytest.raises(Malformed):
        GceInstance.parse(data)


@pytest.mark.parametrize("length", [b"\x80", b"\x81\x01", b"\x82\x00\x80", b"\x84\xff\xff\xff\xff", b"\xff"])
def test_length_in_another_form_is_malformed(length: bytes) -> None:
    with pytest.raises(Malformed):
        GceInstance.parse(b"\x30" + length + GOOD[2:])


def test_extension_truncated_at_any_byte_is_malformed() -> None:
    for size in range(len(GOOD)):
        with pytest.raises(Malformed):
            GceInstance.parse(GOOD[:size])


def test_only_malformed_comes_out() -> None:
    for damaged in mutated(GOOD):
        try:
            GceInstance.parse(damaged)
        except Malformed:
            continue
