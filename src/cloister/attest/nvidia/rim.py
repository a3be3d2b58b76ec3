"""Reference integrity manifests: SWID tags in XML (TCG RIM Information Model 1.01, ISO/IEC 19770-2:2015).

    SoftwareIdentity tagId
      Entity            who made it
      Meta              colloquialVersion = version of driver or VBIOS, product = chip
      Payload           Resource type="Measurement" index active alternatives size ns2:Hash0.. | ns3:minSvn
      Signature         XML-DSig over everything else

Index i of a manifest is SPDM block i + 1. From index 0x1000 a resource is a floor for the opaque field of type
index - 0x1000 (NVIDIA Opaque Data RIM Attributes).

The XML is a strict subset, so that what is read is what is signed: UTF-8, no document type, no entities, comments or
processing instructions, one signature as the root's last child, no element we do not know.

Not done here: the signature (``rimsignature``), comparing (``golden``).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from lxml import etree

from cloister.attest.chain import Certificate
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_RIM_BYTES", "Manifest", "Reference", "Rim", "hardened_parser", "read_manifest"]

MAX_RIM_BYTES = 128 * 1024  # bytes; NVIDIA's are 20 to 30 KiB
_MAX_ELEMENTS = 512
_MAX_ATTRIBUTES = 64  # of one element; a measurement has at most as many golden values as fit
_MAX_CERTIFICATES = 8
_MAX_SIZE = 4096  # bytes of one measurement
_MAX_TEXT = 256  # characters
_OPAQUE_BASE = 0x1000
_MAX_INDEX = _OPAQUE_BASE + 0xFFFF
_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_SHA384 = "{http://www.w3.org/2001/04/xmlenc#sha384}"
_OPAQUE = "{https://docs.nvidia.com/attestation/specs/latest/opaque-data.html}"
_DSIG = "{http://www.w3.org/2000/09/xmldsig#}"
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,9}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){1,4096}")
_BOOLEANS = {"True": True, "False": False, "true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Golden values of one measurement, any of which is right; or the floor (``min_svn``) of an opaque field."""

    index: int
    active: bool
    size: int
    values: tuple[bytes, ...]
    min_svn: int | None

    @property
    def opaque_type(self) -> int:
        """Type of the opaque field that ``min_svn`` is about."""
        return self.index - _OPAQUE_BASE


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a manifest says."""

    tag: str
    version: str
    product: str
    references: tuple[Reference, ...]

    @property
    def active(self) -> tuple[Reference, ...]:
        """The references that count."""
        return tuple(item for item in self.references if item.active)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rim:
    """One manifest that parsed: what it says, its signer's certificates (own first), its bytes. Unverified."""

    manifest: Manifest
    certificates: tuple[Certificate, ...]
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a manifest. Raises ``Malformed``."""
        if len(data) > MAX_RIM_BYTES:
            _fail(f"{len(data)} bytes, want at most {MAX_RIM_BYTES}")
        root = _parse_xml(data)
        manifest = read_manifest(root)
        signatures = [*root.iter(f"{_DSIG}Signature")]
        if len(signatures) != 1 or root[-1] is not signatures[0]:
            _fail(f"{len(signatures)} signatures, want one, as the last child of the root")
        return cls(manifest=manifest, certificates=_certificates(signatures[0]), data=data)


def _fail(detail: str) -> NoReturn:
    msg = f"rim: {detail}"
    raise Malformed(msg)


def hardened_parser() -> etree.XMLParser:
    """Return a parser that fetches nothing, expands nothing and allocates nothing huge."""
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, recover=False
    )


def _parse_xml(data: bytes) -> etree._Element:
    try:
        data.decode("utf-8")
        root = etree.fromstring(data, hardened_parser())
    except (UnicodeDecodeError, etree.XMLSyntaxError, ValueError) as exc:
        msg = "rim: not well-formed xml in utf-8"
        raise Malformed(msg) from exc
    info = root.getroottree().docinfo
    if (info.encoding or "UTF-8").upper() not in {"UTF-8", "ASCII", "US-ASCII"}:
        _fail("another encoding than utf-8")
    if info.internalDTD is not None or info.externalDTD is not None:
        _fail("a document type")
    if root.getprevious() is not None or root.getnext() is not None:
        _fail("nodes beside the root")
    for count, node in enumerate(root.iter(), start=1):
        if not isinstance(node.tag, str):
            _fail("a comment, entity or processing instruction")
        if count > _MAX_ELEMENTS or len(node.attrib) > _MAX_ATTRIBUTES:
            _fail(f"more than {_MAX_ELEMENTS} elements, or {_MAX_ATTRIBUTES} attributes of one")
    return root


def read_manifest(root: etree._Element) -> Manifest:
    """Read what a tag says, signed or not. Raises ``Malformed``."""
    if root.tag != f"{_SWID}SoftwareIdentity":
        _fail("root is no SoftwareIdentity")
    names = [child.tag for child in root if child.tag != f"{_DSIG}Signature"]
    if names != [f"{_SWID}{name}" for name in ("Entity", "Meta", "Payload")]:
        _fail("want Entity, Meta and Payload, each once")
    _, meta, payload = root[0], root[1], root[2]
    if len(root[0]) or len(meta):
        _fail("elements inside Entity or Meta")
    references = tuple(_read_reference(item) for item in payload)
    indices = {item.index for item in references}
    if not references or len(indices) != len(references):
        _fail("no measurement, or two of one index")
    return Manifest(
        tag=_attribute(root, "tagId"),
        version=_attribute(meta, "colloquialVersion"),
        product=_attribute(meta, "product"),
        references=references,
    )


def _attribute(element: etree._Element, name: str) -> str:
    value = element.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or not (value.isascii() and value.isprintable()):
        _fail(f"attribute {name} is missing or out of form")
    return value


def _integer(element: etree._Element, name: str, cap: int) -> int:
    value = _attribute(element, name)
    if not _DECIMAL.fullmatch(value) or int(value) > cap:
        _fail(f"attribute {name.rpartition('}')[2]}: want a number up to {cap}")
    return int(value)


def _read_reference(element: etree._Element) -> Reference:
    if element.tag != f"{_SWID}Resource" or element.get("type") != "Measurement" or len(element):
        _fail("payload has something else than measurements")
    index = _integer(element, "index", _MAX_INDEX)
    active = _BOOLEANS.get(_attribute(element, "active"))
    if active is None:
        _fail("attribute active: want True or False")
    if index >= _OPAQUE_BASE:
        floor = _integer(element, f"{_OPAQUE}minSvn", 0xFFFF) if active else None
        return Reference(index=index, active=active, size=0, values=(), min_svn=floor)
    size = _integer(element, "size", _MAX_SIZE)
    values = tuple(_golden_values(element, _integer(element, "alternatives", _MAX_ATTRIBUTES), size))
    if active and not values:
        _fail(f"measurement {index} is active and has no golden value")
    return Reference(index=index, active=active, size=size, values=values, min_svn=None)


def _golden_values(element: etree._Element, count: int, size: int) -> Iterator[bytes]:
    """Yield exactly the ``count`` values that ``alternatives`` announces, each of ``size`` bytes."""
    present = [name for name in element.attrib if str(name).startswith(_SHA384)]
    if len(present) != count:
        _fail(f"{len(present)} golden values, want {count}")
    for number in range(count):
        value = element.get(f"{_SHA384}Hash{number}")
        if not isinstance(value, str) or not _HEX.fullmatch(value) or len(value) != 2 * size:
            _fail(f"golden value {number} is missing or not {size} bytes of hex")
        yield bytes.fromhex(value)


def _certificates(signature: etree._Element) -> tuple[Certificate, ...]:
    found = signature.findall(f"{_DSIG}KeyInfo/{_DSIG}X509Data/{_DSIG}X509Certificate")
    everywhere = [*signature.iter(f"{_DSIG}X509Certificate")]
    if not 0 < len(found) <= _MAX_CERTIFICATES or len(found) != len(everywhere):
        _fail(f"{len(found)} certificates of the signer, want 1 to {_MAX_CERTIFICATES}, in one place")
    return tuple(Certificate.parse(_base64(item.text or "")) for item in found)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        msg = "rim: certificate is not base64"
        raise Malformed(msg) from exc
