"""Manifest, signature, envelope, paths and leaves: vectors (most of them bad) and ten thousand mutations each."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_vectors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealed_kit import PUBLISHER, MemorySource, noise, seal

from cloister.crypto.sign import VerifyKey
from cloister.crypto.stream import Decryptor
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.sealed.envelope import Envelope, Recipient, wrap_info
from cloister.sealed.leaves import LeafHash, Leaves, leaf_hash, leaf_root
from cloister.sealed.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest, model_digest
from cloister.sealed.open import open_model, verify_manifest
from cloister.sealed.paths import parse_path, parse_paths
from cloister.sealed.publisher import ManifestSignature
from cloister.sealed.unfinished import Unfinished
from mutations import mutated

VECTORS = Path(__file__).parents[1] / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def named(case: dict[str, Any]) -> str:
    return str(case["why"])[:60]


PACKAGES = load("sealed/packages.json")


@pytest.mark.parametrize("case", load("floe/segments.json"), ids=named)
def test_floe_vector(case: dict[str, Any]) -> None:
    segments = [bytes.fromhex(segment) for segment in case["segments"]]

    def decrypt() -> bytes:
        decryptor = Decryptor(
            bytes.fromhex(case["key"]),
            aad=bytes.fromhex(case["aad"]),
            header=bytes.fromhex(case["header"]),
            segment_bytes=case["segment_bytes"],
        )
        last = len(segments) - 1
        return b"".join(decryptor.segment(index, part, final=index == last) for index, part in enumerate(segments))

    match case["expect"]:
        case "ok":
            assert decrypt().hex() == case["plaintext"]
        case "malformed":
            with pytest.raises(Malformed):
                decrypt()
        case code:
            with pytest.raises(Rejected) as caught:
                decrypt()
            assert caught.value.code == code


def _parts(build: dict[str, Any]) -> dict[str, bytes]:
    """Put the parts of a damaged package together from pieces of the honest one."""
    honest = {name: bytes.fromhex(data) for name, data in PACKAGES["parts"].items()}
    parts = dict(honest)
    for name, pieces in build.items():
        if pieces is None:
            del parts[name]
            continue
        parts[name] = b"".join(
            bytes.fromhex(piece) if isinstance(piece, str) else honest[piece[0]][piece[1] : piece[2]]
            for piece in pieces
        )
    return parts


@pytest.mark.parametrize("case", PACKAGES["cases"], ids=named)
def test_package_vector(case: dict[str, Any]) -> None:
    parts = _parts(case["build"])
    dek, publisher = bytes.fromhex(PACKAGES["dek"]), VerifyKey(bytes.fromhex(PACKAGES["publisher"]))

    def opened() -> dict[str, str]:
        verified = verify_manifest(parts[MANIFEST_NAME], parts[SIGNATURE_NAME], [publisher])
        with open_model(MemorySource(parts), verified, dek) as model:
            return {path: hashlib.sha256(model.view(path)).hexdigest() for path in model.files}

    match case["expect"]:
        case "ok":
            assert opened() == PACKAGES["plaintext_sha256"]
        case "malformed":
            with pytest.raises(Malformed):
                opened()
        case "unavailable":
            with pytest.raises(Unavailable):
                opened()
        case code:
            with pytest.raises(Rejected) as caught:
                opened()
            assert caught.value.code == code


@pytest.mark.parametrize("case", load("sealed/manifests.json"), ids=named)
def test_manifest_vector(case: dict[str, Any]) -> None:
    data = case["text"].encode()
    if case["expect"] == "ok":
        assert Manifest.parse(data).dump() == data
    else:
        with pytest.raises(Malformed) as caught:
            Manifest.parse(data)
        if case["why"] == "newer format":
            assert "newer format 2" in caught.value.message


@pytest.mark.parametrize("case", load("sealed/envelopes.json"), ids=named)
def test_envelope_vector(case: dict[str, Any]) -> None:
    data = case["text"].encode()
    if case["expect"] == "ok":
        assert Envelope.parse(data).dump() == data
    else:
        with pytest.raises(Malformed):
            Envelope.parse(data)


@pytest.mark.parametrize("case", load("sealed/unfinished.json"), ids=named)
def test_unfinished_vector(case: dict[str, Any]) -> None:
    data = case["text"].encode()
    if case["expect"] == "ok":
        assert Unfinished.parse(data).dump() == data
        return
    with pytest.raises(Malformed) as caught:
        Unfinished.parse(data)
    if case["why"] == "newer format":
        assert "newer format 2" in caught.value.message


@pytest.mark.parametrize("case", load("sealed/paths.json"), ids=named)
def test_path_vector(case: dict[str, Any]) -> None:
    if case["expect"] == "ok":
        assert parse_path(case["path"]) == case["path"]
    else:
        with pytest.raises(Malformed) as caught:
            parse_path(case["path"])
        assert caught.value.message.isprintable()


def test_most_vectors_are_bad_ones() -> None:
    names = ("manifests", "envelopes", "paths", "unfinished")
    for name in ("floe/segments.json", *(f"sealed/{name}.json" for name in names)):
        cases = load(name)
        assert sum(case["expect"] != "ok" for case in cases) > len(cases) / 2
    assert sum(case["expect"] != "ok" for case in PACKAGES["cases"]) > 30


@pytest.mark.parametrize("name", make_vectors.FILES)
def test_vectors_are_what_the_generator_writes(name: str) -> None:
    assert make_vectors.dump(make_vectors.FILES[name]()) == (VECTORS / name).read_text()


# --- mutations


def test_manifest_survives_mutations() -> None:
    good = bytes.fromhex(PACKAGES["parts"][MANIFEST_NAME])
    for damaged in mutated(good):
        try:
            assert Manifest.parse(damaged).dump() == damaged
        except Malformed:
            continue


def test_signature_survives_mutations() -> None:
    good = bytes.fromhex(PACKAGES["parts"][SIGNATURE_NAME])
    assert ManifestSignature.parse(good).dump() == good
    for damaged in mutated(good):
        try:
            assert ManifestSignature.parse(damaged).dump() == damaged
        except Malformed:
            continue


def test_signature_mutated_proves_nothing() -> None:
    manifest = bytes.fromhex(PACKAGES["parts"][MANIFEST_NAME])
    good = bytes.fromhex(PACKAGES["parts"][SIGNATURE_NAME])
    for damaged in mutated(good, count=1000, seed=3):
        if damaged != good:
            with pytest.raises((Malformed, Rejected)):
                verify_manifest(manifest, damaged, [PUBLISHER.verify_key])


def test_envelope_survives_mutations() -> None:
    recipient = Recipient(kid="vault", key_version=1, kek_id="kek-1", wrapped=bytes(range(60)))
    good = Envelope(manifest_digest="ab" * 32, recipients=(recipient,)).dump()
    for damaged in mutated(good):
        try:
            assert Envelope.parse(damaged).dump() == damaged
        except Malformed:
            continue


def test_unfinished_survives_mutations() -> None:
    good = load("sealed/unfinished.json")[0]["text"].encode()
    for damaged in mutated(good):
        try:
            assert Unfinished.parse(damaged).dump() == damaged
        except Malformed:
            continue


def test_paths_survive_mutations() -> None:
    for damaged in mutated("mod\u00e8les/caf\u00e9/weights-00001.bin".encode()):
        text = damaged.decode("utf-8", "surrogateescape")
        try:
            assert parse_path(text) == text
        except Malformed:
            continue


@given(st.lists(st.text(max_size=12), max_size=6))
def test_paths_that_pass_together_stay_apart_and_below_the_root(texts: list[str]) -> None:
    try:
        paths = parse_paths(sorted(texts))
    except Malformed:
        return
    places = [Path("/model") / path for path in paths]
    assert len({str(place).casefold() for place in places}) == len(texts)
    for place in places:
        assert Path("/model") in place.parents
        assert not any(place in other.parents for other in places)


# --- leaves


def _by_the_book(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, as written; the leaves are hashes already."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _by_the_book(leaves[:split]) + _by_the_book(leaves[split:])).digest()


def test_leaf_root_is_the_merkle_tree_hash_of_rfc_9162() -> None:
    leaves = [hashlib.sha256(b"\0%d" % index).digest() for index in range(70)]
    for count in range(71):
        assert leaf_root(leaves[:count]) == _by_the_book(leaves[:count])


_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)


def _blake3_of_one_block(key: tuple[int, ...], data: bytes, flags: int) -> bytes:
    """Return BLAKE3 of at most 64 bytes as its paper has it (section 2.2), for lack of a second implementation."""
    assert len(data) <= 64
    words = [int.from_bytes(data.ljust(64, b"\0")[at : at + 4], "little") for at in range(0, 64, 4)]
    v = [*key, *_IV[:4], 0, 0, len(data), flags | 1 | 2 | 8]  # first and last block of the only chunk, the root
    for _ in range(7):
        for number, (a, b, c, d) in enumerate((*_COLUMNS, *_DIAGONALS)):
            for word, right in zip(words[2 * number : 2 * number + 2], ((16, 12), (8, 7)), strict=True):
                v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
                v[d] = _turned(v[d] ^ v[a], right[0])
                v[c] = (v[c] + v[d]) & 0xFFFFFFFF
                v[b] = _turned(v[b] ^ v[c], right[1])
        words = [words[at] for at in _PERMUTATION]
    return b"".join((v[at] ^ v[at + 8]).to_bytes(4, "little") for at in range(8))


def _turned(word: int, right: int) -> int:
    return (word >> right | word << (32 - right)) & 0xFFFFFFFF


def test_a_leaf_of_either_hash_is_what_the_specification_says() -> None:
    for segment in (b"", b"segment", bytes(range(64))):
        context = _blake3_of_one_block(_IV, b"cloister sealed model v1 leaf", 32)
        key = tuple(int.from_bytes(context[at : at + 4], "little") for at in range(0, 32, 4))
        assert leaf_hash(segment, LeafHash.BLAKE3) == _blake3_of_one_block(key, segment, 64)
        assert leaf_hash(segment, LeafHash.SHA256) == hashlib.sha256(b"\0" + segment).digest()


@pytest.mark.parametrize("kind", LeafHash)
def test_a_model_with_leaves_of_either_hash_opens_and_says_which(kind: LeafHash) -> None:
    model = seal({"a.bin": noise(9000)}, leaf_hash=kind)
    (entry,) = model.manifest.files
    assert entry.leaf_hash is kind
    assert entry.to_json().get("leaf_hash") == (None if kind is LeafHash.SHA256 else "blake3")
    with model.open() as opened:
        assert bytes(opened.view("a.bin")) == model.plain["a.bin"]


@pytest.mark.parametrize("kind", LeafHash)
def test_leaves_are_never_held_to_the_other_hash(kind: LeafHash) -> None:
    model = seal({"a.bin": noise(9000)}, leaf_hash=kind)
    (other,) = set(LeafHash) - {kind}
    files = tuple(replace(entry, leaf_hash=other) for entry in model.manifest.files)
    with pytest.raises(Rejected) as caught:
        model.resign(replace(model.manifest, files=files)).open()
    assert caught.value.code == "digest_mismatch"


def test_leaves_of_another_number_or_root_are_refused() -> None:
    leaves = [hashlib.sha256(b"%d" % index).digest() for index in range(3)]
    root = leaf_root(leaves)
    good = Leaves.verify(b"".join(leaves), count=3, root=root, subject="x", kind=LeafHash.SHA256)
    with pytest.raises(Rejected):
        good.verify_segment(3, b"beyond the end")
    for data, count in ((b"".join(leaves[:2]), 3), (b"".join(leaves), 2), (b"".join(reversed(leaves)), 3), (b"", 0)):
        with pytest.raises(Rejected) as caught:
            Leaves.verify(data, count=count, root=root, subject="x", kind=LeafHash.SHA256)
        assert caught.value.code == "digest_mismatch"


# --- writers refuse what readers would


def test_writers_refuse_what_readers_would() -> None:
    good = Manifest.parse(bytes.fromhex(PACKAGES["parts"][MANIFEST_NAME]))
    recipient = Recipient(kid="the vault", key_version=1, kek_id="k", wrapped=b"")
    with pytest.raises(UsageError):
        Envelope(manifest_digest="ab" * 32, recipients=(recipient,)).dump()
    with pytest.raises(UsageError):
        Manifest(name="a b", created=good.created, dek_commitment=good.dek_commitment, card={}, files=good.files).dump()
    with pytest.raises(UsageError, match="card"):
        seal({"a": b""}, card={"x": "y" * (64 << 10)})
    with pytest.raises(UsageError, match="card"):
        seal({"a": b""}, card=["no object"])
    with pytest.raises(UsageError, match="want 32"):
        seal({"a": b""}, dek=b"short")


def test_the_newest_key_version_of_a_recipient_is_the_one() -> None:
    entries = tuple(
        Recipient(kid=kid, key_version=version, kek_id=f"k{version}", wrapped=b"w")
        for kid, version in (("vault", 1), ("vault", 3), ("vault", 2), ("other", 9))
    )
    envelope = Envelope(manifest_digest="ab" * 32, recipients=entries)
    assert envelope.recipient("vault").key_version == 3
    with pytest.raises(UsageError):
        envelope.recipient("nobody")


def test_t20_wrapping_is_bound_to_model_version_and_recipient() -> None:
    values = [
        wrap_info(manifest_digest=digest, key_version=version, kid=kid, kek_id=kek)
        for digest, version, kid, kek in itertools.product(
            ("ab" * 32, "cd" * 32), (1, 2), ("vault", "vaul"), ("key", "tkey")
        )
    ]
    assert len(set(values)) == len(values)


def test_the_digest_is_that_of_the_file() -> None:
    data = bytes.fromhex(PACKAGES["parts"][MANIFEST_NAME])
    assert model_digest(data) == hashlib.sha256(data).hexdigest()
