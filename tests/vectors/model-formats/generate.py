"""Write the vectors of model formats: good files, and each wrong in one way.

Every file is put together here byte by byte, without the readers and without the libraries of the formats. Run by
hand after a change of rules: ``python tests/vectors/model-formats/generate.py``. ``expect`` is ``ok``, ``malformed``
or the code of the refusal. A file is a list of pieces: hex, or hex and how often it comes.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import zlib
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).parent
Pieces: TypeAlias = "list[Any]"
Case: TypeAlias = "dict[str, Any]"


def case(name: str, expect: str, files: dict[str, bytes]) -> Case:
    """Return one case; runs are written short."""
    return {"expect": expect, "files": {path: pieces(data) for path, data in files.items()}, "name": name}


def pieces(data: bytes) -> Pieces:
    """Return the bytes as pieces."""
    found: Pieces = []
    done = 0
    for run in re.finditer(rb"(.{1,2}?)\1{31,}", data, re.DOTALL):
        found += [data[done : run.start()].hex(), [run[1].hex(), len(run[0]) // len(run[1])]]
        done = run.end()
    return [piece for piece in [*found, data[done:].hex()] if piece]


# Safetensors


def safetensors(header: Any, data: int | bytes = 0, *, size: int | None = None) -> bytes:
    """Return a file: any header, so many zeros or just these bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (
        struct.pack("<Q", len(text) if size is None else size) + text + (bytes(data) if isinstance(data, int) else data)
    )


