"""The demo's model: handwritten digits, trained here in a second on real data.

The data are 1,797 scans of digits written by 43 people (E. Alpaydin, C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, CC BY 4.0), which come inside scikit-learn. A
quarter is held back: the consumer's image files are written from it, so the model never saw them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.wire import Json

__all__ = ["CARD", "Digits", "train"]

_SIDE = 8  # pixels
_SCALE = 12  # the image files are larger than the model's input, as a consumer's would be
_SHADES = 16  # the data's own range of ink, 0..16

CARD: Json = {
    "description": "handwritten digits, 8x8 grey scans; a perceptron of one hidden layer",
    "labels": {"label": [str(digit) for digit in range(10)]},
    "preprocess": {
        "image": {
            "invert": False,
            "kind": "image",
            "layout": "flat",
            "mode": "L",
            "range": [0, _SHADES],
            "size": [_SIDE, _SIDE],
        }
    },
    "task": "image-classification",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """A trained model as ONNX bytes, its accuracy on held-back scans (0 to 1), and those scans.

    ``scans`` has shape (n, 64), float32 in 0..16; ``labels`` shape (n,).
    """

    onnx: bytes
    accuracy: float
    scans: np.ndarray
    labels: np.ndarray

    def write_image(self, index: int, path: Path) -> int:
        """Write held-back scan ``index`` as a grey PNG of 96x96 pixels; return its true digit."""
        pixels = np.round(self.scans[index].reshape(_SIDE, _SIDE) * (255 / _SHADES)).astype(np.uint8)
        image = Image.fromarray(pixels).resize((_SIDE * _SCALE, _SIDE * _SCALE), Image.Resampling.NEAREST)
        image.save(path)
        return int(self.labels[index])


def train() -> Digits:
    """Train and convert. Takes about a second on one core; the same bytes of data, the same split."""
    from skl2onnx import to_onnx  # noqa: PLC0415 - an extra of the demo, slow to import
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    features, targets = load_digits(return_X_y=True)
    seen, unseen, seen_labels, unseen_labels = train_test_split(
        features.astype(np.float32), targets, test_size=0.25, random_state=7, stratify=targets
    )
    network = MLPClassifier(hidden_layer_sizes=(64,), max_iter=200, early_stopping=True, random_state=7)
    pipeline = make_pipeline(StandardScaler(), network).fit(seen, seen_labels)
    model = to_onnx(
        pipeline,
        initial_types=[("image", FloatTensorType([None, _SIDE * _SIDE]))],
        options={id(pipeline): {"zipmap": False}},
        target_opset=18,
    )
    return Digits(
        onnx=model.SerializeToString(),
        accuracy=float(pipeline.score(unseen, unseen_labels)),
        scans=unseen.astype(np.float32),
        labels=unseen_labels,
    )
