"""A mirror proves its copy without a key, and is told of everything that is wrong with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cli_kit import Shell
from hostile_server import HostileServer
from sealed_kit import PUBLISHER, SEGMENT, MemorySource
from stores_kit import small_model, with_envelope, write_folder

from cloister.crypto.sign import SigningKey
from cloister.errors import Rejected, Unavailable
from cloister.sealed.directory import DirectorySource, strangers
from cloister.sealed.manifest import ENVELOPE_NAME, MANIFEST_NAME, SIGNATURE_NAME, blob_name, leaves_name, model_digest
from cloister.sealed.mirror import check_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from sealed_kit import Sealed

BIG = "weights/one.bin"  # six segments


@pytest.fixture
def model() -> Sealed:
    return small_model()


@pytest.fixture
def folder(model: Sealed, tmp_path: Path) -> Path:
    write_folder(tmp_path / "sealed", model)
    return tmp_path / "sealed"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def digest_of(model: Sealed) -> str:
    return model_digest(model.source.parts[MANIFEST_NAME])


def blob_of(model: Sealed) -> str:
    return blob_name(model.manifest.file(BIG).blob)


def flip(place: Path, *offsets: int) -> None:
    data = bytearray(place.read_bytes())
    for offset in offsets:
        data[offset] ^= 1
    place.write_bytes(data)


def refusal(folder: Path, model: Sealed) -> Rejected:
    with pytest.raises(Rejected) as caught:
        check_mirror(DirectorySource(folder), model.manifest, digest_of(model))
    return caught.value


def test_a_whole_copy_passes_and_every_byte_of_it_was_read(model: Sealed, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    checked = check_mirror(
        DirectorySource(folder), model.manifest, digest_of(model), progress=lambda done, all_: seen.append((done, all_))
    )
    bulk = sum((folder / blob_name(entry.blob)).stat().st_size for entry in model.manifest.files)
    assert (checked.segments, checked.bytes, checked.envelope) == (8, bulk, False)
    assert seen[-1] == (bulk, bulk)
    assert strangers(folder, model.manifest) == ()


def test_t21_a_mirror_names_every_segment_that_differs(model: Sealed, folder: Path) -> None:
    flip(folder / blob_of(model), 0, SEGMENT + 5, 2 * SEGMENT - 1, 4 * SEGMENT)
    told = refusal(folder, model)
    assert [(item.code, item.subject) for item in told.reasons] == [
        ("digest_mismatch", f"{blob_of(model)}: segments 0 to 1"),
        ("digest_mismatch", f"{blob_of(model)}: segment 4"),
    ]


@pytest.mark.parametrize("part", ["blob", "leaves"])
def test_t21_any_flipped_byte_of_any_part_is_found(model: Sealed, folder: Path, part: str) -> None:
    for entry in model.manifest.files:
        place = folder / (blob_name if part == "blob" else leaves_name)(entry.blob)
        whole = place.read_bytes()
        for offset in range(0, len(whole), max(1, len(whole) // 40)):
            flip(place, offset)
            assert refusal(folder, model).code == "digest_mismatch"
            place.write_bytes(whole)
    check_mirror(DirectorySource(folder), model.manifest, digest_of(model))


def test_all_that_is_wrong_is_named_at_once(model: Sealed, folder: Path) -> None:
    first, big, empty = model.manifest.files
    flip(folder / leaves_name(first.blob), 3)
    os.truncate(folder / blob_name(big.blob), SEGMENT)
    with (folder / blob_name(empty.blob)).open("ab") as file:
        file.write(b"more")
    found = {(item.code, item.subject.partition(":")[0]) for item in refusal(folder, model).reasons}
    assert found == {
        ("digest_mismatch", blob_name(first.blob)),
        ("truncated", blob_name(big.blob)),
        ("oversized", blob_name(empty.blob)),
    }


def test_a_part_that_cannot_be_read_is_no_yes_and_no_accusation(model: Sealed, folder: Path) -> None:
    for entry in model.manifest.files:
        (folder / blob_name(entry.blob)).unlink()
    with pytest.raises(Unavailable) as caught:
        check_mirror(DirectorySource(folder), model.manifest, digest_of(model))
    assert all(blob_name(entry.blob) in caught.value.message for entry in model.manifest.files)


def test_swapped_and_repeated_segments_are_found(model: Sealed, folder: Path) -> None:
    place = folder / blob_of(model)
    data = place.read_bytes()
    place.write_bytes(data[SEGMENT : 2 * SEGMENT] + data[:SEGMENT] + data[2 * SEGMENT :])
    assert [item.subject for item in refusal(folder, model).reasons] == [f"{blob_of(model)}: segments 0 to 1"]
    place.write_bytes(data[:SEGMENT] + data[:SEGMENT] + data[2 * SEGMENT :])
    assert [item.subject for item in refusal(folder, model).reasons] == [f"{blob_of(model)}: segment 1"]


@pytest.mark.parametrize("envelope", [b"", b"{}", b"[" * 50])
def test_an_envelope_of_another_model_or_out_of_form_is_a_finding(model: Sealed, folder: Path, envelope: bytes) -> None:
    (folder / ENVELOPE_NAME).write_bytes(envelope)
    assert refusal(folder, model).code == "wrong_model"
    other = with_envelope(model).source.parts[ENVELOPE_NAME]
    (folder / ENVELOPE_NAME).write_bytes(other)
    assert check_mirror(DirectorySource(folder), model.manifest, digest_of(model)).envelope
    with pytest.raises(Rejected):
        check_mirror(DirectorySource(folder), model.manifest, "ab" * 32)


def test_what_is_no_part_of_a_model_is_found_wherever_it_lies(model: Sealed, folder: Path) -> None:
    (folder / "model.pkl").write_bytes(b"")
    (folder / "blobs" / ("0" * 32)).write_bytes(b"")
    (folder / "blobs" / "deep").mkdir()
    blob = folder / blob_of(model)
    blob.rename(folder / "elsewhere")
    blob.symlink_to(folder / "elsewhere")
    want = sorted(["model.pkl", f"blobs/{'0' * 32}", "blobs/deep", "elsewhere", blob_of(model)])
    assert list(strangers(folder, model.manifest)) == want


def test_a_source_that_gives_less_than_it_says_is_found(model: Sealed) -> None:
    class Short(MemorySource):
        def read_into(self, name: str, offset: int, out: memoryview) -> int:
            data = self.read(name, offset, max(0, len(out) - 1))
            out[: len(data)] = data
            return len(data)

    with pytest.raises(Rejected) as caught:
        check_mirror(Short(model.source.parts), model.manifest, digest_of(model))
    assert {item.code for item in caught.value.reasons} == {"digest_mismatch"}


def test_as_it_is_typed(shell: Shell, model: Sealed, folder: Path) -> None:
    key = PUBLISHER.verify_key.dump()
    told = shell.ok("model", "verify", "sealed", "--publisher", key, "--digest", digest_of(model))
    assert (told["digest"], told["files"], told["publisher_proven"]) == (digest_of(model), 3, True)
    said = shell("model", "verify", "sealed")
    assert said.code == 0
    assert "who published it was not proven" in said.err
    assert shell.ok("model", "verify", "sealed")["publisher_proven"] is False
    for words, code in (
        (("--publisher", SigningKey(bytes(32)).verify_key.dump()), 4),
        (("--digest", "0" * 64), 4),
        (("--digest", "abc"), 2),
        (("--publisher", "no key"), 2),
        (("--token-file", "token"), 2),
    ):
        assert shell("model", "verify", "sealed", *words).code == code, words
    (folder / "notes.txt").write_text("")
    said = shell("model", "verify", "sealed", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "not_of_the_package")
    (folder / "notes.txt").unlink()
    flip(folder / blob_of(model), 7)
    said = shell("model", "verify", "sealed", "--json")
    assert (said.code, said.json["error"]["reasons"][0]["subject"]) == (4, f"{blob_of(model)}: segment 0")
    (folder / blob_of(model)).unlink()
    assert shell("model", "verify", "sealed").code == 5
    (folder / SIGNATURE_NAME).write_bytes(b"{}")
    assert shell("model", "verify", "sealed").code == 3


def test_a_mirror_on_the_web_is_verified_from_afar(shell: Shell, model: Sealed) -> None:
    parts = dict(model.source.parts)
    with HostileServer(parts) as server:
        assert shell.ok("model", "verify", server.url, "--digest", digest_of(model))["segments"] == 8
    data = bytearray(parts[blob_of(model)])
    data[3 * SEGMENT] ^= 1
    with HostileServer({**parts, blob_of(model): bytes(data)}) as server:
        said = shell("model", "verify", server.url, "--json")
    assert (said.code, said.json["error"]["reasons"][0]["subject"]) == (4, f"{blob_of(model)}: segment 3")
