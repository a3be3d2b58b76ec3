"""Files as questions and answers: images, arrays, JSON. Devices, pipes and pickles are refused."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloister.errors import Malformed, UsageError
from cloister.wire import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["dump_outputs", "read_batch", "read_inputs"]

MAX_INPUT_BYTES = 1 << 30  # bytes of one array or image file
MAX_JSON_BYTES = 64 << 20  # bytes of one JSON file
MAX_QUESTIONS = 100_000  # files of one folder


def read_inputs(texts: Sequence[str]) -> list[tuple[str, object]]:
    """Return what ``--input`` asks: one question for each plain file, or one of all the named ones.

    Each is a name to print and what ``Client.infer`` takes. Raises ``UsageError``.
    """
    named: dict[str, object] = {}
    plain: list[tuple[str, object]] = []
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or Path(text).exists():
            plain.append((Path(text).name, _read(Path(text))))
        elif not name or name in named:
            msg = f"--input {text[:80]}: want NAME=FILE, each name once"
            raise UsageError(msg)
        else:
            named[name] = _read(Path(rest))
    if plain and named:
        msg = "--input: want NAME=FILE for all inputs of one question, or plain files"
        raise UsageError(msg)
    return plain or [(", ".join(named), named)]


def read_batch(path: Path) -> object:
    """Return what ``--batch`` asks: the rows of a file, or each file of a folder by name. Raises ``UsageError``."""
    if not path.is_dir():
        if path.suffix.lower() not in {".npy", ".npz"}:
            msg = f"{path}: want .npy, .npz or a folder"
            raise UsageError(msg)
        return _arrays(path)
    found = sorted(item for item in path.iterdir() if not item.name.startswith("."))
    if not 0 < len(found) <= MAX_QUESTIONS:
        msg = f"{path}: {len(found)} files, want 1 to {MAX_QUESTIONS}"
        raise UsageError(msg)
    return [_read(item) for item in found]


def _read(path: Path) -> object:
    match path.suffix.lower():
        case ".npy" | ".npz":
            return _arrays(path)
        case ".json":
            return _json(path)
        case _:
            _demand_file(path, MAX_INPUT_BYTES)
            return path  # an image; the client reads it as the model's card says


def _demand_file(path: Path, cap: int) -> None:
    """Refuse what is no plain file: a pipe or a device would be read for ever."""
    try:
        status = path.stat()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path}: not a plain file"
        raise UsageError(msg)
    if status.st_size > cap:
        msg = f"{path}: {status.st_size} bytes, want at most {cap}"
        raise UsageError(msg)


def _bytes(path: Path, cap: int) -> bytes:
    _demand_file(path, cap)
    try:
        return path.read_bytes()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc


def _arrays(path: Path) -> object:
    """Return an array, or a mapping of arrays; pickled objects are refused, for reading them runs code."""
    data = io.BytesIO(_bytes(path, MAX_INPUT_BYTES))
    try:
        loaded = np.load(data, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile, MemoryError) as exc:
        msg = f"{path}: no numpy file without pickled objects"
        raise UsageError(msg, hint="write it with numpy.save or numpy.savez") from exc


def _json(path: Path) -> object:
    try:
        return parse_json(_bytes(path, MAX_JSON_BYTES), what=path.name, cap=MAX_JSON_BYTES)
    except Malformed as exc:
        raise UsageError(exc.message, hint="want a list, or an object of lists by input name") from exc


def dump_outputs(outputs: Mapping[str, Any], path: Path) -> bytes:
    """Return the bytes of an ``.npz``, or of a ``.npy`` where there is one output. Raises ``UsageError``."""
    buffer = io.BytesIO()
    # Strings of different lengths are objects in memory; a file takes them padded to one.
    arrays = {name: array.astype(np.bytes_) if array.dtype == object else array for name, array in outputs.items()}
    if path.suffix == ".npz":
        np.savez(buffer, **arrays)
    elif len(arrays) == 1:
        np.save(buffer, next(iter(arrays.values())))
    else:
        msg = f"{path}: the model has {len(arrays)} outputs, want .npz"
        raise UsageError(msg)
    return buffer.getvalue()
