"""How long the readers of model formats take, as a ratio to reading the same file once.

    python benchmarks/model_formats.py --mib 1024 --rounds 5 --folder /tmp

Files are sparse: their tensors are zeros that lie on no disk, so that reading them is as fast as it ever gets. Readers
read headers only: the time follows the number of tensors and nodes, not of bytes. Medians of interleaved rounds, and
the most memory Python held while looking.
"""

from __future__ import annotations

import argparse
import json
import statistics
import struct
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from cloister.sealed.directory import PlainTree
from cloister.sealed.formats import parse_model
from cloister.sealed.formats.places import plain_files

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20


def safetensors(path: Path, size: int, tensors: int) -> None:
    """Write a sparse file of ``size`` bytes of data."""
    each = size // tensors
    header = json.dumps(
        {
            f"layers.{n}.weight": {"data_offsets": [n * each, (n + 1) * each], "dtype": "U8", "shape": [each]}
            for n in range(tensors)
        }
    ).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + tensors * each)


def gguf(path: Path, size: int, tensors: int) -> None:
    """Write a sparse file with a vocabulary of 150,000 words."""
    each = size // tensors // 32 * 32
    words = b"".join(struct.pack("<Q", len(word)) + word for word in (b"w%d" % n for n in range(150_000)))
    key = b"tokenizer.ggml.tokens"
    names = [b"blk.%d.weight" % n for n in range(tensors)]
    head = b"GGUF" + struct.pack("<IQQ", 3, tensors, 1) + struct.pack("<Q", len(key)) + key
    head += struct.pack("<IIQ", 9, 8, 150_000) + words
    for n, name in enumerate(names):
        head += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, each // 4, 0, n * each)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(-(-len(head) // 32) * 32 + tensors * each)


def onnx(path: Path, size: int, tensors: int) -> None:
    """Write a graph of as many nodes as tensors, its weights in a sparse file beside it."""
    each = size // tensors // 4 * 4
    weights = path.with_suffix(".data")
    with weights.open("wb") as file:
        file.truncate(each * tensors)
    initializers = []
    for n in range(tensors):
        tensor = TensorProto(
            name=f"w{n}", data_type=TensorProto.FLOAT, dims=[each // 4], data_location=TensorProto.EXTERNAL
        )
        for key, value in (("location", weights.name), ("offset", str(n * each)), ("length", str(each))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        initializers.append(tensor)
    nodes = [helper.make_node("Add", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in range(tensors)]
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", [], [], initializers)).SerializeToString())


def forest(path: Path) -> None:
    """Write trees of a million nodes, as skl2onnx does."""
    numbers = np.arange(1_000_000)
    lists = {"nodes_featureids": numbers % 30, "nodes_nodeids": numbers, "nodes_values": numbers / 7.0}
    texts = {"nodes_modes": [b"BRANCH_LEQ"] * 1_000_000}
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        **{name: item.tolist() for name, item in lists.items()},
        **texts,
    )
    path.write_bytes(helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString())


def read(folder: Path) -> None:
    """Read every byte once."""
    buffer = bytearray(MIB)
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def parse(folder: Path) -> None:
    """Look into every file."""
    parse_model(plain_files(PlainTree(folder)))


def timed(work: Callable[[Path], None], folder: Path) -> float:
    """Return the seconds it took."""
    start = time.perf_counter()
    work(folder)
    return time.perf_counter() - start


def main() -> None:
    """Print one row for each kind of model."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=1024, help="bytes of each model's tensors")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--folder", type=Path, default=None)
    given = options.parse_args()
    size = given.mib * MIB
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        rows: dict[str, Callable[[Path], None]] = {
            "safetensors, 1 tensor": lambda path: safetensors(path / "m.safetensors", size, 1),
            "safetensors, 1,000 tensors": lambda path: safetensors(path / "m.safetensors", size, 1000),
            "gguf, 1,000 tensors, 150,000 words": lambda path: gguf(path / "m.gguf", size, 1000),
            "onnx, 1,000 tensors beside it": lambda path: onnx(path / "m.onnx", size, 1000),
            "onnx, a million nodes of trees": lambda path: forest(path / "m.onnx"),
        }
        times: dict[str, tuple[list[float], list[float]]] = {}
        for name, make in rows.items():
            folder = Path(place) / name
            folder.mkdir()
            make(folder)
            times[name] = ([], [])
        for _ in range(given.rounds):
            for name, (reads, parses) in times.items():
                reads.append(timed(read, Path(place) / name))
                parses.append(timed(parse, Path(place) / name))
        print(f"{'model':36} {'MiB':>6} {'read once':>10} {'look into':>10} {'ratio':>8} {'memory':>9}")
        for name, (reads, parses) in times.items():
            tracemalloc.start()
            parse(Path(place) / name)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            bytes_ = sum(path.stat().st_size for path in (Path(place) / name).iterdir())
            once, look = statistics.median(reads), statistics.median(parses)
            ratio, held = look / once, peak / MIB
            print(
                f"{name:36} {bytes_ / MIB:6.0f} {once * 1e3:7.1f} ms {look * 1e3:7.2f} ms {ratio:7.4f}x {held:5.1f} MiB"
            )


if __name__ == "__main__":
    main()
