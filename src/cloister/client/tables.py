"""Tables and columns of pandas as a model's inputs, by their looks: pandas itself is never imported here.

A column belongs to the input of its name, or to the place that the model's card gives it; what is missing, left over or
empty is refused. Nothing is encoded: how words became numbers is the model's, and only who trained it knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cloister.client.datatypes import fit
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.client.datatypes import Array
    from cloister.client.model_info import ModelInfo, TensorInfo

__all__ = ["column_array", "is_column", "is_table", "table_array", "table_inputs"]

_OPEN = -1
_RANK_OF_TABLES = 2


def is_table(value: object) -> bool:
    """Tell whether ``value`` looks like a table of pandas."""
    return hasattr(value, "columns") and hasattr(value, "isna") and hasattr(value, "to_numpy")


def is_column(value: object) -> bool:
    """Tell whether ``value`` looks like a column of pandas."""
    return hasattr(value, "isna") and hasattr(value, "to_numpy") and not hasattr(value, "columns")


def table_inputs(info: ModelInfo, table: Any) -> dict[str, Array]:
    """Return the inputs of ``info`` out of a table, one row for each item.

    An input takes the columns that the model's card names for it, in the card's order; else the column of its own name;
    else, where the model has no other input, all columns as they stand. Raises ``UsageError`` with every column that is
    missing or left over.
    """
    names = _names(table)
    places = {tensor.name: _places(info, tensor, names) for tensor in info.inputs}
    wanted = [name for columns in places.values() for name in columns]
    missing = [name for name in dict.fromkeys(wanted) if name not in names]
    unknown = [name for name in names if name not in wanted]
    if missing or unknown:
        detail = [f"missing {name[:80]}" for name in missing] + [f"unknown {name[:80]}" for name in unknown]
        msg = f"model {info.name}: columns: {', '.join(detail[:20])}"
        raise UsageError(msg, hint=_choose(wanted))
    return {tensor.name: _joined(tensor, table, places[tensor.name], names) for tensor in info.inputs}


def table_array(info: ModelInfo, tensor: TensorInfo, table: Any) -> Array:
    """Return a table that was given for one input alone, columns as the card says or as they stand."""
    names = _names(table)
    wanted = info.columns.get(tensor.name, tuple(names))
    if sorted(wanted) != sorted(names):
        msg = f"input {tensor.name}: columns {', '.join(names)[:400]}"
        raise UsageError(msg, hint=_choose(wanted))
    return _joined(tensor, table, wanted, names)


def _choose(wanted: Sequence[str]) -> str:
    return f"the columns are {', '.join(wanted)[:1000]}; choose them: table[[...]]"


def _names(table: Any) -> dict[str, int]:
    """Return the place of each column by its name."""
    found = [str(name) for name in table.columns]
    twice = sorted({name[:80] for name in found if found.count(name) > 1})
    if twice:
        msg = f"table: two columns {', '.join(twice)[:400]}"
        raise UsageError(msg)
    return {name: place for place, name in enumerate(found)}


def _places(info: ModelInfo, tensor: TensorInfo, names: dict[str, int]) -> tuple[str, ...]:
    """Return the columns of one input."""
    if tensor.name in info.columns:
        return info.columns[tensor.name]
    if len(info.inputs) == 1 and tensor.name not in names:
        return tuple(names)
    return (tensor.name,)


def _joined(tensor: TensorInfo, table: Any, columns: Sequence[str], names: dict[str, int]) -> Array:
    """Return the columns side by side, each fitted by itself; one alone has the rank that the input has."""
    arrays = [_column(table.iloc[:, names[name]], tensor, name=f"column {name[:80]}") for name in columns]
    if len(arrays) == 1 and len(tensor.shape) != _RANK_OF_TABLES:
        return arrays[0]
    return np.stack(arrays, axis=1) if arrays else np.zeros((len(table), 0))


def column_array(tensor: TensorInfo, column: Any) -> Array:
    """Return a column that was given for one input: one item for each row. Raises ``UsageError``."""
    array = _column(column, tensor, name=f"input {tensor.name}")
    single = len(tensor.shape) == _RANK_OF_TABLES and tensor.shape[1] in {_OPEN, 1}
    return array.reshape(-1, 1) if single else array


def _column(column: Any, tensor: TensorInfo, *, name: str) -> Array:
    """Return one column as ``tensor`` takes it; its empty places are refused."""
    empty = np.asarray(column.isna(), dtype=bool)
    if empty.any():
        msg = f"{name}: {int(empty.sum())} of {len(empty)} values are missing, the first in row {int(empty.argmax())}"
        raise UsageError(msg, hint="fill or drop them (fillna, dropna); where NaN is meant, pass table.to_numpy()")
    kind = getattr(column.dtype, "numpy_dtype", None)  # of Int64, boolean and others that may be empty
    values = column.to_numpy() if kind is None else column.to_numpy(dtype=kind)
    array: Array = np.asarray(values)
    if array.dtype.kind in "mM":
        msg = f"{name}: times, want {tensor.datatype}"
        raise UsageError(msg, hint="make them numbers as the model was trained on, say .astype('int64')")
    if array.dtype.kind in "OSU" and tensor.datatype != "BYTES":
        msg = f"{name}: text or mixed values, want {tensor.datatype}"
        raise UsageError(msg, hint="encode it as the model was trained: .cat.codes, get_dummies, pd.to_numeric")
    return fit(array, tensor.datatype, name=name.removeprefix("input "))
