"""How much memory a model takes from sealed package to first answer, as a ratio to the model, for each format.

    python benchmarks/loading.py --mib 512 --folder /tmp
    python benchmarks/loading.py --json

Each row is a process of its own, which opens a real sealed package and loads it: ``peak`` is what its memory files
hold and the most anonymous memory it had beyond what it had before, read by its parent every millisecond. VmHWM
would not do: it misses memory files while they are written, and counts them twice once they are mapped twice.
The goal is 1.02 times the model and 4 MiB for each worker that opens it; rows that stand beside ours have none.
``batch 1`` and ``batch 8`` are medians of runs that are interleaved between the rows with and without prepacking.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from cloister.crypto.sign import SigningKey, VerifyKey
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.sealed.directory import DirectorySource, read_package
from cloister.sealed.formats import parse_model
from cloister.sealed.formats.places import opened_files
from cloister.sealed.open import open_model, verify_manifest
from cloister.sealed.pages import lane_count
from cloister.sealed.seal import seal_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.enclave.engines.onnx import OnnxModel
    from cloister.sealed.open import OpenedModel

MIB = 1 << 20
WIDTH = 2048  # rows and columns of one weight: 16 MiB
SAMPLE_S = 0.001  # seconds between two looks at a child's memory
SKIPPED = "skipped"
PEAK, WORKER_MIB = 1.02, 4  # the goal: so many times the model, and so much for each worker
HELD_TO_IT = frozenset({"engine", "views", "map"})
RUNS = 15  # runs of each batch size
ROWS = (  # name, format of the package, how it is loaded
    ("ONNX, external data", "external", "engine"),
    ("ONNX, one file", "single", "engine"),
    ("ONNX, external data, prepacked", "external", "prepacked"),
    ("ONNX, one file, prepacked", "single", "prepacked"),
    ("ONNX, one file, by its path", "single", "path"),
    ("safetensors, views", "safetensors", "views"),
    ("safetensors, torch", "safetensors", "torch"),
    ("GGUF, mapped by its path", "gguf", "map"),
)


# packages


def weights(mib: int) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Yield as many weights as make ``mib``."""
    rng = np.random.default_rng(1)
    for _ in range(max(1, mib * MIB // (WIDTH * WIDTH * 4))):
        yield (rng.random((WIDTH, WIDTH), dtype=np.float32) - np.float32(0.5)) * np.float32((12 / WIDTH) ** 0.5)


def write_onnx(folder: Path, mib: int, *, external: bool) -> None:
    """Write a chain of matrix products."""
    from onnx import TensorProto, helper  # noqa: PLC0415 - no child that measures may import it

    nodes, initializers, at = [], [], 0
    with (folder / "model.data").open("wb") as data:
        for index, weight in enumerate(weights(mib)):
            tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=weight.shape)
            if external:
                tensor.data_location = TensorProto.EXTERNAL
                for key, text in (("location", "model.data"), ("offset", str(at)), ("length", str(weight.nbytes))):
                    tensor.external_data.add(key=key, value=text)
                at += data.write(weight.tobytes())
            else:
                tensor.raw_data = weight.tobytes()
            initializers.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"h{index}", f"w{index}"], [f"h{index + 1}"]))
    shape = ["batch", WIDTH]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("h0", f"h{len(nodes)}")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    if not external:
        (folder / "model.data").unlink()


def write_safetensors(folder: Path, mib: int) -> None:
    """Write the format of safetensors: 8 bytes of length, a JSON header, the tensors."""
    size, count = WIDTH * WIDTH * 4, max(1, mib * MIB // (WIDTH * WIDTH * 4))
    header: dict[str, Any] = {
        f"w{at}": {"dtype": "F32", "shape": [WIDTH, WIDTH], "data_offsets": [at * size, (at + 1) * size]}
        for at in range(count)
    }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for weight in weights(mib):
            file.write(weight.tobytes())


def write_gguf(folder: Path, mib: int) -> None:
    """Write a GGUF file of version 3 that names its tensors and nothing else."""
    size, count = WIDTH * WIDTH * 4, max(1, mib * MIB // (WIDTH * WIDTH * 4))
    head = struct.pack("<4sIQQ", b"GGUF", 3, count, 0)
    for at in range(count):
        name = f"w{at}".encode()
        head += struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, WIDTH, WIDTH, 0, at * size)
    with (folder / "model.gguf").open("wb") as file:
        file.write(head + bytes(-len(head) % 32))
        for weight in weights(mib):
            file.write(weight.tobytes())


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "external": lambda folder, mib: write_onnx(folder, mib, external=True),
    "single": lambda folder, mib: write_onnx(folder, mib, external=False),
    "safetensors": write_safetensors,
    "gguf": write_gguf,
}


