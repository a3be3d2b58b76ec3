"""``cloister model seal --resume``: an interrupted sealing goes on, and nothing it left is believed without proof."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from resume_kit import FILES, Told, Vault, blob, interrupt, older, opened, seal, state, write
from sealed_kit import PLAIN, SEGMENT, noise

from cloister.crypto.stream import Encryptor
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.sealed.leaves import LeafHash
from cloister.sealed.unfinished import NO_STAMP, UNFINISHED_NAME

if TYPE_CHECKING:
    from pathlib import Path

TOTAL = sum(map(len, FILES.values()))
HALF = PLAIN * 8  # all of a.bin, and the first segments of b/c.bin


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write(tmp_path / "plain")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "sealed"


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture(autouse=True)
def _one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seal in order, so that what was done when it was interrupted is known."""
    monkeypatch.setattr("cloister.sealed.seal.lane_count", lambda _: 1)


def segments(data: bytes) -> list[bytes]:
    return [data[at : at + SEGMENT] for at in range(0, len(data), SEGMENT)]


def nonces(data: bytes) -> list[bytes]:
    return [segment[4:16] for segment in segments(data)]


def test_what_was_sealed_is_found_and_not_sealed_again(plain: Path, out: Path, vault: Vault) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    before = {name: blob(place, name).read_bytes() for name in ("a.bin", "b/c.bin")}
    ids = {name: blob(place, name).name for name in before}
    told = Told()
    seal(plain, out, vault=vault, told=told)
    assert opened(out, vault) == FILES
    assert not place.exists()
    ((found, total),) = told.found
    assert (found, total) == (len(FILES["a.bin"]) + PLAIN * 2, TOTAL)
    after = {name: (out / "blobs" / ids[name]).read_bytes() for name in before}
    assert after["a.bin"] == before["a.bin"]
    kept, redone = segments(before["b/c.bin"])[:2], nonces(after["b/c.bin"])[2:]
    assert segments(after["b/c.bin"])[:2] == kept
    assert len(set(redone) | set(nonces(b"".join(kept)))) == 4
    assert told.done[-1] == TOTAL
    assert len(vault.keys) == 1, "the model key was drawn once"


def test_found_again_after_many_interruptions(plain: Path, out: Path, vault: Vault) -> None:
    for at in range(1, TOTAL, PLAIN * 2):
        told = Told(stop_at=None)
        interrupt(plain, out, vault=vault, at=at)
    told = Told()
    seal(plain, out, vault=vault, told=told)
    assert opened(out, vault) == FILES
    assert told.found[0][0] > TOTAL - 3 * PLAIN


def test_without_an_earlier_run_resume_is_a_plain_sealing(plain: Path, out: Path, vault: Vault) -> None:
    told = Told()
    seal(plain, out, vault=vault, told=told)
    assert opened(out, vault) == FILES
    assert (told.found, told.kept) == ([], [])
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_what_is_left_is_neither_overwritten_nor_gone_on_with_unasked(plain: Path, out: Path, vault: Vault) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="interrupted") as caught:
        seal(plain, out, vault=vault, resume=False)
    assert "--resume" in str(caught.value.hint)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["torn", "zeros", "cut", "swapped", "of another file"])
def test_a_segment_that_is_not_whole_is_sealed_again_with_another_nonce(
    plain: Path, out: Path, vault: Vault, damage: str
) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    file = blob(place, "a.bin")
    data = bytearray(file.read_bytes())
    first, second = slice(SEGMENT, 2 * SEGMENT), slice(2 * SEGMENT, 3 * SEGMENT)
    was, lost = bytes(data), {1}
    match damage:
        case "torn":
            data[SEGMENT + 512 : 2 * SEGMENT] = bytes(SEGMENT - 512)
        case "zeros":
            data[first] = bytes(SEGMENT)
        case "cut":
            del data[SEGMENT:]
            lost = {1, 2, 3, 4, 5, 6}
        case "swapped":
            data[first], data[second] = data[second], data[first]
            lost = {1, 2}
        case _:
            data[first] = blob(place, "b/c.bin").read_bytes()[:SEGMENT]
    file.write_bytes(data)
    told = Told()
    seal(plain, out, vault=vault, told=told)
    assert opened(out, vault) == FILES
    now = (out / "blobs" / file.name).read_bytes()
    changed = {index for index, (old, new) in enumerate(zip(segments(was), segments(now), strict=True)) if old != new}
    assert changed == lost
    assert all(nonces(was)[index] != nonces(now)[index] for index in lost)
    assert told.found[0][0] < HALF


