"""An enclave and its custodian in memory, behind a transport without sockets, for the consumer's tests.

Both run the real code of ``channel``, ``attest``, ``lending`` and the enclave's protocol; only the lease is a
number. Knobs let a test be the operator, the network or a thief.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np

from cloister.attest.binding import ChannelBinding
from cloister.attest.rats import Nonce
from cloister.attest.rules import NotChecked
from cloister.attest.software import SoftwareManifest
from cloister.channel.bhttp import BinaryRequest, BinaryResponse
from cloister.channel.keyset import (
    CHUNKED_RESPONSE_TYPE,
    GATEWAY_PATH,
    KEYSET_PATH,
    KEYSET_TYPE,
    OHTTP_KEY_PROBLEM,
    EngineInfo,
    EvidenceDocument,
    Keyset,
    KeysetModel,
)
from cloister.channel.ohttp import GatewayKeys
from cloister.client import Client, CustodianPin, Retry, SystemTls, Trust
from cloister.crypto.hpke import Kem
from cloister.crypto.sign import SigningKey, Statement
from cloister.errors import Rejected
from cloister.lending.messages import Receipt, Status
from cloister.lending.receipt import GENESIS, commit, head_after
from cloister.lending.terms import InstanceId, LoanId, ModelDigest, instance_id
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot, SimulatedScheme, simulated_policy
from cloister.wire import Json, dump_b64u, dump_json, parse_b64u

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from cloister.attest.policy import Policy

ENCLAVE, CUSTODIAN = "https://enclave.test", "https://custodian.test"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOAN = LoanId("loan-abcdefghijklmnop")
DIGEST = ModelDigest(hashlib.sha256(b"digits").hexdigest())
TOKEN = "clinic-token-0123456789"  # noqa: S105 - of a test
CARD: Json = {
    "description": "digits",
    "labels": {"label": [str(digit) for digit in range(10)]},
    "preprocess": {
        "image": {"invert": False, "kind": "image", "layout": "flat", "mode": "L", "range": [0, 16], "size": [8, 8]}
    },
    "task": "image-classification",
}


class Clock:
    """A time that a test moves; ``pauses`` are what a client slept."""

    def __init__(self) -> None:
        self.now = START
        self.pauses: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Enclave:
    """One instance: its keys, and what it would answer."""

    clock: Clock
    root: SimulatedRoot
    custodian: SigningKey
    software: SoftwareManifest
    key: SigningKey = field(default_factory=SigningKey.generate)
    keys: GatewayKeys = field(default_factory=GatewayKeys.generate)
    debug: bool = False
    allowance: int = 10
    head: bytes = GENESIS
    index: int = 0
    life: timedelta = timedelta(hours=1)
    digest: str = DIGEST
    seen: list[BinaryRequest] = field(default_factory=list)
    kept: dict[tuple[str, bytes], BinaryResponse] = field(default_factory=dict)
    change: Callable[[BinaryResponse], BinaryResponse] = lambda response: response
    salt: bytes | None = None
    keyset_change: Callable[[Keyset], Keyset] = lambda keyset: keyset

    @property
    def instance(self) -> InstanceId:
        return instance_id(self.key.verify_key.raw)

    def keyset(self) -> Keyset:
        return self.keyset_change(
            Keyset(
                instance=self.instance,
                service="digits.test",
                nbf=self.clock.now,
                exp=self.clock.now + self.life,
                ohttp_keys=self.keys.dump(),
                receipt_keys=(self.key.verify_key,),
                models=(KeysetModel(name="digits", digest=self.digest, loan_digest="aa" * 32),),
                engine=EngineInfo(kind="onnxruntime", digest="bb" * 32),
                policy_digest="cc" * 32,
                custodian=self.custodian.verify_key,
                loan=LOAN,
            )
        )

    def document(self, nonce: bytes) -> EvidenceDocument:
        keyset = self.keyset().dump()
        chip = SimulatedAttester(self.root, self.software, b"c" * 32, debug=self.debug)
        binding = ChannelBinding(nonce=Nonce(nonce), keyset=keyset, devices=b"")
        evidence = chip.collect(binding.report_data())
        return EvidenceDocument(
            nonce=nonce, tee=evidence.tee, evidence=evidence.payload, keyset=keyset, devices=b"", collateral={}
        )

    def answer(self, request: BinaryRequest) -> BinaryResponse:
        self.seen.append(request)
        headers = dict(request.headers)
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthorized")
        if request.path == "/v2/models/digits":
            return BinaryResponse(status=200, body=dump_json(self._metadata()))
        if request.path != "/v2/models/digits/infer":
            return problem(404, "unknown_model")
        place = headers.get("idempotency-key", ""), request.body
        if place in self.kept:
            return self.kept[place]
        inputs, rows = self._inputs(request)
        if rows > self.allowance:
            return problem(402, "allowance_exhausted")
        self.allowance -= rows
        response = self._receipted(request, self._outputs(inputs), rows)
        if place[0]:
            self.kept[place] = response
        return self.change(response)

    def _metadata(self) -> Json:
        return {
            "inputs": [{"datatype": "FP32", "name": "image", "shape": [-1, 64]}],
            "name": "digits",
            "outputs": [{"datatype": "INT64", "name": "label", "shape": [-1]}],
            "parameters": {"card": CARD, "loan": LOAN, "remaining": self.allowance},
            "platform": "onnxruntime_onnx",
            "versions": [self.digest],
        }

    def _inputs(self, request: BinaryRequest) -> tuple[dict[str, np.ndarray], int]:
        size = int(dict(request.headers)["inference-header-content-length"])
        head = json.loads(request.body[:size])
        entry = head["inputs"][0]
        array = np.frombuffer(request.body[size:], dtype="<f4").reshape(entry["shape"])
        return {entry["name"]: array}, array.shape[0]

    def _outputs(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Answer the number of the brightest pixel, modulo ten: easy to foresee."""
        return (inputs["image"].argmax(axis=1) % 10).astype("<i8")

    def _receipted(self, request: BinaryRequest, labels: np.ndarray, units: int) -> BinaryResponse:
        head = json.dumps(
            {
                "model_name": "digits",
                "model_version": self.digest,
                "outputs": [
                    {
                        "datatype": "INT64",
                        "name": "label",
                        "parameters": {"binary_data_size": labels.nbytes},
                        "shape": list(labels.shape),
                    }
                ],
            }
        ).encode()
        body = head + labels.tobytes()
        salts = self.salt or secrets.token_bytes(32), secrets.token_bytes(32)
        self.index += 1
        receipt = Receipt(
            instance=self.instance,
            index=self.index,
            loan=LOAN,
            model=ModelDigest(self.digest),
            consumer=None,
            metered=False,
            units=units,
            request=commit(salts[0], request.body),
            response=commit(salts[1], body),
            previous=self.head,
            policy_digest="cc" * 32,
            issued_at=self.clock.now,
        )
        self.head = head_after(receipt)
        statement = Statement.sign(self.key, Receipt.LABEL, receipt.dump()).dump()
        return BinaryResponse(
            status=200,
            headers=(
                ("inference-header-content-length", str(len(head))),
                ("cloister-units", str(units)),
                ("cloister-remaining", str(self.allowance)),
            ),
            body=body,
            trailers=(
                ("cloister-receipt", dump_b64u(statement)),
                ("cloister-request-salt", dump_b64u(salts[0])),
                ("cloister-response-salt", dump_b64u(salts[1])),
            ),
        )


