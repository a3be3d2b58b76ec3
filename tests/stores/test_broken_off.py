"""Fetching and publishing that end anywhere: killed, failed or cut off, nothing passes as a model, and it goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hostile_server import HostileServer
from sealed_kit import DEK, PLAIN, SEGMENT, MemorySource, noise, seal
from stores_kit import HASTY, parts_of, write_folder

from cloister.errors import Unavailable, UsageError
from cloister.sealed.directory import DirectorySource
from cloister.sealed.manifest import MANIFEST_NAME
from cloister.sealed.open import open_model
from cloister.stores import open_source, open_target, pull, push
from fail_points import FailPoints, Fault, ProcessEnded

if TYPE_CHECKING:
    from pathlib import Path

    from bucket_kit import S3

MOST_POINTS = 200
KILLED = """
import os, sys
from pathlib import Path
from cloister.sealed.directory import DirectorySource
from cloister.stores import open_source, open_target, pull, push

def report(done, total):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), 9)

url, place = sys.argv[1], Path(sys.argv[2])
if url.startswith("s3:"):
    with open_target(url) as target:
        push(DirectorySource(place), target, progress=report)
else:
    with open_source(url) as source:
        pull(source, place, progress=report)
"""


class Filling(MemorySource):
    """Parts in memory that fill the reader's."""

    def read_into(self, name: str, offset: int, out: memoryview) -> int:
        data = self.read(name, offset, len(out))
        out[: len(data)] = data
        return len(data)


def killed(url: str, place: Path, at: int) -> None:
    """Fetch or publish in a process that kills itself after ``at`` bytes."""
    words = [sys.executable, "-c", KILLED, url, str(place), str(at)]
    assert subprocess.run(words, check=False, timeout=60).returncode == -signal.SIGKILL  # noqa: S603


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.value)
def test_a_fetch_that_fails_at_any_point_is_no_model_and_goes_on(tmp_path: Path, fault: Fault) -> None:
    model = seal({"a.bin": noise(3 * PLAIN), "b.bin": b""})
    source, out = Filling(model.source.parts), tmp_path / "m"
    for at in range(1, MOST_POINTS):
        points, through = FailPoints(at, fault), True
        try:
            with points.standing():
                pull(source, out)
        except (Unavailable, ProcessEnded):
            through = False
        if points.met is None:
            break
        if out.exists():
            assert through or fault is Fault.CRASH, f"{points.met} failed, and there is a model"
            with pytest.raises(UsageError, match="there already"):
                pull(source, out)
        else:
            assert not through
            pull(source, out)
        assert parts_of(out) == model.source.parts, points.met
        assert [path.name for path in tmp_path.iterdir()] == ["m"]
        shutil.rmtree(out)
    else:
        pytest.fail("pull does not come to an end of its points")
    assert at > 20


def test_a_fetch_killed_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    model = seal({"a.bin": noise(24 * PLAIN)})
    with HostileServer(model.source.parts) as server:
        for segments in (1, 8, 24):
            killed(server.url, tmp_path / "m", segments * SEGMENT)
            assert not (tmp_path / "m").exists()
            (hidden,) = tmp_path.iterdir()
            assert not (hidden / MANIFEST_NAME).exists()
        with open_source(server.url, patience=HASTY) as source:
            assert pull(source, tmp_path / "m").kept_bytes == 24 * SEGMENT
    with open_model(DirectorySource(tmp_path / "m"), model.verified(), DEK) as opened:
        assert opened.read("a.bin", 0, 24 * PLAIN) == model.plain["a.bin"]


def test_a_push_killed_again_and_again_shows_no_model_before_its_end(s3: S3, tmp_path: Path) -> None:
    model = seal({"a.bin": noise(24 * PLAIN), "b.bin": noise(24 * PLAIN, 2)})
    folder = write_folder(tmp_path / "m", model)
    for segments in (1, 26, 47):
        killed(s3.url, folder, segments * SEGMENT)
        assert MANIFEST_NAME not in s3.names()
    assert s3.names() >= {model.leaves("a.bin"), model.blob("a.bin"), model.leaves("b.bin")}
    with open_target(s3.url) as target:
        assert push(DirectorySource(folder), target).kept >= 3
    with open_source(s3.url) as source, open_model(source, model.verified(), DEK) as opened:
        assert opened.read("b.bin", 0, 24 * PLAIN) == model.plain["b.bin"]


@pytest.mark.drill
def test_a_fetch_killed_at_every_segment_comes_to_its_end(tmp_path: Path) -> None:
    model = seal({"a.bin": noise(24 * PLAIN)})
    with HostileServer(model.source.parts) as server:
        for segments in range(1, 25):
            killed(server.url, tmp_path / "m", segments * SEGMENT)
            assert not (tmp_path / "m").exists()
        with open_source(server.url) as source:
            pull(source, tmp_path / "m")
    assert parts_of(tmp_path / "m") == model.source.parts
