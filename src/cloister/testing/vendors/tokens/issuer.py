"""One synthetic issuer: root, authority, signing key, and tokens with any fault."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from cloister.attest.chain import Certificate
from cloister.attest.parts import dump_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence
from cloister.attest.rules import Exact, NotChecked, OneOf, Rule
from cloister.attest.schemes.token import Issuer, JwksAt, PinnedRoots, TokenScheme
from cloister.attest.tokens.confidential_space import CONFIDENTIAL_SPACE, CS_ISSUER
from cloister.attest.tokens.ear import EAR
from cloister.attest.tokens.ita import ITA
from cloister.attest.tokens.maa import MAA
from cloister.attest.tokens.nras import NRAS, NRAS_ISSUER
from cloister.testing.vendors.tokens import claims as said
from cloister.wire import dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.attest.rats import TeeKind
    from cloister.attest.tokens.profile import Profile
    from cloister.wire import Json

__all__ = ["Faults", "TokenAttester", "TokenVendor"]

SigningKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

LIFE = timedelta(hours=1)
_START, _END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_RSA_BITS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """How one kind of issuer signs, and what it says by default."""

    profile: Profile
    issuer: str
    algorithm: str
    claims: Callable[[bytes], dict[str, Json]]
    policy: Mapping[str, Rule]


_NOT_DEBUG = Exact(value=False)
_KINDS: Mapping[str, _Kind] = {
    kind.profile.tee: kind
    for kind in (
        _Kind(
            profile=MAA,
            issuer="https://synthetic.attest.azure.net",
            algorithm="RS256",
            claims=said.maa_snp_claims,
            policy={
                "attestation_type": Exact("sevsnpvm"),
                "debug": _NOT_DEBUG,
                "measurement": OneOf((said.MEASUREMENT,)),
            },
        ),
        _Kind(
            profile=ITA,
            issuer="Intel Trust Authority",
            algorithm="PS384",
            claims=said.ita_claims,
            policy={
                "attester_type": Exact("TDX"),
                "debug": _NOT_DEBUG,
                "measurement": OneOf((said.MEASUREMENT,)),
                "tcb_status": OneOf(("UpToDate",)),
            },
        ),
        _Kind(
            profile=CONFIDENTIAL_SPACE,
            issuer=CS_ISSUER,
            algorithm="RS256",
            claims=said.confidential_space_claims,
            policy={
                "debug": _NOT_DEBUG,
                "hwmodel": OneOf(("GCP_INTEL_TDX",)),
                "image_digest": OneOf((said.IMAGE_DIGEST,)),
                "secure_boot": Exact(value=True),
                "swname": Exact("CONFIDENTIAL_SPACE"),
            },
        ),
        _Kind(
            profile=NRAS,
            issuer=NRAS_ISSUER,
            algorithm="ES384",
            claims=lambda report_data: {
                "eat_nonce": report_data.hex(),
                "sub": "NVIDIA-PLATFORM-ATTESTATION",
                "x-nvidia-overall-att-result": True,
                "x-nvidia-ver": "3.0",
            },
            policy={
                "debug": _NOT_DEBUG,
                "hwmodel": OneOf(("GH100 A01 GSP BROM",)),
                "measurements": OneOf(("success",)),
                "result": Exact(value=True),
                "secure_boot": Exact(value=True),
                "verdicts_failed": Exact(0),
            },
        ),
        _Kind(
            profile=EAR,
            issuer="https://verifier.example",
            algorithm="ES256",
            claims=said.ear_claims,
            policy={"status": OneOf(("affirming",)), "submods": NotChecked("any attester of this verifier")},
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What may be wrong with the certificates of a signing key."""

    leaf_not_before: datetime = _START
    leaf_not_after: datetime = _END
    authority_not_after: datetime = _END
    authority_is_ca: bool = True
    authority_may_sign: bool = True
    leaf_is_another: bool = False
    issuer_name: str = "Synthetic Token Authority"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenVendor:
    """An issuer of one kind of token, with everything it needs to sign."""

    kind: _Kind
    key: SigningKey
    root_key: ec.EllipticCurvePrivateKey
    authority_key: ec.EllipticCurvePrivateKey
    faults: Faults = field(default_factory=Faults)
    kid: str = "synthetic-1"

    @classmethod
    def generate(cls, tee: TeeKind, faults: Faults | None = None) -> Self:
        """Make the keys of an issuer of ``maa``, ``ita``, ``confidential-space``, ``nras`` or ``ear`` tokens."""
        kind = _KINDS[tee]
        return cls(
            kind=kind,
            key=_make_key(kind.algorithm),
            root_key=ec.generate_private_key(ec.SECP384R1()),
            authority_key=ec.generate_private_key(ec.SECP384R1()),
            faults=faults or Faults(),
        )

    def broken(self, faults: Faults) -> Self:
        """Return the same issuer with other certificates."""
        return replace(self, faults=faults)

    @property
    def issuer(self) -> str:
        """Its name in ``iss``."""
        return self.kind.issuer

    @property
    def host(self) -> str:
        """Where its keys would be published."""
        return f"{self.kind.profile.tee}.example"

    @property
    def root(self) -> Certificate:
        """The root its signing keys chain to."""
        key = self.root_key
        return _certify("Synthetic Token Root", key.public_key(), "Synthetic Token Root", key, is_ca=True)

    @property
    def chain(self) -> tuple[Certificate, ...]:
        """Certificates of the signing key, leaf first, root last, with the faults asked for."""
        faults = self.faults
        authority = _certify(
            "Synthetic Token Authority",
            self.authority_key.public_key(),
            "Synthetic Token Root",
            self.root_key,
            is_ca=faults.authority_is_ca,
            may_sign=faults.authority_may_sign,
            end=faults.authority_not_after,
        )
        signer = ec.generate_private_key(ec.SECP256R1()) if faults.leaf_is_another else self.key
        leaf = _certify(
            "Synthetic Token Signer",
            signer.public_key(),
            faults.issuer_name,
            self.authority_key,
            start=faults.leaf_not_before,
            end=faults.leaf_not_after,
        )
        return leaf, authority, self.root

    @property
    def x5c(self) -> list[Json]:
        """The chain as RFC 7515 section 4.1.6 writes it."""
        return [base64.b64encode(item.der).decode() for item in self.chain]

    def jwk(self, *, certified: bool = True, bare: bool = False) -> dict[str, Json]:
        """Return the signing key; ``certified`` with its chain, ``bare`` with nothing else."""
        jwk: dict[str, Json] = {"alg": self.kind.algorithm, "kid": self.kid, "use": "sig", **_numbers(self.key)}
        if bare:
            jwk = {name: jwk[name] for name in ("kid", "kty")}
        return {**jwk, "x5c": self.x5c} if certified or bare else jwk

    def jwks(self, *, certified: bool = True) -> bytes:
        """Return the published key set."""
        return dump_json({"keys": [self.jwk(certified=certified)]})

    def claims(self, report_data: bytes, now: datetime) -> dict[str, Json]:
        """Return a payload that a scheme accepts at ``now``: to be changed, then signed."""
        issued = int(now.timestamp())
        times: dict[str, Json] = {"exp": issued + int(LIFE.total_seconds()), "iat": issued, "nbf": issued}
        return {"iss": self.issuer, **times, **self.kind.claims(report_data)}

    def sign(
        self,
        payload: Mapping[str, Json] | bytes,
        *,
        algorithm: str | None = None,
        key: SigningKey | bytes | None = None,
        header: Mapping[str, Json] | bytes | None = None,
    ) -> bytes:
        """Return a compact token over ``payload``: with another algorithm, key or header where asked."""
        chosen = algorithm or self.kind.algorithm
        own: dict[str, Json] = {"alg": chosen, "kid": self.kid, "typ": "JWT"}
        if self.kind.profile is CONFIDENTIAL_SPACE:
            own["x5c"] = self.x5c
        head = header if isinstance(header, bytes) else dump_json({**own, **(header or {})})
        body = payload if isinstance(payload, bytes) else dump_json(payload)
        signed = f"{dump_b64u(head)}.{dump_b64u(body)}".encode()
        signature = jwt.get_algorithm_by_name(chosen).sign(signed, key or self.key) if chosen != "none" else b""
        return signed + b"." + dump_b64u(signature).encode()

    def token(self, report_data: bytes, now: datetime, *, gpus: int = 2) -> bytes:
        """Return the token for an attester that binds ``report_data``; of NRAS, with its GPUs'."""
        payload = self.claims(report_data, now)
        if self.kind.profile is not NRAS:
            return self.sign(payload)
        times = {name: payload[name] for name in ("exp", "iat", "iss", "nbf")}
        return self.bundle(payload, [{**said.gpu_claims(report_data, index), **times} for index in range(gpus)])

    def bundle(self, payload: Mapping[str, Json], gpus: list[dict[str, Json]]) -> bytes:
        """Return a token with those of ``gpus``, each by its digest."""
        tokens = {f"GPU-{index}": self.sign(gpu).decode() for index, gpu in enumerate(gpus)}
        digests: dict[str, Json] = {
            name: ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]] for name, token in tokens.items()
        }
        overall = self.sign({"submods": digests, **payload}).decode()
        return dump_json([["JWT", overall], tokens])

    def scheme(self, *, algorithms: frozenset[str] | None = None) -> TokenScheme:
        """Return the scheme that trusts this issuer: by its root where tokens carry a chain, else by its key set."""
        profile = self.kind.profile
        pinned = profile is CONFIDENTIAL_SPACE
        keys = PinnedRoots((self.root,)) if pinned else JwksAt(host=self.host, roots=(self.root,))
        return TokenScheme(
            profile,
            [Issuer(name=self.issuer, keys=keys)],
            audiences=(said.CS_AUDIENCE,) if pinned else NotChecked("synthetic tokens of this kind name none"),
            algorithms=algorithms,
        )

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """The key set, by the name the scheme asks for."""
        return {f"tokens/jwks/{self.host}": self.jwks()}

    def policy(self, version: int = 1) -> Policy:
        """Return a policy for what this issuer says by default."""
        return Policy(version=version, tees={self.kind.profile.tee: TeePolicy(self.kind.policy)})

    def attester(self, clock: Callable[[], datetime] | None = None) -> TokenAttester:
        """Return an attester that has this issuer verify it."""
        return TokenAttester(self, clock or (lambda: datetime.now(UTC)))


