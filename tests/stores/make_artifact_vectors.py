"""Write ``tests/vectors/stores/artifacts.json`` anew: one honest OCI manifest, and what must not pass for one.

PYTHONPATH=src python tests/stores/make_artifact_vectors.py
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from cloister.stores.oci_artifact import Artifact, Blob

OUT = Path(__file__).parent.parent / "vectors" / "stores" / "artifacts.json"
MODEL = "11" * 32
TITLE = "org.opencontainers.image.title"
PARTS = {
    "manifest.json": Blob(digest=f"sha256:{MODEL}", size=700),
    "manifest.sig": Blob(digest="sha256:" + "22" * 32, size=150),
    "blobs/" + "0a" * 16: Blob(digest="sha256:" + "33" * 32, size=4096),
    "blobs/" + "0a" * 16 + ".leaves": Blob(digest="sha256:" + "44" * 32, size=32),
}


def edits() -> dict[str, Any]:
    """Return what is done to the honest one, by name; a callable gets a copy."""

    def layer(**members: Any) -> Any:
        return lambda value: value["layers"][0].update(members)

    def top(**members: Any) -> Any:
        return lambda value: value.update(members)

    return {
        "another schema": top(schemaVersion=1),
        "schema as text": top(schemaVersion="2"),
        "an index": top(mediaType="application/vnd.oci.image.index.v1+json"),
        "a docker manifest": top(mediaType="application/vnd.docker.distribution.manifest.v2+json"),
        "another artifact type": top(artifactType="application/vnd.example.v1"),
        "no artifact type": lambda value: value.pop("artifactType"),
        "no configuration": lambda value: value.pop("config"),
        "a configuration of another type": lambda value: value["config"].update(mediaType="application/json"),
        "a configuration that is another blob": lambda value: value["config"].update(digest="sha256:" + "55" * 32),
        "a configuration of another size": lambda value: value["config"].update(size=701),
        "no layers": lambda value: value.pop("layers"),
        "empty layers": top(layers=[]),
        "layers that are none": top(layers={}),
        "too many layers": lambda value: value.update(layers=value["layers"] * 600),
        "a layer twice": lambda value: value["layers"].append(value["layers"][0]),
        "a layer without a name": lambda value: value["layers"][0].pop("annotations"),
        "a layer out of the package": layer(annotations={TITLE: "../../etc/passwd"}),
        "a layer with an absolute name": layer(annotations={TITLE: "/etc/passwd"}),
        "a layer of another name": layer(annotations={TITLE: "README.md"}),
        "a digest of another kind": layer(digest="sha512:" + "00" * 64),
        "a digest in upper case": layer(digest="sha256:" + "AA" * 32),
        "a digest that leads elsewhere": layer(digest="sha256:../../../manifests/v1"),
        "a negative size": layer(size=-1),
        "a size beyond every part": layer(size=1 << 50),
        "a size as text": layer(size="1"),
        "a size that is no whole number": layer(size=1.5),
        "no size": lambda value: value["layers"][0].pop("size"),
        "no manifest": lambda value: value["layers"].pop(2),
    }


def main() -> None:
    """Write the file."""
    honest = json.loads(Artifact(parts=PARTS).dump())
    more = {**copy.deepcopy(honest), "annotations": {"x": "y"}, "subject": {"size": 1}}
    cases = [
        {"name": "honest", "artifact": Artifact(parts=PARTS).dump().decode(), "expect": "ok", "model": MODEL},
        {"name": "members that are not ours", "artifact": json.dumps(more), "expect": "ok", "model": MODEL},
    ]
    for name, edit in edits().items():
        value = copy.deepcopy(honest)
        edit(value)
        cases.append({"name": name, "artifact": json.dumps(value), "expect": "malformed"})
    text = json.dumps(honest)
    for name, bad in {
        "nothing": "",
        "no object": "[]",
        "cut": text[:-1],
        "more behind": text + "{}",
        "a member twice": text[:-1] + ', "schemaVersion": 2}',
        "deep": "[" * 5000,
    }.items():
        cases.append({"name": name, "artifact": bad, "expect": "malformed"})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
