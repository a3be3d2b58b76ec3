"""Names of endorsements: what a scheme asks for and a source is asked by (docs/reference/endorsements.md).

A name says which object of which vendor, never where it lies. It is made from evidence, that is, by a stranger: so
it has one of these forms and no other before anything looks it up, in a table, a folder or a URL.

Not done here: where an object comes from (``sources``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "LASTING",
    "MAX_NAME_CHARS",
    "Kind",
    "Name",
    "amd_ca",
    "amd_crl",
    "amd_vcek",
    "amd_vlek_ca",
    "intel_collateral",
    "jwks",
    "nvidia_ocsp",
    "nvidia_rim",
    "parse_name",
    "vendor_signed",
]

MAX_NAME_CHARS = 300


class Kind(Enum):
    """What an endorsement is."""

    INTEL_COLLATERAL = "intel collateral"
    AMD_CA = "amd authority"
    AMD_VLEK_CA = "amd vlek authority"
    AMD_CRL = "amd revocation list"
    AMD_VCEK = "amd chip certificate"
    NVIDIA_RIM = "nvidia manifest"
    NVIDIA_OCSP = "nvidia ocsp answer"
    JWKS = "token keys"


LASTING = frozenset({Kind.AMD_CA, Kind.AMD_VLEK_CA, Kind.AMD_VCEK, Kind.NVIDIA_RIM})
"""What says the same on every day; the others say how things stand today."""

_AMD = "(milan|genoa|turin)"
_FORMS: Mapping[Kind, re.Pattern[str]] = {
    kind: re.compile(form)
    for kind, form in {
        Kind.INTEL_COLLATERAL: r"intel/(sgx|tdx)/([0-9a-f]{12})/(processor|platform)",
        Kind.AMD_CA: rf"amd/{_AMD}/ca",
        Kind.AMD_VLEK_CA: rf"amd/{_AMD}/vlek-ca",
        Kind.AMD_CRL: rf"amd/{_AMD}/crl",
        Kind.AMD_VCEK: rf"amd/{_AMD}/vcek/([0-9a-f]{{16}}|[0-9a-f]{{128}})/([0-9a-f]{{16}})",
        Kind.NVIDIA_RIM: r"nvidia/rim/([A-Za-z0-9][A-Za-z0-9_.-]{0,127})",
        Kind.NVIDIA_OCSP: r"nvidia/ocsp/([0-9a-f]{1,40})",
        Kind.JWKS: r"tokens/jwks/([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)",
    }.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name that has its form. ``parts`` are what varies in it, in order."""

    kind: Kind
    text: str
    parts: tuple[str, ...]


def parse_name(text: str) -> Name:
    """Parse a name. Raises ``Malformed`` for one that no endorsement has."""
    if len(text) <= MAX_NAME_CHARS:
        for kind, form in _FORMS.items():
            found = form.fullmatch(text)
            if found:
                return Name(kind=kind, text=text, parts=found.groups())
    msg = f"endorsement: {text[:64]!r} is no name of one"
    raise Malformed(msg)


def intel_collateral(tee: str, fmspc: str, authority: str) -> str:
    """Return the name of TCB info, QE identity and revocation lists for a platform (``fmspc``: 12 hex digits)."""
    return f"intel/{tee}/{fmspc}/{authority}"


def amd_ca(product: str) -> str:
    """Return the name of the certificates that issue VCEKs: ASK and ARK."""
    return f"amd/{product}/ca"


def amd_vlek_ca(product: str) -> str:
    """Return the name of the certificates that issue VLEKs: ASVK and ARK."""
    return f"amd/{product}/vlek-ca"


def amd_crl(product: str) -> str:
    """Return the name of the ARK's revocation list."""
    return f"amd/{product}/crl"


def amd_vcek(product: str, hwid: str, tcb: str) -> str:
    """Return the name of a chip's certificate at one TCB (both hex, as the report has their bytes)."""
    return f"amd/{product}/vcek/{hwid}/{tcb}"


def nvidia_rim(identifier: str) -> str:
    """Return the name of a reference integrity manifest."""
    return f"nvidia/rim/{identifier}"


def nvidia_ocsp(serial: int) -> str:
    """Return the name of the answer about the certificate with this serial number."""
    return f"nvidia/ocsp/{serial:x}"


def jwks(host: str) -> str:
    """Return the name of the keys with which a token service signs."""
    return f"tokens/jwks/{host}"


def vendor_signed(objects: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the objects that anybody may hand over, for a vendor signed them: all but keys of token services.

    Those are signed by nobody. Whoever hands them over says whom to believe, and that is not for an attester to say.
    """
    return {name: data for name, data in objects.items() if not name.startswith(jwks(""))}