def seal(root: Path, kind: str, mib: int, dek: bytes, signer: SigningKey) -> Path:
    """Write a model of this format, seal it, remove the plain one, return the package."""
    with tempfile.TemporaryDirectory(dir=root) as plain:
        WRITERS[kind](Path(plain), mib)
        out = root / kind
        seal_model(Path(plain), out, name="bench", dek=dek, signer=signer, card={}, created=datetime.now(UTC))
    return out


# the child


def anonymous(pid: str) -> int:
    """Return bytes of anonymous memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def load_engine(opened: OpenedModel, *, prepack: bool) -> OnnxModel:
    """Load as the enclave does, and answer once."""
    model = OnnxEngine(threads=1).load(opened, prepack=prepack)
    run(model, 1)
    return model


def run(model: OnnxModel, batch: int) -> float:
    """Run once; return milliseconds."""
    rows = Tensor(name="h0", datatype=Datatype.FP32, array=np.ones((batch, WIDTH), dtype="<f4"))
    name = model.signature.outputs[0].name
    begun = time.perf_counter()
    model.run([rows], [name])
    return (time.perf_counter() - begun) * 1000


def load_path(opened: OpenedModel) -> object:
    """Load as ONNX Runtime does from a file."""
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(opened.fd_path("model.onnx"), options, providers=["CPUExecutionProvider"])


def load_views(opened: OpenedModel) -> object:
    """Return every tensor of a safetensors file as an array over the memory file."""
    view = opened.view("model.safetensors")
    (size,) = struct.unpack_from("<Q", view)
    header = json.loads(bytes(view[8 : 8 + size]))
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        array = np.frombuffer(view, dtype="<f4", count=(end - start) // 4, offset=8 + size + start)
        tensors[name] = array.reshape(entry["shape"])
    return {name: float(array.sum()) for name, array in tensors.items()}, tensors


def load_torch(opened: OpenedModel) -> object:
    """Return what torch makes of the memory file's path."""
    from safetensors.torch import load_file  # noqa: PLC0415

    tensors = load_file(opened.fd_path("model.safetensors"))
    return [float(tensor.sum()) for tensor in tensors.values()], tensors


def load_map(opened: OpenedModel) -> object:
    """Map the memory file by its path, as llama.cpp does, and read all of it."""
    with Path(opened.fd_path("model.gguf")).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return float(np.frombuffer(mapped, dtype="u1")[:: mmap.PAGESIZE].sum()), mapped


def load_copy(opened: OpenedModel) -> object:
    """Return a copy of every file: what no load of ours does, and a limit on memory must not let pass."""
    return [bytes(opened.view(path)) for path in opened.files]


LOADERS: dict[str, Callable[[OpenedModel], object]] = {
    "engine": lambda opened: load_engine(opened, prepack=False),
    "prepacked": lambda opened: load_engine(opened, prepack=True),
    "path": load_path,
    "views": load_views,
    "torch": load_torch,
    "map": load_map,
    "copy": load_copy,
}


