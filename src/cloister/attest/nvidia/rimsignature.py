"""Who signed a manifest: XML-DSig (W3C XML Signature 1.1) with a certificate below the pinned manifest root.

One shape and no other: one reference to the whole document, enveloped-signature and one inclusive canonical form
without comments, SHA-384, ECDSA with P-384. The signature library verifies; what it says it verified is then read
again and has to be what was read before (signature wrapping).

Not done here: revocation (``ocsp``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, VerifyResult, XMLVerifier

from cloister.attest.chain import verify_chain
from cloister.attest.nvidia.rim import hardened_parser, read_manifest
from cloister.errors import Malformed, Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.nvidia.rim import Manifest, Rim

__all__ = ["verify_rim_chain", "verify_rim_signature", "window"]

_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_CANONICAL = ("http://www.w3.org/2006/12/xml-c14n11", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315")
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_REMEMBERED = 32  # manifests, below 1 MiB each
_CHILDREN = [f"{_DS}{name}" for name in ("SignedInfo", "SignatureValue", "KeyInfo")]
_UNREADABLE = (
    SignXMLException,
    etree.LxmlError,
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    KeyError,
    AssertionError,  # the library's own, about elements without text
)


def verify_rim_signature(rim: Rim) -> Manifest:
    """Prove that the first certificate's key signed the whole tag; return what was signed.

    Says nothing about who that is (``verify_rim_chain``). Raises ``Rejected``: ``algorithm_not_allowed``,
    ``rim_signature_invalid``.
    """
    leaf = rim.certificates[0]
    key = leaf.x509.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Rejected.because("algorithm_not_allowed", "rim signer", got=type(key).__name__, want="P-384")
    signed = _signed(rim.data, leaf.x509)
    if signed != rim.manifest:
        raise Rejected.because("rim_signature_invalid", "rim", got="another manifest is signed")
    return signed


@lru_cache(maxsize=_REMEMBERED)
def _signed(data: bytes, leaf: x509.Certificate) -> Manifest:
    """Return what ``leaf`` signed in ``data``. Remembered: one manifest serves every device of a version."""
    config = SignatureConfiguration(
        location="./",
        expect_references=1,
        signature_methods=frozenset({SignatureMethod.ECDSA_SHA384}),
        digest_algorithms=frozenset({DigestAlgorithm.SHA384}),
        verification_time=leaf.not_valid_before_utc,  # the window is judged with the chain
    )
    try:
        root = etree.fromstring(data, hardened_parser())
        _demand_shape(root)
        result = XMLVerifier().verify(root, x509_cert=leaf, parser=hardened_parser(), expect_config=config)
        return read_manifest(_root_of(result))
    except (*_UNREADABLE, Malformed) as exc:
        raise Rejected.because("rim_signature_invalid", "rim") from exc


def _root_of(result: VerifyResult | list[VerifyResult]) -> etree._Element:
    if not isinstance(result, VerifyResult) or result.signed_xml is None:
        msg = "want one reference to xml"
        raise ValueError(msg)
    return result.signed_xml


def _demand_shape(root: etree._Element) -> None:
    """Demand the one shape of a signature; raises ``ValueError``."""
    signature = root[-1]
    info, method = signature.find(f"{_DS}SignedInfo"), signature.find(f"{_DS}SignedInfo/{_DS}CanonicalizationMethod")
    references = [] if info is None else info.findall(f"{_DS}Reference")
    transforms = [item.get("Algorithm") for item in signature.iter(f"{_DS}Transform")]
    nested = [item for item in signature.iter(f"{_DS}Transform", f"{_DS}CanonicalizationMethod") if len(item)]
    if (
        [child.tag for child in signature] != _CHILDREN
        or method is None
        or method.get("Algorithm") not in _CANONICAL
        or len(references) != 1
        or references[0].get("URI") != ""
        or len(transforms) != 2  # noqa: PLR2004 - enveloped-signature and one canonical form
        or transforms[0] != _ENVELOPED
        or transforms[1] not in _CANONICAL
        or nested
    ):
        msg = "want one enveloped reference to the whole document"
        raise ValueError(msg)


def verify_rim_chain(rim: Rim, roots: Sequence[Certificate], now: datetime) -> tuple[Certificate, ...]:
    """Prove that a pinned root vouches for the signer at ``now``; return the path, signer to root.

    Raises ``Rejected`` with the codes of ``verify_chain``, but ``rim_cert_expired`` where a certificate ended;
    ``chain_invalid`` for a signer that may not sign or that is an authority.
    """
    leaf = rim.certificates[0]
    try:
        path = verify_chain(leaf, rim.certificates[1:], roots, now)
    except Rejected as exc:
        reasons = tuple(
            Reason(code="rim_cert_expired", subject=reason.subject, got=reason.got, want=reason.want)
            if reason.code == "cert_expired"
            else reason
            for reason in exc.reasons
        )
        raise Rejected(f"rim signer refused: {reasons[0]}", reasons=reasons) from exc
    extensions = {item.oid: item.value for item in leaf.x509.extensions}
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature or usage.key_cert_sign:
        raise Rejected.because("chain_invalid", leaf.shown, got="key usage", want="digitalSignature alone")
    return path


def window(certificates: Sequence[Certificate]) -> tuple[datetime, datetime]:
    """Return from when to when all of ``certificates`` are valid."""
    return (
        max(item.x509.not_valid_before_utc for item in certificates),
        min(item.x509.not_valid_after_utc for item in certificates),
    )
