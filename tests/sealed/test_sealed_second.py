"""The second signature of a manifest, ML-DSA-65: never stripped, never swapped, never another's (T99)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sealed_kit import PUBLISHER, seal

from cloister.crypto.mldsa import PUBLIC_BYTES, SIGNATURE_BYTES, SecondKey, SecondSigner
from cloister.crypto.sign import Label, VerifyKey
from cloister.errors import Malformed, Rejected, UsageError
from cloister.sealed.publisher import MAX_SIGNATURE_BYTES, ManifestSignature, verify_manifest
from cloister.wire import dump_b64u, parse_b64u
from mutations import mutated

if TYPE_CHECKING:
    from cloister.sealed.manifest import Manifest

MINE, OTHER = SecondSigner(bytes(range(32))), SecondSigner(bytes(range(1, 33)))
BARE = seal({"a": b"a"}).manifest
TWICE = replace(BARE, second_key=MINE.public)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sealed" / "second-signatures.json").read_text())


def verified(manifest: Manifest, signature: ManifestSignature, pinned: SecondKey | None = None) -> Manifest:
    keys = [PUBLISHER.verify_key]
    return verify_manifest(manifest.dump(), signature.dump(), keys, second=pinned).manifest


def signed(manifest: Manifest, by: SecondSigner | None = MINE) -> ManifestSignature:
    return ManifestSignature.sign(PUBLISHER, manifest.dump(), by)


def refused(manifest: Manifest, signature: ManifestSignature, pinned: SecondKey | None = None) -> str:
    with pytest.raises(Rejected) as caught:
        verified(manifest, signature, pinned)
    return caught.value.code


def test_both_signatures_hold_pinned_or_not() -> None:
    assert verified(TWICE, signed(TWICE)) == TWICE
    assert verified(TWICE, signed(TWICE), MINE.public) == TWICE
    assert verified(BARE, signed(BARE, None)) == BARE
    assert len(signed(TWICE).dump()) < MAX_SIGNATURE_BYTES


def test_t99_the_second_signature_cannot_be_stripped() -> None:
    stripped = replace(signed(TWICE), second=None)
    assert refused(TWICE, stripped) == "second_signature_missing"
    assert refused(TWICE, stripped, MINE.public) == "second_signature_missing"


def test_t99_who_breaks_the_first_signature_alone_is_refused_where_the_second_is_pinned() -> None:
    assert refused(BARE, signed(BARE, None), MINE.public) == "second_signature_missing"
    forged = replace(BARE, second_key=OTHER.public)
    assert verified(forged, signed(forged, OTHER)) == forged  # nobody pinned anything: it agrees with itself
    assert refused(forged, signed(forged, OTHER), MINE.public) == "unknown_key"
    assert refused(TWICE, signed(TWICE, OTHER), MINE.public) == "signature_invalid"


def test_t99_a_second_signature_of_another_manifest_or_purpose_is_refused() -> None:
    newer = replace(TWICE, name="newer")
    assert refused(newer, replace(signed(newer), second=signed(TWICE).second)) == "signature_invalid"
    lease = replace(signed(TWICE), second=MINE.sign(Label.LEASE, TWICE.dump()))
    assert refused(TWICE, lease) == "signature_invalid"


def test_t99_a_second_signature_that_the_manifest_does_not_name_is_refused() -> None:
    assert refused(BARE, signed(BARE)) == "unknown_key"
    assert refused(BARE, signed(BARE), MINE.public) == "unknown_key"


def test_signatures_are_hedged_and_keys_never_printed() -> None:
    assert signed(TWICE).second != signed(TWICE).second
    assert repr(MINE) == f"SecondSigner({MINE.public.fingerprint})"
    assert len(MINE.public.raw) == PUBLIC_BYTES
    assert len(MINE.sign(Label.MANIFEST, b"")) == SIGNATURE_BYTES


def test_sizes_are_exact() -> None:
    for wrong in (b"", bytes(PUBLIC_BYTES - 1), bytes(PUBLIC_BYTES + 1)):
        with pytest.raises(UsageError, match="second_key"):
            replace(BARE, second_key=SecondKey(wrong)).dump()
    for short in (b"", bytes(SIGNATURE_BYTES - 1), bytes(SIGNATURE_BYTES + 1)):
        with pytest.raises(Malformed):
            ManifestSignature.parse(replace(signed(TWICE), second=short).dump())
    for key in (bytes(PUBLIC_BYTES), b"", b"\xff" * PUBLIC_BYTES):
        with pytest.raises(Rejected):
            SecondKey(key).verify(Label.MANIFEST, b"x", MINE.sign(Label.MANIFEST, b"x"))


def test_mutated_signatures_are_malformed_or_refused() -> None:
    honest, data = signed(TWICE).dump(), TWICE.dump()
    for damaged in mutated(honest, count=2000):
        if damaged == honest:
            continue
        with pytest.raises((Malformed, Rejected)):
            verify_manifest(data, damaged, [PUBLISHER.verify_key])


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: str(case["why"]))
def test_second_signature_vector(case: dict[str, Any]) -> None:
    def judge() -> None:
        keys = [VerifyKey(bytes.fromhex(VECTORS["publisher"]))]
        pinned = SecondKey(parse_b64u(case["pinned"], what="pinned")) if case["pinned"] else None
        verify_manifest(case["manifest"].encode(), case["signature"].encode(), keys, second=pinned)

    match case["expect"]:
        case "ok":
            judge()
        case "malformed":
            with pytest.raises(Malformed):
                judge()
        case code:
            with pytest.raises(Rejected) as caught:
                judge()
            assert caught.value.code == code


def vectors() -> dict[str, Any]:
    """Return the vectors: signatures are hedged, so each time others that are as good."""
    good, short = signed(TWICE), replace(signed(TWICE), second=bytes(100))
    foreign = replace(BARE, second_key=OTHER.public)
    cut = TWICE.dump().decode().replace(dump_b64u(MINE.public.raw), dump_b64u(MINE.public.raw)[:-4])
    rows: list[tuple[str, str, str, ManifestSignature, SecondKey | None]] = [
        ("both, nothing pinned", "ok", TWICE.dump().decode(), good, None),
        ("both, the key pinned", "ok", TWICE.dump().decode(), good, MINE.public),
        ("one alone", "ok", BARE.dump().decode(), signed(BARE, None), None),
        ("one alone, a key pinned", "second_signature_missing", BARE.dump().decode(), signed(BARE, None), MINE.public),
        ("stripped", "second_signature_missing", TWICE.dump().decode(), replace(good, second=None), None),
        ("by another key", "signature_invalid", TWICE.dump().decode(), signed(TWICE, OTHER), None),
        ("another key named and pinned", "unknown_key", foreign.dump().decode(), signed(foreign, OTHER), MINE.public),
        ("not named in the manifest", "unknown_key", BARE.dump().decode(), signed(BARE), None),
        (
            "of another manifest",
            "signature_invalid",
            TWICE.dump().decode(),
            replace(good, second=signed(BARE).second),
            None,
        ),
        ("too short", "malformed", TWICE.dump().decode(), short, None),
        ("key too short", "malformed", cut, ManifestSignature.sign(PUBLISHER, cut.encode(), MINE), None),
    ]
    cases = [
        {
            "expect": expect,
            "manifest": manifest,
            "pinned": dump_b64u(pinned.raw) if pinned else "",
            "signature": signature.dump().decode(),
            "why": why,
        }
        for why, expect, manifest, signature, pinned in rows
    ]
    return {"cases": cases, "publisher": PUBLISHER.verify_key.raw.hex()}


if __name__ == "__main__":
    place = Path(__file__).parents[1] / "vectors" / "sealed" / "second-signatures.json"
    place.write_text(json.dumps(vectors(), indent=1) + "\n")