def st(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    """Return one tensor's entry."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def safetensors_cases() -> list[Case]:
    """Return the cases of one file."""
    one = {"a": st()}
    two = {"a": st(), "b": st("I8", (4,), (24, 28))}

    def raw(text: str) -> bytes:
        return safetensors(text.encode(), 24)

    tensor = '"dtype":"F32","shape":[2,3],"data_offsets":[0,24]'
    return [
        case(f"safetensors: {name}", expect, {"model.safetensors": data})
        for name, expect, data in (
            ("one tensor", "ok", safetensors(one, 24)),
            ("two tensors and metadata", "ok", safetensors({"__metadata__": {"format": "pt"}, **two}, 28)),
            ("written out of order", "ok", safetensors(dict(reversed(two.items())), 28)),
            ("no tensors", "ok", safetensors({})),
            (
                "a scalar and an empty tensor",
                "ok",
                safetensors({"s": st("F64", (), (0, 8)), "e": st("F32", (0, 7), (8, 8))}, 8),
            ),
            ("header padded with spaces", "ok", safetensors(json.dumps(one).encode() + b"   ", 24)),
            ("four-bit floats", "ok", safetensors({"a": st("F4", (3, 2), (0, 3))}, 3)),
            ("nothing", "malformed", b""),
            ("half a length", "malformed", b"\x08\0\0"),
            ("only a length", "malformed", struct.pack("<Q", 30)),
            ("header of 1 GB", "malformed", safetensors(one, 24, size=10**9)),
            ("header of 2^63 bytes", "malformed", safetensors(one, 24, size=1 << 63)),
            ("header of one byte", "malformed", safetensors(b"{", 24)),
            ("header longer than the file", "malformed", safetensors(one, 0, size=500)),
            ("header no utf-8", "malformed", safetensors(b'{"\xff":{}}', 24)),
            ("header begins with a space", "malformed", safetensors(b" {}")),
            ("header an array", "malformed", safetensors(b"[]")),
            ("header cut", "malformed", safetensors(b'{"a":')),
            ("name twice", "malformed", raw(f'{{"a":{{{tensor}}},"a":{{{tensor}}}}}')),
            ("member twice", "malformed", raw(f'{{"a":{{{tensor},"dtype":"F32"}}}}')),
            ("shape of NaN", "malformed", raw('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,24]}}')),
            ("shape of infinity", "malformed", raw('{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,24]}}')),
            ("shape of a fraction", "malformed", safetensors({"a": st(shape=(6.0,))}, 24)),
            ("shape of a boolean", "malformed", safetensors({"a": st(shape=(True, 6))}, 24)),
            ("shape of text", "malformed", safetensors({"a": st(shape=("6",))}, 24)),
            ("shape of 2^64", "malformed", safetensors({"a": st(shape=(1 << 64,))}, 24)),
            ("offsets three", "malformed", safetensors({"a": st(offsets=(0, 12, 24))}, 24)),
            ("offset a fraction", "malformed", safetensors({"a": st(offsets=(0, 24.5))}, 24)),
            ("member missing", "malformed", safetensors({"a": {"dtype": "F32", "shape": [6]}}, 24)),
            ("member unknown", "malformed", safetensors({"a": {**st(), "strides": [1]}}, 24)),
            ("tensor a list", "malformed", safetensors({"a": [1]}, 24)),
            ("dtype a number", "malformed", safetensors({"a": st(dtype=1)}, 24)),
            ("metadata a number", "malformed", safetensors({"__metadata__": {"a": 1}})),
            ("metadata a list", "malformed", safetensors({"__metadata__": []})),
            ("nested too deep", "malformed", safetensors(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}")),
            ("type unknown", "unknown_type", safetensors({"a": st("F31")}, 24)),
            ("type in lower case", "unknown_type", safetensors({"a": st("f32")}, 24)),
            ("negative shape", "bad_shape", safetensors({"a": st(shape=(-2, -3))}, 24)),
            ("shape that overflows", "bad_shape", safetensors({"a": st(shape=(1 << 40, 1 << 40))}, 24)),
            ("forty dimensions", "bad_shape", safetensors({"a": st(shape=(1,) * 39 + (6,))}, 24)),
            ("fewer bytes than the shape says", "size_mismatch", safetensors({"a": st(offsets=(0, 20))}, 24)),
            ("more bytes than the shape says", "size_mismatch", safetensors({"a": st(offsets=(0, 28))}, 28)),
            ("half a byte too few", "size_mismatch", safetensors({"a": st("F4", (3,), (0, 1))}, 1)),
            ("negative offset", "outside_file", safetensors({"a": st(offsets=(-24, 0))}, 24)),
            ("offsets turned round", "outside_file", safetensors({"a": st(offsets=(24, 0))}, 24)),
            ("offset past the end", "outside_file", safetensors({"a": st(offsets=(24, 48))}, 24)),
            ("data cut", "outside_file", safetensors(one, 23)),
            ("overlap by one byte", "overlap", safetensors({"a": st(), "b": st("I8", (4,), (23, 27))}, 27)),
            ("the same bytes twice", "overlap", safetensors({"a": st(), "b": st()}, 24)),
            ("a gap", "gap", safetensors({"a": st(), "b": st("I8", (4,), (25, 29))}, 29)),
            ("a gap in front", "gap", safetensors({"a": st(offsets=(1, 25))}, 25)),
            ("bytes after the end", "trailing_data", safetensors(one, 25)),
            ("a pickle after the end", "trailing_data", safetensors(one, bytes(24) + pickle.dumps([1]))),
        )
    ]


def index_cases() -> list[Case]:
    """Return the cases of shards and their index."""
    first, second = safetensors({"a": st()}, 24), safetensors({"b": st()}, 24)
    good = {"metadata": {"total_size": 48}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}

    def shards(index: Any) -> dict[str, bytes]:
        text = index if isinstance(index, bytes) else json.dumps(index).encode()
        return {"m-1.safetensors": first, "m-2.safetensors": second, "model.safetensors.index.json": text}

    return [
        case("index: two shards", "ok", shards(good)),
        case("index: in a folder", "ok", {f"unet/{path}": data for path, data in shards(good).items()}),
        case("index: a wrong total", "ok", shards({**good, "metadata": {"total_size": 7}})),
        case(
            "index: a shard missing",
            "shard_missing",
            shards({"weight_map": {"a": "m-1.safetensors", "b": "x.safetensors"}}),
        ),
        case("index: a shard above", "shard_missing", shards({"weight_map": {"a": "../m-1.safetensors"}})),
        case("index: itself a shard", "shard_missing", shards({"weight_map": {"a": "model.safetensors.index.json"}})),
        case(
            "index: a tensor in the other shard",
            "tensor_missing",
            shards({"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors"}}),
        ),
        case(
            "index: a tensor too many",
            "tensor_missing",
            shards({"weight_map": {**good["weight_map"], "c": "m-1.safetensors"}}),
        ),
        case(
            "index: a tensor left out",
            "tensor_missing",
            {
                **shards({"weight_map": {"a": "m-1.safetensors"}}),
                "m-1.safetensors": safetensors({"a": st(), "z": st("I8", (1,), (24, 25))}, 25),
            },
        ),
        case(
            "index: a tensor twice",
            "malformed",
            shards(b'{"weight_map":{"a":"m-1.safetensors","a":"m-2.safetensors","b":"m-2.safetensors"}}'),
        ),
        case("index: a shard that is a number", "malformed", shards({"weight_map": {"a": 1}})),
        case("index: no weights", "malformed", shards({"weight_map": {}})),
        case("index: no map", "malformed", shards({"metadata": {}})),
        case("index: no json", "malformed", shards(b"weights")),
        case("index: more members", "malformed", shards({**good, "auto_map": {}})),
    ]


# GGUF


def text(value: str | bytes) -> bytes:
    """Return a string of GGUF."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def kv(key: str | bytes, kind: int, value: bytes) -> bytes:
    """Return one metadata entry."""
    return text(key) + struct.pack("<I", kind) + value


def info(name: str | bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    """Return one row of the table of tensors."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


ARCH = kv("general.architecture", 8, text("llama"))


def gguf(
    infos: list[bytes],
    kvs: list[bytes] | None = None,
    *,
    data: int = 0,
    version: int = 3,
    magic: bytes = b"GGUF",
    tensors: int | None = None,
    keys: int | None = None,
    alignment: int = 32,
) -> bytes:
    """Return a file: header, metadata, table, padding, so many zeros."""
    kvs = [ARCH] if kvs is None else kvs
    counts = struct.pack(
        "<IQQ", version, len(infos) if tensors is None else tensors, len(kvs) if keys is None else keys
    )
    head = magic + counts + b"".join(kvs) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + bytes(data)


def gguf_cases() -> list[Case]:
    """Return the cases of GGUF."""
    f32, q8 = info("a", (4, 2), 0, 0), info("b", (64,), 8, 32)
    negative = (1 << 64) - 32
    strings = struct.pack("<IQ", 8, 2) + text("a") + text("b")
    return [
        case(f"gguf: {name}", expect, {"model.gguf": data})
        for name, expect, data in (
            ("two tensors", "ok", gguf([f32, q8], data=100)),
            ("padded at the end", "ok", gguf([f32, q8], data=128)),
            ("version 2", "ok", gguf([f32], data=32, version=2)),
            (
                "arrays",
                "ok",
                gguf([f32], [ARCH, kv("t", 9, strings), kv("n", 9, struct.pack("<IQ3f", 6, 3, 1, 2, 3))], data=32),
            ),
            (
                "alignment of 64",
                "ok",
                gguf([f32], [kv("general.alignment", 4, struct.pack("<I", 64))], data=32, alignment=64),
            ),
            ("no tensors", "ok", gguf([])),
            ("nothing", "malformed", b""),
            ("another magic", "malformed", gguf([f32], data=32, magic=b"GGUE")),
            ("version 1", "malformed", gguf([f32], data=32, version=1)),
            ("version 4", "malformed", gguf([f32], data=32, version=4)),
            ("big-endian", "malformed", gguf([f32], data=32, version=3 << 24)),
            ("header cut", "malformed", gguf([f32])[:20]),
            ("metadata cut", "malformed", gguf([], keys=2)),
            ("2^63 tensors", "malformed", gguf([f32], data=32, tensors=1 << 63)),
            ("65537 tensors", "malformed", gguf([f32], data=32, tensors=65537)),
            ("2^63 metadata entries", "malformed", gguf([f32], data=32, keys=1 << 63)),
            ("a key of 2^63 bytes", "malformed", gguf([], [struct.pack("<Q", 1 << 63) + b"a"])),
            ("a value of 2^40 bytes", "malformed", gguf([], [kv("a", 8, struct.pack("<Q", 1 << 40))])),
            ("a key no utf-8", "malformed", gguf([], [kv(b"\xff", 4, bytes(4))])),
            ("a value no utf-8", "malformed", gguf([], [kv("a", 8, text(b"\xff"))])),
            ("metadata of an unknown type", "malformed", gguf([], [kv("a", 13, bytes(8))])),
            ("a boolean of 2", "malformed", gguf([], [kv("a", 7, b"\x02")])),
            ("an array in an array", "malformed", gguf([], [kv("a", 9, struct.pack("<IQIQ", 9, 1, 4, 0))])),
            ("an array of 2^61 numbers", "malformed", gguf([], [kv("a", 9, struct.pack("<IQ", 10, 1 << 61))])),
            ("an array of 2^40 strings", "malformed", gguf([], [kv("a", 9, struct.pack("<IQ", 8, 1 << 40))])),
            ("an array cut", "malformed", gguf([], [kv("a", 9, struct.pack("<IQ", 4, 1000))])),
            ("a tensor's name of 65 bytes", "malformed", gguf([info("n" * 65, (4,), 0, 0)], data=32)),
            ("alignment a text", "malformed", gguf([], [kv("general.alignment", 8, text("32"))])),
            ("a key twice", "duplicate_name", gguf([], [ARCH, ARCH])),
            ("a key of no bytes", "malformed", gguf([], [kv("", 4, bytes(4))])),
            ("a tensor twice", "duplicate_name", gguf([f32, info("a", (4, 2), 0, 32)], data=64)),
            ("alignment 0", "misaligned", gguf([], [kv("general.alignment", 4, bytes(4))])),
            ("alignment 24", "misaligned", gguf([], [kv("general.alignment", 4, struct.pack("<I", 24))])),
            ("alignment of 2^31", "misaligned", gguf([], [kv("general.alignment", 4, struct.pack("<I", 1 << 31))])),
            ("offset not aligned", "misaligned", gguf([info("a", (4,), 0, 4)], data=64)),
            ("type unknown", "unknown_type", gguf([info("a", (32,), 99, 0)], data=64)),
            ("type taken back", "unknown_type", gguf([info("a", (32,), 4, 0)], data=64)),
            ("five dimensions", "bad_shape", gguf([info("a", (1, 1, 1, 1, 4), 0, 0)], data=32)),
            ("2^31 dimensions", "bad_shape", gguf([text("a") + struct.pack("<I", 1 << 31)])),
            ("shape that overflows", "bad_shape", gguf([info("a", (1 << 32, 1 << 32), 0, 0)], data=32)),
            ("negative dimension", "bad_shape", gguf([info("a", (negative,), 0, 0)], data=32)),
            ("half a block", "bad_shape", gguf([info("a", (48,), 8, 0)], data=64)),
            ("negative offset", "outside_file", gguf([info("a", (4,), 0, negative)], data=32)),
            ("offset past the end", "outside_file", gguf([info("a", (4,), 0, 32)], data=32)),
            ("data cut", "outside_file", gguf([f32, q8], data=99)),
            ("no data", "outside_file", gguf([f32])),
            ("overlap", "overlap", gguf([info("a", (16,), 0, 0), info("b", (4,), 0, 32)], data=64)),
            ("the same bytes twice", "overlap", gguf([f32, info("b", (4, 2), 0, 0)], data=32)),
            ("a gap", "gap", gguf([f32, info("b", (4,), 0, 96)], data=112)),
            ("bytes after the end", "trailing_data", gguf([f32], data=64)),
        )
    ] + [case("gguf: under another name", "outside_file", {"weights.bin": gguf([f32])})]


# What has no place in a sealed model


class Calls:
    """Pickles to a call of ``print``."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the call."""
        return print, ("loaded",)


def zipped(members: dict[str, bytes], *, deflate: bool = False, front: bytes = b"", comment: bytes = b"") -> bytes:
    """Return a ZIP archive."""
    body, directory = b"", b""
    for name, content in members.items():
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(content) + packer.flush() if deflate else content
        shared = struct.pack(
            "<HHHHHIIIHH",
            20,
            0,
            8 if deflate else 0,
            0,
            0,
            zlib.crc32(content),
            len(packed),
            len(content),
            len(name),
            0,
        )
        directory += (
            b"PK\x01\x02"
            + struct.pack("<H", 20)
            + shared
            + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
            + name.encode()
        )
        body += b"PK\x03\x04" + shared + name.encode() + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), len(comment))
    return front + body + directory + b"PK\x05\x06" + end + comment


