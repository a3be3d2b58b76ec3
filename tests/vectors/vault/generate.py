"""Write the vectors of vault files: one good file of each version, and each wrong in one way.

Run by hand after a change of format: ``python tests/vectors/vault/generate.py``. Made from docs/spec/vault.md on the
primitives alone, so that this is a second reading of the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROOT = Path(__file__).parent
PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of vectors
SERVICE = "local:vault"
SERVICE_KEY = bytes(range(32))


def seed(name: str, size: int) -> bytes:
    """Return bytes that look random and are the same each time."""
    return hashlib.shake_256(b"cloister/vectors/vault/" + name.encode()).digest(size)


def text(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def dump(members: dict[str, Any]) -> str:
    """Return canonical JSON: all of it is ASCII here."""
    return json.dumps(members, sort_keys=True, separators=(",", ":"))


def content() -> bytes:
    """Return what is in the vault."""
    members = {name: text(seed(name, 32)) for name in ("kek", "publisher", "signing")}
    for name in ("device_authority", "tls_authority"):
        key = ec.derive_private_key(int.from_bytes(seed(name, 31), "big"), ec.SECP256R1())
        members[name] = text(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return dump(members).encode()


def sealed(key: bytes, header: dict[str, Any], inside: bytes) -> str:
    """Return a whole file."""
    nonce = base64.urlsafe_b64decode(header["nonce"])
    return dump({**header, "sealed": text(AESGCM(key).encrypt(nonce, inside, dump(header).encode()))})


def first() -> tuple[bytes, dict[str, Any]]:
    """Return key and header of version 1."""
    salt = seed("salt 1", 16)
    key = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=64).derive(PASSPHRASE.encode())
    header = {"kdf": "argon2id", "lanes": 1, "memory_kib": 64, "nonce": text(seed("nonce 1", 12)), "passes": 1}
    return key, {**header, "salt": text(salt), "v": 1}


def second() -> tuple[bytes, dict[str, Any]]:
    """Return key and header of version 2."""
    key, salt = seed("file key", 32), seed("salt 2", 16)
    wrapped = AESGCM(SERVICE_KEY).encrypt(bytes(12), key, f"vault/v2/{salt.hex()}".encode())
    header = {"nonce": text(seed("nonce 2", 12)), "salt": text(salt), "service": SERVICE, "v": 2}
    return key, {**header, "wrapped": text(wrapped)}


BAD: dict[int, dict[str, tuple[Any, ...]]] = {
    1: {
        "kdf": ("scrypt", "ARGON2ID", "", 1, None),
        "lanes": (0, 17, -1, 1.5, "1", True, None),
        "memory_kib": (63, 1048577, "64", 64.5, None),
        "nonce": ("", "AAAA", "A" * 17, "!" * 16, 7, None),
        "passes": (0, 17, "1", None),
        "salt": ("", "A" * 21, "A" * 23, None),
        "v": (0, 2, 3, "1", True, None),
    },
    2: {
        "nonce": ("", "AAAA", "A" * 17, 7, None),
        "salt": ("", "A" * 21, "A" * 23, None),
        "service": (
            "",
            "local",
            "local:",
            ":vault",
            "local:a vault",
            "local:vault\n",
            "LOCAL:vault",
            "local:" + "k" * 1025,
            7,
            None,
        ),
        "v": (0, 1, 3, "2", True, None),
        "wrapped": ("!", "A" * 10924, 7, None),
    },
}


def cases(version: int, key: bytes, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Return files of one version, and what a reader says to each."""
    inside = content()
    good = sealed(key, header, inside)
    whole = json.loads(good)
    found = [("good", good, "valid")]
    for name, values in BAD[version].items():
        found += [(f"{name} of {str(value)[:20]!r}", dump({**whole, name: value}), "Malformed") for value in values]
    for name in whole:
        found.append((f"without {name}", dump({key: item for key, item in whole.items() if key != name}), "Malformed"))
    other = {"salt": text(seed("other salt", 16)), "nonce": text(seed("other nonce", 12))}
    found += [(f"another {name}", dump({**whole, name: value}), "wrong_key") for name, value in other.items()]
    cut = json.loads(inside)
    cut.pop("kek")
    found += [
        ("a member more", dump({**whole, "note": "x"}), "Malformed"),
        ("a line end", good + "\n", "Malformed"),
        ("spaces", json.dumps(whole, sort_keys=True), "Malformed"),
        ("cut", good[:-1], "Malformed"),
        ("nothing sealed", dump({**whole, "sealed": ""}), "wrong_key"),
        ("content without the kek", sealed(key, header, dump(cut).encode()), "Malformed"),
        ("content that is not canonical", sealed(key, header, inside + b" "), "Malformed"),
        ("content of nothing", sealed(key, header, b""), "Malformed"),
        ("sealed under another key", sealed(seed("other key", 32), header, inside), "wrong_key"),
    ]
    if version == 1:
        found.append(("less memory than the lanes need", dump({**whole, "lanes": 16}), "Malformed"))
    else:
        found.append(("another service", dump({**whole, "service": "local:other"}), "UsageError"))
        found.append(("wrapped in another context", _moved(header, whole), "wrong_key"))
    return [{"name": f"{version}: {name}", "v": version, "text": text, "expect": want} for name, text, want in found]


def _moved(header: dict[str, Any], whole: dict[str, Any]) -> str:
    key = seed("file key", 32)
    wrapped = AESGCM(SERVICE_KEY).encrypt(bytes(12), key, b"vault/v2/" + b"0" * 32)
    moved = {**header, "wrapped": text(wrapped)}
    assert whole["salt"] == moved["salt"]
    return sealed(key, moved, content())


def main() -> None:
    """Write the file."""
    everything = {
        "format": 1,
        "passphrase": PASSPHRASE,
        "service": SERVICE,
        "service_key": SERVICE_KEY.hex(),
        "kek": seed("kek", 32).hex(),
        "cases": cases(1, *first()) + cases(2, *second()),
    }
    (ROOT / "files.json").write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
