"""Which vendor's service has an endorsement: names to queries, and answers to the object asked for.

    amd       Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification (57230), chapter 4
    intel     SGX and TDX Provisioning Certification Service API, version 4
    nvidia    Reference Integrity Manifest service, version 1; OCSP (RFC 6960 appendix A.1)
    tokens    JSON Web Key Sets (RFC 7517 section 5) of hosts that the custodian names

Hosts are a closed list; a query is built of parts that have a form, never of a URL that somebody sent.

Not done here: sending a query (``fetch``), proving an answer (``vouch``).
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from cloister.attest.amd.products import Product
from cloister.attest.amd.tcb import Tcb
from cloister.attest.endorse import missing
from cloister.attest.endorse.names import Kind, Name
from cloister.attest.endorse.vouch import issuer_of
from cloister.attest.nvidia.ocsp import MAX_ANSWER_BYTES
from cloister.attest.nvidia.rim import MAX_RIM_BYTES
from cloister.attest.tokens.keyset import MAX_KEYSET_BYTES
from cloister.errors import Malformed, UsageError
from cloister.wire import Fields, dump_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloister.attest.chain import Certificate

__all__ = ["HOSTS", "KEYS_LIFE", "Answer", "Query", "Sources"]

KEYS_LIFE = timedelta(hours=24)
"""How long a key set is used after it was fetched: it has no end of its own."""

_AMD = "kdsintf.amd.com"
_INTEL = "api.trustedservices.intel.com"
_INTEL_ROOT = "certificates.trustedservices.intel.com"
_NVIDIA_RIM = "rim.attestation.nvidia.com"
_NVIDIA_OCSP = "ocsp.ndis.nvidia.com"
HOSTS = frozenset({_AMD, _INTEL, _INTEL_ROOT, _NVIDIA_RIM, _NVIDIA_OCSP})
"""The vendors' hosts; token services are named by the custodian besides."""

_KIB = 1024
_MAX_CRL_BYTES = 1 << 20
_MAX_CHAIN_HEADER_CHARS = 16 * _KIB

