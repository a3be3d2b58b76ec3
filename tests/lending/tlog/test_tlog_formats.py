"""The formats of the public log: vectors, most of them bad, and damaged bytes without number."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from log_kit import LOG as KIT_LOG
from log_kit import Face, entries

from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected
from cloister.lending.merkle import MerkleTree, leaf_hash
from cloister.lending.tlog.advance import Advance
from cloister.lending.tlog.checkpoint import (
    LogCheckpoint,
    log_key,
    log_origin,
    sign_log_checkpoint,
    verify_log_checkpoint,
)
from cloister.lending.tlog.cosignature import cosign, cosigner_key
from cloister.lending.tlog.note import NoteKey, SignedNote, verify_note
from cloister.lending.tlog.proof import LogProof, verify_log_proof
from cloister.lending.tlog.tiles import ENTRIES, Tile, dump_bundle, parse_bundle, tile_hashes, tiles_of
from cloister.lending.tlog.witness import WitnessState, verify_advance
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent.parent / "vectors" / "tlog" / "vectors.json").read_text()
)
LOG = NoteKey.parse(VECTORS["keys"]["log"])
WITNESS = NoteKey.parse(VECTORS["keys"]["witness"])
ENTRY = VECTORS["entries"][2].encode()


def _checkpoint(text: str) -> bytes:
    verified = verify_log_checkpoint(text.encode(), LOG, [WITNESS])
    assert verified.checkpoint.dump() == verified.note.text
    return verified.note.dump()


def _proof(text: str) -> bytes:
    proof = LogProof.parse(text.encode())
    verify_log_proof(proof, ENTRY, LOG, witnesses=(), quorum=0)
    return proof.dump()


def _advance(text: str) -> bytes:
    last = verify_log_checkpoint(VECTORS["remembered"].encode(), LOG)
    state = WitnessState(name="w", log=LOG, size=last.size, root=last.root, checkpoint=last.note.dump())
    advance = Advance.parse(text.encode())
    verify_advance(state, advance)
    return advance.dump()


JUDGES: dict[str, Callable[[str], bytes]] = {
    "checkpoint": _checkpoint,
    "proof": _proof,
    "advance": _advance,
    "key": lambda text: NoteKey.parse(text).dump().encode(),
    "tile": lambda text: Tile.parse(text).path().encode(),
}
CASES = [(kind, item) for kind in JUDGES for item in VECTORS[kind]]


@pytest.mark.parametrize(("kind", "item"), CASES, ids=[f"{kind}: {item['name']}" for kind, item in CASES])
def test_vector(kind: str, item: dict[str, str]) -> None:
    if item["expect"] == "valid":
        assert JUDGES[kind](item["text"]) == item["text"].encode()
        return
    with pytest.raises(Malformed if item["expect"] == "Malformed" else Rejected) as caught:
        JUDGES[kind](item["text"])
    if isinstance(caught.value, Rejected):
        assert caught.value.code == item["expect"]


def test_most_vectors_are_bad() -> None:
    bad = [item for _, item in CASES if item["expect"] != "valid"]
    assert len(bad) > 4 * (len(CASES) - len(bad))


def test_what_we_sign_is_what_the_vectors_say() -> None:
    """Signed there by the library alone, here by our code."""
    key, witness = (SigningKey(bytes.fromhex(VECTORS["seeds"][name])) for name in ("log", "witness"))
    tree = MerkleTree(leaf_hash(entry.encode()) for entry in VECTORS["entries"])
    note = sign_log_checkpoint(key, size=tree.size, root=tree.root())
    assert note.dump().decode() == VECTORS["note"]
    at = datetime.fromtimestamp(VECTORS["seconds"], UTC)
    assert cosigner_key(witness, WITNESS.name) == WITNESS
    assert note.signed_also((cosign(witness, WITNESS.name, note.text, at),)).dump().decode() == VECTORS["cosigned"]
    assert verify_log_checkpoint(VECTORS["cosigned"].encode(), LOG, [WITNESS]).cosigned == {WITNESS.name: at}


def test_a_note_of_the_go_implementations_own_documentation_is_verified() -> None:
    key = NoteKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    data = f"{text}\n\u2014 PeterNeumann {line}\n".encode()
    note = SignedNote.parse(data)
    assert (note.text, note.dump()) == (text, data)
    verify_note(note, key)
    with pytest.raises(Rejected, match="signature_invalid"):
        verify_note(SignedNote.parse(data.replace(b"answer", b"Answer")), key)


def test_the_name_of_a_log_is_its_key_and_nothing_that_changes() -> None:
    key = SigningKey(bytes.fromhex(VECTORS["seeds"]["log"])).verify_key
    assert log_key(key) == LOG
    assert log_origin(key) == f"cloister/audit/{key.key_id}"


@pytest.mark.parametrize("kind", ["note", "checkpoint", "proof", "advance", "state"])
def test_ten_thousand_damaged_inputs_are_malformed_or_refused(kind: str) -> None:
    face = Face(entries(9))
    note = face.note().dump()
    parse: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
        "note": (note, SignedNote.parse),
        "checkpoint": (note, lambda data: verify_log_checkpoint(data, KIT_LOG)),
        "proof": (LogProof(index=3, path=face.tree.inclusion(3), checkpoint=note).dump(), LogProof.parse),
        "advance": (face.advance(4), Advance.parse),
        "state": (
            WitnessState(name="w", log=KIT_LOG, size=9, root=face.tree.root(), checkpoint=note).dump(),
            WitnessState.parse,
        ),
    }
    data, reader = parse[kind]
    reader(data)
    for damaged in mutated(data, count=10_000 if kind == "note" else 3_000):
        try:
            reader(damaged)
        except (Malformed, Rejected) as exc:
            assert kind == "checkpoint" or isinstance(exc, Malformed)  # noqa: PT017 - which of the two


def test_damaged_text_of_a_checkpoint_is_malformed() -> None:
    text = Face(entries(9)).note().text
    for damaged in mutated(text.encode(), count=3_000):
        try:
            assert LogCheckpoint.parse(damaged.decode("utf-8", "replace")).dump()
        except Malformed:
            continue


def test_a_bundle_is_read_to_its_end_and_no_further() -> None:
    lines = [b"", b"a", b"b" * 8192]
    data = dump_bundle(lines)
    assert parse_bundle(data, width=3, cap=8192) == tuple(lines)
    for bad, width in (
        (data, 2),
        (data, 4),
        (data[:-1], 3),
        (data + b"\x00", 3),
        (data[:1], 1),
        (b"", 1),
        (b"\xff\xff", 1),
    ):
        with pytest.raises(Malformed):
            parse_bundle(bad, width=width, cap=8192)
    with pytest.raises(Malformed):
        parse_bundle(data, width=3, cap=8191)
    for damaged in mutated(data[:200], count=3_000):
        try:
            parse_bundle(damaged, width=3, cap=8192)
        except Malformed:
            continue


def test_the_tiles_of_the_specifications_own_example() -> None:
    """tlog-tiles: a tree of 70,000 has 273 full level 0 tiles, then 112, one full level 1 tile, then 17, and 1."""
    found = [(tile.level, tile.number, tile.width) for tile in tiles_of(70_000) if tile.level != ENTRIES]
    assert found == [
        *((0, number, 256) for number in range(273)), (0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1),
    ]  # fmt: skip
    assert [tile.path() for tile in tiles_of(256) if tile.level != ENTRIES] == ["tile/0/000", "tile/1/000.p/1"]
    assert list(tiles_of(0)) == []


def test_a_tile_of_every_level_holds_the_hashes_of_full_subtrees() -> None:
    tree = MerkleTree(number.to_bytes(32, "big") for number in range(66_000))
    assert tile_hashes(tree, Tile(level=0, number=3, width=2)) == tree.leaf(768) + tree.leaf(769)
    level_1 = tile_hashes(tree, Tile(level=1, number=0))
    assert level_1[:32] == tree.root_at(256)
    assert tile_hashes(tree, Tile(level=2, number=0, width=1)) == tree.root_at(65_536)
    for tile in (
        Tile(level=0, number=257, width=209),
        Tile(level=1, number=1, width=2),
        Tile(level=3, number=0, width=1),
    ):
        with pytest.raises(Rejected, match="not_found"):
            tile_hashes(tree, tile)