class TokenAttester:
    """Collects tokens of a synthetic issuer."""

    def __init__(self, vendor: TokenVendor, clock: Callable[[], datetime]) -> None:
        """Ask ``vendor``; tokens start at ``clock``."""
        self._vendor = vendor
        self._clock = clock
        self.tee: Final = vendor.kind.profile.tee
        self.report_data_bytes: Final = vendor.kind.profile.report_data_bytes

    def collect(self, report_data: bytes) -> Evidence:
        """Return a fresh token that carries ``report_data``."""
        return Evidence(tee=self.tee, payload=dump_parts({"token": self._vendor.token(report_data, self._clock())}))


def _make_key(algorithm: str) -> SigningKey:
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}
    if algorithm in curves:
        return ec.generate_private_key(curves[algorithm])
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)


def _numbers(key: SigningKey) -> dict[str, Json]:
    """Return the public key in the members of RFC 7518 section 6."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {"e": "AQAB", "kty": "RSA", "n": dump_b64u(numbers.n.to_bytes(key.key_size // 8))}
    point = key.public_key().public_numbers()
    size = (key.curve.key_size + 7) // 8
    named = {"x": dump_b64u(point.x.to_bytes(size)), "y": dump_b64u(point.y.to_bytes(size))}
    return {"crv": f"P-{key.curve.key_size}", "kty": "EC", **named}


def _certify(
    subject: str,
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool = False,
    may_sign: bool = True,
    start: datetime = _START,
    end: datetime = _END,
) -> Certificate:
    usage = x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca and may_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    return Certificate(builder.sign(key, hashes.SHA384()))
