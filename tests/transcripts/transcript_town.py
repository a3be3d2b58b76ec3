"""One small system for all transcripts: a custodian and an enclave as processes, and what each party was given."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from terminal_kit import run_line

import cloister
from cloister.testing.ports import free_port

OPERATOR = "General Hospital"
TEE = "--tee simulated --insecure-simulated-root"
READY_S = 40


def brighter() -> bytes:
    """Return a model that says which of two pixels is the brighter."""
    graph = helper.make_graph(
        [helper.make_node("ArgMax", ["image"], ["label"], axis=1, keepdims=0)],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


class Town:
    """Three folders, two servers, and the names that transcripts use for what differs from run to run."""

    def __init__(self, folder: Path) -> None:
        """Set everything up by commands, as in the tutorial."""
        self.folder = folder
        self.parties = {name: folder / name for name in ("custodian", "borrower", "consumer")}
        for path in self.parties.values():
            path.mkdir()
        self.names: dict[str, str] = {"PORT": str(free_port())}
        self._servers: list[subprocess.Popen[bytes]] = []
        self._custodian()
        self._loans()
        self._enclave()
        self._consumer()

    def environment(self, party: str) -> dict[str, str]:
        """Return what this party's terminal has, and nothing else."""
        homes = {"CLOISTER_CUSTODIAN_HOME": "home", "CLOISTER_CUSTODIAN_KEY_FILE": "vault.key"}
        known = {name: str(self.parties["custodian"] / path) for name, path in homes.items()}
        own = known if party == "custodian" else {"HOME": str(self.parties[party])}
        return own | {
            "PATH": os.environ["PATH"],
            "COLUMNS": "160",
            "PYTHONPATH": str(Path(cloister.__file__).parents[1]),
        }

    def ok(self, party: str, line: str) -> Any:
        """Run a command that must succeed, and return its JSON."""
        code, said = run_line(f"{line} --json", folder=self.parties[party], environment=self.environment(party))
        assert code == 0, (line, said)
        return json.loads(said[said.index("{") :])

    def start(self, party: str, line: str, *, folder: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command that serves."""
        place = folder or self.parties[party]
        with (self.folder / f"{len(self._servers)}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "cloister", *line.split()[1:]],
                cwd=place,
                env=self.environment(party),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._servers.append(process)
        return process

    def close(self) -> None:
        """End every server."""
        for process in reversed(self._servers):
            process.send_signal(signal.SIGKILL)
            process.wait(10)

    def _custodian(self) -> None:
        folder = self.parties["custodian"]
        (folder / "model.onnx").write_bytes(brighter())
        self.ok("borrower", "cloister trust simulated-root root.json --public root.pub.json")
        for party in ("custodian", "consumer"):
            shutil.copy(self.parties["borrower"] / "root.pub.json", self.parties[party])
        port = free_port()
        made = self.ok("custodian", f'cloister custodian init --name "Model Works" --port {port}')
        self.names |= {"KEY": made["key"], "CUSTODIAN": f"https://localhost:{port}"}
        self.start("custodian", "cloister custodian serve --insecure-simulated-root root.pub.json")
        until(lambda: listens(port))
        self.names["DIGEST"] = self.ok("custodian", "cloister model seal model.onnx --out sealed --name scan")["digest"]
        self.ok("custodian", "cloister model publish sealed")
        self.ok("custodian", f"cloister enclave measure --policy policy.json {TEE} root.pub.json")

    def _loans(self) -> None:
        folder, borrower = self.parties["custodian"], self.parties["borrower"]
        key = self.ok("borrower", "cloister borrower key --out borrower.key")["public"]
        terms = "--model scan=$DIGEST --policy policy.json --ttl 5 --max-ceiling 8"
        lend = f'cloister loan create --borrower "{OPERATOR}" {terms}'
        served = f"--allowance 500 --consumer clinic=400 --consumer ward=0 --borrower-key {key} --sub-allowances"
        for name, rest in (
            ("loan", served),
            ("more", "--allowance 3 --anybody"),
            ("idle", "--allowance 50 --consumer ward"),
            ("unsigned", f"--allowance 9 --anybody --borrower-key {key}"),
        ):
            made = self.ok("custodian", self.filled(f"{lend} {rest} --out {name}.json --tokens {name}-tokens"))
            self.names[name.upper()] = made["loan"]
            shutil.copy(folder / f"{name}.json", borrower)
        self.ok("borrower", "cloister loan accept --loan-file loan.json --key borrower.key --yes")
        asked = self.ok("borrower", 'cloister loan request --loan-file more.json --units 10 --reason "a busy week"')
        self.names["REQUEST"] = asked["id"]
        shutil.copytree(folder / "sealed", borrower / "sealed")

    def _enclave(self) -> None:
        port = free_port()
        self.names["ENCLAVE"] = f"http://127.0.0.1:{port}"
        serve = f"cloister enclave serve --loan-file loan.json --model sealed --listen 127.0.0.1:{port} --ready-file up"
        self.start("borrower", f"{serve} {TEE} root.json")
        until((self.parties["borrower"] / "up").exists)

    def _consumer(self) -> None:
        folder = self.parties["consumer"]
        for name in ("clinic.token", "ward.token"):
            shutil.copy(self.parties["custodian"] / "loan-tokens" / name, folder)
        shutil.copy(self.parties["custodian"] / "home" / "tls" / "ca.pem", folder)
        shutil.copy(self.parties["custodian"] / "policy.json", folder / "mine.json")
        np.save(folder / "question.npy", np.array([[0.0, 1.0]], dtype=np.float32))
        np.save(folder / "many.npy", np.arange(16, dtype=np.float32).reshape(8, 2))
        body = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}]}
        (folder / "request.json").write_text(json.dumps(body))
        pinned = "--custodian-url $CUSTODIAN --custodian-key $KEY --custodian-ca ca.pem"
        whom = f"--insecure-simulated-root root.pub.json {pinned}"
        rest = f'--operator "{OPERATOR}" --model scan=$DIGEST --any-tls "all on one machine"'
        self.ok("consumer", self.filled(f"cloister trust new --policy mine.json {whom} {rest} --out trust.json"))
        stranger = rest.replace(OPERATOR, "Somebody Else")
        self.ok("consumer", self.filled(f"cloister trust new --policy mine.json {whom} {stranger} --out other.json"))

    def filled(self, line: str) -> str:
        """Return a line with the names in it replaced, longest first."""
        for name, value in sorted(self.names.items(), key=lambda item: -len(item[0])):
            line = line.replace(f"${name}", value)
        return line

    def shown(self, text: str) -> str:
        """Return what was printed, with names in the place of what differs from run to run."""
        for name, value in sorted(self.names.items(), key=lambda item: -len(item[1])):
            text = text.replace(value, f"${name}")
        return text


def listens(port: int) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(ready: Any) -> None:
    """Wait until ``ready()``."""
    end = time.monotonic() + READY_S
    while not ready():
        assert time.monotonic() < end, "a server did not come up"
        time.sleep(0.05)


def party_files(town: Town, party: str, folder: Path) -> None:
    """Give a transcript a folder of its own with what its party has."""
    for path in sorted(town.parties[party].iterdir()):
        if path.name in {"home", "vault.key", "up", "media"}:
            continue
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        else:
            shutil.copy(path, folder)