_JWKS_PATHS: Mapping[str, str] = {
    "portal.eu.trustauthority.intel.com": "/certs",
    "portal.trustauthority.intel.com": "/certs",
}
"""Token services whose keys lie elsewhere than at the well-known path; and all of Azure's."""
_AZURE, _AZURE_PATH = ".attest.azure.net", "/certs"
_WELL_KNOWN = "/.well-known/jwks.json"
_JWKS_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_JWKS_PATH = re.compile(r"/[A-Za-z0-9._~@/-]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One HTTPS request: where to, and how many bytes its answer may have."""

    host: str
    path: str
    cap: int
    method: str = "GET"
    body: bytes = b""
    media_type: str = ""

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"https://{self.host}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The body of an answer, and the issuer chains that Intel sends as headers (names in lower case)."""

    body: bytes
    headers: Mapping[str, str]


class Sources:
    """The table from names to queries, with the token services that the custodian names."""

    def __init__(self, jwks_hosts: Iterable[str] = ()) -> None:
        """Take the token services: ``host``, or ``host/path`` where its keys lie elsewhere. Raises ``UsageError``."""
        self._jwks = dict(_take_jwks(item) for item in jwks_hosts)

    @property
    def hosts(self) -> frozenset[str]:
        """Every host that is ever asked."""
        return HOSTS | self._jwks.keys()

    def queries(self, name: Name, *, certificates: Sequence[Certificate] = (), nonce: bytes = b"") -> tuple[Query, ...]:
        """Return what to ask; ``nonce`` goes into a question for an OCSP answer.

        Raises ``Unavailable`` where nobody has the object, or the certificate that OCSP asks about is not there.
        """
        match name.kind:
            case Kind.INTEL_COLLATERAL:
                return _ask_intel(*name.parts)
            case Kind.NVIDIA_RIM:
                path = f"/v1/rim/{quote(name.parts[0], safe='')}"
                return (Query(host=_NVIDIA_RIM, path=path, cap=2 * MAX_RIM_BYTES),)
            case Kind.NVIDIA_OCSP:
                return (_ask_ocsp(name, certificates, nonce),)
            case Kind.JWKS:
                if name.parts[0] not in self._jwks:
                    raise missing(name.text, "no setting names this token service")
                return (Query(host=name.parts[0], path=self._jwks[name.parts[0]], cap=MAX_KEYSET_BYTES),)
            case _:
                return (_ask_amd(name),)

    def origin(self, name: Name) -> str:
        """Return whose answer the object is, for a person to read."""
        hosts = {
            Kind.INTEL_COLLATERAL: _INTEL,
            Kind.NVIDIA_RIM: _NVIDIA_RIM,
            Kind.NVIDIA_OCSP: _NVIDIA_OCSP,
            Kind.JWKS: name.parts[0],
        }
        return f"https://{hosts.get(name.kind, _AMD)}"

    @staticmethod
    def read(name: Name, answers: Sequence[Answer]) -> bytes:
        """Return the object that ``answers`` to its queries, in their order, make up. Raises ``Malformed``."""
        match name.kind:
            case Kind.INTEL_COLLATERAL:
                return _read_intel(answers)
            case Kind.NVIDIA_RIM:
                return _read_rim(answers[0].body)
            case _:
                return answers[0].body


def _take_jwks(item: str) -> tuple[str, str]:
    """Return host and path of ``HOST`` or ``HOST/PATH``."""
    host, slash, rest = item.partition("/")
    if not _JWKS_HOST.fullmatch(host) or (slash and not _JWKS_PATH.fullmatch("/" + rest)):
        msg = f"token service {item[:80]!r}: want HOST or HOST/PATH"
        raise UsageError(msg)
    known = _AZURE_PATH if host.endswith(_AZURE) else _JWKS_PATHS.get(host, _WELL_KNOWN)
    return host, slash + rest if slash else known


def _ask_intel(tee: str, fmspc: str, authority: str) -> tuple[Query, ...]:
    """Ask for TCB info, QE identity, the PCK authority's list and the root's, in this order."""
    base = f"/{tee}/certification/v4"
    return (
        Query(host=_INTEL, path=f"{base}/tcb?fmspc={fmspc}", cap=512 * _KIB),
        Query(host=_INTEL, path=f"{base}/qe/identity", cap=64 * _KIB),
        Query(host=_INTEL, path=f"/sgx/certification/v4/pckcrl?ca={authority}&encoding=der", cap=_MAX_CRL_BYTES),
        Query(host=_INTEL_ROOT, path="/IntelSGXRootCA.der", cap=64 * _KIB),
    )


def _read_intel(answers: Sequence[Answer]) -> bytes:
    """Return the members of QuoteCollateralV3 as verifiers exchange it (docs/spec/evidence-intel.md section 3)."""
    tcb_info, qe_identity, pck_crl, root_crl = answers
    info, info_signature = _split(tcb_info, "tcbInfo")
    identity, identity_signature = _split(qe_identity, "enclaveIdentity")
    return dump_json(
        {
            "pck_crl": pck_crl.body.hex(),
            "pck_crl_issuer_chain": _issuers(pck_crl, "sgx-pck-crl-issuer-chain"),
            "qe_identity": identity,
            "qe_identity_issuer_chain": _issuers(qe_identity, "sgx-enclave-identity-issuer-chain"),
            "qe_identity_signature": identity_signature,
            "root_ca_crl": root_crl.body.hex(),
            "tcb_info": info,
            "tcb_info_issuer_chain": _issuers(tcb_info, "tcb-info-issuer-chain"),
            "tcb_info_signature": info_signature,
        }
    )


def _split(answer: Answer, member: str) -> tuple[str, str]:
    """Return signed text and signature of ``{"MEMBER":TEXT,"signature":"HEX"}``: the text to the byte."""
    form = rb'\s*\{\s*"%b"\s*:\s*(\{.*\})\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*' % member.encode()
    found = re.fullmatch(form, answer.body, re.DOTALL)
    if not found:
        msg = f"intel's answer: want an object of {member} and signature"
        raise Malformed(msg)
    return _ascii(found[1]), _ascii(found[2])


def _issuers(answer: Answer, header: str) -> str:
    """Return the certificates in a header: PEM, percent-encoded (PCS API version 4)."""
    text = answer.headers.get(header, "")
    if not 0 < len(text) <= _MAX_CHAIN_HEADER_CHARS:
        msg = f"intel's answer: header {header} of {len(text)} characters, want 1 to {_MAX_CHAIN_HEADER_CHARS}"
        raise Malformed(msg)
    return _ascii(unquote_to_bytes(text))


def _ascii(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as exc:
        msg = "intel's answer: not ascii"
        raise Malformed(msg) from exc


def _ask_amd(name: Name) -> Query:
    product = name.parts[0].capitalize()
    match name.kind:
        case Kind.AMD_CA:
            return Query(host=_AMD, path=f"/vcek/v1/{product}/cert_chain", cap=64 * _KIB)
        case Kind.AMD_VLEK_CA:
            return Query(host=_AMD, path=f"/vlek/v1/{product}/cert_chain", cap=64 * _KIB)
        case Kind.AMD_CRL:
            return Query(host=_AMD, path=f"/vcek/v1/{product}/crl", cap=_MAX_CRL_BYTES)
        case _:
            return Query(host=_AMD, path=f"/vcek/v1/{product}/{name.parts[1]}?{_levels(name)}", cap=8 * _KIB)


def _levels(name: Name) -> str:
    """Return the security patch levels of a TCB version as KDS asks for them (57230, table 5)."""
    tcb = Tcb.read(bytes.fromhex(name.parts[2]), Product(name.parts[0].capitalize()))
    return "&".join(f"{part}SPL={level:02d}" for part, level in tcb.parts.items())


def _read_rim(body: bytes) -> bytes:
    """Return the manifest of ``{"rim": base64, "sha256": hex, ...}``. Raises ``Malformed``."""
    fields = Fields.parse(body, what="nvidia's answer", cap=2 * MAX_RIM_BYTES)
    text = fields.take("rim")
    if not isinstance(text, str):
        fields.fail("rim", "want a base64 string")
    try:
        manifest = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        msg = "nvidia's answer: rim: want a base64 string"
        raise Malformed(msg) from exc
    if hashlib.sha256(manifest).digest() != fields.hex("sha256", size=32):
        fields.fail("sha256", "not the digest of rim")
    return manifest


def _ask_ocsp(name: Name, certificates: Sequence[Certificate], nonce: bytes) -> Query:
    """Ask about one certificate of one issuer (RFC 6960 section 4.1), as NVIDIA's own tools identify it: by SHA-384."""
    known = issuer_of(name, certificates)
    if known is None:
        raise missing(name.text, "the certificate and its issuer did not come along")
    about, issuer = known
    builder = ocsp.OCSPRequestBuilder().add_certificate(about.x509, issuer.x509, hashes.SHA384())
    request = builder.add_extension(x509.OCSPNonce(nonce), critical=False).build()
    return Query(
        host=_NVIDIA_OCSP,
        path="/",
        cap=MAX_ANSWER_BYTES,
        method="POST",
        body=request.public_bytes(serialization.Encoding.DER),
        media_type="application/ocsp-request",
    )
