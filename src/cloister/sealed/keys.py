"""Keys of a sealed model: the DEK commits to itself and wraps one random key per file.

All derivation is HKDF-Expand-SHA384 with a label each (docs/spec/sealed-model.md, section "Keys"). Not
done here: how the DEK itself is wrapped; that is the vault's, over ``envelope.wrap_info``.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.crypto.stream import KEY_BYTES, expand
from cloister.errors import Rejected, UsageError
from cloister.sealed.manifest import COMMITMENT_BYTES
from cloister.wire import lp

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.sealed.manifest import Manifest, SealedFile

__all__ = [
    "blob_aad",
    "dek_commitment",
    "unwrap_begun_key",
    "unwrap_file_key",
    "verify_dek",
    "wrap_begun_key",
    "wrap_file_key",
]

_COMMITMENT_LABEL = b"cloister/sealed-model/v1/dek-commitment"
_WRAP_LABEL = b"cloister/sealed-model/v1/file-key"
_BEGUN_LABEL = b"cloister/sealed-model/v1/begun-file-key"
_BLOB_LABEL = b"cloister/sealed-model/v1/blob"
_NONCE_BYTES = 12


def dek_commitment(dek: bytes | bytearray) -> bytes:
    """Return what a manifest says about its DEK: it can be neither turned back nor met by a second key."""
    if len(dek) != KEY_BYTES:
        msg = f"model key is {len(dek)} bytes, want {KEY_BYTES}"
        raise UsageError(msg)
    return bytes(expand(dek, _COMMITMENT_LABEL, COMMITMENT_BYTES))


def verify_dek(manifest: Manifest, dek: bytes | bytearray) -> None:
    """Prove that ``dek`` is the key of this model. Raises ``Rejected`` (``wrong_key``), one text for all causes."""
    if not compare_digest(dek_commitment(dek), manifest.dek_commitment):
        raise Rejected.because(
            "wrong_key", f"model {manifest.name}", hint="this key was not made for this version of the model"
        )


def blob_aad(blob: str) -> bytes:
    """Return the additional data of a blob's FLOE message: its id, so that no blob passes for another."""
    return lp(_BLOB_LABEL, blob.encode("ascii"))


def wrap_file_key(
    dek: bytes | bytearray, file_key: bytes | bytearray, entry: SealedFile, random: Callable[[int], bytes]
) -> bytes:
    """Return ``file_key`` encrypted for the holder of ``dek``, bound to everything else ``entry`` says."""
    return _wrap(dek, file_key, _WRAP_LABEL, _binding(_WRAP_LABEL, entry, entry.leaf_root), random)


def unwrap_file_key(dek: bytes | bytearray, entry: SealedFile) -> bytearray:
    """Return the file key, in memory the caller wipes. Raises ``Rejected`` (``wrong_key``)."""
    return _unwrap(dek, entry, _WRAP_LABEL, _binding(_WRAP_LABEL, entry, entry.leaf_root))


def wrap_begun_key(
    dek: bytes | bytearray, file_key: bytes | bytearray, entry: SealedFile, stamp: bytes, random: Callable[[int], bytes]
) -> bytes:
    """Return ``file_key`` encrypted for whoever goes on with a sealing, bound to ``entry`` and its source's ``stamp``.

    The leaf root is not known yet. Another label than the manifest's: neither passes for the other.
    """
    return _wrap(dek, file_key, _BEGUN_LABEL, _binding(_BEGUN_LABEL, entry, stamp), random)


def unwrap_begun_key(dek: bytes | bytearray, entry: SealedFile, stamp: bytes) -> bytearray:
    """Return the file key of a file that was begun, as ``unwrap_file_key``. Raises ``Rejected`` (``wrong_key``)."""
    return _unwrap(dek, entry, _BEGUN_LABEL, _binding(_BEGUN_LABEL, entry, stamp))


def _wrap(
    dek: bytes | bytearray, file_key: bytes | bytearray, label: bytes, binding: bytes, random: Callable[[int], bytes]
) -> bytes:
    nonce = random(_NONCE_BYTES)
    return nonce + _wrapper(dek, label).encrypt(nonce, file_key, binding)


def _unwrap(dek: bytes | bytearray, entry: SealedFile, label: bytes, binding: bytes) -> bytearray:
    out = bytearray(KEY_BYTES)
    nonce, sealed = entry.wrapped_key[:_NONCE_BYTES], entry.wrapped_key[_NONCE_BYTES:]
    try:
        _wrapper(dek, label).decrypt_into(nonce, sealed, binding, out)
    except InvalidTag as exc:
        raise Rejected.because("wrong_key", f"file key of {entry.path!a}") from exc
    return out


def _wrapper(dek: bytes | bytearray, label: bytes) -> AESGCM:
    key = expand(dek, label, KEY_BYTES)
    wrapper = AESGCM(key)
    key[:] = bytes(KEY_BYTES)
    return wrapper


def _binding(label: bytes, entry: SealedFile, last: bytes) -> bytes:
    sizes = entry.size.to_bytes(8, "big") + entry.segment_bytes.to_bytes(4, "big")
    path = entry.path.encode("utf-8")
    return lp(label, path, entry.blob.encode("ascii"), sizes, entry.header, last)
