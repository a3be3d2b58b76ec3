"""Three parties for the drills: custodian and enclave are real processes that get killed, consumers are threads.

The folders, environments and processes are those of ``cloister demo`` (``cli/demo/world.py``). What a drill
sets up around its kills (sealing, lending, trusting) is done in this process, over HTTPS where the custodian
is asked.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx2
import numpy as np
from onnx import TensorProto, helper

import cloister
from cloister.cli.demo.world import World
from cloister.client import CustodianPin, SystemTls, Trust
from cloister.custodian.publication import publication
from cloister.custodian.setup import init_custodian, open_vault
from cloister.custodian.vaults import envelope_of
from cloister.custodian.vaults.encrypted_file import Kdf, KeyFile
from cloister.enclave.config import EnclaveConfig
from cloister.enclave.measure import measure_software
from cloister.sealed.directory import read_package
from cloister.sealed.seal import seal_model
from cloister.testing.ports import free_port
from cloister.testing.simulated import SimulatedRoot, simulated_policy
from cloister.wire import dump_json

if TYPE_CHECKING:
    from types import TracebackType

    from cloister.cli.demo.world import Running

OPERATOR = "General Hospital"
CHEAP = Kdf(memory_kib=64, passes=1, lanes=1)


def brightest() -> bytes:
    """Return a model that says which of four pixels is the brightest, row by row."""
    graph = helper.make_graph(
        [helper.make_node("ArgMax", ["image"], ["label"], axis=1, keepdims=0)],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )


def row(index: int) -> np.ndarray:
    """Return one picture of four pixels whose brightest is ``index`` modulo four."""
    pixels = np.zeros((1, 4), dtype=np.float32)
    pixels[0, index % 4] = 1.0
    return pixels


class DrillHouse:
    """Everything there is. Use it in a ``with`` block: it ends every process it started."""

    def __init__(
        self,
        root: Path,
        *,
        ttl_s: int,
        max_ceiling: int,
        allowance: int,
        consumers: int = 2,
        home: Path | None = None,
        database: str | None = None,
    ) -> None:
        """Make a custodian, start it, seal, publish and lend a model; no enclave runs yet.

        ``home`` puts the custodian's home somewhere else than below ``root``, ``database`` its rows on PostgreSQL.
        """
        self.database = database
        self.ttl_s, self.max_ceiling = ttl_s, max_ceiling
        self.allowance, self.consumers = allowance, consumers
        self.world = World(root)
        self.world.ready_within_s = 60  # drills run beside others
        self.home = home or self.world.custodian / "home"
        for variables in self.world.variables.values():  # the processes run the source that this test imports
            variables["PYTHONPATH"] = str(Path(cloister.__file__).parents[1])
        self.world.variables[self.world.custodian]["CLOISTER_CUSTODIAN_HOME"] = str(self.home)
        self.custodian_port, self.enclave_port, self.second_port = free_port(), free_port(), free_port()
        self.second: Running | None = None
        self.simulated = SimulatedRoot.generate()
        self.custodian: Running | None = None
        self.enclave: Running | None = None
        self.instances: list[str] = []
        self._stack = ExitStack()
        self._make()

    @property
    def url(self) -> str:
        """Where consumers find the enclave."""
        return f"http://127.0.0.1:{self.enclave_port}"

    @property
    def authority(self) -> Path:
        """The file with the authority of the custodian's certificate."""
        return self.home / "tls" / "ca.pem"

    def __enter__(self) -> Self:
        self._stack.enter_context(self.world)
        context = ssl.create_default_context(cafile=str(self.authority))
        self.http = self._stack.enter_context(
            httpx2.Client(
                base_url=f"https://localhost:{self.custodian_port}", verify=context, timeout=10, trust_env=False
            )
        )
        self.start_custodian()
        self._publish()
        self._lend()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def _make(self) -> None:
        settings: dict[str, Any] = {"port": self.custodian_port, "sweep_interval_s": 1, "max_instances": 200}
        if self.database is not None:
            settings["database"] = self.database
        key = KeyFile.create(self.world.custodian / "vault.key")
        self.made = init_custodian(self.home, key, settings=settings, kdf=CHEAP)
        self.simulated.save(self.world.borrower / "simulated-root.json")
        self.simulated.save_public(self.world.root / "simulated-root.pub.json")

    # processes

    def start_custodian(self, *, wait: bool = True) -> float:
        """Start ``cloister custodian serve``; return the seconds until it listened."""
        before = time.monotonic()
        public = str(self.world.root / "simulated-root.pub.json")
        words = ("custodian", "serve", "--insecure-simulated-root", public)
        self.custodian = self.world.start(self.world.custodian, "custodian", *words)
        if wait:
            self.until_custodian()
        return time.monotonic() - before

    def start_second(self) -> None:
        """Start another custodian over the same PostgreSQL, with a port and a checkpoint of its own."""
        public = str(self.world.root / "simulated-root.pub.json")
        variables = self.world.variables[self.world.custodian]
        before = dict(variables)
        variables |= {
            "CLOISTER_CUSTODIAN_CHECKPOINT": "checkpoint-2.json", "CLOISTER_CUSTODIAN_PORT": str(self.second_port),
        }  # fmt: skip
        try:
            words = ("custodian", "serve", "--insecure-simulated-root", public)
            self.second = self.world.start(self.world.custodian, "second", *words)
        finally:
            self.world.variables[self.world.custodian] = before
        self.world.until_port(self.second, self.second_port)

    def kill_second(self) -> None:
        """Kill -9 the second custodian."""
        assert self.second is not None
        assert self.second.stop(signal.SIGKILL) == -signal.SIGKILL, self.second.said()[-2000:]

    def until_custodian(self) -> None:
        """Wait until the custodian listens."""
        assert self.custodian is not None
        self.world.until_port(self.custodian, self.custodian_port)

    def kill_custodian(self) -> None:
        """Kill -9 the custodian."""
        assert self.custodian is not None
        assert self.custodian.stop(signal.SIGKILL) == -signal.SIGKILL, self.custodian.said()[-2000:]

    def stop_custodian(self) -> None:
        """End the custodian in good order: it would wait for a connection that we keep open, so let that go first."""
        assert self.custodian is not None
        self.http.get("/healthz", headers={"connection": "close"})
        assert self.custodian.stop() == 0, self.custodian.said()[-2000:]

    def start_enclave(self) -> str:
        """Start ``cloister enclave serve``, wait until it serves, return its instance."""
        ready = self.world.borrower / "ready.json"
        ready.unlink(missing_ok=True)
        self.enclave = self.world.start(self.world.borrower, "enclave", *self.enclave_words())
        instance = str(self.world.until_file(self.enclave, ready)["instance"])
        self.instances.append(instance)
        return instance

    def enclave_words(self) -> tuple[str, ...]:
        """Return the words that start the enclave."""
        return (
            "enclave", "serve", "--loan-file", "loan.json", "--model", "sealed",
            "--listen", f"127.0.0.1:{self.enclave_port}", "--ready-file", "ready.json",
            "--tee", "simulated", "--insecure-simulated-root", str(self.world.borrower / "simulated-root.json"),
        )  # fmt: skip

    def new_enclave(self) -> str:
        """Kill the enclave, unless it ended by itself, and start another; return its instance."""
        assert self.enclave is not None
        if self.enclave.process.poll() is None:
            self.kill_enclave()
        return self.start_enclave()

    def kill_enclave(self) -> None:
        """Kill -9 the enclave."""
        assert self.enclave is not None
        assert self.enclave.stop(signal.SIGKILL) == -signal.SIGKILL, self.enclave.said()[-2000:]

    # the custodian's staff

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None, key: str = "") -> Any:
        """Call the API as the admin, or with ``token``; it must succeed. Transport errors come through."""
        headers = {"authorization": f"Bearer {token or self.made.admin_token}"}
        if key:
            headers["idempotency-key"] = key
        answer = self.http.request(method, path, json=body, headers=headers)
        assert answer.is_success, (answer.status_code, answer.text)
        return answer.json()

    def shown(self) -> Any:
        """Return the loan as staff sees it."""
        return self.call("GET", f"/v1/loans/{self.loan}")

    def meter(self) -> dict[str, int]:
        """Return where the units of the loan are."""
        return dict(self.shown()["meters"]["loan"])

    def _publish(self) -> None:
        plain, sealed = self.world.custodian / "plain", self.world.custodian / "sealed"
        plain.mkdir()
        (plain / "model.onnx").write_bytes(brightest())
        vault = open_vault(self.home, KeyFile(self.world.custodian / "vault.key"))
        dek = os.urandom(32)
        made = seal_model(
            plain, sealed, name="digits", dek=dek, signer=vault.publisher_key, card={}, created=datetime.now(UTC)
        )
        self.call("POST", "/v1/models", publication(read_package(sealed), envelope_of(vault, dek, made.digest)))
        self.digest = made.digest
        shutil.copytree(sealed, self.world.borrower / "sealed")

    def _lend(self, **more: Any) -> None:
        body = {
            "allowance": self.allowance,
            "borrower": OPERATOR,
            "consumers": [{"id": f"clinic-{number}"} for number in range(self.consumers)],
            "max_ceiling": self.max_ceiling,
            "max_instances": 200,
            "models": [{"digest": self.digest, "name": "digits"}],
            "policy": self.policy().to_json(),
            "ttl_s": self.ttl_s,
        }
        made = self.call("POST", "/v1/loans", body | more)
        self.loan, self.loan_file = made["loan"], made["loan_file"]
        self.tokens: dict[str, str] = made["consumer_tokens"]
        place = self.world.borrower / "loan.json"
        place.touch(mode=0o600)
        place.write_bytes(dump_json(self.loan_file))

    def policy(self) -> Any:
        """Return the policy that admits this build."""
        config = EnclaveConfig(loan=self.world.borrower / "loan.json", models=(self.world.borrower / "sealed",))
        return simulated_policy(measure_software(config))

    def trust(self) -> Trust:
        """Return whom the consumers trust."""
        pin = CustodianPin(
            key=self.made.key, url=f"https://localhost:{self.custodian_port}", ca_pem=self.loan_file["ca_pem"]
        )
        return Trust(
            policy=self.policy(), simulated_root=self.simulated.public, custodian=pin, operators=(OPERATOR,),
            models={"digits": self.digest}, tls=SystemTls(),
        )  # fmt: skip
