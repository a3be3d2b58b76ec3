"""What it costs to know a caller, beside one small inference.

    python benchmarks/authorisation.py --inferences 300

Callers are proven by tokens of an issuer (ES256, RS256) and by a client certificate: once in full, then from memory, as
every later request of the same caller is. The inference is a perceptron over 64 numbers in an enclave as it is shipped,
a process of its own, asked over pinned TLS by the SDK, one at a time. Wall time, the least of five rounds.

The goal is that a known caller costs less than 2 % of the inference. What an enclave adds around it is not in here.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import numpy as np
from consumer import enclave
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from figures.goals import at_most

from cloister.client import Client
from cloister.identity import Callers, Issuer, Issuers, Trusted, parse_keys
from cloister.testing.simulated import SimulatedScheme

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL = at_most(2, " %")
ROUNDS = 5
AUDIENCE, CALLER = "https://benchmark.example", "caller"
RULES = [{"grants": {"consumer": "c"}, "subject": CALLER}]


def least_us(work: Callable[[], object], count: int) -> float:
    """Return the time of one call in microseconds."""
    work()
    found = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(count):
            work()
        found.append((time.perf_counter() - begun) / count * 1e6)
    return min(found)


def trusted(document: dict[str, Any]) -> Trusted:
    """Return an issuer with the keys of its document."""
    issuer = Issuer.parse(json.dumps(document).encode())
    return Trusted(issuer=issuer, keys=parse_keys(issuer.kind, issuer.keys or b""))


def by_token(algorithm: str, now: datetime) -> tuple[Trusted, bytes]:
    """Return an issuer and a token of its."""
    key: Any = (
        ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else rsa.generate_private_key(65537, 2048)
    )
    name = f"https://{algorithm.lower()}.example"
    jwk = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key())) | {"kid": "k"}
    document = {
        "algorithms": [algorithm], "audiences": [AUDIENCE], "authorized_parties": [CALLER], "issuer": name,
        "keys": {"keys": [jwk]}, "kind": "oidc", "rules": RULES,
    }  # fmt: skip
    at = int(now.timestamp())
    claims = {"aud": AUDIENCE, "azp": CALLER, "exp": at + 3600, "iat": at, "iss": name, "sub": CALLER}
    return trusted(document), jwt.encode(claims, key, algorithm, headers={"kid": "k", "typ": "at+jwt"}).encode()


def by_certificate(now: datetime) -> tuple[Trusted, bytes]:
    """Return an authority and a client's certificate below it."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("ca", "client")]

    def certify(which: int, *extensions: x509.ExtensionType) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=which == 1, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=which == 0, crl_sign=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = x509.CertificateBuilder().subject_name(names[which]).issuer_name(names[0])
        builder = builder.public_key(keys[which].public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=which == 0, path_length=None), critical=True)
        for extension in (usage, *extensions):
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(keys[0], hashes.SHA256())

    pem = certify(0).public_bytes(Encoding.PEM).decode()
    rules = [{"grants": {"consumer": "c"}, "subject": f"dns:{CALLER}"}]
    leaf = certify(
        1,
        x509.SubjectAlternativeName([x509.DNSName(CALLER)]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
    )
    document = {"authorities": pem, "issuer": "x509:site", "kind": "certificates", "rules": rules}
    return trusted(document), leaf.public_bytes(Encoding.DER)


def authorisation(count: int) -> dict[str, tuple[float, float]]:
    """Return for each kind of caller what knowing it costs: the first time, and every other time."""
    now = datetime.now(UTC)
    tokens = {name: by_token(name, now) for name in ("ES256", "RS256")}
    authority, leaf = by_certificate(now)
    issuers = Issuers([*(trust for trust, _ in tokens.values()), authority])
    callers = Callers(issuers)
    ways: dict[str, Callable[[Callers], object]] = {
        f"token, {name}": lambda callers, token=token: callers.prove(token, datetime.now(UTC))  # type: ignore[misc]
        for name, (_, token) in tokens.items()
    }
    ways["client certificate"] = lambda callers: callers.prove_certificate((leaf,), datetime.now(UTC))
    return {
        name: (
            least_us(lambda prove=prove: prove(Callers(issuers)), count),  # type: ignore[misc]
            least_us(lambda prove=prove: prove(callers), 20 * count),  # type: ignore[misc]
        )
        for name, prove in ways.items()
    }


def inference_us(count: int) -> float:
    """Return how long one small inference takes its consumer."""
    row = np.random.default_rng(3).random((1, 64), dtype=np.float32)
    with enclave() as (url, trust):
        schemes = [SimulatedScheme(trust.simulated_root)] if trust.simulated_root else []
        with Client.verify(url, trust, schemes=schemes, way="pinned") as client:
            return least_us(lambda: client.infer("mlp", row), count)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inferences", type=int, default=300)
    options = parser.parse_args()
    inference = inference_us(options.inferences)
    print(f"one small inference, as its consumer sees it  {inference:8.0f} us")
    for name, (first, known) in authorisation(options.inferences).items():
        share = 100 * known / inference
        print(f"{name:20} first {first:8.0f} us   known {known:6.2f} us = {share:.3f} %  {GOAL.verdict(share)}")


if __name__ == "__main__":
    main()
