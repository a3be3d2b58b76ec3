"""Vendors' services in this process: a real HTTPS server on loopback that speaks for every host, and misbehaves."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloister.attest.amd.authority import AmdTrust
from cloister.attest.endorse.fetch import FolderEndorsements, OnlineEndorsements, https_client
from cloister.attest.endorse.sources import Sources
from cloister.attest.endorse.vouch import Vouch
from cloister.testing.vendors.amd import SyntheticAmd
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.nvidia.vendor import NvidiaVendor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
AMD, INTEL, INTEL_ROOT = "kdsintf.amd.com", "api.trustedservices.intel.com", "certificates.trustedservices.intel.com"
RIM, OCSP, TOKENS = "rim.attestation.nvidia.com", "ocsp.ndis.nvidia.com", "tokens.example"
HOSTS = (AMD, INTEL, INTEL_ROOT, RIM, OCSP, TOKENS, "elsewhere.example")


@cache
def intel() -> SyntheticIntel:
    """Return the one synthetic Intel of this process."""
    return SyntheticIntel.generate()


@cache
def nvidia() -> NvidiaVendor:
    """Return the one synthetic NVIDIA of this process."""
    return NvidiaVendor.generate()


@cache
def amd() -> SyntheticAmd:
    """Return the one synthetic AMD of this process."""
    return SyntheticAmd.generate()


@cache
def vouch() -> Vouch:
    """Return vouching by the synthetic vendors' authorities."""
    trust = AmdTrust(roots={amd().product: amd().ark}, intermediates=(amd().ask, amd().asvk))
    return Vouch(intel_root=intel().root.certificate, amd=trust, rim_root=nvidia().rim_root.certificate)


@dataclass
class Reply:
    """What the server answers: whole, or a byte each ``drip_s`` seconds, or after ``stall_s``."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stall_s: float = 0.0
    drip_s: float = 0.0


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing about clients that went away: tests make them."""


class VendorServices:
    """The server. ``answers`` are by host and path; of several the last is given again and again."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[Reply]] = {}
        self.asked: list[tuple[str, str, bytes]] = []
        self._lock = threading.Lock()
        authority_key, self._authority = _authority()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context, authority_key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _load(self, context: ssl.SSLContext, authority_key: ec.EllipticCurvePrivateKey) -> None:
        import tempfile  # noqa: PLC0415 - the library loads certificates from files alone

        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host) for host in HOSTS]
        leaf = _certify("vendors", key.public_key(), self._authority, authority_key, names=names)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            private = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            file.write(private + leaf.public_bytes(serialization.Encoding.PEM))
            file.flush()
            context.load_cert_chain(file.name)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        services = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                services.answer(self)

            def do_POST(self) -> None:
                services.answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one request as the book says."""
        body = request.rfile.read(int(request.headers.get("content-length", "0")))
        host = request.headers["host"]
        with self._lock:
            self.asked.append((host, request.path, body))
            book = self.answers.get((host, request.path), [Reply(status=404)])
            reply = book.pop(0) if len(book) > 1 else book[0]
        with contextlib.suppress(OSError):  # a client that had enough is no fault of ours
            time.sleep(reply.stall_s)
            request.send_response(reply.status)
            for name, value in {"content-length": str(len(reply.body)), **reply.headers}.items():
                request.send_header(name, value)
            request.end_headers()
            for part in [reply.body] if not reply.drip_s else [bytes((byte,)) for byte in reply.body]:
                request.wfile.write(part)
                request.wfile.flush()
                time.sleep(reply.drip_s)

    def transport(self, *, trusted: bool = True) -> httpx2.BaseTransport:
        """Return the transport that leads every host here, its name still checked in the certificate."""
        pem = self._authority.public_bytes(serialization.Encoding.PEM).decode() if trusted else None
        return _Loopback(self.port, ssl.create_default_context(cadata=pem))

    def put(self, host: str, path: str, *replies: Reply) -> None:
        """Say what is answered there."""
        self.answers[host, path] = list(replies)

    def serve(self, objects: Mapping[str, bytes]) -> None:
        """Publish endorsements by name as their vendors do."""
        for name, data in objects.items():
            _PUBLISH[name.split("/")[0]](self, name, data)

    def count(self, host: str) -> int:
        """Return how often a host was asked."""
        return sum(1 for asked, _, _ in self.asked if asked == host)


