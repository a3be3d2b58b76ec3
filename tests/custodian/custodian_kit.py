"""Everything around a custodian under test: clock, randomness, HTTP client, sealed model, toy enclaves."""

from __future__ import annotations

import atexit
import hashlib
import os
import random
import shutil
import tempfile
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from starlette.testclient import TestClient

from cloister.attest.binding import ReleaseBinding, fold
from cloister.attest.software import SoftwareManifest
from cloister.attest.verifier import Verifier
from cloister.crypto.hpke import DEFAULT_SUITE, open_with
from cloister.crypto.kem import Kem, KemPrivateKey
from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.custodian.app import create_app
from cloister.custodian.publication import publication
from cloister.custodian.service import usage
from cloister.custodian.setup import init_custodian, open_custodian, open_vault
from cloister.custodian.vaults import envelope_of
from cloister.custodian.vaults.encrypted_file import Kdf, Passphrase
from cloister.lending.lease import LeaseHolder
from cloister.lending.messages import AttestRequest, Challenge, Grant, UsageRecord, UsageReport
from cloister.lending.messages.usage import minute_of
from cloister.lending.receipt import GENESIS, next_head
from cloister.lending.release import key_info, verify_grant
from cloister.lending.terms import LOAN_METER, LoanId, instance_id
from cloister.sealed.directory import read_package
from cloister.sealed.seal import seal_model
from cloister.testing.simulated import SimulatedAttester, SimulatedScheme, simulated_policy
from cloister.testing.simulated_root import SimulatedRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from cloister.custodian.setup import Initialised
    from cloister.custodian.vaults.unlock import Unlock
    from postgres_kit import PostgresServer

PASSPHRASE = b"correct horse battery staple"
CHEAP = Kdf(memory_kib=64, passes=1, lanes=1)
START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SOFTWARE = SoftwareManifest(code="ab" * 32, python="3.11", packages={}, settings={})
STATEMENT = {"content-type": "application/vnd.dsse.envelope.v1+json"}


class Clock:
    """Stands still until somebody turns it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Turn the clock."""
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class _Made:
    """A fresh custodian with one sealed and published model, to be copied by every bench that wants the like."""

    folder: Path
    init: Initialised
    dek: bytes
    package: dict[str, Any]


_UNLOCK = Passphrase(PASSPHRASE)
_ROOT = SimulatedRoot(hashlib.sha256(b"root").digest())
_MADE: dict[str, _Made] = {}


def _make(folder: Path, settings: dict[str, Any] | None) -> _Made:
    rng = random.Random(1).randbytes
    made = _seal_first(folder, _UNLOCK, settings, rng)
    bench = Bench.__new__(Bench)
    bench.take(made, folder, _UNLOCK)
    bench.open()
    assert bench.publish().status_code == 201
    bench.close()
    return made


def _seal_first(folder: Path, unlock: Unlock, settings: dict[str, Any] | None, rng: Callable[[int], bytes]) -> _Made:
    init = init_custodian(folder / "home", unlock, settings=settings, clock=Clock(), rng=rng, kdf=CHEAP)
    dek = rng(32)
    return _Made(folder=folder, init=init, dek=dek, package=_seal(folder, unlock, dek, "digits"))


def _move_in(config: Path, postgres: PostgresServer) -> None:
    """Give a copied home a copy of its database."""
    text = config.read_text()
    template = tomllib.loads(text)["custodian"]["database"]
    config.write_text(text.replace(template, postgres.create(template)))


