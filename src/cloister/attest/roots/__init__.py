"""Vendors' roots, pinned: data files with source and fingerprint (``roots.toml``).

Trust in a TEE ends here. A file whose bytes are not those of its fingerprint is refused at start, so that a swapped
file is a failure and never a new root. Whoever wants other roots (synthetic vendors, private ones) hands them to the
scheme; nothing adds to this table at run time.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from cloister.attest.chain import Certificate, parse_certificates
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Pinned", "pinned", "vendor_certificate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """One vendor's certificate. ``role`` is ``root``, or ``intermediate`` for one that must still chain to a root."""

    name: str
    role: str
    title: str
    source: str
    sha256: str
    certificate: Certificate


@cache
def pinned() -> Mapping[str, Pinned]:
    """Return every pinned certificate by name. Raises ``UsageError`` where a file is not what its fingerprint says."""
    folder = resources.files(__name__)
    table = tomllib.loads(folder.joinpath("roots.toml").read_text(encoding="utf-8"))
    return {name: _load(name, entry, folder.joinpath(f"{name}.pem").read_bytes()) for name, entry in table.items()}


def _load(name: str, entry: Mapping[str, str], data: bytes) -> Pinned:
    (certificate,) = parse_certificates(data)
    got = hashlib.sha256(certificate.der).hexdigest()
    if got != entry["sha256"]:
        msg = f"pinned certificate {name}: sha256 {got}, want {entry['sha256']}"
        raise UsageError(msg, hint="the installation was altered; install it again")
    return Pinned(name=name, certificate=certificate, **entry)


def vendor_certificate(name: str) -> Certificate:
    """Return the pinned certificate ``name`` (``intel-sgx-root``). Raises ``UsageError`` for an unknown name."""
    if name not in pinned():
        msg = f"no pinned certificate {name[:64]!r}"
        raise UsageError(msg)
    return pinned()[name].certificate
