"""Write tests/vectors/trace/mark.json: docs/spec/tracing.md once more, in plain integers, without the code it tests.

Run it from the repository's root.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KINDS = {"F64": (64, 52), "F32": (32, 23), "F16": (16, 10), "BF16": (16, 7)}
OUT = Path(__file__).parents[2] / "vectors" / "trace" / "mark.json"


def tensor_key(key: bytes, path: str, name: str) -> bytes:
    parts = (b"cloister/trace/v1/tensor", path.encode(), name.encode())
    info = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return hmac.new(key, info + b"\x01", hashlib.sha384).digest()[:32]  # RFC 5869 section 2.3, one block


def stream(key: bytes, size: int) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def nudge(word: int, byte: int, kind: str, bits: int) -> int:
    size, mantissa = KINDS[kind]
    sign, magnitude = word >> (size - 1), word & ((1 << (size - 1)) - 1)
    shift = mantissa - bits
    step, selected = 1 << max(shift, 0), 64 >> min(max(-shift, 0), 6)
    exponent, last = magnitude >> mantissa, (1 << (size - 1 - mantissa)) - 1
    if not 2 <= exponent <= last - 2 or byte >> 2 >= selected:
        return word
    points = [p for p in range(magnitude - step, magnitude + step + 1) if p % (2 * step) == (byte & 1) * step]
    nearest = min(abs(point - magnitude) for point in points)
    found = [point for point in points if abs(point - magnitude) == nearest]
    point = found[-1] if (magnitude >> (step.bit_length())) & 1 else found[0]
    return (sign << (size - 1)) | point


def vector(number: int, kind: str, bits: int) -> dict[str, object]:
    rng = random.Random(number)
    size, mantissa = KINDS[kind]
    key, path, name = rng.randbytes(32), "model.safetensors", f"layer.{number}"
    infinite = ((1 << (size - 1 - mantissa)) - 1) << mantissa
    special = [0, 1, (1 << mantissa) - 1, 1 << mantissa, 2 << mantissa, infinite, infinite + 1, infinite - 1]
    bias = (1 << (size - 2 - mantissa)) - 1
    plain = [((bias - rng.randrange(1, 8)) << mantissa) | rng.getrandbits(mantissa) for _ in range(56)]
    words = [word | (rng.getrandbits(1) << (size - 1)) for word in (*special, *plain)]
    secret = tensor_key(key, path, name)
    bytes_ = stream(secret, len(words))
    marked = [nudge(word, byte, kind, bits) for word, byte in zip(words, bytes_, strict=True)]
    data = [b"".join(word.to_bytes(size // 8, "little") for word in item).hex() for item in (words, marked)]
    return {
        "bits": bits, "key": key.hex(), "kind": kind, "marked": data[1], "name": name, "path": path,
        "stream": bytes_.hex(), "tensor_key": secret.hex(), "words": data[0],
    }  # fmt: skip


if __name__ == "__main__":
    cases = [(kind, bits) for kind in KINDS for bits in (7, 10, 14)]
    # A step of 2**45 units has too many points to list: doubles are written at one strength that has few.
    cases = [(kind, bits) for kind, bits in cases if kind != "F64"] + [("F64", 48), ("F64", 52)]
    found = [vector(number, kind, bits) for number, (kind, bits) in enumerate(cases)]
    OUT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