def test_what_was_begun_with_leaves_of_another_hash_is_sealed_anew(plain: Path, out: Path, vault: Vault) -> None:
    interrupt(plain, out, vault=vault, at=PLAIN * 6, leaf_hash=LeafHash.BLAKE3)
    told = Told()
    sealed = seal(plain, out, vault=vault, told=told, leaf_hash=LeafHash.SHA256)
    assert told.found[0][0] == 0
    assert {entry.leaf_hash for entry in sealed.manifest.files} == {LeafHash.SHA256}
    interrupt(plain, out.with_name("other"), vault=vault, at=PLAIN * 6, leaf_hash=LeafHash.BLAKE3)
    told = Told()
    sealed = seal(plain, out.with_name("other"), vault=vault, told=told, leaf_hash=LeafHash.BLAKE3)
    assert told.found[0][0] > 0
    assert {entry.leaf_hash for entry in sealed.manifest.files} == {LeafHash.BLAKE3}
    assert opened(out.with_name("other"), vault) == FILES


def test_a_source_that_changed_is_sealed_anew_under_a_new_key(plain: Path, out: Path, vault: Vault) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    was, other = blob(place, "a.bin").name, blob(place, "b/c.bin").name
    status = (plain / "a.bin").stat()
    changed = bytearray(FILES["a.bin"])
    changed[PLAIN * 3] ^= 1
    (plain / "a.bin").write_bytes(changed)
    os.utime(plain / "a.bin", ns=(status.st_atime_ns, status.st_mtime_ns))  # times prove nothing
    told = Told()
    sealed = seal(plain, out, vault=vault, told=told)
    assert opened(out, vault) == {**FILES, "a.bin": bytes(changed)}
    assert told.found == [(PLAIN * 2, TOTAL)]
    assert sealed.manifest.file("a.bin").blob != was
    assert sealed.manifest.file("b/c.bin").blob == other


def test_a_source_that_changed_where_nothing_was_sealed_yet_is_gone_on_with(
    plain: Path, out: Path, vault: Vault
) -> None:
    interrupt(plain, out, vault=vault, at=HALF)
    changed = FILES["b/c.bin"][: PLAIN * 3] + bytes(PLAIN)
    (plain / "b" / "c.bin").write_bytes(changed)
    told = Told()
    seal(plain, out, vault=vault, told=told)
    assert opened(out, vault) == {**FILES, "b/c.bin": changed}
    assert told.found[0][0] == len(FILES["a.bin"]) + PLAIN * 2


def test_times_that_were_doubted_once_are_doubted_from_then_on(plain: Path, out: Path, vault: Vault) -> None:
    """Content A is sealed, then B, then A comes back with its times: what was sealed of B must not pass for A's."""
    place = interrupt(plain, out, vault=vault, at=PLAIN * 2)
    first = {item.entry.path: item.stamp for item in state(place).files}
    assert NO_STAMP not in first.values()
    (plain / "a.bin").touch()
    interrupt(plain, out, vault=vault, at=PLAIN * 4)
    second = {item.entry.path: item.stamp for item in state(place).files}
    assert second == {**first, "a.bin": NO_STAMP}


def test_a_source_changed_just_now_is_proven_by_its_bytes(plain: Path, out: Path, vault: Vault) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    place = interrupt(plain, out, vault=vault, at=HALF, created=now)
    assert {item.stamp for item in state(place).files} == {NO_STAMP}
    told = Told()
    seal(plain, out, vault=vault, told=told, created=now)
    assert opened(out, vault) == FILES
    assert told.found[0][0] > HALF - PLAIN