class Bench:
    """One custodian's home, opened; ``restart`` closes and opens it again."""

    def __init__(
        self, folder: Path, *, settings: dict[str, Any] | None = None, postgres: PostgresServer | None = None
    ) -> None:
        key = repr((settings, postgres))
        if key not in _MADE:
            made_in = tempfile.mkdtemp(prefix="cloister-template-")
            atexit.register(shutil.rmtree, made_in, ignore_errors=True)
            own = {} if postgres is None else {"database": postgres.create()}
            _MADE[key] = _make(Path(made_in), {**(settings or {}), **own})
        made = _MADE[key]
        shutil.copytree(made.folder, folder, dirs_exist_ok=True)
        if postgres is not None:
            _move_in(folder / "home" / "config.toml", postgres)
        self.take(made, folder, _UNLOCK)
        self.open()

    @classmethod
    def locked_by(cls, folder: Path, unlock: Unlock, *, settings: dict[str, Any] | None = None) -> Self:
        """Return a custodian of its own whose vault ``unlock`` opens: keys of this machine's, nothing published yet."""
        bench = cls.__new__(cls)
        bench.take(_seal_first(folder, unlock, settings, os.urandom), folder, unlock)
        bench.rng = os.urandom
        bench.open()
        return bench

    def take(self, made: _Made, folder: Path, unlock: Unlock) -> None:
        """Settle in ``folder``, where a copy of what was made lies."""
        self.folder = folder
        self.home = folder / "home"
        self.clock = Clock()
        self.rng = random.Random(2).randbytes
        self.root = _ROOT
        self.unlock = unlock
        self.init = replace(made.init, home=self.home)
        self.dek = made.dek
        self.package = made.package
        self.digest: str = made.package["digest"]

    def open(self) -> None:
        """Open the home and put HTTP in front of it."""
        self.service = open_custodian(
            self.home,
            self.unlock,
            make_verifier=lambda _authorities: Verifier([SimulatedScheme(self.root.public)]),
            clock=self.clock,
            rng=self.rng,
        )
        self.client = TestClient(create_app(self.service), raise_server_exceptions=False)

    def close(self) -> None:
        """Close client and custodian."""
        self.client.close()
        self.service.close()

    def restart(self) -> None:
        """Close and open again."""
        self.close()
        self.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # staff

    @property
    def admin(self) -> dict[str, str]:
        """Return the first admin's header."""
        return bearer(self.init.admin_token)

    def get(self, path: str, token: dict[str, str] | None = None) -> httpx.Response:
        """GET as an admin, or with ``token``."""
        return self.client.get(path, headers=self.admin if token is None else token)

    def post(self, path: str, body: Any = None, token: dict[str, str] | None = None, **headers: str) -> httpx.Response:
        """POST JSON as an admin, or with ``token``."""
        auth = self.admin if token is None else token
        return self.client.post(path, json={} if body is None else body, headers={**auth, **headers})

    def publish(self, package: dict[str, Any] | None = None) -> httpx.Response:
        """Publish the bench's model, or another."""
        body = package or self.package
        return self.post("/v1/models", {name: body[name] for name in ("manifest", "signature", "envelope")})

    def seal(self, name: str) -> dict[str, Any]:
        """Return another sealed model."""
        return _seal(self.folder, self.unlock, self.rng(32), name)

    def loan_body(self, **changes: Any) -> dict[str, Any]:
        """Return the body of a plain loan."""
        body = {
            "allowance": 10,
            "borrower": "Hospital of the Holy Ghost",
            "consumers": None,
            "models": [{"digest": self.digest, "name": "digits"}],
            "policy": simulated_policy(SOFTWARE).to_json(),
        }
        return {**body, **changes}

    def lend(self, **changes: Any) -> Lent:
        """Make a loan."""
        answer = self.post("/v1/loans", self.loan_body(**changes))
        assert answer.status_code == 201, answer.text
        return Lent(self, answer.json())

    def token(self, role: str, **more: Any) -> dict[str, str]:
        """Make a token and return its header."""
        answer = self.post("/v1/tokens", {"role": role, "name": f"a {role}", **more})
        assert answer.status_code == 201, answer.text
        return bearer(answer.json()["token"])

    def audit(self) -> list[dict[str, Any]]:
        """Return the log."""
        entries: list[dict[str, Any]] = self.get("/v1/audit?limit=1000").json()["entries"]
        return entries

    def kinds(self) -> list[str]:
        """Return the kinds of all logged events."""
        return [entry["kind"] for entry in self.audit()]


