"""From when to when an endorsement may be used: what the object itself says, never longer.

Several objects in one (Intel's collateral, a chain) are good while all of them are. A key set says nothing of its own;
whoever keeps it bounds it (``sources.KEYS_LIFE``, the bundle's own window).

Not done here: who signed it (``vouch``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.attest.amd.certificates import parse_certificates
from cloister.attest.crl import RevocationList
from cloister.attest.endorse.names import Kind, Name
from cloister.attest.intel.collateral import Collateral, pem_certificates
from cloister.attest.nvidia.ocsp import Answer
from cloister.attest.nvidia.rim import Rim
from cloister.attest.tokens.keyset import KeySet
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cloister.attest.chain import Certificate

__all__ = ["ALWAYS", "Window", "intel_lists", "issued_at", "pck_authorities", "window_of"]


@dataclass(frozen=True, slots=True)
class Window:
    """Both ends are inside."""

    not_before: datetime
    not_after: datetime

    def __contains__(self, now: datetime) -> bool:
        """Tell whether ``now`` is inside."""
        return self.not_before <= now <= self.not_after

    def within(self, other: Window) -> bool:
        """Tell whether ``other`` is at least as wide."""
        return other.not_before <= self.not_before and self.not_after <= other.not_after

    def meet(self, other: Window) -> Window:
        """Return what both allow."""
        return Window(max(self.not_before, other.not_before), min(self.not_after, other.not_after))


ALWAYS = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
"""The window of an object that says nothing of its own: somebody else bounds it."""


def window_of(name: Name, data: bytes) -> Window:
    """Return the window of the object ``name``, which must parse as one. Raises ``Malformed``."""
    try:
        return _WINDOWS[name.kind](data)
    except Rejected as exc:  # a version or a kind of answer that is not read here
        raise Malformed(exc.message) from exc


def issued_at(name: Name, data: bytes) -> tuple[datetime, ...]:
    """Return when each dated part of a parsed object was issued, in one order: no part of a later one is earlier."""
    match name.kind:
        case Kind.INTEL_COLLATERAL:
            found = Collateral.parse(data)
            dates = (item.x509.last_update_utc for item in intel_lists(found))
            return (found.tcb_info.issued, found.qe_identity.issued, *dates)
        case Kind.AMD_CRL | Kind.NVIDIA_OCSP:
            return (window_of(name, data).not_before,)
        case _:
            return ()


def _meet(windows: Iterable[Window]) -> Window:
    met = ALWAYS
    for window in windows:
        met = met.meet(window)
    return met


def _valid(certificates: Sequence[Certificate]) -> Window:
    return _meet(Window(item.x509.not_valid_before_utc, item.x509.not_valid_after_utc) for item in certificates)


def _ended(what: str, start: datetime, end: datetime | None) -> Window:
    if end is None:
        msg = f"{what}: no nextUpdate, want one that ends"
        raise Malformed(msg)
    return Window(start, end)


def _list(crl: RevocationList) -> Window:
    return _ended("crl", crl.x509.last_update_utc, crl.x509.next_update_utc)


def _intel(data: bytes) -> Window:
    found = Collateral.parse(data)
    chains = (found.tcb_info_signed.chain, found.qe_identity_signed.chain, pck_authorities(found))
    return _meet(
        [
            Window(found.tcb_info.issued, found.tcb_info.next_update),
            Window(found.qe_identity.issued, found.qe_identity.next_update),
            *(_list(crl) for crl in intel_lists(found)),
            *(_valid(chain) for chain in chains),
        ]
    )


def intel_lists(collateral: Collateral) -> tuple[RevocationList, RevocationList]:
    """Return the root's list of revoked certificates and the PCK authority's. Raises ``Malformed`` without both."""
    root, pck = collateral.root_crl, collateral.pck_crl
    if root is None or pck is None:
        msg = "intel collateral: a revocation list is missing"
        raise Malformed(msg)
    return root, pck


def pck_authorities(collateral: Collateral) -> tuple[Certificate, ...]:
    """Return the chain of who signed the list of revoked PCK certificates. Raises ``Malformed``."""
    return pem_certificates(collateral.raw["pck_crl_issuer_chain"].encode())


def _amd(data: bytes) -> Window:
    return _valid(parse_certificates(data))


def _chip(data: bytes) -> Window:
    return _valid(parse_certificates(data, zero_serial=True))


def _crl(data: bytes) -> Window:
    return _list(RevocationList.parse(data))


def _rim(data: bytes) -> Window:
    return _valid(Rim.parse(data).certificates)


def _ocsp(data: bytes) -> Window:
    return _meet(_ended("ocsp answer", item.this_update, item.next_update) for item in Answer.parse(data).singles)


def _keys(data: bytes) -> Window:
    KeySet.parse(data)
    return ALWAYS


_WINDOWS: Mapping[Kind, Callable[[bytes], Window]] = {
    Kind.INTEL_COLLATERAL: _intel,
    Kind.AMD_CA: _amd,
    Kind.AMD_VLEK_CA: _amd,
    Kind.AMD_CRL: _crl,
    Kind.AMD_VCEK: _chip,
    Kind.NVIDIA_RIM: _rim,
    Kind.NVIDIA_OCSP: _ocsp,
    Kind.JWKS: _keys,
}
