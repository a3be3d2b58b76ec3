"""The manifest of a sealed model: what was sealed, in which blobs, under which commitment to the key.

Canonical JSON of docs/spec/sealed-model.md. Its exact bytes are signed by the publisher, and their
SHA-256 is the model's digest. Not done here: signatures (``open``), keys (``keys``).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.crypto.mldsa import PUBLIC_BYTES, SecondKey
from cloister.crypto.stream import HEADER_BYTES, Header, Layout
from cloister.errors import Malformed, UsageError
from cloister.sealed.leaves import LeafHash
from cloister.sealed.oms.bundle import MAX_BUNDLE_BYTES
from cloister.sealed.oms.maker import MAX_MAKERS, Maker
from cloister.sealed.paths import ModelPath, parse_path, parse_paths
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "COMMITMENT_BYTES",
    "ENVELOPE_NAME",
    "MANIFEST_NAME",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_MANIFEST_BYTES",
    "MAX_SEGMENT_BYTES",
    "MIN_SEGMENT_BYTES",
    "NAME",
    "SEGMENT_BYTES",
    "SIGNATURE_NAME",
    "SUITE",
    "WRAPPED_KEY_BYTES",
    "MakerClaim",
    "Manifest",
    "SealedFile",
    "blob_name",
    "leaves_name",
    "model_digest",
]

VERSION = 1
SUITE = "FLOE-AES-256-GCM-HKDF-SHA384"
SEGMENT_BYTES = 1 << 20  # bytes of an encrypted segment: aligned for O_DIRECT, HTTP range and multipart
MIN_SEGMENT_BYTES = 1 << 12  # bytes; smaller ones cost more than they read
MAX_SEGMENT_BYTES = 1 << 24  # bytes; a reader holds four of them
MAX_FILES = 1024
MAX_FILE_BYTES = 1 << 40  # bytes of plaintext in one file: 1 TiB
MAX_MANIFEST_BYTES = 640 << 10  # bytes of canonical JSON; fits a 1 MiB request as base64url
MAX_CARD_BYTES = 64 << 10  # bytes of the model card as canonical JSON
COMMITMENT_BYTES = 32
WRAPPED_KEY_BYTES = 12 + 32 + 16  # nonce, file key, tag
ROOT_BYTES = 32

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""The names ``lending.terms`` lets a loan use; said twice because neither room may import the other."""
BLOB = re.compile(r"[0-9a-f]{32}")

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.sig"
ENVELOPE_NAME = "envelope.json"


def blob_name(blob: str) -> str:
    """Return the name of a blob's body inside the package."""
    return f"blobs/{blob}"


def leaves_name(blob: str) -> str:
    """Return the name of a blob's leaf hashes inside the package."""
    return f"blobs/{blob}.leaves"


def model_digest(manifest_bytes: bytes) -> str:
    """Return the digest that names a sealed model: SHA-256 over the exact manifest bytes, lower-case hex."""
    return hashlib.sha256(manifest_bytes).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """One file: its path, its plaintext size, and the blob that holds it."""

    path: ModelPath
    size: int
    blob: str
    header: bytes
    segment_bytes: int
    leaf_root: bytes
    wrapped_key: bytes
    leaf_hash: LeafHash = LeafHash.SHA256

    @property
    def layout(self) -> Layout:
        """Where the segments lie: from the signed size, never from the data."""
        return Layout(size=self.size, segment_bytes=self.segment_bytes)

    def to_json(self) -> Json:
        """Return the JSON object."""
        other: dict[str, Json] = {} if self.leaf_hash is LeafHash.SHA256 else {"leaf_hash": self.leaf_hash.value}
        return other | {
            "blob": self.blob,
            "header": dump_b64u(self.header),
            "leaf_root": self.leaf_root.hex(),
            "path": self.path,
            "segment_bytes": self.segment_bytes,
            "size": self.size,
            "wrapped_key": dump_b64u(self.wrapped_key),
        }

    @classmethod
    def from_json(cls, value: Json) -> SealedFile:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="manifest: file")
        entry = cls(
            path=parse_path(fields.text("path"), what="manifest: path"),
            size=fields.integer("size", cap=MAX_FILE_BYTES),
            blob=fields.match("blob", BLOB),
            header=fields.b64u("header", size=HEADER_BYTES),
            segment_bytes=fields.integer("segment_bytes", floor=MIN_SEGMENT_BYTES, cap=MAX_SEGMENT_BYTES),
            leaf_root=fields.hex("leaf_root", size=ROOT_BYTES),
            wrapped_key=fields.b64u("wrapped_key", size=WRAPPED_KEY_BYTES),
            leaf_hash=_leaf_hash(fields),
        )
        if entry.segment_bytes & (entry.segment_bytes - 1):
            fields.fail("segment_bytes", f"{entry.segment_bytes} is no power of two")
        if Header.parse(entry.header).segment_bytes != entry.segment_bytes:
            fields.fail("header", "says another segment_bytes")
        fields.end()
        return entry


