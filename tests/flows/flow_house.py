"""All three parties for real, in one process: custodian's app, enclave's app, consumer's client, no sockets.

Everything between them goes through ``Wires``, which keeps what a network would have seen and can be cut.
"""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
from onnx import TensorProto, helper

from cloister.attest.endorse import Given
from cloister.attest.endorse.names import vendor_signed
from cloister.attest.verifier import Verifier
from cloister.client import AsyncClient, CustodianPin, Retry, SystemTls, Trust
from cloister.custodian.app import create_app as custodian_app
from cloister.custodian.publication import publication
from cloister.custodian.setup import init_custodian, open_custodian, open_vault
from cloister.custodian.vaults import envelope_of
from cloister.custodian.vaults.encrypted_file import Kdf, Passphrase
from cloister.enclave.app import create_app as enclave_app
from cloister.enclave.boot import boot
from cloister.enclave.config import EnclaveConfig
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.instance import EnclaveInstance
from cloister.enclave.loanfile import read_loan_file
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.sealed.directory import read_package
from cloister.sealed.seal import seal_model
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot, SimulatedScheme, simulated_policy
from cloister.testing.vendors.fleet import MACHINES, Machine
from cloister.wire import Json, dump_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from cloister.attest.policy import Policy
    from cloister.attest.verifier import Scheme
    from cloister.telemetry.spans import Spans

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
ENCLAVE, CUSTODIAN = "http://127.0.0.1:8440", "https://localhost:8443"
OPERATOR = "General Hospital"
CEILING = 1000  # units: what a test counts is then never waiting for a renewal
TTL_S = 60
CARD: Json = {
    "labels": {"label": [f"class-{index}" for index in range(4)]},
    "preprocess": {
        "image": {"kind": "image", "layout": "flat", "mode": "L", "range": [0, 1], "size": [2, 2]},
    },
    "task": "image-classification",
}
CHEAP = Kdf(memory_kib=64, passes=1, lanes=1)


def brightest(name: str = "image") -> bytes:
    """Return a model that says which of four pixels is the brightest, row by row; it fails on NaN nowhere."""
    graph = helper.make_graph(
        [helper.make_node("ArgMax", [name], ["label"], axis=1, keepdims=0)],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )


def picky() -> bytes:
    """Return a model whose run fails when it is asked about an index that is not there."""
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["table"], value_floats=[1.0, 2.0, 3.0]),
            helper.make_node("Gather", ["table", "index"], ["found"], axis=0),
        ],
        "g",
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["batch"])],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )


def row(index: int, *, mark: float = 1.0) -> np.ndarray:
    """Return one picture of four pixels whose brightest is ``index``."""
    pixels = np.zeros((1, 4), dtype=np.float32)
    pixels[0, index] = mark
    return pixels


class HouseClock:
    """One time for everybody."""

    def __init__(self) -> None:
        self.now = START
        self._boot = timedelta(hours=1)

    def __call__(self) -> datetime:
        return self.now

    def wall(self) -> datetime:
        """Return the time of day."""
        return self.now

    def monotonic(self) -> timedelta:
        """Return time since boot."""
        return self._boot

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)
        self._boot += timedelta(seconds=seconds)


class Wires(httpx2.AsyncBaseTransport):
    """Brings requests to the app that lives at their address; keeps every byte; may be cut for an address."""

    def __init__(self) -> None:
        self.apps: dict[int | None, httpx2.ASGITransport] = {}
        self.seen: dict[int | None, bytearray] = {8440: bytearray(), 8443: bytearray()}
        self.cut: set[int | None] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        port = request.url.port
        if port in self.cut or port not in self.apps:
            msg = "cut"
            raise httpx2.ConnectError(msg)
        seen = self.seen[port]
        seen += f"{request.method} {request.url} {request.headers.multi_items()}".encode() + await request.aread()
        answer = await self.apps[port].handle_async_request(request)
        body = b"".join([part async for part in answer.stream])  # type: ignore[union-attr] # async here
        seen += repr(answer.headers.multi_items()).encode() + body
        return httpx2.Response(answer.status_code, headers=answer.headers, stream=_Whole(body))


