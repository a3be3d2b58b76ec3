"""Issuers made up for tests: keys, tokens with any header and any claims, certificates. None of the code under test."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
AT = int(NOW.timestamp())
AUDIENCE = "https://custodian.example"
ISSUER = "https://login.example/realms/site"
CLUSTER = "https://kubernetes.default.svc.cluster.local"
DOMAIN = "spiffe://example.org"

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def fresh_key(algorithm: str) -> Key:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


def jwk(key: Key, **members: Any) -> dict[str, Any]:
    algorithm = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((name for kind, name in algorithm.items() if isinstance(key, kind)), "EdDSA")
    made: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(name).to_jwk(key.public_key()))
    made.pop("key_ops", None)
    return made | members


def raw_token(header: Any, claims: Any, signature: bytes) -> bytes:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(b64u(part) for part in parts).encode()


class Provider:
    """One issuer with one key. ``token`` signs what it is told."""

    def __init__(self, name: str = ISSUER, algorithm: str = "ES256", kid: str = "key-1") -> None:
        self.name, self.algorithm, self.kid = name, algorithm, kid
        self.key = fresh_key(algorithm)

    def jwks(self, **members: Any) -> dict[str, Any]:
        return {"keys": [jwk(self.key, kid=self.kid, **members)]}

    def claims(self, now: int = AT, **changes: Any) -> dict[str, Any]:
        """Return honest claims, with changes; None takes a claim away."""
        made = {
            "aud": AUDIENCE,
            "azp": "cloister-cli",
            "exp": now + 300,
            "iat": now,
            "iss": self.name,
            "sub": "user-7",
        }
        return {name: value for name, value in (made | changes).items() if value is not None}

    def token(self, *, header: dict[str, Any] | None = None, now: int = AT, **changes: Any) -> bytes:
        said = {"kid": self.kid, "typ": "at+jwt"} | (header or {})
        headers = {name: value for name, value in said.items() if value is not None}
        typ = headers.pop("typ", None)
        return jwt.encode(
            self.claims(now, **changes),
            self.key,
            self.algorithm,
            headers={**headers, "typ": typ},  # type: ignore[arg-type]
        ).encode()

    def signed(self, payload: bytes) -> bytes:
        """Sign a payload as it is spelled."""
        headers = {"kid": self.kid, "typ": "at+jwt"}
        return jwt.PyJWS().encode(payload, self.key, self.algorithm, headers=headers).encode()

    def document(self, **changes: Any) -> dict[str, Any]:
        """Return the issuer's document, with changes; None takes a member away."""
        made = {
            "algorithms": [self.algorithm],
            "audiences": [AUDIENCE],
            "authorized_parties": ["cloister-cli"],
            "issuer": self.name,
            "keys": self.jwks(),
            "kind": "oidc",
            "rules": [{"grants": {"role": "lender"}, "subject": "user-7"}],
        }
        return {name: value for name, value in (made | changes).items() if value is not None}


class Cluster(Provider):
    """A Kubernetes cluster that issues projected service-account tokens."""

    def __init__(self) -> None:
        super().__init__(CLUSTER, "RS256", "cluster-1")

    def claims(self, now: int = AT, **changes: Any) -> dict[str, Any]:
        account = {"name": "api", "uid": "6f8d"}
        made = {
            "aud": [AUDIENCE],
            "azp": None,
            "kubernetes.io": {"namespace": "prod", "pod": {"name": "api-0"}, "serviceaccount": account},
            "nbf": now,
            "sub": "system:serviceaccount:prod:api",
        }
        return super().claims(now, **(made | changes))

    def token(self, *, header: dict[str, Any] | None = None, now: int = AT, **changes: Any) -> bytes:
        return super().token(header={"typ": None} | (header or {}), now=now, **changes)

    def document(self, **changes: Any) -> dict[str, Any]:
        rules = [{"claims": {"/kubernetes.io/namespace": "prod"}, "grants": {"role": "auditor"}}]
        return super().document(**({"authorized_parties": None, "kind": "kubernetes", "rules": rules} | changes))


class Domain(Provider):
    """A SPIFFE trust domain: JWT-SVIDs by its key, X.509-SVIDs below its authority."""

    def __init__(self, name: str = DOMAIN) -> None:
        super().__init__(name, "ES256", "svid-1")
        self.authority = Authority()

    def claims(self, now: int = AT, **changes: Any) -> dict[str, Any]:
        return super().claims(now, **({"azp": None, "iss": None, "sub": f"{self.name}/ns/prod/api"} | changes))

    def token(self, *, header: dict[str, Any] | None = None, now: int = AT, **changes: Any) -> bytes:
        return super().token(header={"typ": "JWT"} | (header or {}), now=now, **changes)

    def bundle(self) -> dict[str, Any]:
        root = self.authority.certificate.public_bytes(serialization.Encoding.DER)
        x509_key = jwk(self.authority.key, use="x509-svid", x5c=[base64.b64encode(root).decode()])
        return {"keys": [jwk(self.key, kid=self.kid, use="jwt-svid"), x509_key], "spiffe_sequence": 1}

    def document(self, **changes: Any) -> dict[str, Any]:
        rules = [{"claims": {"/spiffe/below": "/ns/prod"}, "grants": {"role": "lender"}}]
        made = {"authorized_parties": None, "keys": self.bundle(), "kind": "spiffe", "rules": rules}
        return super().document(**(made | changes))


class Authority:
    """A certificate authority: roots, authorities below, and certificates of clients with any fault."""

    def __init__(
        self, name: str = "Site CA", above: Authority | None = None, *, now: datetime = NOW, **faults: Any
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.above = above or self
        self.now = now
        builder = self._builder(self.name, self.key, timedelta(days=365)).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        builder = builder.add_extension(usage(cert_sign=True), critical=True)
        for extension in faults.get("extensions", ()):
            builder = builder.add_extension(extension, critical=faults.get("critical", False))
        self.certificate = builder.sign(self.above.key, hashes.SHA256())

    def _builder(self, subject: x509.Name, key: Any, life: timedelta) -> x509.CertificateBuilder:
        above = self.above if subject is self.name else self
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(above.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(days=1))
            .not_valid_after(self.now + life)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key()), critical=False)
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def document(self, **changes: Any) -> dict[str, Any]:
        made = {
            "authorities": self.pem,
            "issuer": "x509:site",
            "kind": "certificates",
            "rules": [{"grants": {"role": "lender"}, "subject": "dns:api.example"}],
        }
        return {name: value for name, value in (made | changes).items() if value is not None}

    def client(
        self,
        *names: x509.GeneralName,
        eku: tuple[x509.ObjectIdentifier, ...] | None = (ExtendedKeyUsageOID.CLIENT_AUTH,),
        key_usage: x509.KeyUsage | None = None,
        ca: bool | None = False,
        life: timedelta = timedelta(hours=1),
        key: Key | None = None,
        extensions: tuple[x509.ExtensionType, ...] = (),
        names_critical: bool = False,
    ) -> tuple[bytes, Key]:
        """Return a client's certificate (DER) and key."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
        builder = self._builder(subject, key, life)
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=names_critical)
        if eku is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=False)
        builder = builder.add_extension(key_usage or usage(), critical=True)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER), key


def usage(*, cert_sign: bool = False, signature: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signature, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=cert_sign, crl_sign=cert_sign, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def dns(text: str) -> x509.GeneralName:
    return x509.DNSName(text)


def email(text: str) -> x509.GeneralName:
    return x509.RFC822Name(text)
