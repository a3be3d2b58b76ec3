"""The other two parties, small and real: a custodian in memory and a consumer, over ASGI without sockets.

The custodian speaks signed messages through ``lending.release`` and ``lending.lease_grant``; the consumer seals
with ``channel``. Both are told the time by one ``FakeClock``.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import hashlib
import io
import json
import os
import secrets
import shutil
import tempfile
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloister.attest.binding import ReleaseBinding
from cloister.attest.rats import Nonce
from cloister.attest.verifier import Verifier
from cloister.channel.bhttp import BinaryRequest, BinaryResponse
from cloister.channel.keyset import (
    CHUNKED_REQUEST_TYPE,
    GATEWAY_PATH,
    KEYSET_PATH,
    EvidenceDocument,
    Keyset,
)
from cloister.channel.ohttp import ResponseOpener, seal_request, strongest
from cloister.channel.replay import dump_http_date
from cloister.crypto.hpke import DEFAULT_SUITE, seal_to
from cloister.crypto.sign import SigningKey, Statement
from cloister.enclave.app import create_app
from cloister.enclave.boot import boot
from cloister.enclave.config import EnclaveConfig, Limits
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.instance import EnclaveInstance
from cloister.enclave.loanfile import read_loan_file
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.errors import Rejected
from cloister.identity import Issuer
from cloister.identity.lent import dump_lent
from cloister.lending.ending import decide_close, verify_close
from cloister.lending.introduction import answer_issuers, verify_issuers_request
from cloister.lending.lease_grant import Replay, decide_lease, sign_decision, verify_request
from cloister.lending.messages import Challenge, Grant, LeaseRequest, ReleasedKey, UsageReport
from cloister.lending.receipt import GENESIS, verify_commitment, verify_receipt
from cloister.lending.release import Denied, decide, key_info, register, verify_attest
from cloister.lending.state import InstanceState, LoanState
from cloister.lending.terms import (
    LOAN_METER,
    Consumer,
    ConsumerId,
    InstanceId,
    LoanId,
    Meter,
    ModelDigest,
    ModelTerms,
    Terms,
    consumer_meter,
    model_meter,
)
from cloister.lending.usage_report import Reported, decide_report, head_of, sign_ack, totals_of, verify_report
from cloister.sealed.seal import seal_model
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot, SimulatedScheme, simulated_policy
from cloister.wire import Fields, dump_b64u, dump_json, parse_b64u

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from starlette.requests import Request

    from cloister.enclave.engines import Engine
    from cloister.lending.messages import Receipt
    from cloister.sealed.signed import SignedTree

LOAN = LoanId("loan-abcdefghijklmnop")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PUBLISHER = SigningKey.generate()  # of all worlds of this process
ALICE, BOB = b"alice-token-0123456789", b"bob-token-0123456789"


class FakeClock:
    """Two clocks that a test moves, together or apart."""

    def __init__(self) -> None:
        self._boot = timedelta(hours=1)
        self._wall = START

    def monotonic(self) -> timedelta:
        """Return time since boot."""
        return self._boot

    def wall(self) -> datetime:
        """Return the time of day."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let honest time pass."""
        self._boot += timedelta(seconds=seconds)
        self._wall += timedelta(seconds=seconds)

    def step_wall(self, seconds: float) -> None:
        """Set the time of day, as a hostile host may."""
        self._wall += timedelta(seconds=seconds)

    def step_boot(self, seconds: float) -> None:
        """Move the monotonic clock, as only a hostile hypervisor can."""
        self._boot += timedelta(seconds=seconds)


@dataclass
class Lent:
    """One model as the custodian knows it."""

    terms: ModelTerms
    dek: bytes
    root: Path