def problem(status: int, code: str) -> BinaryResponse:
    """Return an inner problem document."""
    reason: Json = {"code": code, "got": "", "subject": "lease", "want": ""}
    body = dump_json({"code": code, "detail": code, "reasons": [reason], "status": status})
    return BinaryResponse(status=status, body=body)


@dataclass
class Reply:
    """An outer answer; ``parts`` may end in an exception, which is raised as the network would."""

    status: int = 200
    kind: str = CHUNKED_RESPONSE_TYPE
    parts: list[bytes | Exception] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


class Town(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Routes requests to the enclave and the custodian, and keeps every byte as a proxy that ends TLS would."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.root = SimulatedRoot.generate()
        self.custodian = SigningKey.generate()
        self.software = SoftwareManifest(code="11" * 32, python="3.11", packages={}, settings={})
        self.enclave = Enclave(clock=self.clock, root=self.root, custodian=self.custodian, software=self.software)
        self.operator = "Hospital Group"
        self.state = "active"
        self.status_change: Callable[[Status], Status] = lambda status: status
        self.status_key = self.custodian
        self.document_change: Callable[[EvidenceDocument], EvidenceDocument] = lambda document: document
        self.reply_change: Callable[[Reply], Reply] = lambda reply: reply
        self.status_reply_change: Callable[[Reply], Reply] = lambda reply: reply
        self.wire = bytearray()
        self._lock = threading.Lock()
        self.asked: list[str] = []
        self.closed = 0

    def trust(self, **changes: Any) -> Trust:
        values: dict[str, Any] = {
            "policy": self.policy(),
            "simulated_root": self.root.public,
            "custodian": CustodianPin(key=self.custodian.verify_key, url=CUSTODIAN, ca_pem=None),
            "operators": (self.operator,),
            "models": {"digits": DIGEST},
            "tls": SystemTls(),
        }
        return Trust(**values | changes)

    def policy(self) -> Policy:
        return simulated_policy(self.software)

    @property
    def schemes(self) -> list[SimulatedScheme]:
        return [SimulatedScheme(self.root.public)]

    def client(self, **changes: Any) -> Client:
        """Return a verified client that asks once; ``trust`` members may be changed."""
        options = {name: changes.pop(name) for name in ("token", "url", "schemes", "retry") if name in changes}
        return Client.verify(
            options.pop("url", ENCLAVE),
            self.trust(**changes),
            **{"token": TOKEN, "schemes": self.schemes, "retry": Retry.never(), **options},
            transport=self,
            clock=self.clock,
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        reply = self._reply(request, request.read())
        return httpx2.Response(
            reply.status, headers={"content-type": reply.kind, **reply.headers}, stream=_Parts(self, reply)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        reply = self._reply(request, await request.aread())
        return httpx2.Response(
            reply.status, headers={"content-type": reply.kind, **reply.headers}, stream=_AsyncParts(self, reply)
        )

    def _reply(self, request: httpx2.Request, body: bytes) -> Reply:
        with self._lock:
            return self._answered(request, body)

    def _answered(self, request: httpx2.Request, body: bytes) -> Reply:
        path = request.url.path
        self.asked.append(f"{request.method} {request.url.host} {path}")
        self.wire += str(request.url).encode() + repr(request.headers.multi_items()).encode() + body
        if request.url.host == "custodian.test":
            return self.status_reply_change(self._status(path, request.url.params["nonce"]))
        if path == KEYSET_PATH:
            nonce = parse_b64u(request.url.params["nonce"], what="nonce", size=32)
            document = self.document_change(self.enclave.document(nonce))
            return self.reply_change(Reply(kind=KEYSET_TYPE, parts=[document.dump()]))
        assert path == GATEWAY_PATH, path
        assert request.method == "POST", "a client never asks for keys outside the evidence"
        return self.reply_change(self._gateway(body, request.headers.get("attested-instance")))

    def _gateway(self, body: bytes, instance: str | None) -> Reply:
        wrong = dump_json({"type": OHTTP_KEY_PROBLEM})
        if instance != self.enclave.instance:
            return Reply(status=400, kind="application/problem+json", parts=[wrong])
        try:
            message, sealer, _ = self.enclave.keys.open_request(body)
        except Rejected as exc:
            parts: list[bytes | Exception] = [wrong if exc.code == "ohttp_key" else dump_json({"type": "about:blank"})]
            return Reply(status=400, kind="application/problem+json", parts=parts)
        response = self.enclave.answer(BinaryRequest.parse(message))
        return Reply(parts=[sealer.seal_message(response.dump())])

    def _status(self, path: str, nonce: str) -> Reply:
        instance = path.split("/")[3]
        status = Status(
            instance=InstanceId(instance),
            nonce=Nonce(parse_b64u(nonce, what="nonce", size=32)),
            operator=self.operator,
            loan=LOAN,
            kem_digest=bytes(32),
            models=(DIGEST,),
            state=self.state,
            valid_for=timedelta(seconds=60),
            block_version=0,
            issued_at=self.clock.now,
        )
        statement = Statement.sign(self.status_key, Status.LABEL, self.status_change(status).dump())
        return Reply(kind="application/vnd.dsse.envelope.v1+json", parts=[statement.dump()])

    def restart(self) -> None:
        """Put a new instance of the same software in the enclave's place."""
        self.enclave = replace(
            self.enclave, key=SigningKey.generate(), keys=GatewayKeys.generate(), head=GENESIS, index=0, kept={}
        )


class _Parts(httpx2.SyncByteStream):
    def __init__(self, town: Town, reply: Reply) -> None:
        self._town, self._reply = town, reply

    def __iter__(self) -> Iterator[bytes]:
        for part in self._reply.parts:
            if isinstance(part, Exception):
                raise part
            self._town.wire += part
            yield part

    def close(self) -> None:
        self._town.closed += 1


class _AsyncParts(httpx2.AsyncByteStream):
    def __init__(self, town: Town, reply: Reply) -> None:
        self._town, self._reply = town, reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._reply.parts:
            if isinstance(part, Exception):
                raise part
            self._town.wire += part
            yield part

    async def aclose(self) -> None:
        self._town.closed += 1


def unchecked(why: str = "not in this test") -> NotChecked:
    """Return a comparison that is not made."""
    return NotChecked(why)


CLASSICAL = (Kem.X25519,)


def scan(brightest: int) -> np.ndarray:
    """Return one picture whose answer is ``brightest % 10``."""
    image = np.zeros((1, 64), dtype=np.float32)
    image[0, brightest] = 16
    return image
