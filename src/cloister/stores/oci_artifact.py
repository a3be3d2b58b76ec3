"""A sealed model as an OCI artifact (OCI image-spec 1.1, docs/spec/stores.md): pure bytes in, values out.

The artifact's configuration is the model's own manifest, so that its digest is the model's; every part is a layer that
bears its name as title. Nothing is proven here: the model's publisher signs its manifest, and that has the leaf roots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cloister.errors import Malformed, UsageError
from cloister.sealed.manifest import MANIFEST_NAME, MAX_FILES
from cloister.sealed.parts import demand_part
from cloister.wire import Fields, dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.stores.place import ModelUrl
    from cloister.wire import Json

__all__ = ["ARTIFACT_TYPE", "MANIFEST_TYPE", "MAX_ARTIFACT_BYTES", "Artifact", "Blob", "Reference", "parse_reference"]

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.cloister.sealed-model.v1"
_CONFIG_TYPE: Final = "application/vnd.cloister.sealed-model.manifest.v1+json"
_PART_TYPE: Final = "application/vnd.cloister.sealed-model.part.v1"
_TITLE: Final = "org.opencontainers.image.title"
MAX_ARTIFACT_BYTES = 1 << 20  # bytes of the OCI manifest
_MAX_PARTS = 2 * MAX_FILES + 3
_MAX_PART_BYTES = 1 << 41
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SEGMENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"  # distribution-spec 1.1, "Pulling manifests"
_REFERENCE = re.compile(
    rf"/(?P<repository>{_SEGMENT}(?:/{_SEGMENT}){{0,15}})"
    r"(?::(?P<tag>[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Which artifact of a registry: by tag, or by the digest of its OCI manifest."""

    repository: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        """Tag or digest, as requests want it."""
        return self.digest or self.tag or ""


def parse_reference(url: ModelUrl) -> Reference:
    """Return what ``oci://HOST/REPOSITORY:TAG`` or ``...@sha256:DIGEST`` names. Raises ``UsageError``."""
    found = _REFERENCE.fullmatch(url.path)
    if found is None:
        msg = f"{url}: want a repository with a tag or a digest"
        raise UsageError(msg, hint="as oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:DIGEST")
    return Reference(repository=found["repository"], tag=found["tag"], digest=found["digest"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A blob of a registry: ``digest`` as ``sha256:`` and hex."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The parts of a sealed model in a registry, by their names."""

    parts: Mapping[str, Blob]

    @property
    def model(self) -> str:
        """The digest of the model, as the registry says it."""
        return self.parts[MANIFEST_NAME].digest.removeprefix("sha256:")

    def dump(self) -> bytes:
        """Return the OCI manifest, as canonical JSON."""
        layers: list[Json] = [
            {"annotations": {_TITLE: name}, "digest": blob.digest, "mediaType": _PART_TYPE, "size": blob.size}
            for name, blob in sorted(self.parts.items())
        ]
        manifest = self.parts[MANIFEST_NAME]
        return dump_json(
            {
                "artifactType": ARTIFACT_TYPE,
                "config": {"digest": manifest.digest, "mediaType": _CONFIG_TYPE, "size": manifest.size},
                "layers": layers,
                "mediaType": MANIFEST_TYPE,
                "schemaVersion": 2,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Artifact:
        """Parse. Members that are not ours are left alone, as OCI wants it. Raises ``Malformed``."""
        fields = Fields(parse_json(data, what="oci manifest", cap=MAX_ARTIFACT_BYTES), what="oci manifest")
        fields.literal("schemaVersion", 2)
        fields.literal("mediaType", MANIFEST_TYPE)
        fields.literal("artifactType", ARTIFACT_TYPE)
        config = fields.fields("config")
        config.literal("mediaType", _CONFIG_TYPE)
        parts: dict[str, Blob] = {}
        for item in fields.items("layers", cap=_MAX_PARTS):
            layer = Fields(item, what="oci manifest: layer")
            name = layer.fields("annotations").text(_TITLE, cap=64)
            try:
                demand_part(name)
            except UsageError as exc:
                raise Malformed(exc.message) from exc
            if name in parts:
                layer.fail("annotations", "two parts of one name")
            parts[name] = _blob(layer)
        if parts.get(MANIFEST_NAME) != _blob(config):
            fields.fail("config", f"is not the layer {MANIFEST_NAME}")
        return cls(parts=parts)


def _blob(fields: Fields) -> Blob:
    return Blob(digest=fields.match("digest", _DIGEST), size=fields.integer("size", cap=_MAX_PART_BYTES))
