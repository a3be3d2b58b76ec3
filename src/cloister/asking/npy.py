"""Files of ``numpy.save`` (NEP 1) from strangers: the header is read here, exactly, before anything is allocated.

Objects (which are pickles), records, times and complex numbers are refused by their type, and a file whose shape is not
as large as its bytes. Not done here: whether a model takes it (``tensors``).
"""

from __future__ import annotations

import io
import math
import re
import sys
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from cloister.asking.values import MAX_RANK
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.asking.values import Reading
    from cloister.client.datatypes import Array

__all__ = ["MAGIC", "read_npy"]

MAGIC = b"\x93NUMPY"
_MAX_HEAD_BYTES = 4096
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
_HEAD = re.compile(
    r"\{'descr': '([<>|=][A-Za-z]\d{0,9})', 'fortran_order': (?:True|False), 'shape': \(([0-9, ]{0,200})\),? ?\} *\n",
    re.ASCII,
)
_NUMBERS = re.compile(r".(?:b1|[iu][1248]|f[248])")
_WORDS = re.compile(r".[SU]\d+")
_WHY = {
    "O": "Python objects, a pickle", "V": "raw bytes", "c": "complex numbers", "M": "times", "m": "times",
    "S": "text", "U": "text",
}  # fmt: skip
_HINT = "write it with numpy.save, one array of numbers"


def read_npy(data: bytes, how: Reading) -> Array:
    """Return the array in a file, at most as large as the file says and is. Raises ``UsageError``."""
    start, descr, shape = _head(data, how)
    want = f"text for {how.datatype}" if how.is_text else f"numbers for {how.datatype}"
    if not (_WORDS if how.is_text else _NUMBERS).fullmatch(descr):
        _refuse(how, f"{_WHY.get(descr[1], 'elements')} ({descr})", want)
    size, count = int(descr[2:]) * (4 if descr[1] == "U" else 1), math.prod(shape)  # U: four bytes a character
    if len(shape) > MAX_RANK or not size or not count:
        _refuse(how, f"{count} values of {size} bytes in {len(shape)} dimensions", f"values, at most {MAX_RANK}")
    if count > how.most:
        _refuse(how, f"{count} values", f"at most {how.most}")
    if count * size != len(data) - start:
        _refuse(how, f"{len(data) - start} bytes", f"{count * size} for shape {list(shape)} of {descr}")
    try:
        found: Array = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as exc:  # a number with zeros in front, say
        msg = f"input {how.name[:80]}, file: no .npy file"
        raise UsageError(msg, hint=_HINT) from exc
    if descr[1] == "U" and int(found.view(f"{descr[0]}u4").max()) > sys.maxunicode:  # NumPy makes strings of any number
        _refuse(how, "text that is no Unicode", want)
    return found


def _head(data: bytes, how: Reading) -> tuple[int, str, tuple[int, ...]]:
    """Return where the elements begin, their type and the shape."""
    at = len(MAGIC) + 2
    width = _LENGTH_BYTES.get(data[len(MAGIC) : at], 0)
    start = at + width + int.from_bytes(data[at : at + width], "little")
    if not width or start > min(len(data), _MAX_HEAD_BYTES):
        _refuse(how, "a .npy header of another version or length", f"version 1 to 3, at most {_MAX_HEAD_BYTES} bytes")
    text = data[at + width : start].decode("latin-1")
    found = _HEAD.fullmatch(text)
    if found is None:
        _refuse(how, "records, or a header that numpy.save does not write", "one array of numbers or text")
    dims = [part.strip() for part in found[2].split(",")]
    if dims[-1] == "":
        del dims[-1]
    if not all(part.isdigit() and len(part) <= 10 for part in dims):  # noqa: PLR2004 - 2**31 - 1 has ten
        _refuse(how, f"shape ({found[2][:80]})", "sizes")
    return start, found[1], tuple(map(int, dims))


def _refuse(how: Reading, got: str, want: str) -> NoReturn:
    how.refuse("file", got, want, hint=_HINT)