class Lent:
    """One loan as its borrower holds it."""

    def __init__(self, bench: Bench, made: dict[str, Any]) -> None:
        self.bench = bench
        self.made = made
        self.id = LoanId(made["loan"])
        self.token = bearer(made["loan_file"]["token"])

    def challenge(self, token: dict[str, str] | None = None) -> httpx.Response:
        """Ask for a challenge."""
        return self.bench.client.post(f"/v1/loans/{self.id}/challenge", headers=token or self.token)

    def attest(self, statement: bytes, token: dict[str, str] | None = None) -> httpx.Response:
        """Send an attestation."""
        headers = {**(token or self.token), **STATEMENT}
        return self.bench.client.post(f"/v1/loans/{self.id}/attest", content=statement, headers=headers)

    def show(self) -> dict[str, Any]:
        """Return the loan as staff sees it."""
        shown: dict[str, Any] = self.bench.get(f"/v1/loans/{self.id}").json()
        return shown

    def balance(self, meter: str = "loan") -> int:
        """Return what an allowance still holds."""
        return int(self.show()["meters"][meter]["balance"])

    def boot(self) -> Toy:
        """Return an enclave that attested and holds its grant."""
        toy = Toy(self)
        answer = self.attest(toy.attest_statement(toy.take_challenge()))
        assert answer.status_code == 200, answer.text
        toy.accept(answer.content)
        return toy


