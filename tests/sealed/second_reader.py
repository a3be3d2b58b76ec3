"""A second reader of sealed models, from docs/spec/sealed-model.md and the FLOE specification alone.

It shares no line with the product: an error that writer and reader of the product have in common shows here.
Slow, holds everything in memory, and every refusal is ``Refused``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Mapping

LABEL = b"cloister/sealed-model/v1/"


class Refused(Exception):
    """Something does not fit."""


def demand(fits: object, what: str) -> None:
    """Refuse what does not fit."""
    if not fits:
        raise Refused(what)


def read(parts: Mapping[str, bytes], dek: bytes, publisher: bytes) -> dict[str, bytes]:
    """Return all files of a package (section 8), or refuse."""
    data = parts["manifest.json"]
    signature = json.loads(parts["manifest.sig"])
    kind = b"application/vnd.cloister.manifest+json"
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(data), data)
    try:
        Ed25519PublicKey.from_public_bytes(publisher).verify(unb64(signature["sig"]), signed)
    except InvalidSignature as exc:
        raise Refused("signature") from exc
    manifest = json.loads(data)
    demand(manifest["v"] == 1 and manifest["suite"] == "FLOE-AES-256-GCM-HKDF-SHA384", "format")
    demand(expand(dek, LABEL + b"dek-commitment", 32).hex() == manifest["dek_commitment"], "key")
    return {entry["path"]: read_file(parts, dek, entry) for entry in manifest["files"]}


def read_file(parts: Mapping[str, bytes], dek: bytes, entry: Mapping[str, Any]) -> bytes:
    """Return one file: sections 1 to 3."""
    size, step, name = entry["size"], entry["segment_bytes"], entry["blob"].encode()
    body, leaves = parts[f"blobs/{entry['blob']}"], parts[f"blobs/{entry['blob']}.leaves"]
    count = max(1, -(-size // (step - 32)))
    demand(len(body) == size + 32 * count and len(leaves) == 32 * count, "sizes")
    hashes = [leaves[at : at + 32] for at in range(0, len(leaves), 32)]
    demand(root(hashes).hex() == entry["leaf_root"], "leaf root")
    header, wrapped = unb64(entry["header"]), unb64(entry["wrapped_key"])
    numbers = size.to_bytes(8, "big") + step.to_bytes(4, "big")
    bound = lp(LABEL + b"file-key", entry["path"].encode(), name, numbers, header, bytes.fromhex(entry["leaf_root"]))
    key = gcm(expand(dek, LABEL + b"file-key", 32), wrapped[:12], wrapped[12:], bound)
    demand(header[:10] == bytes(2) + step.to_bytes(4, "big") + (32).to_bytes(4, "big"), "header")
    context, tag, aad = header[:42], header[42:], lp(LABEL + b"blob", name)
    demand(expand(key, context + b"HEADER_TAG:" + aad, 32) == tag, "header tag")
    message_key = expand(key, context + b"MESSAGE_KEY:" + aad, 48)
    demand(count <= 1 << 20, "too large for this reader, which never changes its key")
    segment_key = expand(message_key, context + b"DEK:" + bytes(8) + aad, 32)
    text = b""
    for index in range(count):
        segment, last = body[index * step : (index + 1) * step], index == count - 1
        demand(leaf(segment, entry.get("leaf_hash", "sha256")) == hashes[index], f"leaf {index}")
        demand(segment[:4] == (len(segment).to_bytes(4, "big") if last else b"\xff" * 4), f"length of {index}")
        text += gcm(segment_key, segment[4:16], segment[16:], index.to_bytes(8, "big") + bytes((last,)))
    demand(len(text) == size, "size")
    return text


def leaf(segment: bytes, kind: str) -> bytes:
    """Return a leaf hash (section 2)."""
    if kind == "blake3":
        return blake3(segment, derive_key_context="cloister sealed model v1 leaf").digest()
    demand(kind == "sha256", "leaf hash")
    return hashlib.sha256(b"\x00" + segment).digest()


def root(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, as it is written there; the leaves are hashes already."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()


def expand(key: bytes, info: bytes, size: int) -> bytes:
    """HKDF-Expand of RFC 5869 section 2.3 with SHA-384."""
    out, block, number = b"", b"", 1
    while len(out) < size:
        block = hmac.new(key, block + info + bytes((number,)), "sha384").digest()
        out, number = out + block, number + 1
    return out[:size]


def gcm(key: bytes, nonce: bytes, text: bytes, aad: bytes) -> bytes:
    """Decrypt, or refuse."""
    try:
        return AESGCM(key).decrypt(nonce, text, aad)
    except InvalidTag as exc:
        raise Refused("decryption") from exc


def lp(*parts: bytes) -> bytes:
    """Each part with its length in four bytes in front."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def unb64(text: str) -> bytes:
    """Decode base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