def child(package: Path, how: str) -> None:
    """Open and load one package; say when, and then run as often as the parent asks for."""
    dek, signer = (bytes.fromhex(sys.stdin.readline()) for _ in range(2))
    parts = read_package(package)
    verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [VerifyKey(signer)])
    print("before", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    opened = open_model(DirectorySource(package), verified, dek)
    loading = time.perf_counter()
    parse_model(opened_files(opened))  # as the enclave does, before any engine
    try:
        model = LOADERS[how](opened)
    except ImportError:
        print(SKIPPED)
        return
    loaded = time.perf_counter()
    print(json.dumps([verified.manifest.size, loading - begun, loaded - loading]), flush=True)
    for line in sys.stdin:
        print(run(cast("OnnxModel", model), int(line)), flush=True)


# the parent


class Row:
    """One child and what came of it."""

    def __init__(self, name: str, package: Path, how: str, dek: bytes, signer: SigningKey) -> None:
        """Start it, watch it load."""
        self.name, self.how = name, how
        words = [sys.executable, __file__, "--child", str(package), "--how", how]
        self.process = subprocess.Popen(  # noqa: S603
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.to, self.said = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
        self.say(dek.hex(), signer.verify_key.raw.hex())
        self.skipped = False
        self.times: dict[int, list[float]] = {1: [], 8: []}
        self.watch()

    def say(self, *lines: str) -> None:
        """Send lines to the child."""
        self.to.writelines(f"{line}\n" for line in lines)
        self.to.flush()

    def hear(self) -> str:
        """Return the child's next line, empty when it has ended."""
        return self.said.readline().strip()

    def watch(self) -> None:
        """Let it load, and keep the most memory it had."""
        if self.hear() != "before":
            msg = f"{self.name}: the child failed"
            raise RuntimeError(msg)
        pid = str(self.process.pid)
        before = peak = anonymous(pid)
        self.say("go")
        while not select.select([self.said], [], [], SAMPLE_S)[0]:
            peak = max(peak, anonymous(pid))
        line = self.hear()
        self.skipped = line == SKIPPED
        if not self.skipped:
            self.size, self.open_s, self.load_s = json.loads(line)
            self.extra = max(peak, anonymous(pid)) - before

    def time(self, batch: int) -> None:
        """Run once in the child."""
        self.say(str(batch))
        self.times[batch].append(float(self.hear()))

    def end(self) -> None:
        """End it."""
        self.to.close()
        self.process.wait()

    def report(self) -> dict[str, Any]:
        """Return what is shown."""
        if self.skipped:
            return {"row": self.name, "skipped": True}
        found: dict[str, Any] = {
            "row": self.name,
            "model_mib": round(self.size / MIB, 1),
            "peak": round(1 + self.extra / self.size, 3),
            "extra_mib": round(self.extra / MIB, 1),
            "goal_mib": round((PEAK - 1) * self.size / MIB + WORKER_MIB * lane_count(self.size // MIB), 1),
            "held_to_it": self.how in HELD_TO_IT,
            "open_s": round(self.open_s, 3),
            "load_s": round(self.load_s, 3),
        }
        for batch, times in self.times.items():
            if times:
                found[f"batch_{batch}_ms"] = round(statistics.median(times), 2)
        return found


def measure(root: Path, kind: str, mib: int) -> list[dict[str, Any]]:
    """Return the rows of one format; the packages are removed afterwards."""
    dek, signer = os.urandom(32), SigningKey.generate()
    package = seal(root, kind, mib, dek, signer)
    rows = [Row(name, package, how, dek, signer) for name, other, how in ROWS if other == kind]
    timed = [row for row in rows if row.how in ("engine", "prepacked") and not row.skipped]
    for batch in (1, 8):
        for _ in range(RUNS):
            for row in timed:
                row.time(batch)
    for row in rows:
        row.end()
    for path in sorted(package.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return [row.report() for row in rows]


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    from figures.goals import at_most  # noqa: PLC0415 - not in a child that measures

    print(f"{'':32} {'peak':>7} {'beyond':>10} {'open':>8} {'load':>8} {'batch 1':>10} {'batch 8':>10}")
    print(f"{'':32} goal for what goes beyond the model: {PEAK - 1:.0%} of it and {WORKER_MIB} MiB a worker")
    for row in rows:
        if row.get("skipped"):
            print(f"{row['row']:32} library not installed")
            continue
        times = "".join(f" {row[key]:>7} ms" if key in row else " " * 11 for key in ("batch_1_ms", "batch_8_ms"))
        verdict = at_most(row["goal_mib"], " MiB").verdict(row["extra_mib"]) if row["held_to_it"] else ""
        print(
            f"{row['row']:32} {row['peak']:>6.3f}x {row['extra_mib']:>6.1f} MiB {row['open_s']:>6.2f} s"
            f" {row['load_s']:>6.2f} s{times:24} {verdict}".rstrip()
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512, help="size of each model")
    parser.add_argument("--folder", type=Path, default=None, help="where packages are written for the time being")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--how", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        child(asked.child, asked.how)
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as root:
        rows = [row for kind in WRITERS for row in measure(Path(root), kind, asked.mib)]
    if asked.json:
        print(json.dumps(rows))
    else:
        show(rows)


if __name__ == "__main__":
    main()
