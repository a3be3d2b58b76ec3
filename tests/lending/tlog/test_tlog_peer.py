"""Our log read by an implementation that is not ours, and its log by us: golang.org/x/mod/sumdb.

``scripts/system-packages`` installs Go and the package; where they are not, these tests say so.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from log_kit import CUSTODIAN, LOG, Face, entries

from cloister.cli.log_folder import read_log, write_entries, write_tiles
from cloister.lending.merkle import leaf_hash, verify_consistency, verify_inclusion
from cloister.lending.tlog.checkpoint import LogCheckpoint, log_key
from cloister.lending.tlog.note import NoteKey, SignedNote, verify_note
from cloister.lending.tlog.proof import LogProof
from cloister.lending.tlog.tiles import dump_bundle

SOURCE = Path(__file__).parent / "peer"
GO = shutil.which("go")
LIBRARY = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog")
SIZES = (1, 2, 255, 256, 257, 600)

pytestmark = pytest.mark.skipif(
    GO is None or not LIBRARY.is_dir(), reason="no Go with golang.org/x/mod here: scripts/system-packages installs it"
)


class Peer:
    """The other implementation, as a program."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        return subprocess.run([self.program, *map(str, words)], capture_output=True, timeout=60, check=False)  # noqa: S603

    def ok(self, *words: str | Path) -> Any:
        """Run what must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    """Build the peer once."""
    folder = tmp_path_factory.mktemp("peer")
    environment = {
        "GO111MODULE": "off", "GOCACHE": str(folder / "cache"), "GOFLAGS": "", "GOPATH": "/usr/share/gocode",
        "HOME": str(folder), "PATH": os.environ["PATH"],
    }  # fmt: skip
    program = folder / "peer"
    subprocess.run([str(GO), "build", "-o", program, "."], cwd=SOURCE, env=environment, check=True, timeout=120)  # noqa: S603
    return Peer(program)


def written(folder: Path, size: int) -> Face:
    """Write a log of ours as ``audit export --folder`` does."""
    lines = entries(size)
    face = Face(lines)
    tree, _fresh = write_entries(
        folder, size, lambda tile: dump_bundle(lines[tile.start : tile.start + tile.width]), lambda _done, _total: None
    )
    write_tiles(folder, tree)
    (folder / "checkpoint").write_bytes(face.note().dump())
    return face


@pytest.mark.parametrize("size", SIZES)
def test_the_peer_verifies_every_tile_leaf_and_size_of_our_log(peer: Peer, tmp_path: Path, size: int) -> None:
    face = written(tmp_path, size)
    said = peer.ok("read", tmp_path, LOG.dump())
    assert said["entries"] == size
    assert base64.b64decode(said["root"]) == face.tree.root()


def test_the_peer_refuses_what_we_refuse(peer: Peer, tmp_path: Path) -> None:
    written(tmp_path, 300)
    stranger = log_key(type(CUSTODIAN)(b"s" * 32).verify_key)
    assert peer.run("read", tmp_path, stranger.dump()).returncode == 1
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        assert peer.run("read", tmp_path, LOG.dump()).returncode == 1, path
        path.write_bytes(whole)
    assert peer.ok("read", tmp_path, LOG.dump())["entries"] == 300


@pytest.mark.parametrize("size", SIZES[1:])  # the peer proves nothing from a log of no entry
def test_we_verify_the_log_that_the_peer_wrote(peer: Peer, tmp_path: Path, size: int) -> None:
    said = peer.ok("write", tmp_path, str(size))
    note = SignedNote.parse((tmp_path / "checkpoint").read_bytes())
    verify_note(note, NoteKey.parse(said["vkey"]))
    checkpoint = LogCheckpoint.parse(note.text)
    face = Face(read_log(tmp_path, checkpoint.size))
    assert face.tree.root() == checkpoint.root == base64.b64decode(said["root"])
    index, old = size // 3, size // 2
    path = tuple(base64.b64decode(part) for part in said["inclusion"] or ())
    assert path == face.tree.inclusion(index)
    verify_inclusion(leaf_hash(entries(size)[index]), index=index, size=size, path=path, root=checkpoint.root)
    proof = tuple(base64.b64decode(part) for part in said["consistency"] or ())
    old_root = base64.b64decode(said["old"])
    assert (proof, old_root) == (face.tree.consistency(old), face.tree.root_at(old))
    verify_consistency(old_size=old, old_root=old_root, size=size, root=checkpoint.root, proof=proof)


def test_the_peer_verifies_a_proof_file_of_ours_and_no_bent_one(peer: Peer, tmp_path: Path) -> None:
    face, lines = Face(entries(100)), entries(100)
    for index in (0, 41, 99):
        proof = LogProof(
            index=index, path=face.tree.inclusion(index), checkpoint=face.note().dump(), extra=lines[index]
        ).dump()
        (tmp_path / "a.tlog-proof").write_bytes(proof)
        (tmp_path / "entry").write_bytes(lines[index])
        said = peer.ok("prove", LOG.dump(), tmp_path / "a.tlog-proof", tmp_path / "entry")
        assert said == {"index": index, "size": 100}
        (tmp_path / "entry").write_bytes(lines[index] + b" ")
        assert peer.run("prove", LOG.dump(), tmp_path / "a.tlog-proof", tmp_path / "entry").returncode == 1
