"""Image files as the model's card says; hostile files and hostile cards."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from client_town import Town
from PIL import Image

from cloister.client.images import ImageSpec, image_to_array
from cloister.errors import Malformed, UsageError
from mutations import mutated

if TYPE_CHECKING:
    from pathlib import Path


def spec(**changes: Any) -> ImageSpec:
    members = {"kind": "image", "mode": "L", "size": [2, 2], "range": [0, 16], "layout": "flat", "invert": False}
    return ImageSpec.from_json(members | changes)


def quarters() -> Image.Image:
    image = Image.new("L", (40, 40), 0)
    image.paste(255, (20, 0, 40, 20))
    return image


def test_areas_are_averaged_and_scaled() -> None:
    assert image_to_array(quarters(), spec()).tolist() == [[0.0, 16.0, 0.0, 0.0]]
    assert image_to_array(quarters(), spec(invert=True, range=[-1, 1])).tolist() == [[1.0, -1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("layout", "mode", "shape"),
    [
        ("flat", "L", (1, 6)),
        ("flat", "RGB", (1, 18)),
        ("nchw", "L", (1, 1, 2, 3)),
        ("nchw", "RGB", (1, 3, 2, 3)),
        ("nhwc", "RGB", (1, 2, 3, 3)),
    ],
)
def test_layouts_have_their_shapes(layout: str, mode: str, shape: tuple[int, ...]) -> None:
    array = image_to_array(quarters(), spec(layout=layout, mode=mode, size=[3, 2]))
    assert array.shape == shape
    assert array.dtype == np.float32
    assert array.flags.c_contiguous


def test_transparency_lies_on_white_and_turning_marks_are_obeyed(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert image_to_array(clear, spec(size=[1, 1])).tolist() == [[16.0]]
    turned = Image.new("L", (2, 1), 0)
    turned.putpixel((1, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    assert image_to_array(tmp_path / "turned.png", spec(size=[2, 1])).tolist() == [[16.0, 0.0]]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tiff", "ppm"])
def test_formats_are_read(tmp_path: Path, suffix: str) -> None:
    quarters().convert("RGB").save(tmp_path / f"x.{suffix}")
    array = image_to_array(str(tmp_path / f"x.{suffix}"), spec())
    assert array[0, 1] > 14
    assert array[0, 2] < 2


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"not an image")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    (tmp_path / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("text.png", "cut.png", "page.eps", "missing.png", ".", "pipe.png"):
        with pytest.raises(UsageError):
            image_to_array(tmp_path / name, spec())


def test_a_picture_that_is_huge_in_memory_is_refused_by_its_header(tmp_path: Path) -> None:
    header = b"P5\n200000 200000\n255\n"
    (tmp_path / "bomb.pgm").write_bytes(header + b"\x00" * 100)
    with pytest.raises(UsageError):
        image_to_array(tmp_path / "bomb.pgm", spec())


def test_mutated_images_raise_usage_errors_only(tmp_path: Path) -> None:
    quarters().save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    path = tmp_path / "bad.png"
    for data in mutated(good, count=500, seed=3):
        path.write_bytes(data)
        try:
            image_to_array(path, spec())
        except UsageError:
            continue


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "audio"},
        {"mode": "CMYK"},
        {"layout": "chw"},
        {"size": [0, 2]},
        {"size": [2]},
        {"size": [100000, 2]},
        {"size": [8192, 8192]},
        {"range": [0]},
        {"range": [0, 1e9]},
        {"range": [0, "1"]},
        {"invert": 1},
        {"run": "rm"},
    ],
)
def test_cards_that_ask_for_something_else_are_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        spec(**change)


def test_a_file_becomes_the_one_input_made_from_images(tmp_path: Path) -> None:
    image = Image.new("L", (96, 96), 0)
    image.paste(255, (12 * 5, 0, 12 * 6, 12))
    image.save(tmp_path / "five.png")
    town = Town()
    with town.client() as client:
        assert client.infer("digits", image=tmp_path / "five.png").label == "5"
        assert client.infer("digits", image=image).label == "5"
        assert client.infer("digits", {"image": str(tmp_path / "five.png")}).label == "5"
        assert client.infer("digits", tmp_path / "five.png").label == "5"
