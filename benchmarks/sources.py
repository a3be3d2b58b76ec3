"""How fast a sealed model opens from a folder, a web server and a bucket, and what one tensor of a big one costs.

    python benchmarks/sources.py --mib 128 --rounds 3 --gib 4 --folder /tmp

The rounds are interleaved; medians are shown as ratios. ``copy to memory`` fills an ordinary memfd from a file, ``plain
download`` does it from the same web server with Python's own client. That server is a process on this machine and takes
its share of the processors; it plays the bucket too, for reading by range is all that a bucket does here.
``far`` is the same server when it waits 20 ms before it answers; ``whole`` is how an enclave opens: with what comes
next fetched ahead.

The big model is sealed for real, but only the segments that the tensor needs are kept on disk; what is fetched is
counted by the client, and the leaf hashes of all of it are part of that.
"""

from __future__ import annotations

import argparse
import http.client
import json
import mmap
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from figures.goals import at_most

from cloister.crypto.sign import SigningKey
from cloister.sealed.directory import DirectorySource
from cloister.sealed.leaves import LEAF_BYTES
from cloister.sealed.open import RandomAccess, open_model, verify_manifest
from cloister.sealed.parts import read_parts
from cloister.sealed.paths import parse_path
from cloister.sealed.seal import seal_files, seal_model
from cloister.stores import open_source, parse_place
from cloister.stores.http import HttpSource
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.sealed.open import DirectSource, VerifiedManifest
    from cloister.sealed.paths import ModelPath

MIB = 1 << 20
PROBES = 4  # bytes: each part is asked for its first one, by which its size is known
FAR_S = 0.02  # seconds until a server far away begins to answer
ROWS = (
    ("copy to memory", "copy to memory"),
    ("open, folder", "copy to memory"),
    ("plain download", "copy to memory"),
    ("open, web server", "copy to memory"),
    ("open, web server ", "plain download"),
    ("open whole, web server", "plain download"),
    ("read, bucket", "copy to memory"),
    ("open, bucket", "copy to memory"),
    ("open, bucket ", "read, bucket"),
    ("plain download, far", "plain download"),
    ("open, far", "plain download, far"),
    ("open whole, far", "plain download, far"),
)
SERVER = """
import os, re, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DELAY = float(sys.argv[2])

class Ranges(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def head(self, status, size, more):
        self.send_response(status)
        headers = {"ETag": '"one"', "Last-Modified": "Sun, 01 Mar 2026 12:00:00 GMT", "Content-Length": size}
        for name, value in (headers | more).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def do_HEAD(self):
        self.head(200, os.stat("." + self.path).st_size, {})

    def do_GET(self):
        with open("." + self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first, last = map(int, re.fullmatch(r"bytes=(\\d+)-(\\d+)", self.headers["range"]).groups())
            last = min(last, size - 1)
            time.sleep(DELAY)
            self.head(206, last - first + 1, {"Content-Range": f"bytes {first}-{last}/{size}"})
            while first <= last:
                first += os.sendfile(self.connection.fileno(), file.fileno(), first, last - first + 1)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Ranges).serve_forever()
"""


@dataclass(frozen=True)
class Zeros:
    """A file of a header and zeros."""

    path: ModelPath
    header: bytes
    size: int


