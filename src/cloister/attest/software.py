"""The software manifest: what runs in the enclave and how it is set (docs/spec/evidence.md section 3).

The measured launcher hashes the code it starts and every setting that matters, and puts SHA-256 of the
dumped manifest where the TEE measures it (simulated: host data; TPM: PCR 23). One changed setting is
another digest (T10).

Not done here: measuring (``enclave/measure.py``) and comparing with reference values (``appraise``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.wire import Fields, Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_SOFTWARE_BYTES", "SoftwareManifest"]

MAX_SOFTWARE_BYTES = 64 * 1024  # bytes of one dumped manifest
MAX_PACKAGES = 512  # packages beside the measured tree
_CODE_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareManifest:
    """What was started.

    ``code`` is SHA-256 (lower-case hex) over the measured tree, ``python`` the interpreter's version,
    ``packages`` name to version of what is imported besides, ``settings`` an object with every setting
    that changes what the enclave does.
    """

    code: str
    python: str
    packages: Mapping[str, str]
    settings: Json

    def dump(self) -> bytes:
        """Return the canonical bytes: these are what is hashed, bound and sent."""
        return dump_json(
            {
                "code": self.code,
                "packages": dict(self.packages),
                "python": self.python,
                "settings": self.settings,
                "v": 1,
            }
        )

    @property
    def digest(self) -> bytes:
        """SHA-256 over the canonical bytes."""
        return hashlib.sha256(self.dump()).digest()

    @classmethod
    def parse(cls, data: bytes) -> SoftwareManifest:
        """Parse the canonical bytes. Raises ``Malformed``."""
        fields = Fields.parse(data, what="software manifest", cap=MAX_SOFTWARE_BYTES, canonical=True)
        fields.literal("v", 1)
        packages = fields.members("packages", cap=MAX_PACKAGES)
        inner = Fields(packages, what="software manifest: packages")
        manifest = cls(
            code=fields.hex("code", size=_CODE_BYTES).hex(),
            python=fields.text("python", cap=64, floor=1),
            packages={name: inner.text(name, cap=128, floor=1) for name in packages},
            settings=fields.take("settings"),
        )
        fields.end()
        if not isinstance(manifest.settings, dict):
            fields.fail("settings", "want an object")
        return manifest