@dataclass
class FakeCustodian:
    """A custodian with one loan, in memory."""

    clock: Any
    root: SimulatedRoot
    key: SigningKey
    publisher: SigningKey
    lent: list[Lent] = field(default_factory=list)
    loan: LoanState | None = None
    instances: dict[InstanceId, InstanceState] = field(default_factory=dict)
    nonces: dict[bytes, datetime] = field(default_factory=dict)
    balances: dict[Meter, int] = field(default_factory=dict)
    policy: Any = None
    blocked: bool = False
    blocked_models: frozenset[ModelDigest] = frozenset()
    blocked_consumers: frozenset[ConsumerId] = frozenset()
    block_version: int = 0
    cut: bool = False
    served: int = 0
    alarms: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    before_answer: Callable[[], Awaitable[None]] | None = None
    closed: list[int] = field(default_factory=list)
    reports: dict[InstanceId, list[tuple[UsageReport, bytes]]] = field(default_factory=dict)
    wire: list[bytes] = field(default_factory=list)
    issuers: list[Issuer] = field(default_factory=list)
    issuers_version: int = 0
    keeps_issuers: bool = False

    def app(self) -> Starlette:
        """Return the HTTP side."""
        return Starlette(
            routes=[
                Route("/v1/loans/{loan}/challenge", self._challenge, methods=["POST"]),
                Route("/v1/loans/{loan}/attest", self._attest, methods=["POST"]),
                Route("/v1/instances/{id}/lease", self._lease, methods=["POST"]),
                Route("/v1/instances/{id}/renewal", self._renewal, methods=["POST"]),
                Route("/v1/instances/{id}/usage", self._usage, methods=["POST"]),
                Route("/v1/instances/{id}/issuers", self._issuers, methods=["POST"]),
                Route("/v1/instances/{id}/close", self._close, methods=["POST"]),
            ]
        )

    def lend(self, terms: Terms, allowance: int, policy: Any, **meters: int) -> None:
        """Make the loan."""
        self.policy = policy
        self.balances = {LOAN_METER: allowance} | {Meter(name.replace("_", ":", 1)): n for name, n in meters.items()}
        self.loan = LoanState(
            terms=terms, balances=self.balances, policy_digest=policy.digest, block_version=self.block_version
        )

    def introduce(self, *documents: dict[str, Any]) -> None:
        """Take the word of these issuers, and no others, from the next lease on."""
        self.issuers = [Issuer.parse(dump_json(document)) for document in documents]
        self.issuers_version += 1

    def trust(self, policy: Any) -> None:
        """Replace the policy."""
        assert self.loan is not None
        self.policy = policy
        self.loan = replace(self.loan, policy_digest=policy.digest)

    def top_up(self, units: int, meter: Meter = LOAN_METER) -> None:
        """Add to a balance."""
        self.balances[meter] = self.balances.get(meter, 0) + units

    def block(self, *, loan: bool = False, model: ModelDigest | None = None, consumer: str | None = None) -> None:
        """Block something."""
        self.block_version += 1
        self.blocked = self.blocked or loan
        self.blocked_models |= {model} if model else frozenset()
        self.blocked_consumers |= {ConsumerId(consumer)} if consumer else frozenset()

    def state(self) -> LoanState:
        """Return the loan as it stands."""
        assert self.loan is not None
        return replace(
            self.loan,
            balances=self.balances,
            blocked=self.blocked,
            blocked_models=self.blocked_models,
            blocked_consumers=self.blocked_consumers,
            block_version=self.block_version,
            issuers=self.issuers_version,
        )

    async def _challenge(self, request: Request) -> Response:
        await self._gate(request)
        nonce = Nonce(secrets.token_bytes(32))
        self.nonces[nonce] = self.clock.wall() + timedelta(seconds=60)
        message = Challenge(nonce=nonce, custodian=self.key.verify_key, loan=LOAN, epoch=1, ttl=timedelta(seconds=60))
        return self._answer(Statement.sign(self.key, Challenge.LABEL, message.dump()).dump())

    async def _attest(self, request: Request) -> Response:
        body = await self._gate(request)
        try:
            return self._answer(self._grant(body))
        except Rejected as exc:
            reasons = [
                {"code": one.code, "subject": one.subject, "got": one.got, "want": one.want} for one in exc.reasons
            ]
            return JSONResponse({"code": exc.code, "reasons": reasons}, status_code=403)

    def _grant(self, body: bytes) -> bytes:
        message, digest = verify_attest(body)
        if self.nonces.pop(message.nonce, START) <= self.clock.wall():
            raise Rejected.because("nonce_used", "attest request")
        binding = ReleaseBinding(
            nonce=message.nonce,
            custodian=self.key.verify_key.raw,
            instance_pub=message.instance_pub.raw,
            kem_pub=message.kem_pub,
            software=message.software,
        )
        now = self.clock.wall()
        verifier = Verifier([SimulatedScheme(self.root.public)])
        result = verifier.verify(message.evidence, binding, self.policy, now)
        state = self.state()
        decision = decide(
            message,
            result,
            loan=state,
            instances=self.instances.values(),
            custodian=self.key.verify_key,
            now=now,
            max_age=timedelta(minutes=5),
        )
        if isinstance(decision, Denied):
            raise Rejected("denied", reasons=decision.reasons)
        self.instances[decision.instance] = register(decision, loan=state, epoch=1, now=now)
        keys = []
        for terms in decision.models:
            info = key_info(model=terms.digest, loan=LOAN, instance=decision.instance, key_version=1)
            dek = next(lent.dek for lent in self.lent if lent.terms.digest == terms.digest)
            enc, ciphertext = seal_to(DEFAULT_SUITE, decision.kem_pub, info=info, plaintext=dek)
            keys.append(ReleasedKey(model=terms.digest, key_version=1, enc=enc, ciphertext=ciphertext))
        grant = Grant(
            instance=decision.instance,
            request_digest=digest,
            epoch=1,
            terms=state.terms,
            policy_digest=state.policy_digest,
            result="not-read-by-enclaves",
            publisher=self.publisher.verify_key,
            keys=tuple(keys),
            block_version=self.block_version,
        )
        return Statement.sign(self.key, Grant.LABEL, grant.dump()).dump()

    async def _lease(self, request: Request) -> Response:
        body = await self._gate(request)
        return self._answer(await self._leased(InstanceId(request.path_params["id"]), body))

    async def _renewal(self, request: Request) -> Response:
        fields = Fields.parse(await self._gate(request), what="renewal")
        instance = InstanceId(request.path_params["id"])
        ack = self._reported(instance, fields.b64u("report"))
        answer = await self._leased(instance, fields.b64u("request"))
        return self._answer(dump_json({"ack": dump_b64u(ack), "answer": dump_b64u(answer)}))

    async def _leased(self, name: InstanceId, statement: bytes) -> bytes:
        instance = self.instances[name]
        message, digest = verify_request(statement, instance.key)
        reply = self._decide(message, digest, instance)
        if self.before_answer is not None:
            await self.before_answer()
        return reply

    def _decide(self, message: LeaseRequest, digest: bytes, instance: InstanceState) -> bytes:
        decision = decide_lease(
            message,
            digest,
            instance=instance,
            loan=self.state(),
            reported=self.reported(instance.id, message.served),
            epoch=1,
            now=self.clock.wall(),
        )
        if isinstance(decision, Replay):
            return decision.reply
        reply, after = sign_decision(decision, self.key)
        for meter, units in decision.debits.items():
            assert self.balances[meter] >= units
            self.balances[meter] -= units
        self.alarms += decision.alarms
        self.events += decision.events
        self.instances[after.id] = after
        self.served += 1
        return reply

    def reported(self, instance: InstanceId, asked: int) -> Reported:
        """Return what an instance has reported."""
        totals: Counter[tuple[ModelDigest, ConsumerId | None]] = Counter()
        heads = {0: GENESIS}
        for report, _ in self.reports.get(instance, []):
            totals.update(totals_of(report))
            heads[report.last] = head_of(report)
        last = max(heads)
        return Reported(index=last, head=heads[last], totals=totals, asked=heads.get(asked))

    async def _usage(self, request: Request) -> Response:
        body = await self._gate(request)
        return self._answer(self._reported(InstanceId(request.path_params["id"]), body))

    def _reported(self, name: InstanceId, body: bytes) -> bytes:
        instance = self.instances[name]
        report = verify_report(body, instance.key)
        known = self.reports.setdefault(instance.id, [])
        decision = decide_report(
            report,
            body,
            instance=instance,
            terms=self.state().terms,
            reported=self.reported(instance.id, 0),
            stored=next((stored for item, stored in known if item.first == report.first), None),
        )
        if decision.fresh:
            known.append((report, body))
        assert decision.ack is not None
        return sign_ack(decision.ack, self.key)

    async def _issuers(self, request: Request) -> Response:
        body = await self._gate(request)
        if self.keeps_issuers:
            return Response(status_code=503)
        instance = self.instances[InstanceId(request.path_params["id"])]
        message, digest = verify_issuers_request(body, instance.key)
        consumers = [consumer.id for consumer in self.state().terms.consumers or ()]
        lent = dump_lent([(issuer, None) for issuer in self.issuers], LOAN, consumers)
        return self._answer(answer_issuers(message, digest, version=self.issuers_version, lent=lent, key=self.key))

    async def _close(self, request: Request) -> Response:
        body = await self._gate(request)
        instance = self.instances[InstanceId(request.path_params["id"])]
        message = verify_close(body, instance.key)
        reported = self.reported(instance.id, message.served)
        decision = decide_close(message, instance=instance, loan=self.state(), reported=reported, now=self.clock.wall())
        assert decision is not None
        self.instances[instance.id] = decision.instance
        self.alarms += decision.alarms
        self.closed.append(message.used.get(LOAN_METER, 0))
        return self._answer(b"{}")

    async def _gate(self, request: Request) -> bytes:
        if self.cut:
            msg = "the network is cut"
            raise httpx2.ConnectError(msg)
        body = await request.body()
        self.wire.append(body)
        return body

    def _answer(self, body: bytes) -> Response:
        self.wire.append(body)
        return Response(body)


