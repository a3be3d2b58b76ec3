"""A custodian's home with many instances in it, each attested and granted, none with a lease yet.

Instances are registered through the custodian's own use cases (challenge, attestation with evidence of the
simulated TEE, verification, key release), in this process, before anything serves. That is done in memory where
there is such a folder: it is no part of what is measured.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.attest.binding import ReleaseBinding, fold
from cloister.attest.software import SoftwareManifest
from cloister.attest.verifier import Verifier
from cloister.crypto.kem import Kem, KemPrivateKey
from cloister.crypto.sign import Label, SigningKey, Statement, VerifyKey
from cloister.custodian.service import loans, models
from cloister.custodian.setup import init_custodian, open_custodian, open_vault
from cloister.custodian.tokens import SYSTEM
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.lending.messages import AttestRequest, Challenge
from cloister.lending.terms import LoanId
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot, SimulatedScheme, simulated_policy
from cloister.wire import Fields
from fleet.sealing import CHEAP, seal

if TYPE_CHECKING:
    from cloister.custodian.service import CustodianService

SOFTWARE = SoftwareManifest(code="ab" * 32, python="3.11", packages={}, settings={})
INSTANCES_PER_LOAN = 4  # as many as a loan has by default
ALLOWANCE = 10**12
_MEMORY = Path("/dev/shm")  # noqa: S108 - a fresh folder is made in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One registered instance as its enclave holds it: whose it is, its key, and the grant with its digest."""

    loan: LoanId
    seed: bytes = field(repr=False)
    token: bytes = field(repr=False)
    grant: bytes
    request_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A home on disk, its unlocking file, the simulated root it trusts, and the instances it knows."""

    home: Path
    key_file: Path
    root_file: Path
    custodian: VerifyKey
    ca_pem: str
    members: tuple[Member, ...]


def make_house(folder: Path, instances: int, settings: dict[str, Any]) -> House:
    """Make a home in ``folder`` with ``instances`` registered instances, a hundred to a loan."""
    root = SimulatedRoot.generate()
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else folder, prefix="fleet-") as place:
        made_in = Path(place)
        key = KeyFile.create(made_in / "vault.key")
        made = init_custodian(made_in / "home", key, settings=settings, kdf=CHEAP)
        service = open_custodian(
            made_in / "home", key, make_verifier=lambda _: Verifier([SimulatedScheme(root.public)])
        )
        try:
            members = _register(service, made_in, root, instances)
        finally:
            service.close()
        root.save_public(made_in / "root.pub.json")
        shutil.copytree(made_in, folder / "custodian")
    return House(
        home=folder / "custodian" / "home",
        key_file=folder / "custodian" / "vault.key",
        root_file=folder / "custodian" / "root.pub.json",
        custodian=made.key,
        ca_pem=made.ca_pem,
        members=members,
    )


def _register(service: CustodianService, folder: Path, root: SimulatedRoot, instances: int) -> tuple[Member, ...]:
    digest = _publish(service, folder)
    kem_pub = KemPrivateKey.generate(Kem.MLKEM768_X25519).public_bytes()
    attester = SimulatedAttester(root, SOFTWARE, os.urandom(32))
    members: list[Member] = []
    while len(members) < instances:
        loan, token = _lend(service, digest)
        places = min(INSTANCES_PER_LOAN, instances - len(members))
        members += [_member(service, loan, token, attester, kem_pub) for _ in range(places)]
    return tuple(members)


def _publish(service: CustodianService, folder: Path) -> str:
    """Seal and publish a model of a few bytes; nobody will run it."""
    source = folder / "model.onnx"
    source.write_bytes(b"not run")
    vault = open_vault(folder / "home", KeyFile(folder / "vault.key"))
    digest, body = seal(vault, source, folder / "sealed", name="digits")
    service.run(lambda transaction: models.publish(transaction, SYSTEM, Fields(body, what="benchmark")))
    return digest


def _lend(service: CustodianService, digest: str) -> tuple[LoanId, bytes]:
    """Make a loan; return its id and a consumer's token."""
    body = {
        "allowance": ALLOWANCE,
        "borrower": "benchmark",
        "consumers": [{"id": f"clinic-{number}"} for number in range(2)],
        "max_ceiling": 1000,
        "max_instances": INSTANCES_PER_LOAN,
        "models": [{"digest": digest, "name": "digits"}],
        "policy": simulated_policy(SOFTWARE).to_json(),
        "ttl_s": 60,
    }
    made: Any = service.run(
        lambda transaction: loans.create_loan(
            transaction, SYSTEM, Fields(body, what="benchmark"), url="https://localhost", ca_pem=service.ca_pem
        )
    )
    return LoanId(made["loan"]), made["consumer_tokens"]["clinic-0"].encode()


def _member(
    service: CustodianService, loan: LoanId, token: bytes, attester: SimulatedAttester, kem_pub: bytes
) -> Member:
    """Attest one instance, as ``boot`` does."""
    key = SigningKey.generate()
    payload = Statement.parse(service.challenge(SYSTEM, loan), label=Label.CHALLENGE).verify([service.key])
    challenge = Challenge.parse(payload)
    binding = ReleaseBinding(
        nonce=challenge.nonce,
        custodian=challenge.custodian.raw,
        instance_pub=key.verify_key.raw,
        kem_pub=kem_pub,
        software=SOFTWARE.dump(),
    )
    request = AttestRequest(
        loan=loan,
        nonce=challenge.nonce,
        instance_pub=key.verify_key,
        kem_id=int(Kem.MLKEM768_X25519),
        kem_pub=kem_pub,
        evidence=attester.collect(fold(binding.report_data(), field_bytes=attester.report_data_bytes)),
        software=SOFTWARE.dump(),
    ).dump()
    grant = service.attest(SYSTEM, loan, Statement.sign(key, Label.ATTEST, request).dump())
    digest = hashlib.sha256(request).digest()
    return Member(loan=loan, seed=key.seed(), token=token, grant=grant, request_digest=digest)
