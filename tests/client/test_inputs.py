"""What else has an array form, and what a change of type may do: round to the model's floats, and nothing more."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from client_town import Town, scan
from PIL import Image
from test_images import quarters, spec
from test_tensors import info

from cloister.client.datatypes import as_array, encode, fit
from cloister.client.images import as_picture, image_to_array
from cloister.client.tensors import array_inputs, dump_inputs
from cloister.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


class Capsule:
    """Speaks DLPack and nothing else, as tensors of many libraries do; ``device`` 2 is CUDA."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **options: Any) -> Any:
        if self.device != 1:
            msg = "on another device"
            raise BufferError(msg)
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


class Lazy:
    """Has an array form by ``__array__`` alone."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: FBT001 - NumPy's own signature
        return np.arange(4, dtype=dtype or np.float32)


def test_tensors_of_any_library_are_taken_by_dlpack_or_array() -> None:
    assert as_array(Capsule(np.arange(3.0)), "FP64", name="x").tolist() == [0, 1, 2]
    assert as_array(Lazy(), "FP32", name="x").tolist() == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="no array form"):
        as_array(Capsule(np.arange(3.0), device=2), "FP32", name="x")


def test_scalars_and_nested_lists_have_the_models_type() -> None:
    scalar = info("FP32", shape=())
    assert array_inputs(scalar, {"x": 3})["x"].dtype == np.float32
    assert array_inputs(info("INT8"), [[1, 2], [3, 4]])["x"].dtype == np.int8
    assert array_inputs(info("BOOL"), [[True, False]])["x"].dtype == np.bool_


@pytest.mark.parametrize("value", [object(), {1, 2}, None, 5 + 1j, [[1], [2, 3]], [None, 1.0], [[1, "a"]]])
def test_what_has_no_numbers_is_refused(value: Any) -> None:
    with pytest.raises(UsageError):
        array_inputs(info("FP32"), {"x": value})


def test_masked_elements_are_not_sent_as_if_they_were_there() -> None:
    masked = np.ma.masked_array([[1.0, 2.0]], mask=[[False, True]])
    with pytest.raises(UsageError, match="1 elements are masked") as caught:
        array_inputs(info("FP32"), masked)
    assert "filled" in (caught.value.hint or "")
    assert array_inputs(info("FP32"), np.ma.masked_array([[1.0, 2.0]]))["x"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([2**24 + 1], "FP32"),
        ([-(2**63)], "FP64"),
        ([2049], "FP16"),
        ([1e39], "FP32"),
        ([7e4], "FP16"),
        (np.array([3.4e38], dtype="f4"), "BF16"),
        ([1.0], "INT32"),
        ([1], "BOOL"),
    ],
)
def test_no_type_is_changed_where_a_value_would_be(value: Any, datatype: str) -> None:
    with pytest.raises(UsageError) as caught:
        fit(np.asarray(value), datatype, name="x")
    assert caught.value.hint


def test_infinities_and_nan_that_were_meant_stay() -> None:
    assert fit(np.array([np.inf, -np.inf]), "FP32", name="x").tolist() == [np.inf, -np.inf]
    assert np.isnan(fit(np.array([np.nan]), "FP16", name="x")[0])
    assert fit(np.array([np.inf], dtype="f4"), "BF16", name="x").tolist() == [0x7F80]
    assert fit(np.array([2**24]), "FP32", name="x").tolist() == [2**24]


def test_what_was_fitted_once_is_the_same_again() -> None:
    once = fit(np.array([1.5]), "BF16", name="x")
    assert fit(once, "BF16", name="x") is once
    big = np.array([1.5], dtype=">f4")
    assert encode(big, "FP32", name="x") == np.array([1.5], dtype="<f4").tobytes()


def test_zeros_at_the_end_of_text_arrive() -> None:
    """NumPy's own text types drop them without a word."""
    body = dump_inputs(info("BYTES"), {"x": [["a\0", b"b\0\0"]]})
    assert body.data.endswith(b"\x02\0\0\0a\0" + b"\x03\0\0\0b\0\0")
    with pytest.raises(UsageError, match="elements of int"):
        dump_inputs(info("BYTES"), {"x": [["a", 1]]})
    with pytest.raises(UsageError, match="no Unicode"):
        dump_inputs(info("BYTES"), {"x": [["a", "\ud800"]]})


def test_a_shape_that_the_enclave_would_refuse_is_refused_before_it_leaves() -> None:
    town = Town()
    with town.client() as client:
        with pytest.raises(UsageError, match=r"input image: shape \[64\], want image FP32\[any, 64\]") as caught:
            client.infer("digits", scan(1)[0])
        assert "newaxis" in (caught.value.hint or "")
        with pytest.raises(UsageError, match=r"shape \[1, 63\]"):
            client.infer("digits", scan(1)[:, 1:])
    assert not [request for request in town.enclave.seen if request.method == "POST"]


# --- images


def test_images_come_as_files_bytes_arrays_and_lists_of_them(tmp_path: Path) -> None:
    image = Image.new("L", (96, 96), 0)
    image.paste(255, (12 * 5, 0, 12 * 6, 12))
    image.save(tmp_path / "five.png")
    kept = io.BytesIO()
    image.save(kept, "png")
    pixels = np.asarray(image)
    with Town().client() as client:
        for given in (kept.getvalue(), pixels, np.stack([pixels] * 3, axis=2), bytearray(kept.getvalue())):
            assert client.infer("digits", image=given).label == "5"
        batch = client.infer("digits", image=[tmp_path / "five.png", image, pixels])
    assert batch.labels["label"] == ("5", "5", "5")


@pytest.mark.parametrize("bad", [b"no image", np.zeros((2, 2)), np.zeros((2, 2, 2), dtype=np.uint8), 5, [5]])
def test_what_is_no_picture_is_refused(bad: Any) -> None:
    with pytest.raises(UsageError):
        as_picture(bad)


def test_turning_marks_are_obeyed_in_images_of_pillow_too(tmp_path: Path) -> None:
    turned = Image.new("L", (2, 1), 0)
    turned.putpixel((1, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 3
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        assert image_to_array(opened, spec(size=[2, 1])).tolist() == [[16.0, 0.0]]


def test_sixteen_bits_are_brought_to_eight_and_not_cut_off() -> None:
    deep = Image.fromarray(np.array([[0, 32768], [65535, 256]], dtype=np.uint16))
    assert deep.mode == "I;16"
    assert np.allclose(image_to_array(deep, spec(range=[0, 255])), [[0, 127.5, 255, 1]], atol=1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_modes_that_say_their_range_are_read(mode: str) -> None:
    assert image_to_array(quarters().convert("RGB").convert(mode) if mode != "LA" else quarters().convert("LA"),
                          spec(mode="RGB", layout="nhwc")).shape == (1, 2, 2, 3)  # fmt: skip


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_that_do_not_are_refused(mode: str) -> None:
    with pytest.raises(UsageError, match="does not say what is dark"):
        image_to_array(quarters().convert(mode), spec())