@dataclass
class World:
    """Everything a test needs: who lends, what is lent, and where it lies."""

    folder: Path
    custodian: FakeCustodian
    clock: FakeClock
    loan_path: Path
    token: str
    log: io.StringIO
    transport: httpx2.AsyncBaseTransport | None = None
    chip: SimulatedAttester | None = None

    def config(self, **settings: Any) -> EnclaveConfig:
        """Return settings for this world's loan and models."""
        limits = Limits(**settings.pop("limits", {}))
        models = tuple(lent.root for lent in self.custodian.lent)
        return EnclaveConfig(**{"loan": self.loan_path, "models": models, "limits": limits, **settings})

    def attester(self, config: EnclaveConfig, **claims: Any) -> SimulatedAttester:
        """Return a simulated chip that runs this very code."""
        return SimulatedAttester(self.custodian.root, measure_software(config), os.urandom(32), **claims)

    def link(self) -> CustodianLink:
        """Return a link to the custodian, without a socket."""
        transport = self.transport or httpx2.ASGITransport(app=self.custodian.app())
        loan = read_loan_file(self.loan_path)
        return CustodianLink(loan, timeout=timedelta(seconds=5), transport=transport)

    @asynccontextmanager
    async def enclave(
        self,
        *,
        engine: Engine | None = None,
        lease: bool = True,
        claims: Mapping[str, Any] | None = None,
        known: bool = True,
        clock: Any = None,
        **settings: Any,
    ) -> AsyncIterator[EnclaveInstance]:
        """Boot an enclave; it has a lease and a keyset unless ``lease`` is False.

        ``known``: the custodian's policy has just these settings as its reference value. ``clock`` is the
        machine's, where it is not the one everybody reads.
        """
        config = self.config(**settings)
        if known:
            self.custodian.trust(simulated_policy(measure_software(config)))
        attester = self.chip or self.attester(config, **(claims or {}))
        engine = engine or OnnxEngine(threads=1)
        log = EventLog(self.clock.wall, self.log)
        async with self.link() as link:
            loan = read_loan_file(config.loan)
            software = measure_software(config)
            source = EvidenceSource(attester=attester)
            booted = await boot(config, loan, source=source, software=software, engine=engine, link=link, log=log)
            instance = EnclaveInstance(
                booted, config, loan, source=source, engine=engine, link=link, clock=clock or self.clock, log=log
            )
            try:
                if lease:
                    await instance.renewal.once()
                    if self.custodian.issuers_version:
                        await instance.introductions.refresh(within=timedelta(seconds=5))
                await instance.publisher.tick()
                yield instance
            finally:
                instance.wipe()


