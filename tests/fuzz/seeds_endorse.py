"""Seeds for the parsers of endorsements: a bundle, the answers of vendors' services, names."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from cloister.attest.endorse.bundle import Bundle, BundleFile, Entry
from cloister.attest.endorse.names import Kind, Name, jwks, parse_name
from cloister.attest.endorse.sources import Answer, Sources
from cloister.attest.endorse.window import Window
from cloister.crypto.sign import SigningKey
from endorse_kit import NOW, key_set

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS", "key", "signed_bundle"]

_WINDOW = Window(NOW, NOW + timedelta(days=30))
_INTEL = Name(kind=Kind.INTEL_COLLATERAL, text="", parts=())
_RIM = Name(kind=Kind.NVIDIA_RIM, text="", parts=())
_HEADERS = ("tcb-info-issuer-chain", "sgx-enclave-identity-issuer-chain", "sgx-pck-crl-issuer-chain")


def key() -> SigningKey:
    """Return the key that signs the bundle."""
    return SigningKey(b"k" * 32)


@cache
def _bundle() -> Bundle:
    name = parse_name(jwks("tokens.example"))
    entry = Entry(name=name, data=key_set(), source="https://tokens.example", window=_WINDOW)
    return Bundle(version=7, window=_WINDOW, entries=(entry,))


def signed_bundle() -> bytes:
    """Return a signed bundle of one key set."""
    return _bundle().sign(key())


def _read_intel(data: bytes) -> bytes:
    """Read a TCB info answer whose body and issuer header are both ``data``'s."""
    body, _, header = data.partition(b"\n")
    answers = [Answer(body=body, headers={name: header.decode("latin-1") for name in _HEADERS})]
    identity = body.replace(b'"tcbInfo"', b'"enclaveIdentity"')
    answers += [Answer(body=identity, headers=answers[0].headers), *answers, *answers]
    return Sources.read(_INTEL, answers[:4])


def _intel_answer() -> bytes:
    signature = "ab" * 64
    return f'{{"tcbInfo":{{"id":"TDX"}},"signature":"{signature}"}}\n{quote("-----BEGIN CERTIFICATE-----")}'.encode()


def _rim_answer() -> bytes:
    rim = b"<SoftwareIdentity/>"  # parsing one is a target of its own
    encoded = base64.b64encode(rim).decode()
    return json.dumps({"id": "X", "rim": encoded, "sha256": hashlib.sha256(rim).hexdigest()}).encode()


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "endorsement-bundle": (
        lambda data: BundleFile.parse(data).read(),
        lambda: [_bundle().dump(), signed_bundle()],
    ),
    "endorsement-name": (
        lambda data: parse_name(data.decode("latin-1")),
        lambda: [b"amd/milan/vcek/" + b"0" * 128 + b"/" + b"0" * 16, b"nvidia/rim/NV_GPU_DRIVER_GH100_550.144.03"],
    ),
    "intel-answer": (_read_intel, lambda: [_intel_answer()]),
    "nvidia-rim-answer": (lambda data: Sources.read(_RIM, [Answer(body=data, headers={})]), lambda: [_rim_answer()]),
}