@pytest.mark.parametrize("change", ["longer", "removed", "added", "renamed"])
def test_files_that_came_and_went_meanwhile(plain: Path, out: Path, vault: Vault, change: str) -> None:
    interrupt(plain, out, vault=vault, at=HALF)
    files = dict(FILES)
    match change:
        case "longer":
            files["a.bin"] += b"more"
        case "removed":
            del files["a.bin"]
        case "added":
            files["aa.bin"] = noise(PLAIN * 2, seed=9)
        case _:
            files["z.bin"] = files.pop("a.bin")
    shutil.rmtree(plain)
    seal(write(plain, files), out, vault=vault)
    assert opened(out, vault) == files


def test_name_and_card_may_be_others_when_it_goes_on(plain: Path, out: Path, vault: Vault) -> None:
    interrupt(plain, out, vault=vault, at=HALF)
    sealed = seal(plain, out, vault=vault, name="other", card={"task": "x"})
    assert (sealed.manifest.name, sealed.manifest.card) == ("other", {"task": "x"})
    assert opened(out, vault) == FILES


@pytest.mark.parametrize("at", [1, PLAIN * 7, TOTAL - PLAIN])
def test_going_on_with_reuse_never_writes_to_the_older_package(
    plain: Path, out: Path, vault: Vault, tmp_path: Path, at: int
) -> None:
    seal(plain, tmp_path / "v1", vault=vault)
    old = {path: path.read_bytes() for path in (tmp_path / "v1").rglob("*") if path.is_file()}
    files = {**FILES, "b/c.bin": noise(PLAIN * 4, seed=3)}
    write(plain, files)
    interrupt(plain, out, vault=vault, at=at, old=older(tmp_path / "v1", vault))
    for again in (older(tmp_path / "v1", vault), None):
        seal(plain, out, vault=vault, old=again)
        assert opened(out, vault) == files
        shared = {path.name for path in (out / "blobs").iterdir()} & {path.name for path in old}
        assert bool(shared) is (again is not None)
        shutil.rmtree(out)
        interrupt(plain, out, vault=vault, at=at, old=older(tmp_path / "v1", vault))
    assert {path: path.read_bytes() for path in (tmp_path / "v1").rglob("*") if path.is_file()} == old


def test_t19_no_key_lies_in_clear_in_what_is_left(plain: Path, out: Path, vault: Vault) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    (dek,) = vault.keys
    keys = [dek, *(bytes(item.unwrap(dek).key) for item in state(place).files)]
    assert len(set(keys)) == len(FILES) + 1
    for path in place.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [key for key in keys if key in data or key.hex().encode() in data]
            assert noise(PLAIN)[:32] not in data
    assert (place / UNFINISHED_NAME).stat().st_mode & 0o777 == 0o600
    file = state(place).files[0].unwrap(dek)
    assert str(list(file.key))[1:-1] not in repr(file)


def test_another_vault_is_told_and_changes_nothing(plain: Path, out: Path, vault: Vault) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    with pytest.raises(UsageError, match="vault:test"):
        seal(plain, out, vault=Vault("vault:other"))
    with pytest.raises(Rejected) as caught:
        seal(plain, out, vault=Vault(key=bytes(32)))
    assert caught.value.code == "wrong_key"
    assert place.is_dir()
    seal(plain, out, vault=vault)
    assert opened(out, vault) == FILES


@pytest.mark.parametrize("member", ["stamp", "header", "blob", "size", "path", "wrapped_key"])
def test_a_state_that_somebody_edited_opens_no_key(plain: Path, out: Path, vault: Vault, member: str) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    value = json.loads((place / UNFINISHED_NAME).read_text())
    first, second = value["files"][:2]
    first[member], second[member] = second[member], first[member]
    if member == "path":
        value["files"][:2] = [second, first]
    (place / UNFINISHED_NAME).write_text(json.dumps(value, separators=(",", ":"), sort_keys=True))
    with pytest.raises(Rejected) as caught:
        seal(plain, out, vault=vault)
    assert caught.value.code == "wrong_key"
    assert not out.exists()


def test_a_state_that_is_none_is_malformed_and_stays(plain: Path, out: Path, vault: Vault) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    for data in (b"", b"{}", b" " * (2 << 20)):
        (place / UNFINISHED_NAME).write_bytes(data)
        with pytest.raises(Malformed):
            seal(plain, out, vault=vault)
        assert (place / UNFINISHED_NAME).read_bytes() == data


