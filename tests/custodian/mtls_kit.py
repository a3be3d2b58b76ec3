"""A custodian on a real TLS socket in this process, and certificates honest and forged to knock with."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from custodian_kit import STATEMENT, Bench, Toy

from cloister.crypto.sign import Label, Statement
from cloister.custodian.app import create_app
from cloister.custodian.serve import _Server, _uvicorn_config, bind, prepare_tls
from cloister.lending.messages import CertificateRequest, InstanceCertificate
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cloister.custodian.live_tls import LiveTls

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def now() -> datetime:
    """Return the time by which TLS libraries judge."""
    return datetime.now(UTC)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh key."""
    return ec.generate_private_key(ec.SECP256R1())


def csr_for(key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType, subject: str = "") -> bytes:
    """Return a request for a key, DER, with whatever else it asks for."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def csr_text(key: ec.EllipticCurvePrivateKey, **more: Any) -> str:
    """Return a request as JSON carries it."""
    return dump_b64u(csr_for(key, **more))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def context(self, ca_pem: str) -> ssl.SSLContext:
        """Return a client's context that trusts one authority and shows this certificate."""
        context = ssl.create_default_context(cadata=ca_pem)
        self.load(context)
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Give a context this certificate."""
        from cloister.live_context import load_identity  # noqa: PLC0415 - ours too

        load_identity(context, self.pem)

    @property
    def pem(self) -> bytes:
        """Certificate and key in one."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self.certificate.public_bytes(Encoding.PEM) + key


def forge(
    issuer: Identity | None,
    *,
    uris: Sequence[str] = (),
    dns: Sequence[str] = (),
    uses: Sequence[x509.ObjectIdentifier] = (CLIENT,),
    common_name: str = "",
    life: timedelta = timedelta(hours=1),
    age: timedelta = timedelta(minutes=1),
    ca: bool = False,
) -> Identity:
    """Return a certificate of any kind, by ``issuer`` or by itself."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    by = subject if issuer is None else issuer.certificate.subject
    names: list[x509.GeneralName] = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
    usage = x509.KeyUsage(
        digital_signature=not ca, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    signer = key if issuer is None else issuer.key
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now() - age).not_valid_after(now() - age + life)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )  # fmt: skip
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
    return Identity(certificate=builder.sign(signer, hashes.SHA256()), key=key)


class MovedClock:
    """The real time, and more where somebody has moved it."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return now() + self.ahead

    def advance(self, seconds: float) -> None:
        """Move it."""
        self.ahead += timedelta(seconds=seconds)


class Door:
    """A custodian that listens, in a thread of its own. ``bench`` speaks to the same service without a socket."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.tls: LiveTls | None = None
        self.port = 0
        self.ca_pem = bench.init.ca_pem

    @contextlib.contextmanager
    def listening(self) -> Iterator[Door]:
        """Listen until the end of the block."""
        service = self.bench.service
        self.tls = prepare_tls(service, self.bench.home, service.client_authorities)
        app = create_app(service)
        with contextlib.closing(bind(service.config)) as listener:
            self.port = listener.getsockname()[1]
            server = _Server(_uvicorn_config(service.config, app, self.tls), app)
            thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
            thread.start()
            try:
                yield self
            finally:
                server.should_exit = True
                thread.join()

    def connect(self, identity: Identity | None = None, **versions: Any) -> http.client.HTTPSConnection:
        """Return a connection, not made yet."""
        context = ssl.create_default_context(cadata=self.ca_pem)
        if identity is not None:
            identity.load(context)
        for name, value in versions.items():
            setattr(context, name, value)
        return http.client.HTTPSConnection("localhost", self.port, context=context, timeout=20)

    def post(
        self, path: str, body: bytes, *, identity: Identity | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """POST on a connection of its own; raises what TLS raises."""
        with contextlib.closing(self.connect(identity)) as connection:
            return send(connection, "POST", path, body, {**STATEMENT, **(headers or {})})

    def get(self, path: str, headers: dict[str, str], identity: Identity | None = None) -> tuple[int, Any]:
        """GET on a connection of its own."""
        with contextlib.closing(self.connect(identity)) as connection:
            return send(connection, "GET", path, b"", headers)


def send(
    connection: http.client.HTTPSConnection, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, Any]:
    """Make one call on a connection that stays open; return status and document."""
    connection.request(method, path, body or None, headers)
    answer = connection.getresponse()
    data = answer.read()
    return answer.status, json.loads(data) if data[:1] == b"{" else data


def request_certificate(toy: Toy, csr: bytes, *, signed_by: Toy | None = None, **changes: Any) -> bytes:
    """Return a certificate request of an enclave."""
    members: dict[str, Any] = {"instance": toy.id, "csr": csr, **changes}
    payload = CertificateRequest(**members).dump()
    return Statement.sign((signed_by or toy).key, Label.CERTIFICATE_REQUEST, payload).dump()


def ask(toy: Toy, statement: bytes, *, path_of: Toy | None = None) -> Any:
    """Send a certificate request, without a socket."""
    instance = (path_of or toy).id
    return toy.bench.client.post(f"/v1/instances/{instance}/certificate", content=statement, headers=STATEMENT)


def certified(toy: Toy, **changes: Any) -> Identity:
    """Return the certificate that an attested enclave gets."""
    key = new_key()
    answer = ask(toy, request_certificate(toy, csr_for(key), **changes))
    assert answer.status_code == 200, answer.text
    payload = Statement.parse(answer.content, label=Label.CERTIFICATE).verify([toy.bench.init.key])
    issued = InstanceCertificate.parse(payload)
    return Identity(certificate=x509.load_der_x509_certificate(issued.certificate), key=key)


def mtls_bench(folder: Path, **settings: Any) -> Bench:
    """Return a custodian on real time that listens where the system chooses."""
    bench = Bench(folder, settings={"port": 0, "mtls": "require", **settings})
    bench.close()
    bench.clock = MovedClock()  # type: ignore[assignment] # goes by itself, and is advanced alike
    bench.open()
    return bench
