"""The software manifest: one spelling, and one changed setting is another digest (T10)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from cloister.attest.software import MAX_SOFTWARE_BYTES, SoftwareManifest
from cloister.errors import Malformed
from mutations import mutated

MANIFEST = SoftwareManifest(
    code="ab" * 32,
    python="3.11.9",
    packages={"numpy": "2.2.0", "onnxruntime": "1.22.0"},
    settings={"engine": "onnx", "max_batch": 8, "nested": {"a": [1, 2.5, None]}},
)


def _json() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(MANIFEST.dump())
    return value


def _bytes(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_a_manifest_round_trips_and_its_digest_is_over_its_bytes() -> None:
    assert SoftwareManifest.parse(MANIFEST.dump()) == MANIFEST
    assert MANIFEST.digest == hashlib.sha256(MANIFEST.dump()).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"code": "ac" * 32},
        {"python": "3.11.10"},
        {"packages": {"numpy": "2.2.1", "onnxruntime": "1.22.0"}},
        {"packages": {"numpy": "2.2.0"}},
        {"settings": {"engine": "onnx", "max_batch": 9, "nested": {"a": [1, 2.5, None]}}},
        {"settings": {"engine": "onnx", "max_batch": True, "nested": {"a": [1, 2.5, None]}}},
        {"settings": {"engine": "onnx", "max_batch": "8", "nested": {"a": [1, 2.5, None]}}},
        {"settings": {"engine": "onnx", "max_batch": 8, "nested": {"a": [1, 2.5, 0]}}},
        {"settings": {}},
    ],
)
def test_t10_any_change_is_another_digest(change: dict[str, Any]) -> None:
    assert replace(MANIFEST, **change).digest != MANIFEST.digest


def test_the_order_of_settings_is_no_change() -> None:
    reordered = replace(MANIFEST, packages=dict(reversed(MANIFEST.packages.items())))
    assert reordered.digest == MANIFEST.digest


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("v", 2),
        ("code", "AB" * 32),
        ("code", "ab"),
        ("python", ""),
        ("python", 3.11),
        ("packages", []),
        ("packages", {"numpy": 2}),
        ("packages", {"numpy": ""}),
        ("packages", {"numpy": "2\n"}),
        ("packages", {f"p{n}": "1" for n in range(513)}),
        ("settings", []),
        ("settings", None),
        ("settings", "x"),
        ("extra", 1),
    ],
)
def test_a_manifest_out_of_form_is_malformed(member: str, value: object) -> None:
    with pytest.raises(Malformed):
        SoftwareManifest.parse(_bytes({**_json(), member: value}))


@pytest.mark.parametrize("member", sorted(_json()))
def test_every_missing_member_is_malformed(member: str) -> None:
    value = _json()
    del value[member]
    with pytest.raises(Malformed):
        SoftwareManifest.parse(_bytes(value))


def test_a_second_spelling_is_malformed_for_its_bytes_are_what_was_measured() -> None:
    for data in (MANIFEST.dump() + b"\n", json.dumps(_json()).encode()):
        with pytest.raises(Malformed, match="canonical"):
            SoftwareManifest.parse(data)


def test_a_manifest_over_the_cap_is_malformed() -> None:
    with pytest.raises(Malformed, match="want at most"):
        SoftwareManifest.parse(b"x" * (MAX_SOFTWARE_BYTES + 1))


def test_ten_thousand_mutations_only_malformed() -> None:
    for data in mutated(MANIFEST.dump()):
        try:
            manifest = SoftwareManifest.parse(data)
        except Malformed:
            continue
        assert manifest.dump() == data
