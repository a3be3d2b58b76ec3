"""What is started: the software manifest of the installed tree (docs/spec/evidence.md section 3; T10).

    code = SHA-256(lp(path 1, SHA-256(file 1)) || ...), all ``.py`` files of the package, sorted by path

and the versions of what is imported besides, and every setting that changes what the enclave does. Files and
versions are read once in a process: what it runs is what it was started from, whatever becomes of the files later.

This is a measurement by the software itself. It says what an honest launcher started, and becomes proof only
where the TEE measures the image that holds this code and the interpreter.
"""

from __future__ import annotations

import functools
import hashlib
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import cloister
from cloister.attest.software import SoftwareManifest
from cloister.wire import lp

if TYPE_CHECKING:
    from cloister.enclave.config import EnclaveConfig

__all__ = ["PACKAGES", "measure_software", "measure_tree"]

PACKAGES = (
    "anyio",
    "cryptography",
    "h11",
    "h2",
    "hpack",
    "httpcore2",
    "httptools",
    "httpx2",
    "hyperframe",
    "numpy",
    "onnxruntime",
    "rfc8785",
    "uvloop",
)
"""Distributions whose code runs in the enclave."""

OPTIONAL_PACKAGES = (
    "obstore",
    "opentelemetry-api",
    "opentelemetry-exporter-otlp-proto-common",
    "opentelemetry-proto",
    "opentelemetry-sdk",
    "protobuf",
)
"""Extras whose code runs there where they are installed: what is not there cannot run."""


def measure_tree(root: Path) -> str:
    """Return the code digest (hex) of all ``.py`` files below ``root``."""
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    parts = (lp(name.encode("utf-8"), hashlib.sha256((root / name).read_bytes()).digest()) for name in files)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def measure_software(config: EnclaveConfig) -> SoftwareManifest:
    """Return the manifest of this installation with these settings."""
    code, packages = _installed()
    return SoftwareManifest(
        code=code, python=platform.python_version(), packages=dict(packages), settings=config.measured()
    )


@functools.cache
def _installed() -> tuple[str, tuple[tuple[str, str], ...]]:
    found = [(name, version(name)) for name in PACKAGES]
    for name in OPTIONAL_PACKAGES:
        with suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return measure_tree(Path(cloister.__file__).parent), tuple(found)
