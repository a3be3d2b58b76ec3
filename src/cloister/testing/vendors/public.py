"""What verifiers need of synthetic vendors, in one file: their roots and what they publish, and no key.

For custodians that learners and the demo start. The roots take the place of the pinned ones of those kinds of
evidence, so that such a custodian believes nobody's real hardware of that kind. Loading it imports no vendor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography.exceptions import InvalidSignature

from cloister.attest.amd.authority import AmdTrust
from cloister.attest.amd.evidence import SNP
from cloister.attest.amd.products import Product
from cloister.attest.chain import MAX_CERTIFICATE_BYTES, Certificate
from cloister.attest.endorse import MAX_NAMES
from cloister.attest.endorse.names import parse_name
from cloister.attest.rats import TeeKind
from cloister.attest.schemes.nitro import NITRO, NitroScheme
from cloister.attest.schemes.nvidia import NVIDIA_GPU, NvidiaScheme
from cloister.attest.schemes.sgx import SGX, SgxScheme
from cloister.attest.schemes.snp import SnpScheme
from cloister.attest.schemes.tdx import TDX, TdxScheme
from cloister.errors import Malformed, UsageError
from cloister.wire import MAX_JSON_BYTES, Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from cloister.attest.verifier import Scheme
    from cloister.testing.vendors.fleet import Machine

__all__ = ["WARNING", "PublicVendors"]

WARNING = "SYNTHETIC VENDORS: no hardware is behind their evidence, anybody may have made it; it protects nothing"

_KIND = "cloister-synthetic-vendors"
_WHAT = "synthetic vendors"
_MAX_KINDS = 16
_MAX_PARTS = 4

_LINES = {product.key: product for product in Product}
_PARTS: Mapping[TeeKind, tuple[frozenset[str], ...]] = {
    NITRO: (frozenset({"root"}),),
    NVIDIA_GPU: (frozenset({"rim_root", "root"}),),
    SGX: (frozenset({"root"}),),
    SNP: tuple(frozenset({line}) for line in _LINES),
    TDX: (frozenset({"root"}),),
}
"""Roots of each kind of evidence, by part: the one, a line of processors, or devices and their manifests."""


def _snp(roots: Mapping[str, Certificate]) -> Scheme:
    return SnpScheme(AmdTrust(roots={_LINES[line]: root for line, root in roots.items()}))


_SCHEMES: Mapping[TeeKind, Callable[[Mapping[str, Certificate]], Scheme]] = {
    NITRO: lambda roots: NitroScheme([roots["root"]]),
    NVIDIA_GPU: lambda roots: NvidiaScheme(NVIDIA_GPU, device_roots=[roots["root"]], rim_roots=[roots["rim_root"]]),
    SGX: lambda roots: SgxScheme([roots["root"]]),
    SNP: _snp,
    TDX: lambda roots: TdxScheme([roots["root"]]),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicVendors:
    """Roots by kind of evidence and part, and endorsements by name."""

    roots: Mapping[TeeKind, Mapping[str, Certificate]]
    endorsements: Mapping[str, bytes]

    @classmethod
    def of(cls, machines: Iterable[Machine]) -> Self:
        """Return what custodians need for all ``machines``. Raises ``UsageError`` for two makers of one kind."""
        roots: dict[TeeKind, Mapping[str, Certificate]] = {}
        endorsements: dict[str, bytes] = {}
        for machine in machines:
            if not machine.roots or machine.roots.keys() & roots.keys():
                msg = f"{_WHAT}: {machine.tee}: want the roots of one vendor"
                raise UsageError(msg)
            roots |= machine.roots
            endorsements |= machine.endorsements
        return cls(roots=roots, endorsements=endorsements)

    def schemes(self) -> tuple[Scheme, ...]:
        """Return the schemes that trust these roots and no other."""
        return tuple(_SCHEMES[kind](roots) for kind, roots in self.roots.items())

    def dump(self) -> bytes:
        """Return the file."""
        return dump_json(
            {
                "endorsements": {name: dump_b64u(data) for name, data in self.endorsements.items()},
                "kind": _KIND,
                "roots": {
                    str(kind): {part: dump_b64u(root.der) for part, root in roots.items()}
                    for kind, roots in self.roots.items()
                },
                "v": 1,
                "warning": WARNING,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the file: roots that sign themselves, for kinds that have a scheme here. Raises ``Malformed``."""
        fields = Fields.parse(data, what=_WHAT, cap=MAX_JSON_BYTES)
        fields.literal("kind", _KIND)
        fields.literal("v", 1)
        fields.literal("warning", WARNING)
        kinds = Fields(named := fields.members("roots", cap=_MAX_KINDS), what=_WHAT)
        published = Fields(names := fields.members("endorsements", cap=MAX_NAMES), what=f"{_WHAT}: endorsement")
        fields.end()
        return cls(
            roots={TeeKind(kind): _take_roots(kinds, kind) for kind in named},
            endorsements={parse_name(name).text: published.b64u(name) for name in names},
        )

    def save(self, path: Path) -> None:
        """Write a new file. Raises ``UsageError``."""
        try:
            with path.open("xb") as file:
                file.write(self.dump() + b"\n")
        except OSError as exc:
            msg = f"{path}: cannot write {_WHAT}: {exc.strerror}"
            raise UsageError(msg) from exc

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file. Raises ``UsageError`` where there is none, ``Malformed``."""
        try:
            with path.open("rb") as file:
                return cls.parse(file.read(MAX_JSON_BYTES + 1))
        except OSError as exc:
            msg = f"{path}: cannot read {_WHAT}: {exc.strerror}"
            raise UsageError(msg) from exc


def _take_roots(kinds: Fields, kind: str) -> Mapping[str, Certificate]:
    parts = kinds.members(kind, cap=_MAX_PARTS)
    if parts.keys() not in _PARTS.get(TeeKind(kind), ()):
        kinds.fail(kind[:64], "no such kind here, or not its roots")
    found = Fields(parts, what=f"{_WHAT}: {kind}")
    return {part: _root(found.b64u(part, cap=MAX_CERTIFICATE_BYTES), f"{kind} {part}") for part in parts}


def _root(der: bytes, subject: str) -> Certificate:
    root = Certificate.parse(der)
    try:
        root.x509.verify_directly_issued_by(root.x509)
    except (InvalidSignature, TypeError, ValueError) as exc:
        msg = f"{_WHAT}: {subject}: does not sign itself"
        raise Malformed(msg) from exc
    return root
