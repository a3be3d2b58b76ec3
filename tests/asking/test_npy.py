"""Files of numpy.save from strangers: what is taken, and what is refused before anything is allocated."""

from __future__ import annotations

import io
import pickle
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloister.asking import npy
from cloister.asking.npy import MAGIC, read_npy
from cloister.asking.values import reading
from cloister.client.model_info import TensorInfo
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.asking.values import Reading


def kind(datatype: str = "FP32", *, most: int = 1000) -> Reading:
    return reading(TensorInfo(name="x", datatype=datatype, shape=(-1,)), gaps=False, most=most)


def saved(array: Any, **options: Any) -> bytes:
    """Return what numpy.save writes."""
    data = io.BytesIO()
    np.save(data, array, **options)
    return data.getvalue()


def file(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Return a file with this header, as long as it is."""
    size = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return MAGIC + version + size + header.encode("latin-1") + body


def header(descr: str = "<f4", shape: str = "(2,)") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"


GOOD = [
    np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(5, np.int64), np.arange(4, dtype=">f8"), np.array([True, False]), np.arange(3, dtype=np.uint8),
    np.zeros((1,) * 16),
]  # fmt: skip


@pytest.mark.parametrize("array", GOOD, ids=range(len(GOOD)))
def test_what_numpy_writes_is_read(array: np.ndarray) -> None:
    found = read_npy(saved(array), kind())
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)


def test_later_versions_of_the_format_are_read() -> None:
    for version in (b"\x02\x00", b"\x03\x00"):
        assert read_npy(file(header(), bytes(8), version), kind()).tolist() == [0, 0]


def test_text_is_for_inputs_of_text_and_numbers_for_the_others() -> None:
    words = np.array([["a", "\u00e9"]])
    assert read_npy(saved(words), kind("BYTES")).tolist() == words.tolist()
    assert read_npy(saved(np.array([b"a"])), kind("BYTES")).tolist() == [b"a"]
    with pytest.raises(UsageError, match=r"input x, file: text \(<U1\), want numbers for FP32"):
        read_npy(saved(words), kind())
    with pytest.raises(UsageError, match=r"elements \(<f8\), want text for BYTES"):
        read_npy(saved(np.zeros(2)), kind("BYTES"))


class Bomb:
    """Runs when it is unpickled."""

    went_off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _go_off, ()


def _go_off() -> None:
    Bomb.went_off = True


@pytest.mark.parametrize("order", ["<", ">"])
def test_text_of_numbers_that_are_no_characters_is_refused(order: str) -> None:
    """Python and NumPy would make strings of them, which have no meaning and no UTF-8."""
    last = np.array(["ab", "\U0010ffff"], f"{order}U2")
    assert read_npy(saved(last), kind("BYTES")).tolist() == last.tolist()
    for number in (0x110000, 0x7FFFFFFF, 0xFFFFFFFF):
        bad = np.array([97, number], f"{order}u4").view(f"{order}U2")
        with pytest.raises(UsageError, match="input x, file: text that is no Unicode, want text for BYTES"):
            read_npy(saved(bad), kind("BYTES"))


def test_objects_and_pickles_are_refused_and_run_nothing() -> None:
    for array in (np.array([Bomb()], dtype=object), np.array([{}], dtype=object)):
        with pytest.raises(UsageError, match=r"file: Python objects, a pickle \(\|O\), want numbers"):
            read_npy(saved(array, allow_pickle=True), kind())
    for datatype in ("FP32", "BYTES"):
        with pytest.raises(UsageError):
            read_npy(file(header("|O"), pickle.dumps([Bomb()])), kind(datatype))
        with pytest.raises(UsageError):
            read_npy(file(header(), pickle.dumps(Bomb())), kind(datatype))
    assert not Bomb.went_off


BOMBS = {
    "more than its bytes": (header(shape="(100,)"), b"1234", "4 bytes, want 400 for shape"),
    "far more": (header(shape="(99999, 99999)"), b"", "9999800001 values, want at most 1000"),
    "a product that wraps": (header(shape="(4294967296, 4294967296)"), b"", "want at most 1000"),
    "larger sizes than there are": (header(shape="(99999999999,)"), b"", "want sizes"),
    "nothing, at length": (header(shape="(4294967295, 0)"), b"", "0 values"),
    "words of no length": (header("<U0", "(999999999,)"), b"", "values of 0 bytes"),
    "words of great length": (header("<U999999999", "(1,)"), b"", "0 bytes, want 3999999996"),
    "many dimensions": (header(shape=f"({'1,' * 17})"), b"1234", "17 dimensions"),
    "less than its bytes": (header(), bytes(12), "12 bytes, want 8"),
    "a negative size": (header(shape="(-1,)"), b"", "a header that numpy.save does not write"),
}


@pytest.mark.parametrize(("head", "body", "told"), BOMBS.values(), ids=BOMBS.keys())
def test_shapes_that_are_not_what_the_file_holds_are_refused(
    head: str, body: bytes, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        pytest.fail("numpy read a file that had to be refused first")

    monkeypatch.setattr(npy.np, "load", load)
    with pytest.raises(UsageError, match=told):
        read_npy(file(head, body), kind("BYTES" if "<U" in head else "FP32"))


HEADS = {
    "records": "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }\n",
    "another key": "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1, }\n",
    "a call": "{'descr': __import__('os').name, 'fortran_order': False, 'shape': (2,), }\n",
    "brackets": "[" * 3000 + "\n",
    "nothing": "",
    "no shape": header(shape="(,)"),
    "zeros in front": header(shape="(02,)"),
    "a long shape": header(shape="(" + "1, " * 1000 + ")"),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_headers_that_numpy_does_not_write_are_refused(head: str) -> None:
    with pytest.raises(UsageError, match="input x, file: "):
        read_npy(file(head, bytes(8)), kind())


@pytest.mark.parametrize("descr", ["<c8", "<M8", "<m8", "|V4", "<f16", "<i3", "<f9", "|b2", "<x4", "<S4"])
def test_elements_that_are_no_numbers_are_refused(descr: str) -> None:
    with pytest.raises(UsageError, match=rf"\({descr}\), want numbers for FP32".replace("|", r"\|")):
        read_npy(file(header(descr), bytes(8)), kind())


def test_a_header_of_any_length_is_refused_before_it_is_read() -> None:
    for data in (MAGIC, MAGIC + b"\x01\x00", MAGIC + b"\x04\x00" + bytes(100), MAGIC + b"\x02\x00\xff\xff\xff\xff"):
        with pytest.raises(UsageError, match="header of another version or length"):
            read_npy(data, kind())
    with pytest.raises(UsageError, match="length"):
        read_npy(file(header() + " " * 70_000, bytes(8), b"\x02\x00"), kind())


def test_changed_files_raise_one_error_and_no_other() -> None:
    rng = random.Random(11)
    whole = saved(np.arange(12, dtype=np.int16).reshape(3, 4))
    for _ in range(5000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(6, 90)] = rng.choice([rng.randrange(256), *b"0123456789,() '<>|OfiuU"])
        try:
            found = read_npy(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]), kind())
        except UsageError:
            continue
        assert found.nbytes <= len(whole)