def make_world(
    folder: Path,
    models: Mapping[str, bytes | Path],
    *,
    allowance: int = 1000,
    consumers: tuple[tuple[str, bytes], ...] | None = (("alice", ALICE), ("bob", BOB)),
    ttl: int = 60,
    max_ceiling: int = 1000,
    metered: tuple[str, ...] = (),
    meters: Mapping[str, int] | None = None,
    clock: Any = None,
    url: str = "http://127.0.0.1:1",
) -> World:
    """Seal ``models``, make a loan for them and write its loan file."""
    clock = clock or FakeClock()
    custodian = FakeCustodian(
        clock=clock, root=SimulatedRoot.generate(), key=SigningKey.generate(), publisher=PUBLISHER
    )
    for name, data in models.items():
        if isinstance(data, bytes):
            lent = copied(sealed_once(name, data), folder)
        else:
            lent = seal(folder, name, data, PUBLISHER)
        custodian.lent.append(replace(lent, terms=replace(lent.terms, metered=name in metered)))
    terms = Terms(
        loan=LOAN,
        borrower="clinic",
        models=tuple(lent.terms for lent in custodian.lent),
        consumers=None
        if consumers is None
        else tuple(
            Consumer(id=ConsumerId(name), token_sha256=hashlib.sha256(token).digest(), metered=name in metered)
            for name, token in consumers
        ),
        ttl=timedelta(seconds=ttl),
        max_ceiling=max_ceiling,
    )
    loan_path = folder / "loan.json"
    token = "borrower-" + secrets.token_hex(16)
    document = {
        "v": 1,
        "loan": LOAN,
        "custodian_url": url,
        "custodian_key": custodian.key.verify_key.dump(),
        "ca_pem": None,
        "token": token,
    }
    loan_path.touch(mode=0o600)
    loan_path.write_bytes(dump_json(document))
    world = World(folder=folder, custodian=custodian, clock=clock, loan_path=loan_path, token=token, log=io.StringIO())
    custodian.lend(terms, allowance, simulated_policy(measure_software(world.config())))
    for name, units in (meters or {}).items():
        known = {consumer.id for consumer in terms.consumers or ()}
        custodian.balances[consumer_meter(ConsumerId(name)) if name in known else model_meter(name)] = units
    return world


