"""What tests of conversions share: files of scikit-learn, and a model's answers in the engine."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TABLE", "TARGETS", "classifier", "pickled"]

TABLE = np.random.default_rng(7).standard_normal((200, 4))
TARGETS = (TABLE.sum(axis=1) * 2).astype(int)


def classifier() -> Any:
    """Return a fitted pipeline."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(TABLE, TARGETS)


def pickled(path: Path, value: object) -> Path:
    """Write ``value`` as a pickle."""
    path.write_bytes(pickle.dumps(value))
    return path
