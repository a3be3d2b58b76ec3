"""The tamper table: every way to touch a package, the code that refuses it, and nothing released (T21, T23, T30).

One row an attack, over what lies at rest, with no key of the publisher's in the attacker's hands. What a thief of
that key can do stands in ``test_sealed_attacks``. The second reader refuses all of it too, and reads what is honest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sealed_kit import DEK, PLAIN, PUBLISHER, SEGMENT, Sealed, memory_files, noise, seal
from second_reader import Refused, read

from cloister.errors import Malformed, Rejected
from cloister.sealed.manifest import MANIFEST_NAME, SIGNATURE_NAME
from cloister.sealed.open import RandomAccess

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B = "a.bin", "b.bin"
FILES = {A: noise(PLAIN * 3 + 100), B: noise(PLAIN * 3 + 100, seed=2)}
MODEL, TWIN = seal(FILES), seal(FILES)  # the twin: another package of the same files under the same model key
BLOB, LEAVES = MODEL.blob(A), MODEL.leaves(A)
PARTS, OTHERS = MODEL.source.parts, TWIN.source.parts
LEAF = 32


def cuts(name: str, step: int) -> Iterator[tuple[str, str, bytes, str]]:
    """Cut at every border, and one byte before and behind it."""
    data = PARTS[name]
    borders = {border + beside for border in range(0, len(data) + step, step) for beside in (-1, 0, 1)}
    for end in sorted(borders & set(range(len(data)))):
        yield f"cut at {end}", name, data[:end], "truncated"


def rearranged(name: str, step: int) -> Iterator[tuple[str, str, bytes, str]]:
    """Swap, repeat, leave out, append, and put in what belongs elsewhere."""
    data = PARTS[name]
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    elsewhere = {"of another file": PARTS[MODEL.blob(B) if name == BLOB else MODEL.leaves(B)]}
    elsewhere["of another package"] = OTHERS[TWIN.blob(A) if name == BLOB else TWIN.leaves(A)]
    for at in range(len(pieces) - 2):
        swapped = [*pieces[:at], pieces[at + 1], pieces[at], *pieces[at + 2 :]]
        yield f"{at} and {at + 1} swapped", name, b"".join(swapped), "digest_mismatch"
        repeated = [*pieces[: at + 1], pieces[at], *pieces[at + 2 :]]
        yield f"{at} repeated over {at + 1}", name, b"".join(repeated), "digest_mismatch"
        yield f"{at} twice", name, b"".join([*pieces[:at], pieces[at], *pieces[at:]]), "oversized"
        yield f"{at} left out", name, b"".join(pieces[:at] + pieces[at + 1 :]), "truncated"
    for whose, other in elsewhere.items():
        for at in range(len(pieces)):
            spliced = data[: at * step] + other[at * step : (at + 1) * step] + data[(at + 1) * step :]
            yield f"{at} {whose}", name, spliced, "digest_mismatch"
        yield f"all {whose}", name, other, "digest_mismatch"
    for extra in (b"\x00", pieces[0], data):
        yield f"{len(extra)} bytes appended", name, data + extra, "oversized"
    for at in sorted({0, 3, 4, 15, 16, step - 1, step, len(data) - 1}):
        flipped = bytearray(data)
        flipped[at] ^= 0x80
        yield f"byte {at} altered", name, bytes(flipped), "digest_mismatch"


def signed_parts() -> Iterator[tuple[str, str, bytes, str]]:
    """Touch what is signed, and the signature."""
    manifest, signature = PARTS[MANIFEST_NAME], PARTS[SIGNATURE_NAME]
    value = json.loads(manifest)
    edits = {
        "version": {"v": 2},
        "name": {"name": "other"},
        "commitment": {"dek_commitment": "00" * 32},
        "no file": {"files": value["files"][:1]},
        "headers exchanged": {"files": [{**value["files"][0], "header": value["files"][1]["header"]}]},
        "keys exchanged": {"files": [{**value["files"][0], "wrapped_key": value["files"][1]["wrapped_key"]}]},
    }
    for why, edit in edits.items():
        data = json.dumps({**value, **edit}, separators=(",", ":"), sort_keys=True).encode()
        yield f"manifest: {why}", MANIFEST_NAME, data, "signature_invalid"
    yield "manifest of the twin", MANIFEST_NAME, OTHERS[MANIFEST_NAME], "signature_invalid"
    yield "signature of the twin", SIGNATURE_NAME, OTHERS[SIGNATURE_NAME], "signature_invalid"
    for end in (0, 1, len(manifest) - 1):
        yield f"manifest cut at {end}", MANIFEST_NAME, manifest[:end], "signature_invalid"
    yield "manifest appended to", MANIFEST_NAME, manifest + b"\n", "signature_invalid"
    sig = json.loads(signature)
    for why, edit in {"bytes": {"sig": "A" * 86}, "keyid": {"keyid": "00" * 16}, "version": {"v": 2}}.items():
        data = json.dumps({**sig, **edit}, separators=(",", ":"), sort_keys=True).encode()
        codes = {"bytes": "signature_invalid", "keyid": "unknown_key", "version": "malformed"}
        yield f"signature: {why}", SIGNATURE_NAME, data, codes[why]


TABLE = [
    *((f"blob {row[0]}", *row[1:]) for source in (cuts, rearranged) for row in source(BLOB, SEGMENT)),
    *((f"leaves {row[0]}", *row[1:]) for source in (cuts, rearranged) for row in source(LEAVES, LEAF)),
    *signed_parts(),
]


def code_of(model: Sealed, dek: bytes = DEK) -> str:
    """Open the model, which has to be refused, and return the code."""
    before = memory_files()
    with pytest.raises((Rejected, Malformed)) as caught:
        model.open(dek)
    assert memory_files() == before, "something is left in memory"
    return caught.value.code if isinstance(caught.value, Rejected) else "malformed"


@pytest.mark.parametrize(("name", "data", "code"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_t21_whatever_is_touched_is_refused_and_nothing_released(name: str, data: bytes, code: str) -> None:
    assert data != PARTS[name], "this row touches nothing"
    assert code_of(MODEL.edit(name, data)) == code
    if code != "unknown_key" and name != SIGNATURE_NAME:  # the second reader is told its publisher, and has no key ids
        with pytest.raises(Refused):
            read({**PARTS, name: data}, DEK, PUBLISHER.verify_key.raw)


@pytest.mark.parametrize("at", range(4))
def test_t21_random_access_to_a_touched_segment_is_refused_too(at: int) -> None:
    damaged = bytearray(PARTS[BLOB])
    damaged[at * SEGMENT + 40] ^= 1
    model = MODEL.edit(BLOB, bytes(damaged))
    with RandomAccess(model.source, model.verified(), DEK, A) as access, pytest.raises(Rejected) as caught:
        access.read(at * PLAIN, 1)
    assert caught.value.code == "digest_mismatch"


def test_t30_another_key_is_refused_by_both_readers() -> None:
    assert code_of(MODEL, dek=noise(32)) == "wrong_key"
    with pytest.raises(Refused):
        read(PARTS, noise(32), PUBLISHER.verify_key.raw)


@pytest.mark.parametrize("size", [0, 1, PLAIN - 1, PLAIN, PLAIN + 1, PLAIN * 2, PLAIN * 7 + 1])
def test_what_we_seal_opens_in_an_independent_reading_of_the_specification(size: int) -> None:
    files = {"first": noise(size, seed=3), "sub/last.bin": b"x"}
    parts = seal(files).source.parts
    assert read(parts, DEK, PUBLISHER.verify_key.raw) == files


def test_the_honest_vector_opens_in_an_independent_reading_too() -> None:
    vectors = json.loads((Path(__file__).parent.parent / "vectors" / "sealed" / "packages.json").read_text())
    parts = {name: bytes.fromhex(data) for name, data in vectors["parts"].items()}
    assert read(parts, bytes.fromhex(vectors["dek"]), bytes.fromhex(vectors["publisher"]))
