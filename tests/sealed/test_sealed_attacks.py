"""Attacks on a sealed model: cut, swap, splice, forge, replace, roll back (threats T20 to T24, T30)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sealed_kit import DEK, PLAIN, PUBLISHER, SEGMENT, MemorySource, Sealed, memory_files, noise, seal

from cloister.crypto.sign import SigningKey
from cloister.crypto.stream import OVERHEAD_BYTES
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable
from cloister.sealed.leaves import LEAF_BYTES, leaf_hash, leaf_root
from cloister.sealed.manifest import MANIFEST_NAME, MAX_FILE_BYTES, SIGNATURE_NAME
from cloister.sealed.open import RandomAccess, open_model, verify_digest, verify_manifest
from cloister.sealed.publisher import ManifestSignature
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN_FILES = {
    "config.json": b'{"layers": 3}',
    "empty": b"",
    "weights/a.bin": noise(PLAIN * 4 + 100),
    "weights/b.bin": noise(PLAIN * 4 + 100, seed=2),
}
TARGET, OTHER = "weights/a.bin", "weights/b.bin"
COUNT = 5


@pytest.fixture(name="model", scope="module")
def _model() -> Sealed:
    return seal(PLAIN_FILES)


@pytest.fixture(autouse=True)
def _no_memory_file_is_left() -> Iterator[None]:
    before = memory_files()
    yield
    assert memory_files() == before


def refused(model: Sealed, *codes: str, dek: bytes = DEK) -> str:
    """Demand a refusal with one of ``codes``; return its text."""
    with pytest.raises(Rejected) as caught:
        model.open(dek)
    assert caught.value.code in codes
    return caught.value.message


def segments(model: Sealed, path: str) -> list[bytes]:
    body = model.source.parts[model.blob(path)]
    return [body[at : at + SEGMENT] for at in range(0, len(body), SEGMENT)]


def with_leaves(model: Sealed, path: str, body: bytes) -> Sealed:
    """Replace a blob and make its leaf hashes fit, as anybody can."""
    kind = model.manifest.file(path).leaf_hash
    leaves = b"".join(leaf_hash(body[at : at + SEGMENT], kind) for at in range(0, len(body), SEGMENT))
    return model.edit(model.blob(path), body).edit(model.leaves(path), leaves)


def forged(model: Sealed, path: str, body: bytes) -> Sealed:
    """As ``with_leaves``, and sign a manifest that says so: what a thief of the publisher's key can do."""
    edited = with_leaves(model, path, body)
    leaves = edited.source.parts[model.leaves(path)]
    root = leaf_root(leaves[at : at + LEAF_BYTES] for at in range(0, len(leaves), LEAF_BYTES))
    size = max(0, len(body) - OVERHEAD_BYTES * -(-len(body) // SEGMENT))
    files = tuple(
        replace(entry, leaf_root=root, size=size) if entry.path == path else entry for entry in model.manifest.files
    )
    return edited.resign(replace(model.manifest, files=files))


def test_an_untouched_model_opens_to_the_same_bytes(model: Sealed) -> None:
    with model.open() as opened:
        assert opened.files == tuple(sorted(PLAIN_FILES))
        assert {path: bytes(opened.view(path)) for path in opened.files} == PLAIN_FILES
        assert opened.digest == model.verified().digest


# --- T21: truncated, reordered, spliced; list 7.2 numbers 21 to 28


def test_t21_zero_byte_parts(model: Sealed) -> None:
    for name in (model.blob(TARGET), model.leaves(TARGET), model.blob("empty")):
        refused(model.edit(name, b""), "truncated")
    for name in (MANIFEST_NAME, SIGNATURE_NAME):
        with pytest.raises((Malformed, Rejected)):
            model.edit(name, b"").verified()


def test_t21_cut_at_every_segment_border_and_one_byte_beside(model: Sealed) -> None:
    body = model.source.parts[model.blob(TARGET)]
    borders = [*range(0, len(body), SEGMENT), len(body)]
    for end in sorted({border + step for border in borders for step in (-1, 0, 1)} & set(range(len(body)))):
        refused(model.edit(model.blob(TARGET), body[:end]), "truncated")
        refused(with_leaves(model, TARGET, body[:end]), "truncated")


def test_t21_cut_in_the_middle_of_every_segment(model: Sealed) -> None:
    body = model.source.parts[model.blob(TARGET)]
    for index in range(COUNT):
        refused(model.edit(model.blob(TARGET), body[: index * SEGMENT + 60]), "truncated")


def test_t21_cut_by_a_thief_of_the_signing_key(model: Sealed) -> None:
    body = model.source.parts[model.blob(TARGET)]
    for end in (OVERHEAD_BYTES, SEGMENT, SEGMENT * 2, SEGMENT * 4, len(body) - 1):
        refused(forged(model, TARGET, body[:end]), "wrong_key")


def test_t21_every_pair_of_segments_swapped(model: Sealed) -> None:
    for one, other in itertools.combinations(range(COUNT - 1), 2):
        parts = segments(model, TARGET)
        parts[one], parts[other] = parts[other], parts[one]
        refused(model.edit(model.blob(TARGET), b"".join(parts)), "digest_mismatch")
        refused(with_leaves(model, TARGET, b"".join(parts)), "digest_mismatch")
        refused(forged(model, TARGET, b"".join(parts)), "wrong_key")


def test_t21_every_segment_repeated_over_its_neighbour(model: Sealed) -> None:
    for index in range(COUNT - 2):
        parts = segments(model, TARGET)
        parts[index + 1] = parts[index]
        refused(with_leaves(model, TARGET, b"".join(parts)), "digest_mismatch")
        parts.insert(index, parts[index])
        refused(with_leaves(model, TARGET, b"".join(parts)), "oversized")


def test_t21_segments_of_another_file_under_the_same_model_key(model: Sealed) -> None:
    for index in range(COUNT):
        parts = segments(model, TARGET)
        parts[index] = segments(model, OTHER)[index]
        refused(model.edit(model.blob(TARGET), b"".join(parts)), "digest_mismatch")
        refused(forged(model, TARGET, b"".join(parts)), "wrong_key")


def test_t21_two_files_joined(model: Sealed) -> None:
    body, other = model.source.parts[model.blob(TARGET)], model.source.parts[model.blob(OTHER)]
    refused(with_leaves(model, TARGET, body + other), "oversized")
    refused(with_leaves(model, TARGET, body[: SEGMENT * 4] + other[SEGMENT * 4 :]), "digest_mismatch")


def test_t21_two_files_exchanged(model: Sealed) -> None:
    body, other = model.source.parts[model.blob(TARGET)], model.source.parts[model.blob(OTHER)]
    exchanged = with_leaves(with_leaves(model, TARGET, other), OTHER, body)
    refused(exchanged, "digest_mismatch")


@pytest.mark.parametrize("extra", [b"\x00", b"\xff" * 4, noise(SEGMENT), noise(SEGMENT * 3)])
def test_t21_appended_bytes(model: Sealed, extra: bytes) -> None:
    for path in (TARGET, "empty"):
        body = model.source.parts[model.blob(path)] + extra
        refused(model.edit(model.blob(path), body), "oversized")
        refused(with_leaves(model, path, body), "oversized")
        refused(forged(model, path, body), "wrong_key", "oversized")  # no size at all may give this many bytes


def test_t21_every_byte_of_a_small_blob_matters(model: Sealed) -> None:
    body = model.source.parts[model.blob("config.json")]
    for at in range(len(body)):
        damaged = bytearray(body)
        damaged[at] ^= 1
        refused(with_leaves(model, "config.json", bytes(damaged)), "digest_mismatch")


def test_t21_mutated_blobs_never_open(model: Sealed) -> None:
    name = model.blob("config.json")
    body = model.source.parts[name]
    verified = model.verified()
    for damaged in mutated(body):
        if damaged == body:
            continue
        with pytest.raises(Rejected):
            RandomAccess(MemorySource({**model.source.parts, name: damaged}), verified, DEK, "config.json").read(0, 1)


def test_t21_a_missing_part_is_not_a_yes(model: Sealed) -> None:
    for name in (model.blob(TARGET), model.leaves(TARGET)):
        parts = dict(model.source.parts)
        del parts[name]
        with pytest.raises(Unavailable):
            replace(model, source=MemorySource(parts)).open()


def test_t21_every_wrong_size_is_named(model: Sealed) -> None:
    broken = model.edit(model.blob(TARGET), b"").edit(model.leaves(OTHER), b"x" * 999)
    with pytest.raises(Rejected) as caught:
        broken.open()
    assert {(reason.code, reason.subject) for reason in caught.value.reasons} == {
        ("truncated", model.blob(TARGET)),
        ("oversized", model.leaves(OTHER)),
    }


# --- T30, list 7.2 number 31: keys


def test_t30_wrong_key_and_altered_commitment_are_one_clear_error(model: Sealed) -> None:
    wrong_key = refused(model, "wrong_key", dek=bytes(32))
    altered = model.resign(replace(model.manifest, dek_commitment=bytes(32)))
    assert refused(altered, "wrong_key") == wrong_key == "model digits: wrong_key"


@pytest.mark.parametrize("bit", range(0, 256, 31))
def test_t30_every_bit_of_the_key_matters(model: Sealed, bit: int) -> None:
    other = bytearray(DEK)
    other[bit // 8] ^= 1 << bit % 8
    refused(model, "wrong_key", dek=bytes(other))


def test_t30_altered_file_key_header_or_blob_id_is_refused(model: Sealed) -> None:
    entry = model.manifest.file(TARGET)
    other = model.manifest.file(OTHER)
    header = bytearray(entry.header)
    header[20] ^= 1
    changes: list[dict[str, bytes]] = [
        {"wrapped_key": other.wrapped_key},
        {"wrapped_key": bytes(60)},
        {"header": bytes(header)},
        {"header": other.header},
    ]
    for change in changes:
        files = tuple(
            replace(entry, **change) if found.path == TARGET else found  # type: ignore[arg-type]
            for found in model.manifest.files
        )
        refused(model.resign(replace(model.manifest, files=files)), "wrong_key")


def test_t20_the_key_of_another_version_does_not_open_this_one(model: Sealed) -> None:
    newer = seal(PLAIN_FILES, dek=noise(32))
    refused(model, "wrong_key", dek=newer.dek)
    refused(newer, "wrong_key", dek=model.dek)


# --- T23, T24, list 7.2 number 32: another model, an older model


def test_t23_another_validly_sealed_model_in_its_place_is_refused(model: Sealed) -> None:
    other = seal(PLAIN_FILES, name="letters")
    with pytest.raises(Rejected) as caught:
        verify_digest(other.verified(), model.verified().digest)
    assert caught.value.code == "wrong_model"
    assert verify_digest(model.verified(), model.verified().digest).manifest == model.manifest


def test_t24_an_older_version_put_back_is_refused(model: Sealed) -> None:
    newer = seal({**PLAIN_FILES, "config.json": b'{"layers": 4}'})
    with pytest.raises(Rejected) as caught:
        verify_digest(model.verified(), newer.verified().digest)
    assert caught.value.code == "wrong_model"


def test_t23_blobs_of_another_sealing_of_the_same_files_are_refused(model: Sealed) -> None:
    again = seal(PLAIN_FILES)
    for path in (TARGET, "config.json"):
        spliced = model.edit(model.blob(path), again.source.parts[again.blob(path)])
        refused(spliced, "digest_mismatch")
        refused(spliced.edit(model.leaves(path), again.source.parts[again.leaves(path)]), "digest_mismatch")


def test_t23_a_manifest_changed_in_any_byte_is_refused(model: Sealed) -> None:
    data = model.source.parts[MANIFEST_NAME]
    for damaged in mutated(data, count=2000):
        if damaged != data:
            with pytest.raises(Rejected) as caught:
                model.edit(MANIFEST_NAME, damaged).verified()
            assert caught.value.code == "signature_invalid"


def test_t23_a_manifest_signed_by_a_stranger_is_refused(model: Sealed) -> None:
    stranger = SigningKey.generate()
    impostor = replace(model, publisher=stranger).resign(model.manifest)
    parts = impostor.source.parts
    for keys in ([PUBLISHER.verify_key], []):
        with pytest.raises(Rejected) as caught:
            verify_manifest(parts[MANIFEST_NAME], parts[SIGNATURE_NAME], keys)
        assert caught.value.code == "unknown_key"


# --- list 7.2 numbers 30 and 35


@pytest.mark.parametrize("size", [2**63, 2**53 - 1, MAX_FILE_BYTES + 1])
def test_a_size_of_two_to_the_63_is_refused_before_anything_is_read(model: Sealed, size: int) -> None:
    data = model.source.parts[MANIFEST_NAME]
    claimed = data.replace(b'"size":%d' % len(PLAIN_FILES[TARGET]), b'"size":%d' % size)
    assert claimed != data
    edited = model.edit(MANIFEST_NAME, claimed)
    signature = ManifestSignature.sign(PUBLISHER, claimed).dump()  # a thief again: no reason to trust a number
    edited = edited.edit(SIGNATURE_NAME, signature)
    with pytest.raises(Malformed):
        edited.verified()
    assert edited.source.reads == []


def test_the_largest_size_allowed_is_refused_before_memory_is_taken(model: Sealed) -> None:
    files = tuple(replace(entry, size=MAX_FILE_BYTES) for entry in model.manifest.files)
    claimed = model.resign(replace(model.manifest, files=files))
    assert refused(claimed, "truncated")
    assert claimed.source.reads == []


class Turncoat(MemorySource):
    """Answers each part honestly once, and with damage ever after; it can fill memory itself."""

    def __init__(self, parts: dict[str, bytes]) -> None:
        """Start honest."""
        super().__init__(parts)
        self.asked: set[tuple[str, int]] = set()

    def read_into(self, name: str, offset: int, out: memoryview) -> int:
        """Fill ``out``, damaged the second time."""
        data = bytearray(self.read(name, offset, len(out)))
        if (name, offset) in self.asked:
            data[-1] ^= 1
        self.asked.add((name, offset))
        out[: len(data)] = data
        return len(data)


def test_a_file_changed_between_verifying_and_loading_changes_nothing(model: Sealed) -> None:
    source = Turncoat(model.source.parts)
    with open_model(source, model.verified(), DEK) as opened:
        assert bytes(opened.view(TARGET)) == PLAIN_FILES[TARGET]
    bulk = [read for read in source.reads if not read[0].endswith(".leaves")]
    assert len(bulk) == len(set(bulk)), "a segment was read twice"
    with pytest.raises(Rejected) as caught:
        open_model(source, model.verified(), DEK)
    assert caught.value.code == "digest_mismatch"


class Liar(MemorySource):
    """Claims honest sizes and returns too much or too little."""

    def __init__(self, parts: dict[str, bytes], step: int) -> None:
        """Return ``step`` bytes more than asked."""
        super().__init__(parts)
        self.step = step

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return another number of bytes, of blobs only."""
        if name.endswith(".leaves"):
            return super().read(name, offset, size)
        return super().read(name, offset, size).ljust(size + self.step, b"\0")[: size + self.step]


@pytest.mark.parametrize(("step", "code"), [(-1, "truncated"), (1, "oversized")])
def test_a_source_that_lies_about_sizes_is_refused(model: Sealed, step: int, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        open_model(Liar(model.source.parts, step), model.verified(), DEK)
    assert caught.value.code == code


# --- random access


def test_random_access_reads_what_a_whole_open_reads(model: Sealed) -> None:
    data = PLAIN_FILES[TARGET]
    with RandomAccess(model.source, model.verified(), DEK, TARGET) as access:
        assert access.size == len(data)
        for offset in (0, 1, PLAIN - 1, PLAIN, PLAIN + 1, PLAIN * 3 - 7, len(data) - 1, len(data)):
            for size in (0, 1, PLAIN, PLAIN + 1, len(data)):
                size = min(size, len(data) - offset)  # noqa: PLW2901 - up to the end
                assert access.read(offset, size) == data[offset : offset + size]


def test_random_access_reads_only_the_segments_it_needs_and_proves_each(model: Sealed) -> None:
    body = bytearray(model.source.parts[model.blob(TARGET)])
    body[SEGMENT * 2 + 100] ^= 1
    broken = model.edit(model.blob(TARGET), bytes(body))
    with RandomAccess(broken.source, broken.verified(), DEK, TARGET) as access:
        assert access.read(PLAIN - 5, 10) == PLAIN_FILES[TARGET][PLAIN - 5 : PLAIN + 5]
        with pytest.raises(Rejected):
            access.read(PLAIN * 2 - 1, 2)
        assert access.read(PLAIN * 3, 10) == PLAIN_FILES[TARGET][PLAIN * 3 : PLAIN * 3 + 10]
        offsets = {offset for name, offset in broken.source.reads if not name.endswith(".leaves")}
    assert offsets == {0, SEGMENT, SEGMENT * 2, SEGMENT * 3}


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, -1), (0, 10**12), (10**12, 1)])
def test_reading_outside_a_file_is_our_callers_fault(model: Sealed, offset: int, size: int) -> None:
    with RandomAccess(model.source, model.verified(), DEK, TARGET) as access, pytest.raises(CloisterError):
        access.read(offset, size)
    with model.open() as opened, pytest.raises(CloisterError):
        opened.read(TARGET, offset, size)


def test_random_access_is_over_after_close(model: Sealed) -> None:
    access = RandomAccess(model.source, model.verified(), DEK, TARGET)
    assert access.read(0, 4) == PLAIN_FILES[TARGET][:4]
    access.close()
    access.close()
    with pytest.raises(CloisterError):
        access.read(0, 4)
    with pytest.raises(CloisterError):
        RandomAccess(model.source, model.verified(), bytes(32), TARGET)
