"""The root of a simulated TEE vendor, and its files (docs/spec/evidence.md section 6).

Whoever reads the file with the seed can make any simulated evidence; verifiers need the public half only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Self

from cloister.crypto.sign import Label, SigningKey, VerifyKey
from cloister.errors import Malformed, UsageError
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WARNING", "SimulatedRoot", "load_root_key"]

WARNING = "SIMULATED TEE: no hardware protects this enclave; whoever runs it can read everything in it"

_KIND = "cloister-simulated-root"
_SEED_BYTES = 32
_MAX_FILE_BYTES = 4096


class SimulatedRoot:
    """The root of trust of a simulated vendor. It never prints its seed."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        """Take a 32-byte seed."""
        self._key = SigningKey(seed)

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh root."""
        return cls(SigningKey.generate().seed())

    @property
    def public(self) -> VerifyKey:
        """The key that verifiers pin."""
        return self._key.verify_key

    def chip(self, chip_id: bytes) -> SigningKey:
        """Return the signing key of a chip: the same each time, as if fused in."""
        return SigningKey(hashlib.sha256(b"cloister/simulated-chip/v1" + self._key.seed() + chip_id).digest())

    def sign(self, payload: bytes) -> bytes:
        """Sign a chip certificate."""
        return self._key.sign(Label.SIMULATED_EVIDENCE, payload)

    def save(self, path: Path) -> None:
        """Write the root, seed included, to a new file that only its owner can read."""
        _write(path, {"public": self.public.dump(), "seed": dump_b64u(self._key.seed())}, mode=0o600)

    def save_public(self, path: Path) -> None:
        """Write what verifiers need to a new file."""
        _write(path, {"public": self.public.dump()}, mode=0o644)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a root back. Raises ``UsageError`` for a file that has no seed or is not there."""
        public, seed = _read(path)
        if seed is None:
            msg = f"{path}: has the public half of a simulated root only"
            raise UsageError(msg, hint="the attester needs the file that SimulatedRoot.save wrote")
        root = cls(seed)
        if root.public != public:
            msg = f"{path}: simulated root: seed and public key do not belong together"
            raise Malformed(msg)
        return root

    def __repr__(self) -> str:
        """Show the public name only."""
        return f"SimulatedRoot({self.public.key_id})"


def load_root_key(path: Path) -> VerifyKey:
    """Return the key to pin from either file, with or without the seed."""
    return _read(path)[0]


def _write(path: Path, members: dict[str, str], *, mode: int) -> None:
    document = dump_json({"kind": _KIND, "v": 1, "warning": WARNING, **members}) + b"\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as exc:
        msg = f"{path}: cannot write a simulated root: {exc.strerror}"
        raise UsageError(msg) from exc
    with contextlib.closing(os.fdopen(handle, "wb")) as file:
        file.write(document)


def _read(path: Path) -> tuple[VerifyKey, bytes | None]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as exc:
        msg = f"{path}: cannot read a simulated root: {exc.strerror}"
        raise UsageError(msg) from exc
    fields = Fields.parse(data, what="simulated root", cap=_MAX_FILE_BYTES)
    fields.literal("v", 1)
    fields.literal("kind", _KIND)
    fields.literal("warning", WARNING)
    public = VerifyKey.take(fields, "public")
    seed = fields.b64u("seed", size=_SEED_BYTES) if "seed" in fields else None
    fields.end()
    if seed is not None and mode & 0o077:
        msg = f"{path}: simulated root with its seed has mode {mode & 0o777:04o}, want 0600"
        raise UsageError(msg, hint=f"chmod 600 {path}")
    return public, seed
