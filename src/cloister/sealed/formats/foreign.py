"""Files that no sealed model may have, by content and by name: pickles, archives, models to be converted first.

Each gets one answer: ``pickle`` (loading it runs code), ``code_inside`` (a Keras model with a Lambda layer, which is
code too), ``archive`` (nobody can see what is in it), ``needs_conversion`` (a model that no engine reads as it is).
"""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Rejected
from cloister.sealed.formats.pickles import is_pickle
from cloister.sealed.formats.window import ModelFile, shown
from cloister.sealed.formats.zipped import is_zip, members, unpack

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["demand_harmless", "has_lambda"]

_NAMES = (".pkl", ".pickle", ".pt", ".pt2", ".pth", ".ckpt", ".joblib", ".dill", ".cloudpickle")
_SKOPS = ".skops"
_ARCHIVES = (
    (0, b"\x1f\x8b\x08", "gzip"), (0, b"BZh", "bzip2"), (0, b"\xfd7zXZ\x00", "xz"), (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"\x28\xb5\x2f\xfd", "zstandard"), (0, b"7z\xbc\xaf\x27\x1c", "7-zip"), (257, b"ustar", "tar"),
)  # fmt: skip
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_PLACES = (0, 512, 1024, 2048)  # HDF5 File Format Specification, section II.A: 0, then powers of two from 512
_NUMPY = b"\x93NUMPY"
_KERAS_CONFIG = "config.json"
_MAX_CONFIG_BYTES = 16 << 20
_MAX_NUMPY_HEADER_BYTES = 1 << 16
_PEEK_BYTES = 1 << 16
_CONVERT = "convert it with 'cloister model convert', or export it to ONNX"
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"Lambda"|"__lambda__"')


def demand_harmless(file: ModelFile) -> None:
    """Prove that the file is none of those above. Raises ``Rejected`` with the one that it is."""
    subject = f"file {shown(file.path)}"
    if file.name.endswith(_NAMES) and not is_zip(file):
        raise _pickle(subject, "its name")
    if is_zip(file):
        raise _zip(file, subject)
    if is_pickle(file):
        raise _pickle(subject, "a pickle")
    if is_pickle(_inflated(file), whole=False):
        raise _pickle(subject, "a compressed pickle")
    for at, magic, kind in _ARCHIVES:
        if file.read(at, len(magic)) == magic:
            raise Rejected.because("archive", subject, got=kind, want="plain files", hint="unpack it first")
    if any(file.read(at, len(_HDF5)) == _HDF5 for at in _HDF5_PLACES):
        raise Rejected.because("needs_conversion", subject, got="HDF5", want="ONNX", hint=_CONVERT)
    if file.read(0, len(_NUMPY)) == _NUMPY and _may_hold_objects(file):
        raise _pickle(subject, "a NumPy array of objects")


def _pickle(subject: str, got: str) -> Rejected:
    hint = f"a pickle runs code when it is loaded; {_CONVERT} or safetensors"
    return Rejected.because("pickle", subject, got=got, want="no pickles", hint=hint)


def _zip(file: ModelFile, subject: str) -> Rejected:
    """Return why an archive is refused: by what is inside."""
    try:
        found = {member.name: member for member in members(file)}
        if any(name.endswith(".pkl") for name in found):
            return _pickle(subject, "an archive with a pickle, as PyTorch writes it")
        if _KERAS_CONFIG in found:
            if has_lambda(unpack(file, found[_KERAS_CONFIG], cap=_MAX_CONFIG_BYTES)):
                return Rejected.because("code_inside", subject, got="a Keras model with a Lambda layer", want="no code")
            return Rejected.because("needs_conversion", subject, got="a Keras model", want="ONNX", hint=_CONVERT)
    except Malformed:
        pass  # what cannot be looked into is an archive all the same
    if file.name.endswith(_SKOPS):
        return Rejected.because("needs_conversion", subject, got="a model of scikit-learn", want="ONNX", hint=_CONVERT)
    if file.name.endswith(_NAMES):
        return Rejected.because("needs_conversion", subject, got="a PyTorch model", want="ONNX", hint=_CONVERT)
    return Rejected.because("archive", subject, got="zip", want="plain files", hint="unpack it first")


def has_lambda(config: bytes) -> bool:
    """Tell whether the configuration of a Keras model has a Lambda layer or a pickled function anywhere.

    A configuration that is no JSON, or too deep to look through, counts as one.
    """
    if _LAMBDA.search(config):
        return True
    try:
        return _mentions_lambda(json.loads(config))
    except (ValueError, RecursionError):
        return True


def _mentions_lambda(value: Json) -> bool:
    """Look through the parsed value: names may be spelled with escapes."""
    if isinstance(value, dict):
        return value.get("class_name") in {"Lambda", "__lambda__"} or any(map(_mentions_lambda, value.values()))
    return isinstance(value, list) and any(map(_mentions_lambda, value))


def _inflated(file: ModelFile) -> ModelFile:
    """Return the beginning of what a zlib stream unpacks to (joblib writes such), as a file; empty where it is none."""
    try:
        content = zlib.decompressobj().decompress(file.read(0, min(file.size, _PEEK_BYTES)), _PEEK_BYTES)
    except zlib.error:
        content = b""
    return ModelFile(path=file.path, size=len(content), read=lambda at, size: content[at : at + size])


def _may_hold_objects(file: ModelFile) -> bool:
    """Tell whether the header of a NumPy array (NumPy's ``lib.format``) has what a type of objects is spelled with.

    The header is a Python literal, in which a member may come twice and be spelled with escapes.
    """
    size_bytes = 2 if file.read(6, 1) == b"\x01" else 4
    size = int.from_bytes(file.read(8, size_bytes), "little")
    header = file.read(8 + size_bytes, min(size, _MAX_NUMPY_HEADER_BYTES))
    return size > _MAX_NUMPY_HEADER_BYTES or any(sign in header for sign in (b"O", b"object", b"\\"))
