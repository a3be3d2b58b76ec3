"""What the enclave says of a model: its inputs and outputs, and the card of whoever sealed it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.client.columns import Column, parse_columns
from cloister.client.images import ImageSpec
from cloister.wire import Fields, Json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MakerInfo", "ModelInfo", "TensorInfo", "parse_metadata"]

MAX_METADATA_BYTES = 1 << 20
MAX_TENSORS = 256
_MAX_NAME = 512
_MAX_LABELS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One input or output. Open dimensions are -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Return ``name FP32[any, 64]``."""
        return f"{self.name} {self.datatype}[{', '.join('any' if size < 0 else str(size) for size in self.shape)}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class MakerInfo:
    """Who made a model, as the enclave proved it: ``fingerprint`` is SHA-256 of a ``key`` or ``root`` (DER, hex).

    ``signer`` is the name in the signing certificate, or says the key once more.
    """

    kind: str
    fingerprint: str
    signer: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ModelInfo:
    """One model: its inputs and outputs, and what its card says of them.

    ``images`` says how inputs are made from pictures, ``columns`` which columns of a table an input takes, in order,
    ``about`` what is said of these, ``labels`` names classes of outputs. ``remaining`` are units, None where nobody
    counts. ``maker`` is None for a model that carries no maker's signature.
    """

    name: str
    digest: str
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    task: str
    description: str
    images: Mapping[str, ImageSpec]
    labels: Mapping[str, tuple[str, ...]]
    remaining: int | None
    maker: MakerInfo | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    about: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return its name, inputs, outputs and what is left."""
        inputs, outputs = (", ".join(map(str, tensors)) for tensors in (self.inputs, self.outputs))
        return f"ModelInfo(name={self.name!r}, inputs=[{inputs}], outputs=[{outputs}], remaining={self.remaining})"

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it."""
        from cloister.client.notebook.models import model_html  # noqa: PLC0415 - of notebooks alone

        return model_html(self)


def parse_metadata(data: bytes) -> ModelInfo:
    """Parse the answer of ``GET /v2/models/M``. Unknown members are left alone. Raises ``Malformed``."""
    fields = Fields(parse_json(data, what="model metadata", cap=MAX_METADATA_BYTES), what="model metadata")
    versions = fields.texts("versions", cap=64, item_cap=64)
    parameters = fields.fields("parameters") if "parameters" in fields else Fields({}, what="model metadata")
    card = parameters.fields("card") if "card" in parameters else Fields({}, what="model card")
    made_from = card.members("preprocess", cap=MAX_TENSORS) if "preprocess" in card else {}
    about = {name: parse_columns(value) for name, value in _of_kind(made_from, "table").items()}
    return ModelInfo(
        name=fields.text("name", cap=64, floor=1),
        digest=versions[0] if versions else "",
        platform=fields.text("platform", cap=64),
        inputs=_tensors(fields, "inputs"),
        outputs=_tensors(fields, "outputs"),
        task=card.text("task", cap=200) if "task" in card else "",
        description=card.text("description", cap=4000) if "description" in card else "",
        images={name: ImageSpec.from_json(value) for name, value in _of_kind(made_from, "image").items()},
        labels=_labels(card),
        remaining=parameters.integer("remaining") if "remaining" in parameters else None,
        maker=_maker(parameters.fields("maker")) if "maker" in parameters else None,
        columns={name: tuple(column.name for column in found) for name, found in about.items()},
        about=about,
    )


def _maker(fields: Fields) -> MakerInfo:
    return MakerInfo(
        kind=fields.text("kind", cap=16),
        fingerprint=fields.hex("fingerprint", size=32).hex(),
        signer=fields.text("signer", cap=512),
    )


def _tensors(fields: Fields, name: str) -> tuple[TensorInfo, ...]:
    found = []
    for item in fields.items(name, cap=MAX_TENSORS):
        entry = Fields(item, what=f"model metadata: {name}")
        dims = [_dim(dim) for dim in entry.items("shape", cap=16)]
        found.append(
            TensorInfo(
                name=entry.text("name", cap=_MAX_NAME, floor=1),
                datatype=entry.text("datatype", cap=32),
                shape=tuple(dims),
            )
        )
    return tuple(found)


def _dim(item: Json) -> int:
    return Fields({"shape": item}, what="model metadata").integer("shape", floor=-1, cap=(1 << 31) - 1)


def _of_kind(members: Mapping[str, Json], kind: str) -> Mapping[str, Json]:
    """Return the inputs that are made from one kind of thing; other kinds are left to the caller."""
    return {name: value for name, value in members.items() if isinstance(value, dict) and value.get("kind") == kind}


def _labels(card: Fields) -> Mapping[str, tuple[str, ...]]:
    if "labels" not in card:
        return {}
    members = card.members("labels", cap=MAX_TENSORS)
    inner = Fields(members, what="model card: labels")
    return {name: inner.texts(name, cap=_MAX_LABELS, item_cap=200) for name in members}
