"""scikit-learn by skl2onnx. Imported in the child process alone.

Taken: classifiers, regressors, transformers and clusterers of one table of numbers, and pipelines of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor

from cloister.convert.export import UnfitError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloister.convert.export import Request
    from cloister.convert.samples import Array
    from cloister.sealed.formats import Port

__all__ = ["export"]

_OPSETS = {"": 18, "ai.onnx.ml": 3}  # what every converter of skl2onnx can write
_ROWS = 256  # samples that both models are asked about


def export(request: Request, out: Path) -> _Sklearn:
    """Load, write ``out``, return the model."""
    model = _load(request)
    features = getattr(model, "n_features_in_", None)
    if not hasattr(model, "fit") or features is None:
        raise UnfitError("unsupported", f"a {type(model).__name__}, which is no fitted model of scikit-learn")
    names, options = _methods(model)
    table = [("input", FloatTensorType([None, int(features)]))]
    try:
        found = to_onnx(model, initial_types=table, options={id(model): options}, target_opset=_OPSETS)
    except NameError:  # how skl2onnx says that this model's converter does not have one of the options
        options = {name: value for name, value in options.items() if name != "zipmap"}
        found = to_onnx(model, initial_types=table, options={id(model): options}, target_opset=_OPSETS)
    out.write_bytes(found.SerializeToString())
    return _Sklearn(model, names)


def _load(request: Request) -> Any:
    if request.kind == "skops":
        import skops.io  # noqa: PLC0415 - not needed for pickles

        unknown = skops.io.get_untrusted_types(file=request.source)
        if unknown and not request.trust:
            raise UnfitError("untrusted", ", ".join(unknown))
        return skops.io.load(request.source, trusted=unknown)
    import joblib  # noqa: PLC0415 - runs what the file says: only ever here, and only on the owner's word

    return joblib.load(request.source)


def _methods(model: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the methods that give what the ONNX model gives, in its order, and the converter's options."""
    if is_classifier(model):
        if hasattr(model, "predict_proba"):
            return ("predict", "predict_proba"), {"zipmap": False}
        return ("predict", "decision_function"), {"zipmap": False, "raw_scores": True}
    if is_regressor(model):
        return ("predict",), {}
    if is_clusterer(model) and hasattr(model, "predict"):
        return ("predict", "transform"), {}
    if hasattr(model, "transform"):
        return ("transform",), {}
    if is_outlier_detector(model):
        return ("predict", "decision_function"), {}
    raise UnfitError("unsupported", f"a {type(model).__name__}: no classifier, regressor, transformer or clusterer")


@dataclass(frozen=True)
class _Sklearn:
    model: Any
    methods: tuple[str, ...]

    @property
    def library(self) -> str:
        return f"scikit-learn {sklearn.__version__}"

    def shape(self, port: Port) -> tuple[int, ...]:
        return (_ROWS, *(int(size) for size in (port.shape or ())[1:] if isinstance(size, int)))

    def answer(self, inputs: Sequence[Array]) -> list[Array]:
        found = []
        table = inputs[0].astype("f8")  # as scikit-learn computes; some of its models take nothing else
        for name in self.methods:
            output = getattr(self.model, name)(table)
            array = np.asarray(output.toarray() if hasattr(output, "toarray") else output)
            # A column for each target: scikit-learn leaves the column out where there is one.
            label = name == "predict" and not is_regressor(self.model)
            array = array if label or array.ndim > 1 else array.reshape(-1, 1)
            if name == "decision_function" and is_classifier(self.model) and array.shape[1] == 1:
                array = np.hstack([-array, array])  # ONNX has a score for each of the two classes
            found.append(array.astype(str) if array.dtype.kind in "OU" else array)
        return found