class _Loopback(httpx2.BaseTransport):
    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._inner = httpx2.HTTPTransport(verify=context)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.scheme == "https"
        moved = httpx2.Request(
            request.method,
            request.url.copy_with(host="127.0.0.1", port=self._port),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": request.url.host},
        )
        return self._inner.handle_request(moved)

    def close(self) -> None:
        self._inner.close()


def publish_intel(services: VendorServices, name: str, data: bytes) -> None:
    """Publish collateral as the Provisioning Certification Service does."""
    _, tee, fmspc, authority = name.split("/")
    members = json.loads(data)
    base = f"/{tee}/certification/v4"

    def signed(member: str, source: str, header: str) -> Reply:
        body = f'{{"{member}":{members[source]},"signature":"{members[source + "_signature"]}"}}'.encode()
        return Reply(body, headers={header: quote(members[source + "_issuer_chain"])})

    services.put(INTEL, f"{base}/tcb?fmspc={fmspc}", signed("tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain"))
    identity = signed("enclaveIdentity", "qe_identity", "SGX-Enclave-Identity-Issuer-Chain")
    services.put(INTEL, f"{base}/qe/identity", identity)
    chain = {"SGX-PCK-CRL-Issuer-Chain": quote(members["pck_crl_issuer_chain"])}
    crl = Reply(bytes.fromhex(members["pck_crl"]), headers=chain)
    services.put(INTEL, f"/sgx/certification/v4/pckcrl?ca={authority}&encoding=der", crl)
    services.put(INTEL_ROOT, "/IntelSGXRootCA.der", Reply(bytes.fromhex(members["root_ca_crl"])))


def publish_amd(services: VendorServices, name: str, data: bytes) -> None:
    """Publish an authority or a list as the Key Distribution Service does."""
    _, product, what = name.split("/")
    path = {"ca": "vcek/v1/{}/cert_chain", "vlek-ca": "vlek/v1/{}/cert_chain", "crl": "vcek/v1/{}/crl"}[what]
    services.put(AMD, "/" + path.format(product.capitalize()), Reply(data))


def publish_nvidia(services: VendorServices, name: str, data: bytes) -> None:
    """Publish a manifest as the RIM service does."""
    body: dict[str, Any] = {
        "id": name.split("/")[2],
        "rim": base64.b64encode(data).decode(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "rim_format": "TCG",
    }
    services.put(RIM, f"/v1/rim/{name.split('/')[2]}", Reply(json.dumps(body).encode()))


def publish_tokens(services: VendorServices, name: str, data: bytes) -> None:
    """Publish a key set at the well-known path."""
    services.put(name.split("/")[2], "/.well-known/jwks.json", Reply(data))


_PUBLISH = {"intel": publish_intel, "amd": publish_amd, "nvidia": publish_nvidia, "tokens": publish_tokens}


def online(services: VendorServices, cache_folder: Path, **changes: Any) -> OnlineEndorsements:
    """Return the production fetcher, its network led to ``services``, its waiting cut short."""
    members = {
        "client": https_client(transport=services.transport()),
        "vouch": vouch(),
        "sources": Sources((TOKENS,)),
        "cache": FolderEndorsements(cache_folder),
        "sleep": lambda _: None,
    }
    members |= changes
    client = members.pop("client")
    return OnlineEndorsements(client, **members)


def key_set() -> bytes:
    """Return a JWKS with one key."""
    point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    x, y = (base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode() for value in (point.x, point.y))
    return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "x": x, "y": y}]}).encode()


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _certify("test authority", key.public_key(), None, key, names=[])


def _certify(
    name: str,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    names: list[x509.GeneralName],
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    else:
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False
        )  # fmt: skip
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
    return builder.sign(issuer_key, hashes.SHA256())


def closed_port() -> int:
    """Return a loopback port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