def as_pytorch(archive: bytes) -> bytes:
    """Return the archive with the wide end of directory that PyTorch writes: the narrow one says nothing."""
    body, end = archive[:-22], archive[-22:]
    count, size, start = struct.unpack("<HII", end[10:20])
    wide = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 30, 45, 0, 0, count, count, size, start)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(body), 1)
    return body + wide + locator + end[:8] + struct.pack("<HHIIH", 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def numpy(descr: str, *, version: int = 1) -> bytes:
    """Return a NumPy file with this header."""
    header = f"{descr}".encode()
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(header))
        + header
        + bytes(8)
    )


def foreign_cases() -> list[Case]:
    """Return pickles, archives and models to convert, by content and by name."""
    plain = {"fortran_order": False, "shape": (1,)}
    lambda_layer = json.dumps({"config": {"layers": [{"class_name": "Lambda"}]}}).encode()
    escaped = rb'{"config":{"layers":[{"class_name":"\u004cambda"}]}}'
    dense = json.dumps({"config": {"layers": [{"class_name": "Dense"}]}}).encode()
    calling = [(f"pickle of protocol {protocol} that calls", pickle.dumps(Calls(), protocol)) for protocol in range(6)]
    return [
        case(f"foreign: {name}", expect, {path: data})
        for name, expect, path, data in (
            *((name, "pickle", "weights", data) for name, data in calling),
            *(
                (
                    f"pickle of protocol {protocol} of plain values",
                    "pickle",
                    "config.json",
                    pickle.dumps({"a": [1, 2.5, "b"]}, protocol),
                )
                for protocol in range(2, 6)
            ),
            ("pickle that calls and then breaks off", "pickle", "w", b"cbuiltins\nprint\n(S'loaded'\ntR\xff"),
            ("pickle that calls, text behind it", "pickle", "README.md", pickle.dumps(Calls(), 0) + b"# A model\n"),
            ("pickle behind a long run", "pickle", "w", b"N" * 70000 + b"0" * 3 + pickle.dumps(Calls(), 0)),
            (
                "pickle with a long line in front",
                "pickle",
                "w",
                b"V" + b"a" * 40000 + b"\n0" + pickle.dumps(Calls(), 0),
            ),
            ("pickle that imports by two strings", "pickle", "w", b"\x8c\x08builtins\x8c\x05print\x93)R."),
            ("pickle that makes an instance", "pickle", "w", b"(ibuiltins\nprint\n."),
            ("pickle that never ends", "pickle", "w", b"\x80\x04" + b"N0" * 40000),
            ("pickle in zlib, as joblib writes it", "pickle", "model", zlib.compress(pickle.dumps(Calls(), 4))),
            ("long pickle in zlib", "pickle", "model", zlib.compress(pickle.dumps([Calls(), bytes(200000)], 4))),
            ("empty file called a pickle", "pickle", "model.pkl", b""),
            ("text called joblib", "pickle", "model.joblib", b"hello"),
            ("text called a checkpoint", "pickle", "model.CKPT", b"hello"),
            (
                "PyTorch file",
                "pickle",
                "pytorch_model.bin",
                zipped({"archive/data.pkl": b"x", "archive/data/0": bytes(16)}),
            ),
            (
                "PyTorch file behind other bytes",
                "pickle",
                "w.bin",
                zipped({"archive/data.pkl": b"x"}, front=b"#" * 100),
            ),
            (
                "PyTorch file with the directory that PyTorch writes",
                "pickle",
                "w.bin",
                as_pytorch(zipped({"a/data.pkl": b"x"})),
            ),
            (
                "torch.export with the directory that PyTorch writes",
                "needs_conversion",
                "m.pt2",
                as_pytorch(zipped({"m/x": b""})),
            ),
            (
                "archive with a wide directory of 2^40 members",
                "archive",
                "a",
                as_pytorch(zipped({"a": b""})).replace(struct.pack("<QQ", 1, 1), struct.pack("<QQ", 1 << 40, 1 << 40)),
            ),
            ("TorchScript", "pickle", "model.pt", zipped({"m/code/a.py": b"", "m/constants.pkl": b"x"})),
            ("torch.export", "needs_conversion", "model.pt2", zipped({"m/models/model.json": b"{}"})),
            ("skops", "needs_conversion", "model.skops", zipped({"schema.json": b"{}"})),
            ("NumPy array of objects", "pickle", "a.npy", numpy(str({"descr": "|O", **plain}))),
            (
                "NumPy array with objects in it",
                "pickle",
                "a.npy",
                numpy(str({"descr": [("a", "<f4"), ("b", "|O")], **plain})),
            ),
            ("NumPy objects spelled out", "pickle", "a.npy", numpy(str({"descr": "object", **plain}), version=2)),
            (
                "NumPy objects spelled with an escape",
                "pickle",
                "a.npy",
                numpy(r"{'descr': '|\x4f', 'fortran_order': False, 'shape': (1,)}"),
            ),
            ("NumPy array of numbers", "ok", "a.npy", numpy(str({"descr": "<f8", **plain}))),
            ("NumPy archive", "archive", "a.npz", zipped({"a.npy": numpy(str({"descr": "<f8", **plain}))})),
            (
                "Keras with a Lambda layer",
                "code_inside",
                "m.keras",
                zipped({"config.json": lambda_layer, "metadata.json": b"{}"}),
            ),
            (
                "Keras with a Lambda layer, packed",
                "code_inside",
                "m.keras",
                zipped({"config.json": lambda_layer}, deflate=True),
            ),
            (
                "Keras with a Lambda layer spelled with an escape",
                "code_inside",
                "m.keras",
                zipped({"config.json": escaped}),
            ),
            ("Keras with a config that is no json", "code_inside", "m.keras", zipped({"config.json": b"{"})),
            (
                "Keras with a config too deep",
                "code_inside",
                "m.keras",
                zipped({"config.json": b"[" * 100000}, deflate=True),
            ),
            ("Keras", "needs_conversion", "m.keras", zipped({"config.json": dense}, deflate=True)),
            (
                "Keras config that unpacks to 1 GB",
                "archive",
                "m.keras",
                zipped({"config.json": bytes(17 << 20)}, deflate=True),
            ),
            ("HDF5", "needs_conversion", "m.h5", b"\x89HDF\r\n\x1a\n" + bytes(64)),
            ("HDF5 behind a block", "needs_conversion", "m.bin", bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(64)),
            ("archive with a comment", "archive", "a.bin", zipped({"a": b"b"}, comment=b"hello")),
            (
                "archive with a comment behind other bytes",
                "archive",
                "a.bin",
                zipped({"a": b"b"}, front=b"##", comment=b"hello"),
            ),
            ("archive, empty", "archive", "a.bin", zipped({})),
            (
                "archive with a broken directory",
                "archive",
                "a.bin",
                zipped({"a": b"b"}).replace(b"PK\x01\x02", b"PK\x01\x03"),
            ),
            (
                "archive that claims 65535 members",
                "archive",
                "a.bin",
                zipped({"a": b"b"}).replace(b"\x01\0\x01\0", b"\xff\xff\xff\xff"),
            ),
            ("gzip", "archive", "vocab.gz", b"\x1f\x8b\x08\0" + bytes(20)),
            ("bzip2", "archive", "a", b"BZh91AY&SY"),
            ("xz", "archive", "a", b"\xfd7zXZ\0\0"),
            ("zstandard", "archive", "a", b"\x28\xb5\x2f\xfd\0"),
            ("lz4", "archive", "a", b"\x04\x22\x4d\x18\0"),
            ("7-zip", "archive", "a", b"7z\xbc\xaf\x27\x1c"),
            ("tar", "archive", "a", b"data.pkl".ljust(257, b"\0") + b"ustar\0" + bytes(249)),
            ("text", "ok", "README.md", b"# A model\n"),
            ("list of labels that begins as an import", "ok", "labels.txt", b"cat\ndog\nRabbit\nbird\n"),
            ("one full stop", "ok", "a.txt", b"."),
            ("a number", "ok", "a.txt", b"0.1\n"),
            ("an empty file", "ok", "empty", b""),
            ("weights of one value", "ok", "w.bin", b"\x88" * 100000),
            ("json", "ok", "config.json", b'{"model_type": "llama"}'),
        )
    ]


def main() -> None:
    """Write every file of vectors."""
    import onnx_cases  # noqa: PLC0415 - stands beside this file

    groups = {
        "foreign": foreign_cases(),
        "gguf": gguf_cases(),
        "onnx": onnx_cases.cases(),
        "safetensors": safetensors_cases() + index_cases(),
    }
    for name, cases in groups.items():
        rows = ",\n".join(json.dumps(item, sort_keys=True) for item in cases)
        (ROOT / f"{name}.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
