"""What lies beside evidence, explained: PCR values, keys of issuers and devices, AMD's table of certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cloister.attest.amd.certificates import parse_certificates
from cloister.attest.amd.certtable import parse_table
from cloister.attest.arm.anchors import parse_anchors
from cloister.attest.crl import RevocationList
from cloister.attest.describe import Description, Field
from cloister.attest.describe.tpm import pcr_fields
from cloister.attest.tokens.keyset import KeySet
from cloister.attest.tpm.quoted import parse_pcrs
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.attest.arm.anchors import Anchor
    from cloister.attest.tokens.keyset import TokenKey

__all__ = ["ArmAnchorsDescriber", "CertificateTableDescriber", "KeysDescriber", "PcrsDescriber"]

_JSON = (b"{", b"[")
_LOOKED_AT = 256 * 1024  # bytes: no file of these is longer
_TABLE = {
    "vcek": "the chip's own key",
    "vlek": "a key that a cloud loaded into the chip",
    "ask": "AMD's authority that signs such keys",
    "ark": "AMD's root; it counts if it is the pinned one",
    "crl": "what AMD has revoked",
}


def _reads(parse: Callable[[bytes], object], data: bytes) -> bool:
    """Tell whether ``data`` is short, is text in JSON, and parses."""
    if len(data) > _LOOKED_AT or not data.lstrip().startswith(_JSON):
        return False
    try:
        parse(data)
    except Malformed:
        return False
    return True


class PcrsDescriber:
    """Explains PCR values by index."""

    kind: Final = "tpm-pcrs"

    def recognises(self, data: bytes) -> bool:
        """Tell whether this is JSON of PCR values."""
        return _reads(parse_pcrs, data)

    def describe(self, data: bytes) -> Description:
        """Explain each PCR."""
        return Description(kind=self.kind, title="PCR values", fields=tuple(pcr_fields(parse_pcrs(data))))


class ArmAnchorsDescriber:
    """Explains keys of PSA and CCA devices."""

    kind: Final = "arm-anchors"

    def recognises(self, data: bytes) -> bool:
        """Tell whether this is a JSON array of anchors."""
        return _reads(parse_anchors, data)

    def describe(self, data: bytes) -> Description:
        """Explain each anchor."""
        found = parse_anchors(data)
        fields = tuple(field for index, item in enumerate(found) for field in _anchor(item, index))
        return Description(kind=self.kind, title="Trust anchors of Arm devices", fields=fields)


def _anchor(item: Anchor, index: int) -> Iterator[Field]:
    yield Field(name=f"{index}: key", value=_key(item.key), meaning="what the device signs its tokens with")
    for name, value in (("instance id", item.instance_id), ("implementation id", item.implementation_id)):
        shown = "any" if value is None else value.hex()
        yield Field(name=f"{index}: {name}", value=shown, meaning="whose key it is: a device, or all of a kind")


class KeysDescriber:
    """Explains the keys of an issuer of tokens: a JWKS, a JWK, or public keys as PEM."""

    kind: Final = "keys"

    def recognises(self, data: bytes) -> bool:
        """Tell by the PEM mark of a public key, or whether this is JSON of keys."""
        return b"PUBLIC KEY-----" in data[:64] or _reads(KeySet.parse, data)

    def describe(self, data: bytes) -> Description:
        """Explain each key."""
        keys = KeySet.parse(data).keys
        fields = tuple(field for index, item in enumerate(keys) for field in _token_key(item, index))
        return Description(kind=self.kind, title=f"Public keys: {len(keys)}", fields=fields)


def _token_key(item: TokenKey, index: int) -> Iterator[Field]:
    yield Field(
        name=f"{index}: key",
        value="in its certificate" if item.public is None else _key(item.public),
        meaning="whoever hands over this file says whom you trust",
    )
    yield Field(name=f"{index}: kid", value=item.kid or "none", meaning="the name by which a token asks for it")
    yield Field(name=f"{index}: alg", value=item.algorithm or "any of its kind", meaning="what it may sign with")
    count = str(len(item.x5c or ()))
    yield Field(name=f"{index}: x5c", value=count, meaning="certificates of it that came along")


def _key(key: object) -> str:
    match key:
        case rsa.RSAPublicKey():
            return f"RSA, {key.key_size} bits"
        case ec.EllipticCurvePublicKey():
            return f"elliptic curve {key.curve.name}"
        case bytes():
            return "a shared secret"
        case _:
            return "Ed25519"


class CertificateTableDescriber:
    """Explains the certificate table beside an SNP report."""

    kind: Final = "snp-certs"

    def recognises(self, data: bytes) -> bool:
        """Tell whether a known entry is in a table that parses."""
        try:
            return len(data) <= _LOOKED_AT and bool(parse_table(data))
        except Malformed:
            return False

    def describe(self, data: bytes) -> Description:
        """Explain each entry that somebody looks at."""
        fields = tuple(
            Field(name=role, value=_subject(role, entry), meaning=_TABLE[role])
            for role, entry in parse_table(data).items()
        )
        return Description(kind=self.kind, title="Certificate table of an SEV-SNP report", fields=fields)


def _subject(role: str, entry: bytes) -> str:
    if role == "crl":
        return RevocationList.parse(entry).x509.issuer.rfc4514_string()
    return ", ".join(item.shown for item in parse_certificates(entry, zero_serial=True))