def test_keys_of_a_package_that_was_moved_to_its_name_never_serve_again(plain: Path, out: Path, vault: Vault) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    shutil.copytree(place, out.parent / "copy")
    seal(plain, out, vault=vault)
    out.rename(out.parent / "elsewhere")
    (out.parent / "copy").rename(place)  # as a crash leaves it between the move and the removal
    shutil.rmtree(place / "package")
    seal(plain, out, vault=vault, resume=False)
    assert opened(out, vault) == FILES
    assert vault.keys[0] != vault.keys[1]


def test_two_processes_never_seal_to_one_place(plain: Path, out: Path, vault: Vault) -> None:
    place = interrupt(plain, out, vault=vault, at=HALF)
    held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process"):
            seal(plain, out, vault=vault)
    finally:
        os.close(held)
    assert place.is_dir()
    seal(plain, out, vault=vault)
    assert opened(out, vault) == FILES


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_folder_that_somebody_put_there_is_refused(plain: Path, out: Path, vault: Vault, kind: str) -> None:
    place, target = out.parent / ".sealed.sealing", out.parent / "target"
    target.mkdir(mode=0o700)
    (target / "theirs").touch()
    match kind:
        case "open to others":
            target.rename(place)
            place.chmod(0o777)
        case "a link":
            place.symlink_to(target)
        case _:
            place.touch()
    with pytest.raises(UsageError if kind == "open to others" else Unavailable):
        seal(plain, out, vault=vault)
    assert place.exists()
    assert kind == "a file" or (place / "theirs").exists()
    assert not out.exists()


def test_an_error_before_anything_is_sealed_leaves_nothing(plain: Path, out: Path, vault: Vault) -> None:
    told = Told()
    with pytest.raises(UsageError):
        seal(plain, out, vault=vault, told=told, name="Not A Name")
    assert told.kept == []
    assert sorted(path.name for path in out.parent.iterdir()) == ["plain"]


def test_t22_no_nonce_comes_twice_however_often_a_message_is_gone_on_with() -> None:
    key, aad = bytes(range(32)), b"blob"
    first = Encryptor(key, aad=aad, segment_bytes=SEGMENT)
    seen = {first.segment(0, bytes(PLAIN), final=False)[4:16]}
    for _ in range(100):
        again = Encryptor(key, aad=aad, segment_bytes=SEGMENT, header=first.header)
        assert again.header == first.header
        seen.add(again.segment(0, bytes(PLAIN), final=False)[4:16])
    assert len(seen) == 101


def test_a_message_is_gone_on_with_by_its_own_key_only() -> None:
    header = Encryptor(bytes(32), aad=b"blob", segment_bytes=SEGMENT).header
    for key, aad in ((bytes(range(32)), b"blob"), (bytes(32), b"another")):
        with pytest.raises(Rejected) as caught:
            Encryptor(key, aad=aad, segment_bytes=SEGMENT, header=header)
        assert caught.value.code == "wrong_key"
    with pytest.raises(Malformed):
        Encryptor(bytes(32), aad=b"blob", segment_bytes=2 * SEGMENT, header=header)


def test_a_generator_that_repeats_what_the_earlier_run_drew_ends_it(plain: Path, out: Path, vault: Vault) -> None:
    drawn: list[bytes] = []

    def remember(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    interrupt(plain, out, vault=vault, at=1, random=remember)
    again = iter(value for value in drawn if len(value) == 16)
    (plain / "a.bin").write_bytes(b"changed")
    with pytest.raises(Unavailable, match="repeats"):
        seal(plain, out, vault=vault, random=lambda size: next(again) if size == 16 else os.urandom(size))


def test_lanes_end_when_a_segment_of_the_source_is_another(
    plain: Path, out: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several lanes too: none of them goes on with a file that is to be sealed anew."""
    interrupt(plain, out, vault=vault, at=HALF)
    monkeypatch.setattr("cloister.sealed.seal.lane_count", lambda _: 4)
    (plain / "a.bin").write_bytes(bytes(len(FILES["a.bin"])))
    seal(plain, out, vault=vault)
    assert opened(out, vault) == {**FILES, "a.bin": bytes(len(FILES["a.bin"]))}
