"""Certificates that evidence and endorsements carry, whatever they are wrapped in, to be shown to a person.

A certificate is found by how it begins (X.690 section 8.1: a long SEQUENCE) and taken where all of it parses, or as
PEM (RFC 7468); so they are found in quotes, tables, CBOR and parts alike. Those of a token and of a key set are base64
in JSON (``x5c``, RFC 7515 section 4.1.6), in a token's header once more in base64url: a string that begins like a
certificate is looked at the same way, whatever member it is in.

Not done here: verifying anything. Which of them counted says the attestation result; of a token's own that may be none
(``tokens.proof``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from itertools import islice
from typing import TYPE_CHECKING

from cloister.attest.chain import MAX_CERTIFICATE_BYTES, Certificate, parse_certificates
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MAX_CARRIED", "carried_certificates"]

MAX_CARRIED = 32  # certificates that are shown
_MAX_TRIES = 4096  # places that may begin a certificate
_HEAD = 4  # bytes of tag and length
_SEQUENCE = re.compile(rb"\x30\x82(?=..\x30)", re.DOTALL)  # a certificate begins with two, one in the other
_MAX_HEADER_CHARS = 64 * 1024  # of a token, in base64url
_MAX_HEADERS = 64  # tokens that are looked into: one for each of many devices
_TEXT = re.compile(rb'"(MI[I-L](?:[A-Za-z0-9+]|\\?/){1,11000}={0,2})"')  # the same beginning in base64, quoted
_RUN = re.compile(rb"[A-Za-z0-9_-]{16,}")
_OBJECT = b"eyJ"  # how an object begins in base64url: ``{"``
_PREFIX = 8  # bytes before a token that may look like a part of it: a length
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]{1,16384}-----END CERTIFICATE-----")


def carried_certificates(pieces: Iterable[bytes]) -> tuple[Certificate, ...]:
    """Return the certificates in ``pieces``, each once, every one before the one that issued it where both are there.

    At most ``MAX_CARRIED``. Never raises: what does not parse is no certificate.
    """
    found: dict[bytes, Certificate] = {}
    for piece in pieces:
        for certificate in _in(piece):
            found.setdefault(hashlib.sha256(certificate.der).digest(), certificate)
            if len(found) == MAX_CARRIED:
                return _ordered(list(found.values()))
    return _ordered(list(found.values()))


def _in(piece: bytes) -> Iterator[Certificate]:
    yield from _plain(piece)
    texts = (found[1] for text in (piece, *_headers(piece)) for found in _TEXT.finditer(text))
    for text in islice(texts, _MAX_TRIES):
        try:
            yield Certificate.parse(base64.b64decode(text.replace(b"\\/", b"/"), validate=True), zero_serial=True)
        except (Malformed, binascii.Error):
            continue


def _headers(piece: bytes) -> Iterator[bytes]:
    """Yield what may be the header of a compact token (RFC 7515 section 7.1), decoded."""
    count = 0
    for run in _RUN.finditer(piece):
        begin = piece.find(_OBJECT, run.start(), min(run.start() + _PREFIX + len(_OBJECT), run.end()))
        if begin < 0 or piece[run.end() : run.end() + 1] != b"." or run.end() - begin > _MAX_HEADER_CHARS:
            continue
        text = piece[begin : run.end()]
        try:
            yield base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
        except binascii.Error:
            continue
        count += 1
        if count == _MAX_HEADERS:
            return


def _plain(piece: bytes) -> Iterator[Certificate]:
    for text in _PEM.findall(piece):
        try:
            yield from parse_certificates(text)
        except Malformed:
            continue
    end = 0  # of the last one found: nothing inside of a certificate is another
    for tries, match in enumerate(_SEQUENCE.finditer(piece)):
        if tries == _MAX_TRIES:
            return
        begin = match.start()
        size = _HEAD + int.from_bytes(piece[begin + 2 : begin + _HEAD], "big")
        if begin < end or size > min(MAX_CERTIFICATE_BYTES, len(piece) - begin):
            continue
        try:
            yield Certificate.parse(piece[begin : begin + size], zero_serial=True)
        except Malformed:
            continue
        end = begin + size


def _ordered(certificates: list[Certificate]) -> tuple[Certificate, ...]:
    """Put each behind those that it issued; a circle of names is taken as it comes."""
    ordered: list[Certificate] = []
    left = certificates
    while left:
        issuers = [item.x509.issuer for item in left if item.x509.issuer != item.x509.subject]
        leaves = [item for item in left if item.x509.subject not in issuers] or left
        ordered += leaves
        left = [item for item in left if item not in leaves]
    return tuple(ordered)