def _leaf_hash(fields: Fields) -> LeafHash:
    """Take how leaves are made: SHA-256 where nothing is said, and nothing is said where it is that."""
    if "leaf_hash" not in fields:
        return LeafHash.SHA256
    if fields.text("leaf_hash", cap=16) != LeafHash.BLAKE3.value:
        fields.fail("leaf_hash", "want blake3, or no such member: sha256")
    return LeafHash.BLAKE3


@dataclass(frozen=True, slots=True, kw_only=True)
class MakerClaim:
    """What the publisher says of who made the model: the file with the maker's signature, and whom it was held to."""

    signature: ModelPath
    trusted: tuple[Maker, ...]

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {"signature": self.signature, "trusted": [maker.to_json() for maker in self.trusted]}

    @classmethod
    def from_json(cls, value: Json) -> MakerClaim:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="manifest: maker")
        claim = cls(
            signature=parse_path(fields.text("signature"), what="manifest: maker: signature"),
            trusted=tuple(Maker.from_json(item) for item in fields.items("trusted", cap=MAX_MAKERS)),
        )
        fields.end()
        if not claim.trusted or len(set(claim.trusted)) != len(claim.trusted):
            fields.fail("trusted", "want at least one, and none twice")
        return claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything about a sealed model that its publisher signs."""

    name: str
    created: datetime
    dek_commitment: bytes
    card: Json
    files: tuple[SealedFile, ...]
    suite: str = SUITE
    maker: MakerClaim | None = None
    second_key: SecondKey | None = None
    """With which the manifest is signed a second time: that it is cannot be taken away again."""

    @property
    def size(self) -> int:
        """Bytes of plaintext in all files."""
        return sum(entry.size for entry in self.files)

    def file(self, path: str) -> SealedFile:
        """Return the entry of ``path``. Raises ``UsageError`` where there is none."""
        for entry in self.files:
            if entry.path == path:
                return entry
        msg = f"model {self.name}: no file {path[:60]!a}"
        raise UsageError(msg)

    def dump(self) -> bytes:
        """Return the canonical bytes. Raises ``UsageError`` for what a reader would refuse."""
        members: dict[str, Json] = {
            "card": self.card,
            "created": dump_time(self.created),
            "dek_commitment": self.dek_commitment.hex(),
            "files": [entry.to_json() for entry in self.files],
            "name": self.name,
            "suite": self.suite,
            "v": VERSION,
        }
        if self.maker is not None:
            members["maker"] = self.maker.to_json()
        if self.second_key is not None:
            members["second_key"] = dump_b64u(self.second_key.raw)
        data = dump_json(members)
        try:
            Manifest.parse(data)
        except Malformed as exc:
            raise UsageError(exc.message) from exc
        return data

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Return the manifest, not yet verified. Raises ``Malformed``."""
        fields = Fields.parse(data, what="manifest", cap=MAX_MANIFEST_BYTES, canonical=True)
        fields.version(VERSION)
        manifest = cls(
            name=fields.match("name", NAME),
            created=fields.time("created"),
            dek_commitment=fields.hex("dek_commitment", size=COMMITMENT_BYTES),
            card=_card(fields),
            files=tuple(SealedFile.from_json(item) for item in fields.items("files", cap=MAX_FILES)),
            suite=fields.match("suite", re.compile(re.escape(SUITE))),
            second_key=fields.optional("second_key", lambda name: SecondKey(fields.b64u(name, size=PUBLIC_BYTES))),
            maker=fields.optional("maker", lambda name: MakerClaim.from_json(fields.take(name))),
        )
        fields.end()
        if not manifest.files:
            fields.fail("files", "want at least one")
        parse_paths([entry.path for entry in manifest.files], what="manifest: path")
        if len({entry.blob for entry in manifest.files}) != len(manifest.files):
            fields.fail("files", "two files share a blob")
        if manifest.maker is not None:
            _demand_signature(fields, manifest, manifest.maker)
        return manifest


def _demand_signature(fields: Fields, manifest: Manifest, claim: MakerClaim) -> None:
    sizes = [entry.size for entry in manifest.files if entry.path == claim.signature]
    if not sizes or sizes[0] > MAX_BUNDLE_BYTES or len(manifest.files) == 1:
        fields.fail("maker", f"want a signature of at most {MAX_BUNDLE_BYTES} bytes among files that it can be of")


def _card(fields: Fields) -> Json:
    card = fields.members("card", cap=256)
    if len(dump_json(card)) > MAX_CARD_BYTES:
        fields.fail("card", f"want at most {MAX_CARD_BYTES} bytes")
    return card
