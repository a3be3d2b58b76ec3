"""A new version takes over what is unchanged, and only what is proven to be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from sealed_kit import CREATED, DEK, PUBLISHER, SEGMENT, noise

from cloister.errors import Rejected, Unavailable, UsageError
from cloister.sealed.directory import DirectorySource, read_package, strangers
from cloister.sealed.leaves import LeafHash
from cloister.sealed.manifest import Manifest, SealedFile, blob_name, leaves_name
from cloister.sealed.open import open_model, verify_manifest
from cloister.sealed.package_folder import DirectorySink, PackageFolder
from cloister.sealed.reuse import OldPackage
from cloister.sealed.seal import SealedModel, seal_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NEW_DEK = bytes(range(7, 39))
FILES = {"config.json": b"{}", "one.bin": noise(5 * SEGMENT), "two.bin": noise(3 * SEGMENT + 1), "empty.bin": b""}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def make(
    source: Path, out: Path, dek: bytes, old: OldPackage | None = None, leaf_hash: LeafHash = LeafHash.SHA256
) -> SealedModel:
    return seal_model(
        source, out, name="model", dek=dek, signer=PUBLISHER, card={}, created=CREATED, segment_bytes=SEGMENT, old=old,
        leaf_hash=leaf_hash,
    )  # fmt: skip


def opened(package: Path, dek: bytes = DEK) -> OldPackage:
    parts = read_package(package)
    verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
    return OldPackage(root=package, source=DirectorySource(package), verified=verified, dek=dek)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """Return the sealed older version."""
    make(write(tmp_path / "v1", FILES), tmp_path / "old", DEK)
    return tmp_path / "old"


def after(tmp_path: Path, before: Path, **changes: bytes | None) -> tuple[Manifest, OldPackage]:
    """Seal a newer version with changed files, prove that it opens to its source, return its manifest."""
    files = {**FILES, **{name.replace("_", "."): data for name, data in changes.items()}}
    kept = {name: data for name, data in files.items() if data is not None}
    old = opened(before)
    sealed = make(write(tmp_path / "v2", kept), tmp_path / "new", NEW_DEK, old)
    fresh = opened(tmp_path / "new", NEW_DEK)
    with open_model(fresh.source, fresh.verified, NEW_DEK) as model:
        assert {name: bytes(model.view(name)) for name in model.files} == kept
    with pytest.raises(Rejected) as caught:
        open_model(fresh.source, fresh.verified, DEK)
    assert caught.value.code == "wrong_key"
    return sealed.manifest, old


def blobs(manifest: Manifest) -> dict[str, str]:
    return {entry.path: entry.blob for entry in manifest.files}


def test_unchanged_files_keep_their_blobs_and_the_changed_one_gets_a_new_one(tmp_path: Path, before: Path) -> None:
    changed = bytearray(FILES["one.bin"])
    changed[2 * SEGMENT] ^= 1
    manifest, old = after(tmp_path, before, one_bin=bytes(changed))
    was, now = blobs(old.verified.manifest), blobs(manifest)
    assert {path for path in was if was[path] == now[path]} == {"config.json", "two.bin", "empty.bin"}
    assert sum(old.taken.values()) == len(FILES["config.json"]) + len(FILES["two.bin"])
    for path in ("two.bin", "config.json"):
        for part in (blob_name(now[path]), leaves_name(now[path])):
            assert (before / part).stat().st_ino == (tmp_path / "new" / part).stat().st_ino
    keys = {entry.wrapped_key for entry in (*manifest.files, *old.verified.manifest.files)}
    assert len(keys) == 2 * len(FILES)  # each is wrapped anew


def test_a_renamed_shard_is_found_by_its_content(tmp_path: Path, before: Path) -> None:
    manifest, old = after(tmp_path, before, two_bin=None, renamed_bin=FILES["two.bin"])
    assert blobs(manifest)["renamed.bin"] == blobs(old.verified.manifest)["two.bin"]


def test_two_files_of_one_content_do_not_share_a_blob(tmp_path: Path, before: Path) -> None:
    manifest, old = after(tmp_path, before, copy_bin=FILES["two.bin"])
    found = blobs(manifest)
    assert len(set(found.values())) == len(found)
    assert len(old.taken) == len(FILES)


def test_the_same_size_and_time_prove_nothing(tmp_path: Path, before: Path) -> None:
    other = FILES["one.bin"][:-1] + bytes((FILES["one.bin"][-1] ^ 1,))
    write(tmp_path / "v2", {**FILES, "one.bin": other})
    status = (tmp_path / "v1" / "one.bin").stat()
    os.utime(tmp_path / "v2" / "one.bin", ns=(status.st_atime_ns, status.st_mtime_ns))
    old = opened(before)
    sealed = make(tmp_path / "v2", tmp_path / "new", NEW_DEK, old)
    assert blobs(sealed.manifest)["one.bin"] != blobs(old.verified.manifest)["one.bin"]


def test_another_segment_size_is_sealed_anew(tmp_path: Path, before: Path) -> None:
    old = opened(before)
    sealed = seal_model(
        tmp_path / "v1", tmp_path / "new", name="model", dek=NEW_DEK, signer=PUBLISHER, card={}, created=CREATED,
        segment_bytes=2 * SEGMENT, old=old,
    )  # fmt: skip
    assert not old.taken
    assert set(blobs(sealed.manifest).values()).isdisjoint(blobs(old.verified.manifest).values())


def test_leaves_of_sha256_do_for_either_hash_and_those_of_blake3_for_no_site_that_wants_sha256(tmp_path: Path) -> None:
    kinds, old = {}, None
    for number, asked in enumerate((LeafHash.SHA256, LeafHash.BLAKE3, LeafHash.SHA256)):
        source = write(tmp_path / f"v{number}", {**FILES, "new.bin": noise(2 * SEGMENT, seed=50 + number)})
        sealed = make(source, tmp_path / f"s{number}", DEK, old, asked)
        kinds[number] = {entry.path: entry.leaf_hash.value for entry in sealed.manifest.files}
        old = opened(tmp_path / f"s{number}")
    assert set(kinds[0].values()) == {"sha256"}
    assert kinds[1] == {**kinds[0], "new.bin": "blake3"}
    assert set(kinds[2].values()) == {"sha256"}


def test_a_wrong_key_for_the_old_version_is_refused_before_anything_is_read(before: Path) -> None:
    with pytest.raises(Rejected) as caught:
        opened(before, NEW_DEK)
    assert caught.value.code == "wrong_key"


def test_t21_a_damaged_old_package_is_taken_over_nowhere(tmp_path: Path, before: Path) -> None:
    old = opened(before)
    place = before / blob_name(old.verified.manifest.file("one.bin").blob)
    data = bytearray(place.read_bytes())
    data[SEGMENT + 9] ^= 1
    place.write_bytes(data)
    with pytest.raises(Rejected) as caught:
        make(tmp_path / "v1", tmp_path / "new", NEW_DEK, old)
    assert caught.value.code == "digest_mismatch"
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "v1"]


def meanwhile(patch: pytest.MonkeyPatch, moment: str, work: Callable[[Path], None]) -> None:
    """Let ``work`` happen to each part of the old package, just before or after it is adopted."""
    adopt = PackageFolder.adopt

    def odd(self: PackageFolder, name: str, place: Path) -> None:
        if moment == "before":
            work(place)
        adopt(self, name, place)
        if moment == "after":
            work(place)

    patch.setattr(PackageFolder, "adopt", odd)


def exchange(place: Path) -> None:
    """Put another file of the same size and times in the place of one."""
    status, data = place.stat(), bytearray(place.read_bytes())
    data[-1:] = bytes(byte ^ 1 for byte in data[-1:])
    other = place.with_name("other")
    other.write_bytes(data)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(place)


def scribble(place: Path) -> None:
    data = place.read_bytes()
    with place.open("r+b") as file:
        file.seek(max(0, len(data) - 1))
        file.write(b"x" if data[-1:] != b"x" else b"y")


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.parametrize(("moment", "work"), [("before", exchange), ("before", scribble), ("after", scribble)])
def test_t21_a_part_that_changes_while_it_is_taken_over_is_noticed_before_the_package_is_there(
    tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch, moment: str, work: Callable[[Path], None],
    *, hard_links: bool,
) -> None:  # fmt: skip
    old = opened(before)
    if not hard_links:
        monkeypatch.setattr(os, "link", no_links)
    meanwhile(monkeypatch, moment, work)
    if moment == "after" and not hard_links:
        make(tmp_path / "v1", tmp_path / "new", NEW_DEK, old)  # a copy of our own is whole whatever becomes of the old
        fresh = opened(tmp_path / "new", NEW_DEK)
        with open_model(fresh.source, fresh.verified, NEW_DEK) as model:
            assert {name: bytes(model.view(name)) for name in model.files} == FILES
        return
    with pytest.raises((Rejected, Unavailable, UsageError)):
        make(tmp_path / "v1", tmp_path / "new", NEW_DEK, old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "v1"]


def test_a_part_that_is_written_to_after_the_proof_is_noticed(
    tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, rewrap = opened(before), OldPackage.rewrap
    for place in (before / "blobs").iterdir():
        os.utime(place, (1, 1))  # clocks of files tick slowly

    def late(self: OldPackage, entry: SealedFile, *rest: Any) -> SealedFile:
        if entry.path == "one.bin":
            scribble(before / blob_name(entry.blob))
        return rewrap(self, entry, *rest)

    monkeypatch.setattr(OldPackage, "rewrap", late)
    with pytest.raises(UsageError, match="changed while"):
        make(tmp_path / "v1", tmp_path / "new", NEW_DEK, old)
    assert not (tmp_path / "new").exists()


def test_a_file_that_differs_behind_its_beginning_is_sealed_anew_and_leaves_no_part(tmp_path: Path) -> None:
    long = noise(1 << 20) + b"tail of the first"
    make(write(tmp_path / "v1", {"long.bin": long}), tmp_path / "old", DEK)
    old = opened(tmp_path / "old")
    write(tmp_path / "v2", {"long.bin": long[:-5] + b"other"})
    sealed = make(tmp_path / "v2", tmp_path / "new", NEW_DEK, old)
    assert not old.taken
    assert strangers(tmp_path / "new", sealed.manifest) == ()
    assert blobs(sealed.manifest) != blobs(old.verified.manifest)


def no_links(*_args: object, **_options: object) -> None:
    raise OSError(18, "Invalid cross-device link")


def test_without_hard_links_parts_are_copied(tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    manifest, _ = after(tmp_path, before)
    part = blob_name(manifest.file("one.bin").blob)
    assert (before / part).read_bytes() == (tmp_path / "new" / part).read_bytes()
    assert (before / part).stat().st_ino != (tmp_path / "new" / part).stat().st_ino


def test_a_link_in_an_old_package_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"of somebody else")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with DirectorySink(tmp_path / "out") as sink, pytest.raises(Unavailable):
        sink.parts.adopt("blobs/" + "0" * 32, tmp_path / "link")


def test_the_key_of_an_old_package_is_never_printed(before: Path) -> None:
    assert str(list(DEK))[1:-1] not in repr(opened(before))
    assert repr(DEK)[2:12] not in repr(opened(before))
