"""Sealing real files: whole or not at all, plain files only, and what a full disk leaves behind."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sealed_kit import CREATED, DEK, PLAIN, PUBLISHER, SEGMENT, noise

from cloister.errors import Malformed, Unavailable, UsageError
from cloister.sealed.directory import DirectorySource, read_envelope, read_package, write_envelope
from cloister.sealed.envelope import Envelope, Recipient
from cloister.sealed.manifest import ENVELOPE_NAME, MANIFEST_NAME, MAX_FILE_BYTES, MAX_FILES, blob_name, leaves_name
from cloister.sealed.open import OpenedModel, RandomAccess, open_model, verify_manifest
from cloister.sealed.package_folder import DirectorySink
from cloister.sealed.seal import SealedModel, seal_model
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = {"config.json": b"{}", "weights/one.bin": noise(PLAIN * 3 + 1), "weights/deep/er/two.bin": b""}


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def seal(
    source: Path,
    out: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    random: Callable[[int], bytes] = os.urandom,
    name: str = "digits",
    segment_bytes: int = SEGMENT,
) -> SealedModel:
    return seal_model(
        source,
        out,
        name=name,
        dek=DEK,
        signer=PUBLISHER,
        card={"task": "digits"},
        created=CREATED,
        progress=progress,
        random=random,
        segment_bytes=segment_bytes,
    )


def open_folder(folder: Path) -> OpenedModel:
    parts = read_package(folder)
    verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
    return open_model(DirectorySource(folder), verified, DEK)


def test_a_folder_comes_back_whole(folder: Path, tmp_path: Path) -> None:
    sealed = seal(folder, tmp_path / "sealed")
    with open_folder(tmp_path / "sealed") as opened:
        assert {path: bytes(opened.view(path)) for path in opened.files} == FILES
        assert opened.digest == sealed.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "sealed"]


def test_one_file_is_a_model_too(folder: Path, tmp_path: Path) -> None:
    sealed = seal(folder / "config.json", tmp_path / "sealed", segment_bytes=1 << 20)
    assert [entry.path for entry in sealed.manifest.files] == ["config.json"]
    with open_folder(tmp_path / "sealed") as opened:
        assert opened.read("config.json", 0, 2) == b"{}"


def test_nothing_of_the_model_is_readable_in_the_package(tmp_path: Path) -> None:
    canary = b"CANARY-of-the-weights"
    (tmp_path / "model.bin").write_bytes(canary * 1000)
    seal(tmp_path / "model.bin", tmp_path / "sealed")
    for path in (tmp_path / "sealed").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert canary not in data
            assert DEK not in data


def test_header_and_body_make_a_floe_file(folder: Path, tmp_path: Path) -> None:
    sealed = seal(folder, tmp_path / "sealed")
    entry = sealed.manifest.file("weights/one.bin")
    body = (tmp_path / "sealed" / blob_name(entry.blob)).read_bytes()
    assert len(entry.header + body) == 74 + len(FILES["weights/one.bin"]) + 4 * 32
    assert [body[at : at + 4] for at in range(0, len(body), SEGMENT)] == [b"\xff" * 4] * 3 + [b"\0\0\0\x21"]


def test_t22_sealing_twice_shares_nothing(folder: Path, tmp_path: Path) -> None:
    one, two = seal(folder, tmp_path / "one"), seal(folder, tmp_path / "two")
    for first, second in zip(one.manifest.files, two.manifest.files, strict=True):
        assert first.blob != second.blob
        assert first.header[10:42] != second.header[10:42]
        assert first.wrapped_key != second.wrapped_key
        assert first.leaf_root != second.leaf_root


@pytest.mark.parametrize("random", [bytes, lambda size: DEK[:size], lambda size: os.urandom(size)[:-1]])
def test_t22_sealing_stops_when_randomness_repeats(
    folder: Path, tmp_path: Path, random: Callable[[int], bytes]
) -> None:
    with pytest.raises(Unavailable, match="repeats"):
        seal(folder, tmp_path / "sealed", random=random)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# --- list 7.2 number 33: links, devices, names


def _link(place: Path) -> None:
    place.symlink_to("/etc/passwd")


def _folder_link(place: Path) -> None:
    place.symlink_to("/etc", target_is_directory=True)


def _dangling_link(place: Path) -> None:
    place.symlink_to("nowhere")


def _pipe(place: Path) -> None:
    os.mkfifo(place)


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))


@pytest.mark.parametrize("make", [_link, _folder_link, _dangling_link, _pipe, _socket])
@pytest.mark.parametrize("where", ["", "weights/"])
def test_links_pipes_and_sockets_in_the_source_are_refused(
    folder: Path, tmp_path: Path, make: Callable[[Path], None], where: str
) -> None:
    make(folder / f"{where}odd")
    with pytest.raises(UsageError, match="only plain files"):
        seal(folder, tmp_path / "sealed")
    with pytest.raises(UsageError, match="only plain files"):
        seal(folder / f"{where}odd", tmp_path / "sealed")
    assert not (tmp_path / "sealed").exists()


def test_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only plain files"):
        seal(Path("/dev/zero"), tmp_path / "sealed")


@pytest.mark.parametrize(
    "name",
    ["e\u0301.bin", "tab\tbed", "line\nbreak", "\u202egnp.exe", "back\\slash", b"\xff\xfe", "x" * 250 + "/y" * 3],
)
def test_names_no_manifest_may_hold_are_refused(tmp_path: Path, name: str | bytes) -> None:
    folder = tmp_path / "model"
    place = os.path.join(os.fsencode(folder), name if isinstance(name, bytes) else name.encode())  # noqa: PTH118
    os.makedirs(os.path.dirname(place))  # noqa: PTH103, PTH120 - the name is no text
    os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
    with pytest.raises(UsageError) as caught:
        seal(folder, tmp_path / "sealed")
    assert caught.value.message.isprintable()
    assert not (tmp_path / "sealed").exists()


def test_names_that_meet_on_other_file_systems_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README").write_bytes(b"1")
    (folder / "readme").write_bytes(b"2")
    with pytest.raises(UsageError, match="same"):
        seal(folder, tmp_path / "sealed")


def test_empty_and_overfull_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(UsageError, match="no files"):
        seal(folder, tmp_path / "sealed")
    for index in range(MAX_FILES + 1):
        (folder / str(index)).touch()
    with pytest.raises(UsageError, match="more than allowed"):
        seal(folder, tmp_path / "sealed")
    with pytest.raises(UsageError, match="cannot be read"):
        seal(tmp_path / "nothing", tmp_path / "sealed")


def test_the_largest_number_of_files_fits_a_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / ("d" * 100)).mkdir(parents=True)
    for index in range(MAX_FILES):
        (folder / ("d" * 100) / f"{index:0100}").write_bytes(b"x")
    sealed = seal(folder, tmp_path / "sealed")
    assert len(sealed.manifest_bytes) < 640 << 10
    with open_folder(tmp_path / "sealed") as opened:
        assert len(opened.files) == MAX_FILES


# --- whole or not at all


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_sealing_leaves_nothing(folder: Path, tmp_path: Path, error: type[BaseException]) -> None:
    def progress(done: int, total: int) -> None:
        if done * 2 > total:
            raise error

    with pytest.raises(error):
        seal(folder, tmp_path / "sealed", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_existing_place_is_never_touched(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sealed"
    out.mkdir()
    with pytest.raises(UsageError, match="already"):
        seal(folder, out)
    out.rmdir()
    out.symlink_to("nowhere")
    with pytest.raises(UsageError, match="already"):
        seal(folder, out)
    with pytest.raises(UsageError, match="no such folder"):
        seal(folder, tmp_path / "not" / "there")
    with pytest.raises(UsageError, match="inside"):
        seal(folder, folder / "sealed")


@pytest.mark.parametrize(
    "change", [lambda file: file.write_bytes(b"other"), lambda file: os.utime(file, (1, 1)), lambda file: file.unlink()]
)
def test_a_file_that_changes_while_it_is_sealed_ends_the_sealing(
    folder: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    file = folder / "weights/one.bin"
    done_once: list[int] = []

    def progress(done: int, _total: int) -> None:
        if not done_once:
            change(file)
        done_once.append(done)

    with pytest.raises(UsageError, match=r"changed while|cannot be read"):
        seal(folder, tmp_path / "sealed", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "wrong", [{"name": "No Model"}, {"name": ""}, {"segment_bytes": 5000}, {"segment_bytes": 1 << 25}]
)
def test_a_manifest_no_reader_takes_is_refused_before_the_bulk(
    folder: Path, tmp_path: Path, wrong: dict[str, object]
) -> None:
    reports: list[int] = []
    with pytest.raises(UsageError):
        seal(folder, tmp_path / "sealed", progress=lambda done, _: reports.append(done), **wrong)  # type: ignore[arg-type]
    assert reports == []
    assert not (tmp_path / "sealed").exists()


def test_progress_grows_to_the_total_in_the_callers_thread_with_one_helper(folder: Path, tmp_path: Path) -> None:
    total = sum(map(len, FILES.values()))
    seen: list[tuple[int, int]] = []
    threads = threading.active_count()

    def progress(done: int, of: int) -> None:
        seen.append((done, of))
        assert threading.current_thread() is threading.main_thread()
        assert threading.active_count() <= threads + 1

    seal(folder, tmp_path / "sealed", progress=progress)
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)
    assert threading.active_count() == threads
    seen.clear()
    parts = read_package(tmp_path / "sealed")
    verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
    open_model(DirectorySource(tmp_path / "sealed"), verified, DEK, progress=progress).close()
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


# --- a full disk, list 7.2 number 36: the kernel's own limit on the size of a file stands for it

_FULL = """
import resource, sys
from pathlib import Path
sys.path[:0] = {path!r}
from cloister.errors import Unavailable
from sealed_kit import memory_files
from test_sealed_directory import open_folder, seal
resource.setrlimit(resource.{which}, ({limit}, {limit}))
try:
    {what}