class _Whole(httpx2.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


@dataclass
class House:
    """Everything there is; made by ``open_house``."""

    folder: Path
    clock: HouseClock
    wires: Wires
    root: SimulatedRoot
    service: Any
    key: Any
    admin: httpx2.AsyncClient
    digests: dict[str, str] = field(default_factory=dict)
    packages: dict[str, Path] = field(default_factory=dict)
    loan: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    loan_file: dict[str, Any] = field(default_factory=dict)
    machine: Machine | None = None
    log: io.StringIO = field(default_factory=io.StringIO)

    async def post(self, path: str, body: Json) -> Any:
        """POST as the admin; it must succeed."""
        answer = await self.admin.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def get(self, path: str) -> Any:
        """GET as the admin; it must succeed."""
        answer = await self.admin.get(path)
        assert answer.is_success, answer.text
        return answer.json()

    async def publish(self, name: str, model: bytes, card: Json = CARD) -> None:
        """Seal a model on the custodian's machine, publish it, give the borrower the sealed folder."""
        source = self.folder / f"{name}-plain"
        source.mkdir()
        (source / "model.onnx").write_bytes(model)
        vault = open_vault(self.folder / "home", Passphrase(b"correct horse"))
        dek = os.urandom(32)
        out = self.folder / f"{name}-sealed"
        sealed = seal_model(source, out, name=name, dek=dek, signer=vault.publisher_key, card=card, created=START)
        await self.post("/v1/models", publication(read_package(out), envelope_of(vault, dek, sealed.digest)))
        self.digests[name], self.packages[name] = sealed.digest, out

    async def lend(self, allowance: int, *, consumers: Iterable[str] = ("clinic",), **more: Any) -> None:
        """Make the loan of every published model and hand out loan file and tokens."""
        loan_path = self.folder / "loan.json"
        body: dict[str, Any] = {
            "allowance": allowance,
            "borrower": OPERATOR,
            "consumers": [item if isinstance(item, dict) else {"id": item} for item in consumers],
            "models": [{"digest": digest, "name": name} for name, digest in self.digests.items()],
            "policy": self.policy().to_json(),
            "max_ceiling": CEILING,
            "ttl_s": TTL_S,
        }
        made = await self.post("/v1/loans", {**body, **more})
        self.loan, self.tokens, self.loan_file = made["loan"], made["consumer_tokens"], made["loan_file"]
        loan_path.touch(mode=0o600)
        loan_path.write_bytes(dump_json({**made["loan_file"], "custodian_url": CUSTODIAN}))

    def config(self, **settings: Any) -> EnclaveConfig:
        """Return an enclave's settings for this loan."""
        return EnclaveConfig(loan=self.folder / "loan.json", models=tuple(self.packages.values()), **settings)

    def policy(self) -> Policy:
        """Return a policy for the machine that enclaves run on."""
        return self.machine.policy if self.machine else simulated_policy(measure_software(self.config()))

    def source(self, **claims: Any) -> EvidenceSource:
        """Return where an enclave's evidence comes from; ``claims`` are the simulated chip's."""
        if self.machine is not None:
            found = self.machine
            return EvidenceSource(
                attester=found.attester, devices=found.devices, endorsements=lambda: found.endorsements
            )
        software = measure_software(self.config())
        chip = hashlib.sha256(b"chip").digest()
        return EvidenceSource(attester=SimulatedAttester(self.root, software, chip, **claims))

    def schemes(self) -> tuple[Scheme, ...]:
        """Return the schemes that custodian and consumers of this house trust."""
        return self.machine.schemes if self.machine else (SimulatedScheme(self.root.public),)

    @asynccontextmanager
    async def enclave(
        self, *, settings: Mapping[str, Any] | None = None, spans: Spans | None = None, **claims: Any
    ) -> AsyncIterator[EnclaveInstance]:
        """Boot an enclave at the enclave's address; it has a lease and a keyset."""
        config = self.config(**settings or {})
        software = measure_software(config)
        engine, log, loan = OnnxEngine(threads=1), EventLog(self.clock.wall, self.log), read_loan_file(config.loan)
        async with CustodianLink(loan, timeout=timedelta(seconds=5), transport=self.wires) as link:
            source = self.source(**claims)
            booted = await boot(
                config, loan, source=source, software=software, engine=engine, link=link, log=log, spans=spans
            )
            instance = EnclaveInstance(
                booted, config, loan, source=source, engine=engine, link=link, clock=self.clock, log=log, spans=spans
            )
            try:
                await instance.renewal.once()
                await instance.publisher.tick()
                self.wires.apps[8440] = httpx2.ASGITransport(app=enclave_app(instance))
                yield instance
            finally:
                instance.wipe()
                self.wires.apps.pop(8440, None)

    def trust(self, **changes: Any) -> Trust:
        """Return a consumer's trust: reference values of its own."""
        values: dict[str, Any] = {
            "policy": self.policy(),
            "simulated_root": None if self.machine else self.root.public,
            "custodian": CustodianPin(key=self.key, url=CUSTODIAN, ca_pem=self.loan_file["ca_pem"]),
            "operators": (OPERATOR,),
            "models": dict(self.digests),
            "tls": SystemTls(),
        }
        return Trust(**values | changes)

    async def client(
        self, name: str = "clinic", *, token: Any = None, retry: Retry | None = None, **changes: Any
    ) -> AsyncClient:
        """Return a verified client of a consumer, with its own token or with another's word; it asks once."""
        return await AsyncClient.verify(
            ENCLAVE,
            self.trust(**changes),
            token=token or self.tokens.get(name),
            schemes=self.schemes(),
            endorsements=self.token_keys(),
            transport=self.wires,
            clock=self.clock,
            retry=retry or Retry.never(),
        )

    def token_keys(self) -> Mapping[str, bytes]:
        """Return the keys of token services, which a consumer has itself: nobody signs them for an enclave."""
        known = self.machine.endorsements if self.machine else {}
        return {name: data for name, data in known.items() if name not in vendor_signed(known)}

    async def meter(self, name: str = "loan") -> Mapping[str, int]:
        """Return where the units of a meter are."""
        return dict((await self.get(f"/v1/loans/{self.loan}"))["meters"][name])


@asynccontextmanager
async def open_house(
    folder: Path,
    *,
    models: Mapping[str, bytes] | None = None,
    cards: Mapping[str, Json] | None = None,
    hardware: str = "",
) -> AsyncIterator[House]:
    """Make a custodian with published models; nothing is lent yet. ``hardware`` names a synthetic machine."""
    clock, wires, root = HouseClock(), Wires(), SimulatedRoot.generate()
    machine = _machine(folder, hardware, models or {"digits": brightest()}, clock) if hardware else None
    schemes = machine.schemes if machine else (SimulatedScheme(root.public),)
    unlock = Passphrase(b"correct horse")
    made = init_custodian(folder / "home", unlock, clock=clock, kdf=CHEAP)
    service = open_custodian(
        folder / "home",
        unlock,
        make_verifier=lambda _: Verifier(schemes),
        clock=clock,
        endorsements=Given(machine.endorsements if machine else {}),
    )
    wires.apps[8443] = httpx2.ASGITransport(app=custodian_app(service))
    headers = {"authorization": f"Bearer {made.admin_token}"}
    try:
        async with httpx2.AsyncClient(transport=wires.apps[8443], base_url=CUSTODIAN, headers=headers) as admin:
            house = House(
                folder=folder,
                clock=clock,
                wires=wires,
                root=root,
                service=service,
                key=made.key,
                admin=admin,
                machine=machine,
            )
            (folder / "loan.json").touch(mode=0o600)
            for name, model in (models or {"digits": brightest()}).items():
                await house.publish(name, model, (cards or {}).get(name, CARD))
            yield house
    finally:
        service.close()


def _machine(folder: Path, hardware: str, models: Mapping[str, bytes], clock: HouseClock) -> Machine:
    """Return a synthetic machine that measured what an enclave of this house will be."""
    (folder / "loan.json").touch(mode=0o600)
    sealed = tuple(folder / f"{name}-sealed" for name in models)
    software = measure_software(EnclaveConfig(loan=folder / "loan.json", models=sealed))
    return MACHINES[hardware](software.digest, clock)
