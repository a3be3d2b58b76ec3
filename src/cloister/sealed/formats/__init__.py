"""What a model has in its files and whether they are sound: bounded readers of headers, and nothing that loads them.

``parse_model`` is the way in; ``onnx``, ``safetensors`` and ``gguf`` read one format each, ``foreign`` knows what has
no place in a sealed model. No copy of weights is made and no pickle is ever opened. Specification:
docs/spec/model-formats.md.
"""

from __future__ import annotations

from cloister.sealed.formats.package import parse_model
from cloister.sealed.formats.summary import FileSummary, ModelSummary, Port, TensorEntry
from cloister.sealed.formats.window import ModelFile

__all__ = ["FileSummary", "ModelFile", "ModelSummary", "Port", "TensorEntry", "parse_model"]