except Unavailable as exc:
    assert memory_files() == 0, "plaintext is left"
    print("refused:", exc.message)
"""


def _limited(tmp_path: Path, what: str, which: str = "RLIMIT_FSIZE", limit: int = PLAIN * 2) -> str:
    script = _FULL.format(path=sys.path, which=which, limit=limit, what=what)
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    return done.stdout


def test_a_full_disk_while_sealing_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    assert folder.exists()
    said = _limited(tmp_path, "seal(Path('model'), Path('sealed'))")
    assert said.startswith("refused: sealed: cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_full_memory_while_opening_wipes_what_was_opened(folder: Path, tmp_path: Path) -> None:
    seal(folder, tmp_path / "sealed")
    said = _limited(tmp_path, "open_folder(Path('sealed'))")
    assert said.startswith(f"refused: memory file of {PLAIN * 3 + 1} bytes: File too large")


def test_too_few_descriptors_while_opening_wipe_what_was_opened(folder: Path, tmp_path: Path) -> None:
    for index in range(20):
        (folder / f"{index}.json").write_bytes(b"{}")
    seal(folder, tmp_path / "sealed")
    said = _limited(tmp_path, "open_folder(Path('sealed'))", "RLIMIT_NOFILE", 20)
    assert "Too many open files" in said


# --- reading a hostile folder


def test_links_and_pipes_in_a_package_are_not_followed(folder: Path, tmp_path: Path) -> None:
    sealed = seal(folder, tmp_path / "sealed")
    entry = sealed.manifest.file("config.json")
    for name in (blob_name(entry.blob), leaves_name(entry.blob)):
        place = tmp_path / "sealed" / name
        original = place.read_bytes()
        (tmp_path / "elsewhere").write_bytes(original)
        for make in (lambda place: place.symlink_to(tmp_path / "elsewhere"), _pipe, lambda place: place.mkdir()):
            place.unlink()
            make(place)
            with pytest.raises(Unavailable, match="cannot be read"):
                open_folder(tmp_path / "sealed")
            place.rmdir() if place.is_dir() else place.unlink()
            place.write_bytes(original)
    open_folder(tmp_path / "sealed").close()


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "blobs/../manifest.json", "blobs/xyz", "", "blobs/" + "A" * 32]
)
def test_a_source_opens_no_other_file(tmp_path: Path, name: str) -> None:
    source = DirectorySource(tmp_path)
    with pytest.raises(UsageError):
        source.size(name)
    with pytest.raises(UsageError):
        source.read(name, 0, 1)
    with pytest.raises(UsageError):
        source.read_into(name, 0, memoryview(bytearray(1)))


def test_an_overlong_manifest_is_refused_unread(folder: Path, tmp_path: Path) -> None:
    seal(folder, tmp_path / "sealed")
    with (tmp_path / "sealed" / MANIFEST_NAME).open("ab") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(Malformed, match="want at most"):
        read_package(tmp_path / "sealed")
    with pytest.raises(Unavailable):
        read_package(tmp_path / "nowhere")


def test_random_access_from_a_folder(folder: Path, tmp_path: Path) -> None:
    seal(folder, tmp_path / "sealed")
    parts = read_package(tmp_path / "sealed")
    verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
    with RandomAccess(DirectorySource(tmp_path / "sealed"), verified, DEK, "weights/one.bin") as access:
        assert access.read(PLAIN - 3, 6) == FILES["weights/one.bin"][PLAIN - 3 : PLAIN + 3]


# --- the envelope is all that a rotation writes


def _envelope(version: int) -> Envelope:
    recipient = Recipient(kid="vault", key_version=version, kek_id=f"kek-{version}", wrapped=b"w" * 60)
    return Envelope(manifest_digest="ab" * 32, recipients=(recipient,))


def test_rotation_rewrites_the_envelope_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    seal(folder, tmp_path / "sealed")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sealed").rglob("*") if path.is_file()}
    for version in (1, 2):
        write_envelope(tmp_path / "sealed", _envelope(version))
        assert read_envelope(tmp_path / "sealed") == _envelope(version)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "sealed").rglob("*") if path.is_file()}
    assert {path.name for path in set(after) - set(before)} == {ENVELOPE_NAME}
    assert all(after[path] == stamp for path, stamp in before.items())


def test_a_killed_rotation_is_overwritten_by_the_next(folder: Path, tmp_path: Path) -> None:
    seal(folder, tmp_path / "sealed")
    (tmp_path / "sealed" / ".envelope.json.new").write_bytes(b"half")
    write_envelope(tmp_path / "sealed", _envelope(1))
    assert read_envelope(tmp_path / "sealed") == _envelope(1)
    with pytest.raises(Unavailable):
        write_envelope(tmp_path / "nowhere", _envelope(1))


def test_a_rotation_cut_short_by_the_disk_keeps_the_old_envelope(folder: Path, tmp_path: Path) -> None:
    """A disk that fills up takes a part of a write and says so by its count only; the model key must not be lost."""
    seal(folder, tmp_path / "sealed")
    write_envelope(tmp_path / "sealed", _envelope(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(Unavailable):
            write_envelope(tmp_path / "sealed", _envelope(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_envelope(tmp_path / "sealed") == _envelope(1)


def test_envelopes_on_disk_survive_mutations(tmp_path: Path) -> None:
    good = _envelope(1).dump()
    for damaged in mutated(good, count=300):
        (tmp_path / ENVELOPE_NAME).write_bytes(damaged)
        try:
            assert read_envelope(tmp_path).dump() == damaged
        except Malformed:
            continue


# --- what else can fail under our hands


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "model.bin").open("wb") as file:
        try:
            file.truncate(MAX_FILE_BYTES + 1)  # sparse
        except OSError:
            pytest.skip("this file system keeps no file of a tebibyte, sparse or not")
    with pytest.raises(UsageError, match="want at most"):
        seal(tmp_path / "model.bin", tmp_path / "sealed")


def test_a_place_that_cannot_be_written_is_unavailable(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        seal(folder, Path("/proc/self") / "sealed")
    with pytest.raises(Unavailable):
        seal(folder, tmp_path / ("x" * 300))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_sink_makes_each_part_once_and_commits_only_what_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "sealed"
    with DirectorySink(out) as sink:
        sink.parts.create("manifest.json", 2)
        with pytest.raises(Unavailable):
            sink.parts.create("manifest.json", 2)
        with pytest.raises(Unavailable):
            sink.parts.write("manifest.sig", 0, memoryview(b"x"))
        out.mkdir()
        (out / "theirs").touch()  # somebody else was faster
        with pytest.raises(Unavailable):
            sink.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["sealed"]
    assert [path.name for path in out.iterdir()] == ["theirs"]


def test_parts_that_vanish_are_unavailable(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    for use in (
        lambda: source.size("manifest.json"),
        lambda: source.read("manifest.json", 0, 1),
        lambda: source.read_into("manifest.json", 0, memoryview(bytearray(1))),
    ):
        with pytest.raises(Unavailable):
            use()
    (tmp_path / "manifest.json").write_bytes(b"abc")
    assert source.read("manifest.json", 1, 1 << 62) == b"bc"
    assert source.read("manifest.json", 9, 1) == b""