class Sparse:
    """Reads files of zeros, and keeps of what is sealed the small parts and some segments."""

    def __init__(self, folder: Path, keep: range) -> None:
        """Write below ``folder``; of bodies, keep the bytes in ``keep`` and the first segment."""
        self.folder, self.keep = folder, keep
        (folder / "blobs").mkdir(parents=True)

    def read_into(self, entry: Zeros, offset: int, out: memoryview) -> None:
        """Fill from a file."""
        out[:] = bytes(len(out))
        if offset < len(entry.header):
            head = entry.header[offset : offset + len(out)]
            out[: len(head)] = head

    def create(self, name: str, size: int) -> None:
        """Make a sparse file."""
        with (self.folder / name).open("wb") as file:
            file.truncate(size)

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Write what is to be kept."""
        bulk = name.startswith("blobs/") and not name.endswith(".leaves")
        if bulk and offset and not (offset < self.keep.stop and offset + len(data) > self.keep.start):
            return
        with (self.folder / name).open("r+b") as file:
            file.seek(offset)
            file.write(data)


@contextmanager
def process(folder: Path, *words: str) -> Iterator[int]:
    """Run a server on a port until the block ends."""
    port = free_port()
    running = subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, *(word.replace("PORT", str(port)) for word in words)],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        running.kill()
        running.wait()


class Bench:
    """One model in a folder, behind a web server and in what looks like a bucket."""

    def __init__(self, folder: Path, size: int, stack: ExitStack) -> None:
        """Seal ``size`` random bytes, and start the server."""
        self.folder, self.size, self.target = folder, size, -1
        self.dek, self.signer = os.urandom(32), SigningKey.generate()
        self.plain = folder / "model.bin"
        with self.plain.open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        self.sealed = folder / "sealed"
        seal_model(
            self.plain, self.sealed, name="bench", dek=self.dek, signer=self.signer, card={}, created=datetime.now(UTC)
        )
        self.manifest = self.verified(DirectorySource(self.sealed))
        self.blob = f"blobs/{self.manifest.manifest.files[0].blob}"
        self.buffer = memoryview(mmap.mmap(-1, MIB))
        self.web = stack.enter_context(process(folder, "-c", SERVER, "PORT", "0"))
        self.far = stack.enter_context(process(folder, "-c", SERVER, "PORT", str(FAR_S)))
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "an-id", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.web}",
            "AWS_REGION": "us-east-1", "AWS_SECRET_ACCESS_KEY": "a-secret",
        }  # fmt: skip

    def verified(self, source: DirectSource) -> VerifiedManifest:
        """Return the manifest in ``source``."""
        parts = read_parts(source)
        return verify_manifest(parts.manifest_bytes, parts.signature_bytes, [self.signer.verify_key])

    def copy(self) -> int:
        """Copy the plain file into a fresh memfd."""
        self.target = os.memfd_create("copy")
        with self.plain.open("rb") as file:
            at = 0
            while got := os.preadv(file.fileno(), [self.buffer], at):
                at += os.pwrite(self.target, self.buffer[:got], at)
        return self.size

    def download(self, port: int) -> Callable[[], int]:
        """Return the work of fetching the plain file into a fresh memfd, a mebibyte a request, over one connection."""

        def work() -> int:
            self.target = os.memfd_create("download")
            with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
                for at in range(0, self.size, MIB):
                    connection.request("GET", "/model.bin", headers={"Range": f"bytes={at}-{at + MIB - 1}"})
                    answer = connection.getresponse()
                    done = 0
                    while got := answer.readinto(self.buffer[done:]):
                        done += got
                    os.pwrite(self.target, self.buffer[:done], at)
            return self.size

        return work

    def read_bucket(self) -> int:
        """Read the encrypted object, a mebibyte at a time, and drop it."""
        with open_source("s3://sealed") as source:
            size = source.size(self.blob)
            for at in range(0, size, MIB):
                source.read_into(self.blob, at, self.buffer)
        return size

    def open(self, where: str, *, whole: bool = False) -> Callable[[], int]:
        """Return the work of opening everything from ``where``, read ahead where it is read as a whole."""

        def work() -> int:
            with open_source(where, whole=whole) as source:
                open_model(source, self.manifest, self.dek).close()
            return self.size

        return work

    def clean(self) -> None:
        """Free what a round left behind."""
        if self.target >= 0:
            os.close(self.target)
            self.target = -1


def show_opening(folder: Path, mib: int, rounds: int) -> None:
    """Measure opening in interleaved rounds and print ratios."""
    with ExitStack() as stack:
        bench = Bench(folder, mib * MIB, stack)
        work = {
            "copy to memory": bench.copy,
            "open, folder": bench.open(str(bench.sealed)),
            "plain download": bench.download(bench.web),
            "open, web server": bench.open(f"http://127.0.0.1:{bench.web}/sealed"),
            "open whole, web server": bench.open(f"http://127.0.0.1:{bench.web}/sealed", whole=True),
            "read, bucket": bench.read_bucket,
            "open, bucket": bench.open("s3://sealed"),
            "plain download, far": bench.download(bench.far),
            "open, far": bench.open(f"http://127.0.0.1:{bench.far}/sealed"),
            "open whole, far": bench.open(f"http://127.0.0.1:{bench.far}/sealed", whole=True),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds + 1):  # the first round only warms caches
            for name, one in work.items():
                begun = time.perf_counter()
                size = one()
                times[name].append((time.perf_counter() - begun) / size * 1e9)
                bench.clean()
    wall = {name: statistics.median(found[1:]) for name, found in times.items()}
    print(f"{mib} MiB, medians of {rounds} interleaved rounds, {os.cpu_count()} processors")
    print(f"{'':24}{'GB/s':>8}{'wall':>9}   compared with")
    for label, other in ROWS:
        name = label.strip()
        print(f"{name:24}{1 / wall[name]:>8.2f}{wall[other] / wall[name]:>8.2f}x   {other}")


def show_tensor(folder: Path, gib: int, tensor_mib: int) -> None:
    """Seal a safetensors file of ``gib`` GiB, read one tensor of it over HTTP, and print what was fetched."""
    count = gib * 1024 // tensor_mib
    table = {
        f"layer.{index}.weight": {
            "data_offsets": [index * tensor_mib * MIB, (index + 1) * tensor_mib * MIB],
            "dtype": "U8",
            "shape": [tensor_mib * MIB],
        }
        for index in range(count)
    }
    head = json.dumps(table).encode()
    header = struct.pack("<Q", len(head)) + head
    entry = Zeros(parse_path("model.safetensors"), header, len(header) + count * tensor_mib * MIB)
    wanted = f"layer.{count * 5 // 8}.weight"
    start = len(header) + int(table[wanted]["data_offsets"][0])  # type: ignore[index, call-overload]
    sink = Sparse(folder / "big", range(start, start + (tensor_mib + 2) * MIB))
    dek, signer = os.urandom(32), SigningKey.generate()
    seal_files(
        [entry], sink, sink, name="big", dek=dek, signer=signer, card={}, created=datetime.now(UTC), segment_bytes=MIB
    )
    with process(folder, "-c", SERVER, "PORT", "0") as port:
        place = parse_place(f"http://127.0.0.1:{port}/big")
        if isinstance(place, Path):
            raise TypeError(place)
        with HttpSource(place) as source:
            begun = time.perf_counter()
            parts = read_parts(source)
            verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [signer.verify_key])
            with RandomAccess(source, verified, dek, "model.safetensors") as access:
                (size,) = struct.unpack("<Q", access.read(0, 8))
                found = json.loads(access.read(8, size))[wanted]["data_offsets"]
                tensor = access.read(8 + size + found[0], found[1] - found[0])
            took = time.perf_counter() - begun
            fetched, requests = source.traffic.body_bytes, source.traffic.requests
    layout, end = verified.manifest.files[0].layout, 8 + size + found[1]
    wants = {*range(-(-(8 + size) // layout.plain_bytes))}  # the header's segments, and the tensor's
    wants |= {*range((8 + size + found[0]) // layout.plain_bytes, -(-end // layout.plain_bytes))}
    whole = sum(layout.body(index)[1] for index in wants) + layout.count * LEAF_BYTES
    small = len(parts.manifest_bytes) + len(parts.signature_bytes) + PROBES
    goal = at_most(whole + small, " bytes")
    used = sum(path.stat().st_blocks * 512 for path in (folder / "big").rglob("*"))
    print(f"one tensor of {len(tensor) / MIB:.0f} MiB out of {gib} GiB over HTTP")
    print(f"fetched {fetched / MIB:.2f} MiB in {requests} requests, {took * 1000:.0f} ms")
    print(f"{len(wants)} segments, all leaf hashes and the manifest: {goal.verdict(fetched)}")
    print(f"that is {fetched / len(tensor):.3f}x the tensor, {fetched / entry.size:.2%} of the model")
    print(f"on this disk: {used / MIB:.0f} MiB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="opening sealed models from stores, as ratios to plain copies")
    parser.add_argument("--mib", type=int, default=128, help="size of the model that is opened, in MiB (128)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (3)")
    parser.add_argument("--gib", type=int, default=4, help="size of the model of which one tensor is read, in GiB (4)")
    parser.add_argument("--tensor-mib", type=int, default=16, help="size of that tensor in MiB (16)")
    parser.add_argument("--folder", type=Path, default=None, help="where to work (the system's temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="sources-") as folder:
        show_opening(Path(folder), arguments.mib, arguments.rounds)
        shutil.rmtree(Path(folder) / "sealed")
        (Path(folder) / "model.bin").unlink()
        print()
        show_tensor(Path(folder), arguments.gib, arguments.tensor_mib)


if __name__ == "__main__":
    main()
