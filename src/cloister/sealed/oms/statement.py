"""What a maker says of a model: an in-toto statement v1 that lists every file with its digest (OMS v1.0 section 5).

Members that this version does not know are passed over in statement and predicate, as in-toto wants it; members that
stand twice are refused. Not done here: whether the statement is signed (``verify``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Malformed
from cloister.sealed.oms.bundle import MAX_PAYLOAD_BYTES
from cloister.sealed.paths import MAX_PATH_BYTES, parse_path
from cloister.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Statement"]

MAX_RESOURCES = 1024  # files: as many as a sealed model has
_MAX_IGNORED = 1024
_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_ALONE = "."  # the name of the file where a model is one file
_GIT = (".git", ".gitattributes", ".github", ".gitignore")
"""What is never part of a signed model (OMS v1.0 section 6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One maker's list: SHA-256 by path, and which paths it passes over.

    ``method`` and ``hash_type`` say how the list was made; ``files`` is empty where they are not ``files`` and
    ``sha256``, which is all that is read here.
    """

    name: str
    method: str
    hash_type: str
    files: Mapping[str, bytes]
    ignored: tuple[str, ...]

    def passes_over(self, path: str) -> bool:
        """Tell whether the maker signed the model without this file, if there was one."""
        return any(path == item or path.startswith(f"{item}/") for item in (*_GIT, *self.ignored))

    def digests(self, paths: Collection[str]) -> Mapping[str, bytes]:
        """Return the digests by path for a model that has ``paths``: a file that was signed alone may have any name."""
        if set(self.files) == {_ALONE} and len(paths) == 1:
            return {next(iter(paths)): self.files[_ALONE]}
        return self.files

    @classmethod
    def parse(cls, data: bytes) -> Statement:
        """Parse. Raises ``Malformed``, also where the list is not the one that the subject's digest names."""
        fields = Fields.parse(data, what="model statement", cap=MAX_PAYLOAD_BYTES)
        fields.literal("_type", _TYPE)
        fields.literal("predicateType", _PREDICATE_TYPE)
        subjects = fields.items("subject", cap=1)
        if not subjects:
            fields.fail("subject", "want exactly one")
        subject = Fields(subjects[0], what="model statement: subject")
        root = subject.fields("digest").hex("sha256", size=32)
        predicate = fields.fields("predicate")
        how = predicate.fields("serialization")
        statement = cls(
            name=subject.text("name", cap=1024),
            method=how.text("method", cap=64),
            hash_type=how.text("hash_type", cap=64),
            files={},
            ignored=_ignored(how),
        )
        if (statement.method, statement.hash_type) != ("files", "sha256"):
            return statement
        files = _files(predicate)
        if hashlib.sha256(b"".join(files.values())).digest() != root:
            fields.fail("subject", "digest is not that of the resources")
        return cls(
            name=statement.name, method=statement.method, hash_type=statement.hash_type,
            files=files, ignored=statement.ignored,
        )  # fmt: skip


def _ignored(how: Fields) -> tuple[str, ...]:
    if "ignore_paths" not in how:
        return ()
    found = how.texts("ignore_paths", cap=_MAX_IGNORED, item_cap=4096)
    if any(item.rstrip("/") in {"", _ALONE} for item in found):
        how.fail("ignore_paths", "passes over everything")
    return tuple(item.rstrip("/") for item in found)


def _files(predicate: Fields) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for item in predicate.items("resources", cap=MAX_RESOURCES):
        fields = Fields(item, what="model statement: resource")
        name = fields.text("name", cap=MAX_PATH_BYTES)
        if name != _ALONE:
            name = parse_path(name, what="model statement: path")
        fields.literal("algorithm", "sha256")
        if name in files:
            fields.fail("name", "stands twice")
        files[name] = fields.hex("digest", size=32)
    if not files or (_ALONE in files and len(files) > 1):
        msg = "model statement: resources: want at least one file, and none beside a file that is the model"
        raise Malformed(msg)
    return files
