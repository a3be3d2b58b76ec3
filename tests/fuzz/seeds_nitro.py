"""Parsers of Nitro evidence to fuzz, and honest inputs to start from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.attest.cbor import parse_cbor
from cloister.attest.describe.nitro import NitroDescriber
from cloister.attest.nitro.document import NitroDocument, parse_message
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.schemes.nitro import NITRO
from cloister.testing.vendors.aws import Document, NitroVendor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS"]

_NOW = datetime(2026, 5, 1, tzinfo=UTC)
_VENDOR = NitroVendor.generate()
_SCHEME = _VENDOR.scheme()


def _documents() -> list[bytes]:
    shapes = ({}, {"tagged": True}, {"indefinite": True}, {"left_out": ("nonce", "user_data", "public_key")})
    return [_VENDOR.document(Document(timestamp=_NOW, user_data=bytes(64), **shape)) for shape in shapes]  # type: ignore[arg-type]  # members by name


def _payloads() -> list[bytes]:
    return [parse_message(document).payload for document in _documents()]


def _verify(data: bytes) -> object:
    return _SCHEME.verify(Evidence(tee=NITRO, payload=data), {}, _NOW)


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "cbor": (lambda data: parse_cbor(data, what="fuzz", cap=1 << 16, indefinite=True), _payloads),
    "nitro-message": (parse_message, _documents),
    "nitro-document": (NitroDocument.parse, _payloads),
    "nitro-description": (NitroDescriber().describe, _documents),
    "nitro-evidence": (_verify, lambda: [dump_parts({"document": item}) for item in _documents()]),
}
