"""Image files as tensors, the way the model's card says (docs/reference/model-card.md).

The card's ``preprocess`` is written by whoever sealed the model and comes out of the attested enclave. It is
parsed strictly and can only choose among the few operations here.

Not done here: preprocessing that a card cannot say; pass an array instead.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cloister.errors import UsageError
from cloister.wire import Fields, Json

if TYPE_CHECKING:
    from cloister.client.datatypes import Array

__all__ = ["ImageSpec", "as_picture", "image_to_array", "is_image", "open_image"]

MAX_IMAGE_BYTES = 64 << 20  # bytes of an image file
MAX_IMAGE_PIXELS = 100_000_000  # pixels of an image before resizing
MAX_SIDE = 8192  # pixels of a model's input, either way
MAX_INPUT_PIXELS = 1 << 24  # pixels of a model's input in all: the card is the publisher's, the memory ours
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_LAYOUTS = ("flat", "nchw", "nhwc")
_CHANNELS = {"L": 1, "RGB": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """How one input is made from an image: colours, ``(width, height)``, range of values, order of axes."""

    mode: str
    size: tuple[int, int]
    low: float
    high: float
    layout: str
    invert: bool

    @classmethod
    def from_json(cls, value: Json) -> ImageSpec:
        """Parse one entry of a card's ``preprocess``. Raises ``Malformed``."""
        fields = Fields(value, what="model card: preprocess")
        fields.literal("kind", "image")
        mode = fields.text("mode", cap=8)
        layout = fields.text("layout", cap=8)
        size = [_side(item) for item in fields.items("size", cap=2)]
        span = [_bound(item) for item in fields.items("range", cap=2)]
        if mode not in _CHANNELS:
            fields.fail("mode", "want L or RGB")
        if layout not in _LAYOUTS:
            fields.fail("layout", "want flat, nchw or nhwc")
        if len(size) != 2 or len(span) != 2:  # noqa: PLR2004 - pairs
            fields.fail("size", "want size and range as pairs")
        if size[0] * size[1] > MAX_INPUT_PIXELS:
            fields.fail("size", f"want at most {MAX_INPUT_PIXELS} pixels in all")
        invert = fields.boolean("invert") if "invert" in fields else False
        fields.end()
        return cls(mode=mode, size=(size[0], size[1]), low=span[0], high=span[1], layout=layout, invert=invert)


def _side(item: Json) -> int:
    return Fields({"size": item}, what="model card: preprocess").integer("size", floor=1, cap=MAX_SIDE)


def _bound(item: Json) -> float:
    return Fields({"range": item}, what="model card: preprocess").number("range", floor=-1e6, cap=1e6)


def is_image(value: object) -> bool:
    """Tell whether ``value`` is a path or an image of Pillow."""
    return isinstance(value, str | Path | Image.Image)


def as_picture(value: object) -> object:
    """Return what ``image=`` was given as a path, an image of Pillow, or a list of these.

    Takes also the bytes of an image file, and arrays of NumPy: ``(h, w)``, ``(h, w, 3)`` or ``(h, w, 4)`` of uint8.
    Raises ``UsageError`` for anything else.
    """
    if is_image(value):
        return value
    if isinstance(value, list | tuple):
        return [as_picture(item) for item in value]
    if isinstance(value, bytes | bytearray):
        return open_image(io.BytesIO(value))
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape[2:] in {(), (3,), (4,)} and value.size:
        return Image.fromarray(value)
    got = f"{value.dtype} of shape {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
    msg = f"image: {got}, want a path, an image of Pillow, the bytes of a file or an array of uint8 (h, w[, 3 or 4])"
    raise UsageError(msg, hint="an array that is the model's input already goes into inputs=")


def open_image(source: Path | str | io.BytesIO, *, max_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """Return the decoded image in a file, or of its bytes. Raises ``UsageError`` for what is no image, or too large.

    One of more than ``max_pixels`` is refused before it is decoded.
    """
    name = "image" if isinstance(source, io.BytesIO) else str(source)
    try:
        if not isinstance(source, io.BytesIO):
            _demand_file(Path(source))
        with Image.open(source, formats=_FORMATS) as image:
            _demand_pixels(image, name, max_pixels)
            image.load()
            return _upright(image)
    except OSError as exc:
        detail = "no image this client reads" if isinstance(exc, UnidentifiedImageError) else exc.strerror
        msg = f"{name}: {detail or 'a broken image'}"
        raise UsageError(msg, hint="give a png, jpeg, webp, bmp, gif, tiff or ppm file") from exc
    except (ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        msg = f"{name}: a broken image"
        raise UsageError(msg) from exc


def _demand_file(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_IMAGE_BYTES:
        msg = f"{path}: {size} bytes, want at most {MAX_IMAGE_BYTES}"
        raise UsageError(msg)
    if not path.is_file():
        msg = f"{path}: no plain file"
        raise UsageError(msg)


def _demand_pixels(image: Image.Image, name: str, most: int = MAX_IMAGE_PIXELS) -> None:
    """Refuse a picture that is small as a file and huge in memory, before it is decoded."""
    if image.width * image.height > most:
        msg = f"{name}: {image.width}x{image.height} pixels, want at most {most} in all"
        raise UsageError(msg)


def image_to_array(value: object, spec: ImageSpec) -> Array:
    """Return a float32 batch of one: ``(1, h*w*c)``, ``(1, c, h, w)`` or ``(1, h, w, c)`` by ``spec.layout``.

    Marks for turning (EXIF) are obeyed, in files and in images of Pillow alike. Pixels 0..255 become ``low``..``high``,
    16 bits are brought to 8; ``invert`` swaps dark and bright first. Transparency is laid on white. Shrinking averages
    areas, growing interpolates. Raises ``UsageError``.
    """
    image = value if isinstance(value, Image.Image) else open_image(value)  # type: ignore[arg-type]  # see is_image
    _demand_pixels(image, "image")
    image = _with_colours(_upright(image) if image is value else image, spec.mode)
    shrinks = image.width >= spec.size[0] and image.height >= spec.size[1]
    image = image.resize(spec.size, Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC)
    if spec.invert:
        image = ImageOps.invert(image)
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    scaled = np.float32(spec.low) + pixels * np.float32(spec.high - spec.low)
    cube = scaled.reshape(spec.size[1], spec.size[0], _CHANNELS[spec.mode])
    if spec.layout == "flat":
        return cube.reshape(1, -1)
    return cube[np.newaxis] if spec.layout == "nhwc" else np.ascontiguousarray(cube.transpose(2, 0, 1)[np.newaxis])


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, TypeError, struct.error) as exc:  # marks are a stranger's bytes
        msg = "image: broken marks (EXIF)"
        raise UsageError(msg) from exc


def _with_colours(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in grey or colours. Raises ``UsageError`` where a pixel's range cannot be known."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in {"I", "F"}:
        msg = f"image: mode {image.mode} does not say what is dark and what is bright"
        raise UsageError(msg, hint="scale it to 0..255 and convert it to L or RGB, or pass an array")
    try:
        if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return image.convert(mode)
    except (OSError, ValueError) as exc:
        msg = f"image: mode {image.mode} cannot become {mode}"
        raise UsageError(msg, hint="convert it to L or RGB first") from exc
