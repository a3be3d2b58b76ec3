"""What a file that is to be converted is, by its content. Nothing is loaded."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Rejected
from cloister.sealed.formats.foreign import demand_harmless
from cloister.sealed.formats.zipped import is_zip, members

if TYPE_CHECKING:
    from cloister.sealed.formats import ModelFile

__all__ = ["SourceKind", "recognise"]


class SourceKind(Enum):
    """A kind of model that can be converted."""

    SKLEARN = "sklearn"  # scikit-learn, in a pickle or joblib file
    SKOPS = "skops"  # scikit-learn, in a skops file: data, not code
    KERAS = "keras"  # Keras, .keras or HDF5
    TORCH_EXPORT = "torch-export"  # PyTorch, torch.export.save
    TORCHSCRIPT = "torchscript"  # PyTorch, torch.jit.save

    @property
    def runs_code(self) -> bool:
        """Tell whether loading such a file may run whatever its maker put into it."""
        return self in {SourceKind.SKLEARN, SourceKind.TORCH_EXPORT, SourceKind.TORCHSCRIPT}

    @property
    def extra(self) -> str:
        """The optional extra that brings the library."""
        if self in {SourceKind.SKLEARN, SourceKind.SKOPS}:
            return "sklearn"
        return "keras" if self is SourceKind.KERAS else "torch"


def recognise(file: ModelFile) -> SourceKind:
    """Return what ``file`` is. Raises ``Rejected`` (``conversion_unsupported``, ``archive``)."""
    if is_zip(file):
        return _archive(file)
    try:
        demand_harmless(file)
    except Rejected as exc:
        if exc.code == "needs_conversion":
            return SourceKind.KERAS  # HDF5
        if exc.code == "pickle":
            return SourceKind.SKLEARN
        raise
    raise _unsupported(file, "no model that is known here")


def _archive(file: ModelFile) -> SourceKind:
    try:
        names = {member.name for member in members(file)}
    except Malformed as exc:
        raise _unsupported(file, "a damaged archive") from exc
    inner = {name.partition("/")[2] for name in names}
    if "schema.json" in names:
        return SourceKind.SKOPS
    if {"config.json", "metadata.json"} <= names:
        return SourceKind.KERAS
    if "archive_format" in inner and any(name.startswith("models/") for name in inner):
        return SourceKind.TORCH_EXPORT
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return SourceKind.TORCHSCRIPT
    if "data.pkl" in inner:
        raise _unsupported(file, "weights of PyTorch without their model: save them with torch.export")
    raise _unsupported(file, "an archive of another kind")


def _unsupported(file: ModelFile, got: str) -> Rejected:
    want = "scikit-learn (pickle, joblib, skops), Keras, torch.export or TorchScript"
    return Rejected.because("conversion_unsupported", file.name, got=got, want=want)