@functools.cache
def sealed_once(name: str, data: bytes) -> Lent:
    """Return a model as it was first sealed in this process: to seal is to wait for a disk."""
    folder = Path(tempfile.mkdtemp(prefix="cloister-sealed-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return seal(folder, name, data, PUBLISHER)


def copied(lent: Lent, folder: Path) -> Lent:
    """Return the same sealed model, its files in a world's own folder."""
    return replace(lent, root=shutil.copytree(lent.root, folder / lent.root.name))


def seal(
    folder: Path,
    name: str,
    data: bytes | Path,
    publisher: SigningKey,
    *,
    metered: bool = False,
    signed: SignedTree | None = None,
) -> Lent:
    """Seal one model below ``folder``."""
    source = data
    if isinstance(source, bytes):
        plain = folder / f"plain-{name}"
        plain.mkdir()
        source = plain / "model.onnx"
        source.write_bytes(data if isinstance(data, bytes) else b"")
    dek = os.urandom(32)
    out = folder / f"sealed-{name}-{secrets.token_hex(4)}"
    sealed = seal_model(
        source, out, name=name, dek=dek, signer=publisher, card={"task": f"test {name}"}, created=START, signed=signed
    )
    return Lent(terms=ModelTerms(name=name, digest=ModelDigest(sealed.digest), metered=metered), dek=dek, root=out)


@dataclass(frozen=True)
class Answer:
    """What came back: outer status and body, and the inner response where there was one."""

    outer: int
    body: bytes
    inner: BinaryResponse | None

    @property
    def status(self) -> int:
        """The inner status; fails where nothing inner came."""
        assert self.inner is not None, (self.outer, self.body)
        return self.inner.status

    @property
    def json(self) -> Any:
        """The inner body."""
        assert self.inner is not None, (self.outer, self.body)
        return json.loads(self.inner.body)

    def field(self, name: str) -> str | None:
        """Return an inner header or trailer."""
        assert self.inner is not None
        return dict(self.inner.headers + self.inner.trailers).get(name)


class ConsumerSide:
    """A consumer: seals to the attested keys, opens what comes back, keeps receipts honest."""

    def __init__(self, instance: EnclaveInstance, clock: FakeClock, token: bytes | None = ALICE) -> None:
        self._instance = instance
        self._clock = clock
        self._token = token
        transport = httpx2.ASGITransport(app=create_app(instance), raise_app_exceptions=True)
        self._http = httpx2.AsyncClient(transport=transport, base_url="http://enclave")

    async def document(self, nonce: bytes | None = None) -> EvidenceDocument:
        """Return the evidence document."""
        query = "" if nonce is None else f"?nonce={dump_b64u(nonce)}"
        answer = await self._http.get(KEYSET_PATH + query)
        assert answer.status_code == 200, answer.content
        return EvidenceDocument.parse(answer.content)

    async def keyset(self) -> Keyset:
        """Return the keyset. A real consumer verifies the evidence around it first."""
        return Keyset.parse((await self.document()).keyset)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> BinaryRequest:
        """Return an inner request with Date and token."""
        lines = {"date": dump_http_date(self._clock.wall())}
        if self._token is not None:
            lines["authorization"] = f"Bearer {self._token.decode()}"
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        return BinaryRequest(method=method, authority="enclave", path=path, headers=tuple(lines.items()), body=body)

    async def seal(self, request: BinaryRequest) -> tuple[bytes, ResponseOpener]:
        """Return the encapsulated request and the opener of its answer."""
        config, suite = strongest((await self.keyset()).configs)
        return seal_request(config, request.dump(), suite=suite)

    async def post(self, sealed: bytes, **headers: str) -> httpx2.Response:
        """Send an outer request."""
        lines = {"content-type": CHUNKED_REQUEST_TYPE} | {name.replace("_", "-"): v for name, v in headers.items()}
        return await self._http.post(GATEWAY_PATH, content=sealed, headers=lines)

    async def send(self, request: BinaryRequest) -> Answer:
        """Seal, send, open."""
        sealed, opener = await self.seal(request)
        return opened(await self.post(sealed), opener)

    async def get(self, path: str, **headers: str) -> Answer:
        """GET an inner resource."""
        return await self.send(self.request("GET", path, **headers))

    async def plain(self, path: str) -> httpx2.Response:
        """GET an outer resource."""
        return await self._http.get(path)

    async def infer(self, rows: list[list[float]], model: str = "m", **headers: str) -> Answer:
        """Ask a model of one input ``x`` of type FP32."""
        body = infer_body(rows)
        return await self.send(self.request("POST", f"/v2/models/{model}/infer", body, **headers))


def infer_body(rows: list[list[float]], **members: Any) -> bytes:
    """Return the JSON of an inference of one FP32 input ``x``."""
    shape = [len(rows), len(rows[0]) if rows else 3]
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": rows}], **members}).encode()


def opened(answer: httpx2.Response, opener: ResponseOpener) -> Answer:
    """Open an outer answer."""
    if answer.status_code != 200:
        return Answer(answer.status_code, answer.content, None)
    message = b"".join([*opener.feed(answer.content), opener.end()])
    return Answer(200, answer.content, BinaryResponse.parse(message))


def receipt_of(answer: Answer, keyset: Keyset, request_body: bytes) -> Receipt:
    """Return the receipt of an answer once signature and both commitments are proven."""
    assert answer.inner is not None
    statement = parse_b64u(answer.field("cloister-receipt") or "", what="receipt")
    receipt = verify_receipt(statement, keyset.receipt_keys[0])
    for what, commitment, data in (
        ("request", receipt.request, request_body),
        ("response", receipt.response, answer.inner.body),
    ):
        salt = parse_b64u(answer.field(f"cloister-{what}-salt") or "", what="salt")
        verify_commitment(commitment, salt, data, what=what)
    return receipt


async def drive(
    app: Any,
    body: list[bytes],
    *,
    headers: Mapping[str, str] | None = None,
    raw_headers: list[tuple[bytes, bytes]] | None = None,
    on_chunk: Callable[[int], Awaitable[None]] | None = None,
    endless: bool = False,
) -> tuple[int, list[bytes], bool]:
    """POST to the gateway by hand; return status, chunks and whether the outer answer came to its end.

    ``on_chunk`` is called after each chunk that left; ``endless`` keeps the request body open for ever.
    """
    lines = {"content-type": CHUNKED_REQUEST_TYPE} | dict(headers or {})
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": GATEWAY_PATH,
        "raw_path": GATEWAY_PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": raw_headers or [(name.encode(), value.encode()) for name, value in lines.items()],
        "client": ("127.0.0.1", 1),
        "server": ("enclave", 80),
    }
    left = list(body)
    status = 0
    chunks: list[bytes] = []
    ended = False

    async def receive() -> dict[str, Any]:
        if not left and endless:
            await asyncio.sleep(3600)
        part = left.pop(0) if left else b""
        return {"type": "http.request", "body": part, "more_body": bool(left) or endless}

    async def send(message: Any) -> None:
        nonlocal status, ended
        if message["type"] == "http.response.start":
            status = message["status"]
            return
        if message.get("body"):
            chunks.append(message["body"])
            if on_chunk is not None:
                await on_chunk(len(chunks))
        ended = ended or not message.get("more_body", False)

    await app(scope, receive, send)
    return status, chunks, ended