class Toy:
    """An enclave in this process: its keys, its attester, and the real lease state machine."""

    def __init__(self, lent: Lent, **tee: Any) -> None:
        self.lent = lent
        self.bench = lent.bench
        self.key = SigningKey(self.bench.rng(32))
        self.kem = KemPrivateKey.generate(Kem.MLKEM768_X25519)
        self.kem_pub = self.kem.public_bytes()
        self.attester = SimulatedAttester(self.bench.root, SOFTWARE, bytes(32), **tee)
        self.id = instance_id(self.key.verify_key.raw)
        self.request_digest = b""
        self.grant: Grant | None = None
        self.holder: LeaseHolder | None = None
        self._itemised = (0, GENESIS, 0)

    def take_challenge(self) -> Challenge:
        """Return a verified challenge."""
        answer = self.lent.challenge()
        assert answer.status_code == 200, answer.text
        payload = Statement.parse(answer.content, label=Label.CHALLENGE).verify([self.bench.init.key])
        return Challenge.parse(payload)

    def attest_statement(self, challenge: Challenge, **changes: Any) -> bytes:
        """Return a signed AttestRequest; ``changes`` replace members after the evidence was made."""
        binding = ReleaseBinding(
            nonce=challenge.nonce,
            custodian=challenge.custodian.raw,
            instance_pub=self.key.verify_key.raw,
            kem_pub=self.kem_pub,
            software=SOFTWARE.dump(),
        )
        members = {
            "loan": self.lent.id,
            "nonce": challenge.nonce,
            "instance_pub": self.key.verify_key,
            "kem_id": int(Kem.MLKEM768_X25519),
            "kem_pub": self.kem_pub,
            "evidence": self.attester.collect(fold(binding.report_data(), field_bytes=self.attester.report_data_bytes)),
            "software": SOFTWARE.dump(),
        }
        payload = AttestRequest(**{**members, **changes}).dump()
        self.request_digest = hashlib.sha256(payload).digest()
        return Statement.sign(self.key, Label.ATTEST, payload).dump()

    def accept(self, grant: bytes) -> None:
        """Verify the grant and take it."""
        self.grant = verify_grant(
            grant, custodian=self.bench.init.key, request_digest=self.request_digest, instance=self.id
        )
        self.holder = LeaseHolder(key=self.key, grant=self.grant, custodian=self.bench.init.key)

    def released_dek(self, **changes: Any) -> bytes:
        """Return the model key, opened with what the grant says or with ``changes``."""
        assert self.grant is not None
        released = self.grant.keys[0]
        members = {
            "model": released.model,
            "loan": self.lent.id,
            "instance": self.id,
            "key_version": released.key_version,
        }
        info = key_info(**{**members, **changes})
        return open_with(DEFAULT_SUITE, self.kem, info=info, enc=released.enc, ciphertext=released.ciphertext)

    def send(self, statement: bytes) -> httpx.Response:
        """Send a lease request as bytes."""
        return self.bench.client.post(f"/v1/instances/{self.id}/lease", content=statement, headers=STATEMENT)

    def request(self) -> bytes:
        """Return the next lease request."""
        assert self.holder is not None
        return self.holder.request(self.bench.clock(), self.bench.rng(16))

    def renew(self) -> Any:
        """Renew as the shell does; return the lease or refusal."""
        assert self.holder is not None
        statement = self.request()
        self.report()
        answer = self.send(statement)
        assert answer.status_code == 200, answer.text
        return self.holder.receive(answer.content, self.bench.clock())

    def report(self) -> None:
        """Send the usage reports that are due, as the shell does."""
        assert self.holder is not None
        while (statement := self.holder.report()) is not None:
            answer = self.send_report(statement)
            assert answer.status_code == 200, answer.text
            self.holder.acknowledge(answer.content)

    def itemise(self, used: int) -> dict[str, Any]:
        """Report ``used`` units in all by a report of our own making; return what a lease request then says of it."""
        index, head, before = self._itemised
        if used > before:
            assert self.grant is not None
            model = self.grant.terms.models[0].digest
            at = minute_of(self.bench.clock())
            record = UsageRecord(
                index=index + 1, model=model, consumer=None, units=used - before, at=at, content=bytes(32)
            )
            report = UsageReport(instance=self.id, loan=self.lent.id, previous=head, records=(record,))
            statement = Statement.sign(self.key, Label.USAGE_REPORT, report.dump()).dump()
            usage.report(self.bench.service.context, self.id, statement)
            self._itemised = (index + 1, next_head(head, record), used)
        return {"used": {LOAN_METER: used}, "served": self._itemised[0], "chain_head": self._itemised[1]}

    def send_report(self, statement: bytes) -> httpx.Response:
        """Send a usage report as bytes."""
        return self.bench.client.post(f"/v1/instances/{self.id}/usage", content=statement, headers=STATEMENT)

    def serve(self, units: int = 1, *, model: str = "digits", token: bytes | None = None) -> None:
        """Serve one inference of ``units``."""
        assert self.holder is not None
        now = self.bench.clock()
        reservation = self.holder.reserve(model, token, units, now)
        self.holder.settle(reservation, units, bytes(32), bytes(32), now)

    def close(self) -> httpx.Response:
        """Close as an enclave does."""
        assert self.holder is not None
        statement = self.holder.close(self.bench.clock())
        self.report()
        return self.send_close(statement)

    def send_close(self, statement: bytes) -> httpx.Response:
        """Send a close as bytes."""
        return self.bench.client.post(f"/v1/instances/{self.id}/close", content=statement, headers=STATEMENT)


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def _seal(folder: Path, unlock: Unlock, dek: bytes, name: str) -> dict[str, Any]:
    """Return a sealed model of a few hundred bytes as the body of a publication."""
    source, out = folder / f"{name}.plain", folder / f"{name}.sealed"
    source.mkdir()
    (source / "model.onnx").write_bytes(name.encode() * 100)
    vault = open_vault(folder / "home", unlock)
    card = {"task": "image-classification"}
    sealed = seal_model(source, out, name=name, dek=dek, signer=vault.publisher_key, card=card, created=START)
    return {"digest": sealed.digest, **publication(read_package(out), envelope_of(vault, dek, sealed.digest))}
