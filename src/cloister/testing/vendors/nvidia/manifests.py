"""Synthetic reference integrity manifests, signed as NVIDIA signs its own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureConstructionMethod, SignatureMethod
from signxml.signer import XMLSigner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.attest.chain import Certificate
    from cloister.testing.vendors.nvidia.issuing import Issuer

__all__ = ["build_manifest", "sign_manifest"]

_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"
_OPAQUE = "https://docs.nvidia.com/attestation/specs/latest/opaque-data.html"
_RIM = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
_NAMESPACES: dict[str | None, str] = {None: _SWID, "ns2": _SHA384, "ns3": _OPAQUE}
_INDICES = 64


def build_manifest(
    version: str,
    product: str,
    golden: Mapping[int, Sequence[bytes]],
    *,
    floors: Mapping[int, int] | None = None,
) -> etree._Element:
    """Return an unsigned tag: ``golden`` values by index, ``floors`` by the type of an opaque field."""
    root = etree.Element(
        f"{{{_SWID}}}SoftwareIdentity",
        nsmap=_NAMESPACES,  # type: ignore[arg-type]  # None is how lxml spells the default namespace
        attrib={
            "corpus": "false",
            "name": product,
            "patch": "false",
            "supplemental": "false",
            "tagId": hashlib.sha384(f"{product} {version}".encode()).hexdigest(),
            "version": "1.0",
            "tagVersion": "0",
        },
    )
    etree.SubElement(root, f"{{{_SWID}}}Entity", name="Synthetic Corporation", role="softwareCreator tagCreator")
    meta = {"colloquialVersion": version, "edition": "GPU", "product": product, "revision": "r1"}
    etree.SubElement(root, f"{{{_SWID}}}Meta", attrib={**meta, f"{{{_RIM}}}BindingSpec": "RIMIM"})
    payload = etree.SubElement(root, f"{{{_SWID}}}Payload")
    for index in range(_INDICES):
        _resource(payload, index, golden.get(index))
    for kind, floor in (floors or {}).items():
        attrib = {"type": "Measurement", "index": str(0x1000 + kind), "active": "True", "name": f"FLOOR_{kind}"}
        etree.SubElement(payload, f"{{{_SWID}}}Resource", attrib={**attrib, f"{{{_OPAQUE}}}minSvn": str(floor)})
    return root


def _resource(payload: etree._Element, index: int, values: Sequence[bytes] | None) -> None:
    shown = [bytes(48)] if values is None else values
    attrib = {"type": "Measurement", "index": str(index), "active": str(values is not None)}
    attrib |= {"alternatives": str(len(shown)), "name": f"Measurement_{index}", "size": str(len(shown[0]))}
    attrib |= {f"{{{_SHA384}}}Hash{number}": value.hex() for number, value in enumerate(shown)}
    etree.SubElement(payload, f"{{{_SWID}}}Resource", attrib=attrib)


def sign_manifest(
    root: etree._Element,
    signer: Issuer,
    above: Sequence[Certificate],
    *,
    digest: DigestAlgorithm = DigestAlgorithm.SHA384,
    method: SignatureMethod = SignatureMethod.ECDSA_SHA384,
    canonical: CanonicalizationMethod = CanonicalizationMethod.CANONICAL_XML_1_1,
) -> bytes:
    """Return the tag with a signature by ``signer`` as its last child, certificates ``above`` it included."""
    maker = XMLSigner(
        method=SignatureConstructionMethod.enveloped,
        signature_algorithm=method,
        digest_algorithm=digest,
        c14n_algorithm=canonical,
    )
    chain = [signer.certificate.x509, *(item.x509 for item in above)]
    return etree.tostring(maker.sign(root, key=signer.key, cert=chain))
