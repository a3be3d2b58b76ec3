"""Fetching a sealed model: whole or not at all, going on where it was broken off, and nothing believed."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hostile_server import HostileServer
from sealed_kit import PLAIN, SEGMENT, noise, seal
from stores_kit import DEAF, HASTY, parts_of, small_model

from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.sealed.directory import DirectorySource
from cloister.sealed.manifest import MANIFEST_NAME, model_digest
from cloister.sealed.open import open_model
from cloister.sealed.parts import MAX_LEAVES_BYTES
from cloister.stores import open_source, pull

if TYPE_CHECKING:
    from pathlib import Path

    from sealed_kit import Sealed

    from cloister.stores import Patience, Pulled


def pulled(server: HostileServer, out: Path, patience: Patience = HASTY, **how: str) -> Pulled:
    with open_source(server.url, patience=patience) as source:
        return pull(source, out, **how)


def opened(folder: Path, model: Sealed) -> dict[str, bytes]:
    with open_model(DirectorySource(folder), model.verified(), model.dek) as found:
        return {path: found.read(path, 0, len(model.plain[path])) for path in found.files}


def many() -> Sealed:
    return seal({"a.bin": noise(30 * PLAIN), "b.bin": noise(10)})


def body_requests(server: HostileServer, model: Sealed) -> int:
    """Return how many requests were for segments of the bigger file; the first asks for its size."""
    return sum(request.name == model.blob("a.bin") for request in server.seen) - 1


def test_a_model_is_fetched_whole_and_is_byte_for_byte_the_one_there(tmp_path: Path) -> None:
    model = small_model()
    told: list[tuple[int, int]] = []
    with HostileServer(model.source.parts) as server, open_source(server.url) as source:
        result = pull(source, tmp_path / "m", progress=lambda done, total: told.append((done, total)))
    assert parts_of(tmp_path / "m") == model.source.parts
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert opened(tmp_path / "m", model) == model.plain
    assert result.digest == model_digest(model.source.parts[MANIFEST_NAME])
    assert (result.kept_bytes, result.envelope) == (0, False)
    assert told == sorted(told)
    assert told[-1] == (result.fetched_bytes, result.fetched_bytes)


def test_a_model_is_fetched_while_every_kind_of_failure_comes_and_passes(tmp_path: Path) -> None:
    model = many()
    orders = [word for one in ("short", "reset", "stall", "busy", "garbage", "hang up") for word in (one, "", "")]
    with HostileServer(model.source.parts, orders=orders) as server:
        pulled(server, tmp_path / "m", DEAF)
    assert opened(tmp_path / "m", model) == model.plain


def test_a_broken_fetch_goes_on_where_it_was_and_leaves_no_model_before(tmp_path: Path) -> None:
    model = many()
    with HostileServer(model.source.parts) as server:

        def fail_late(_: int) -> None:
            if body_requests(server, model) > 12:
                server.always = "forbidden"

        server.watch = fail_late
        with pytest.raises(Unavailable):
            pulled(server, tmp_path / "m")
        assert not (tmp_path / "m").exists()
        (hidden,) = tmp_path.iterdir()
        assert not (hidden / MANIFEST_NAME).exists()
        server.always, server.watch = "", lambda _: None
        result = pulled(server, tmp_path / "m")
    assert result.kept_bytes >= 8 * SEGMENT
    assert parts_of(tmp_path / "m") == model.source.parts


def test_what_was_changed_in_between_is_fetched_again(tmp_path: Path) -> None:
    """A segment counts by its leaf alone: neither a lost write nor a hand in the folder passes."""
    model = many()
    body = model.source.parts[model.blob("a.bin")]
    with HostileServer(model.source.parts) as server:
        hidden = tmp_path / f".m.pulling-{model_digest(model.source.parts[MANIFEST_NAME])[:32]}"
        (hidden / "blobs").mkdir(parents=True)
        hidden.chmod(0o700)
        (hidden / model.blob("a.bin")).write_bytes(
            body[: 3 * SEGMENT] + bytes(SEGMENT) + body[4 * SEGMENT : 9 * SEGMENT]
        )
        (hidden / (model.blob("a.bin") + ".have")).write_bytes(b"\xff" * 100)
        result = pulled(server, tmp_path / "m")
        assert result.kept_bytes == 8 * SEGMENT
        assert body_requests(server, model) == 30 - 8
    assert parts_of(tmp_path / "m") == model.source.parts


def test_a_fetch_cut_at_its_last_step_needs_nothing_more(tmp_path: Path) -> None:
    """Power went after the bitmaps were removed and before the folder got its name."""
    model = many()
    hidden = tmp_path / f".m.pulling-{model_digest(model.source.parts[MANIFEST_NAME])[:32]}"
    for name, data in model.source.parts.items():
        (hidden / name).parent.mkdir(parents=True, exist_ok=True)
        (hidden / name).write_bytes(data)
    hidden.chmod(0o700)
    with HostileServer(model.source.parts) as server:
        assert pulled(server, tmp_path / "m").fetched_bytes == 0
    assert parts_of(tmp_path / "m") == model.source.parts


@pytest.mark.parametrize("where", [0, 5 * SEGMENT, -1])
def test_an_altered_segment_never_becomes_part_of_a_model(tmp_path: Path, where: int) -> None:
    model = many()
    body = bytearray(model.source.parts[model.blob("a.bin")])
    body[where] ^= 1
    with HostileServer(model.edit(model.blob("a.bin"), bytes(body)).source.parts) as server:
        with pytest.raises(Rejected, match="digest_mismatch"):
            pulled(server, tmp_path / "m")
        assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("part", ["leaves", "body"])
@pytest.mark.parametrize("change", [-1, 1])
def test_parts_of_another_size_are_refused_before_anything_is_written(tmp_path: Path, part: str, change: int) -> None:
    model = many()
    name = model.leaves("a.bin") if part == "leaves" else model.blob("a.bin")
    data = model.source.parts[name]
    wrong = model.edit(name, data[:-1] if change < 0 else data + b"x")
    code = "truncated" if change < 0 else "oversized"
    with HostileServer(wrong.source.parts) as server, pytest.raises(Rejected, match=code):
        pulled(server, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_another_model_than_the_loan_s_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with HostileServer(many().source.parts) as server, pytest.raises(Rejected, match="wrong_model"):
        pulled(server, tmp_path / "m", digest="0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [MANIFEST_NAME, "manifest.sig", "envelope.json"])
def test_small_parts_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    with HostileServer(many().edit(name, b"{}").source.parts) as server, pytest.raises(Malformed):
        pulled(server, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_refused_and_not_touched(tmp_path: Path) -> None:
    with HostileServer(many().source.parts) as server:
        (tmp_path / "m").mkdir()
        (tmp_path / "link").symlink_to("nowhere")
        for name in ("m", "link"):
            with pytest.raises(UsageError, match="there already"):
                pulled(server, tmp_path / name)
        with pytest.raises(UsageError, match="no such folder"):
            pulled(server, tmp_path / "no" / "m")
    assert {path.name for path in tmp_path.iterdir()} == {"m", "link"}


def test_two_fetches_to_one_place_do_not_mix(tmp_path: Path) -> None:
    model = many()
    hidden = tmp_path / f".m.pulling-{model_digest(model.source.parts[MANIFEST_NAME])[:32]}"
    hidden.mkdir(mode=0o700)
    fd = os.open(hidden, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with HostileServer(model.source.parts) as server, pytest.raises(UsageError, match="somebody else"):
        pulled(server, tmp_path / "m")
    os.close(fd)


def test_a_folder_that_others_may_write_is_not_taken_for_ours(tmp_path: Path) -> None:
    model = many()
    hidden = tmp_path / f".m.pulling-{model_digest(model.source.parts[MANIFEST_NAME])[:32]}"
    hidden.mkdir()
    hidden.chmod(0o777)
    with HostileServer(model.source.parts) as server:
        with pytest.raises(UsageError, match="not ours alone"):
            pulled(server, tmp_path / "m")
        hidden.rmdir()
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        hidden.symlink_to("elsewhere")
        with pytest.raises(Unavailable):
            pulled(server, tmp_path / "m")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_disk_that_fills_up_is_one_error_and_what_is_there_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = many()
    real, written = os.pwrite, 0

    def full(fd: int, data: memoryview, offset: int) -> int:
        nonlocal written
        written += len(data)
        if written > 20 * SEGMENT:
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    with HostileServer(model.source.parts) as server:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(Unavailable, match="No space left"):
            pulled(server, tmp_path / "m")
        monkeypatch.setattr(os, "pwrite", real)
        assert not (tmp_path / "m").exists()
        assert pulled(server, tmp_path / "m").kept_bytes > 10 * SEGMENT
    assert opened(tmp_path / "m", model) == model.plain


def test_an_interrupt_stops_every_connection_and_keeps_what_passed(tmp_path: Path) -> None:
    model = many()

    def interrupt(done: int, _: int) -> None:
        if done > 5 * SEGMENT:
            raise KeyboardInterrupt

    with HostileServer(model.source.parts) as server:
        with open_source(server.url, patience=HASTY) as source, pytest.raises(KeyboardInterrupt):
            pull(source, tmp_path / "m", progress=interrupt)
        assert not (tmp_path / "m").exists()
        assert pulled(server, tmp_path / "m").kept_bytes > 5 * SEGMENT


def test_a_manifest_that_wants_gigabytes_of_leaves_is_refused(tmp_path: Path) -> None:
    """Nothing is signed for whoever fetches: the manifest's own numbers may not take memory."""
    model = many()
    entry = model.manifest.files[0]
    size = (MAX_LEAVES_BYTES // 32 + 1) * PLAIN
    huge = model.resign(replace(model.manifest, files=(replace(entry, size=size),)))

    class Lying:
        """Says what sizes it is asked to."""

        def size(self, name: str) -> int:
            layout = huge.manifest.files[0].layout
            if name.startswith("blobs/"):
                return layout.count * 32 if name.endswith(".leaves") else layout.body_bytes
            return huge.source.size(name)

        def read(self, name: str, offset: int, size: int) -> bytes:
            return huge.source.read(name, offset, size)

        def read_into(self, name: str, offset: int, out: memoryview) -> int:
            raise AssertionError(name, offset, len(out))

    with pytest.raises(Malformed, match="want at most"):
        pull(Lying(), tmp_path / "m")
