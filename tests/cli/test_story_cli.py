"""The tutorial as a person types it: three parties, real processes over TLS on loopback."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cli_kit import Server, Shell, listens
from onnx import ModelProto, TensorProto, helper
from PIL import Image

from cloister.cli.demo.certificate import write_certificate
from cloister.cli.demo.tap import Tap
from cloister.client import VerifiedReceipt
from cloister.sealed.huge import HINT, memory_pages
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPERATOR = "General Hospital"
CARD = {
    "labels": {"label": ["dark left", "dark right"]},
    "preprocess": {"image": {"kind": "image", "layout": "flat", "mode": "L", "range": [0, 1], "size": [2, 1]}},
    "task": "image-classification",
}


def brighter() -> bytes:
    """Return a model that says which of two pixels is the brighter."""
    graph = helper.make_graph(
        [helper.make_node("ArgMin", ["image"], ["label"], axis=1, keepdims=0)],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


class Town:
    """Custodian and enclave as processes, behind the borrower's own proxy, which ends TLS and keeps every byte."""

    def __init__(self, shell: Shell, *lent_with: str, models: str = "sealed") -> None:
        self.shell = shell
        self.port, self.enclave_port = free_port(), free_port()
        self.servers: list[Server] = []
        folder = shell.folder
        (folder / "model.onnx").write_bytes(brighter())
        (folder / "card.json").write_text(json.dumps(CARD))
        shell.ok("trust", "simulated-root", "root.json", "--public", "root.pub.json")
        self.made = shell.ok("custodian", "init", "--port", str(self.port))
        self.custodian = self._serve("custodian", "serve", "--insecure-simulated-root", "root.pub.json")
        self.custodian.until_port(self.port)
        sealed = shell.ok("model", "seal", "model.onnx", "--out", "sealed", "--name", "scan", "--card", "card.json")
        self.digest = sealed["digest"]
        shell.ok("model", "publish", "sealed")
        tee = ("--tee", "simulated", "--insecure-simulated-root")
        shell.ok("enclave", "measure", "--policy", "policy.json", *tee, "root.pub.json")
        lent = shell.ok(
            "loan", "create", "--borrower", OPERATOR, "--model", f"scan={self.digest}", "--allowance", "3",
            "--consumer", "clinic", "--policy", "policy.json", "--ttl", "3", "--out", "loan.json", "--tokens", "tokens",
            *lent_with,
        )  # fmt: skip
        self.loan = lent["loan"]
        listen = f"127.0.0.1:{self.enclave_port}"
        self.enclave = self._serve(
            "enclave", "serve", "--loan-file", "loan.json", "--model", models, "--listen", listen,
            "--ready-file", "ready.json", *tee, "root.json",
        )  # fmt: skip
        self.enclave.until((folder / "ready.json").exists)
        certificate, key = write_certificate(folder)
        self.tap = Tap(upstream=("127.0.0.1", self.enclave_port), certificate=certificate, key=key)
        self.url = f"https://localhost:{self.tap.port}"
        self.write_trust("trust.json", "--operator", OPERATOR)

    def _serve(self, *words: str) -> Server:
        self.servers.append(self.shell.start(*words))
        return self.servers[-1]

    def write_trust(self, out: str, *words: str, tls: tuple[str, ...] = ("--tls-ca", "proxy-ca.pem")) -> None:
        """Write a consumer's trust file."""
        self.shell.ok(
            "trust", "new", "--policy", "policy.json", "--insecure-simulated-root", "root.pub.json",
            "--custodian-url", f"https://localhost:{self.port}", "--custodian-key", self.made["key"],
            "--custodian-ca", "home/tls/ca.pem", "--model", f"scan={self.digest}",
            "--out", out, *tls, *words,
        )  # fmt: skip

    @property
    def whom(self) -> tuple[str, ...]:
        """Return the consumer's options."""
        simulated = ("--insecure-simulated-root", "root.pub.json")
        return ("--trust", "trust.json", "--token-file", "tokens/clinic.token", *simulated)

    def infer(self, *words: str) -> Any:
        """Ask, with ``--json``."""
        return self.shell("infer", self.url, "--model", "scan", *self.whom, *words, "--json")

    def close(self) -> None:
        """End every process."""
        for server in reversed(self.servers):
            server.__exit__()


@pytest.mark.timeout(120)
def test_a_newer_version_is_rolled_out_to_a_running_enclave_as_it_is_typed(shell: Shell) -> None:
    town = Town(shell, models=".")  # the folder in which packages lie
    try:
        with town.tap:
            picture(shell.folder / "a.png", left=0, right=255)
            assert town.infer("--input", "a.png").json["answers"][0]["label"] == "dark left"
            model = ModelProto.FromString(brighter())
            model.graph.node[0].op_type = "ArgMax"  # answers the other way round
            (shell.folder / "newer.onnx").write_bytes(model.SerializeToString())
            newer = ("newer.onnx", "--out", "newer", "--name", "scan", "--card", "card.json")
            digest = shell.ok("model", "seal", *newer)["digest"]
            shell.ok("model", "publish", "newer")
            assert shell.ok("loan", "roll-out", town.loan, "scan", digest)["in_force"] is True
            town.enclave.until(lambda: "model_rolled_out" in town.enclave.log.read_text())
            assert town.infer("--input", "a.png").code == 4  # the trust file pins the version before
            town.digest = digest
            town.write_trust("trust.json", "--operator", OPERATOR, "--force")
            answer = town.infer("--input", "a.png")
            assert answer.json["answers"][0]["label"] == "dark right"
            again = shell("loan", "roll-out", town.loan, "scan", digest, "--json")
            assert (again.code, again.json["error"]["code"]) == (4, "already_exists")
            assert town.enclave.stop() == 0
        told = json.loads((shell.folder / "ready.json").read_text())
        log = town.enclave.log.read_text()
        assert told["memory_pages"] == memory_pages()
        assert log.count(HINT) == (memory_pages() == "ordinary"), "it is said once, to whom it helps"
    finally:
        town.close()


@pytest.fixture
def town(shell: Shell, request: pytest.FixtureRequest) -> Iterator[Town]:
    """Yield a town with everything running; a parameter says how else its loan is made."""
    made = None
    try:
        made = Town(shell, *getattr(request, "param", ()))
        with made.tap:
            yield made
    finally:
        if made is not None:
            made.close()


def test_keys_are_rotated_under_a_running_enclave_as_it_is_typed(town: Town) -> None:
    shell = town.shell
    picture(shell.folder / "a.png", left=0, right=255)
    assert town.infer("--input", "a.png").code == 0
    told = shell.ok("key", "rotate", "--now")
    assert (told["key_epoch"], told["rewrapped"], told["destroyed"]) == (2, 1, 0)
    assert town.infer("--input", "a.png").code == 0  # whoever is served notices nothing
    town.enclave.until(lambda: shell("key", "status").code == 0)  # it renews each second
    stated = shell.ok("key", "status")
    assert (stated["moved"], stated["live"], stated["behind"], stated["models"]) == (True, 1, [], 1)
    assert json.loads(stated["statement"])["payloadType"].endswith("key-status+json")
    assert shell.ok("key", "rotate", "--every", "90d")["every_s"] == 90 * 86_400
    assert shell.ok("key", "rotate", "--never")["every_s"] is None
    told = shell.ok("key", "rotate", "--incident", "laptop lost")
    assert (told["key_epoch"], told["destroyed"]) == (3, 1)
    said = shell("key", "status")
    assert said.code in (0, 4)  # the enclave may have renewed already
    assert "destroyed" in said.out
    assert town.infer("--input", "a.png").code == 0
    for words in ((), ("--now", "--never"), ("--every", "soon"), ("--every", "5s"), ("--every", "9999d")):
        assert shell("key", "rotate", *words).code in (2, 3), words
    lines = shell("audit", "list", "--limit", "200", "--json").out.splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds.count("keys_rotated") == 2


def picture(path: Path, *, left: int, right: int) -> str:
    """Write a picture of two halves; return its name."""
    image = Image.new("L", (20, 10), right)
    image.paste(left, (0, 0, 10, 10))
    image.save(path)
    return path.name


def demand_ciphertext_only(town: Town) -> None:
    """T7: the proxy that ended TLS saw neither question nor answer, token, model or file name."""
    seen = town.tap.seen()
    token = (town.shell.folder / "tokens" / "clinic.token").read_bytes().strip()
    pixels = np.array([0.0, 1.0], dtype="<f4").tobytes()
    assert b"/.well-known/ohttp-gateway" in seen
    assert len(seen) > 5000
    for secret in (token, b"a.png", b"dark left", b"/v2/models", b"authorization", b"argmin", pixels):
        assert secret not in seen


def demand_tls_of_the_trust(town: Town) -> None:
    """See a certificate that the trust does not accept: no answer, and no question."""
    town.write_trust("system-tls.json", "--operator", OPERATOR, tls=())
    distrusted = town.shell("verify", town.url, "--trust", "system-tls.json", *town.whom[4:], "--json")
    assert distrusted.code == 5
    assert "certificate" in distrusted.json["error"]["message"]


def demand_a_whole_log(town: Town) -> None:
    """Prove the log online and from files, and see a cut one refused."""
    town.shell.ok("audit", "verify")
    town.shell.ok("audit", "export", "--out", "log.jsonl")
    files = ("log.jsonl", "--checkpoint", "log.jsonl.checkpoint", "--key", town.made["key"])
    assert town.shell.ok("audit", "verify", *files)["entries"] > 5
    lines = (town.shell.folder / "log.jsonl").read_bytes().splitlines(keepends=True)
    (town.shell.folder / "log.jsonl").write_bytes(b"".join(lines[:2] + lines[3:]))
    assert town.shell("audit", "verify", *files).code == 4


def demand_a_settled_count(town: Town) -> None:
    """State, export, verify and settle what was used; see a forged total and a missing report found out."""
    shell, key = town.shell, ("--key", town.made["key"])
    stated = shell.ok("usage", "statement", town.loan, "--out", "statement.json")
    assert stated["units"] == 4
    assert [line["inferences"] for line in stated["lines"]] == [4]
    assert shell.ok("usage", "export", "statement.json", "--out", "reports")["reports"] >= 1
    assert shell.ok("usage", "verify", "statement.json", *key)["units"] == 4
    assert shell.ok("usage", "verify", "statement.json", *key, "--reports", "reports")["settled"]
    files = ("--statement", "statement.json", "--receipts", "receipts", *key)
    settled = shell.ok("usage", "settle", *files, "--reports", "reports")
    assert (settled["matched"], settled["without_receipt"], settled["convicted"]) == (1, 3, [])
    assert "settled" in shell("usage", "settle", *files, "--reports", "reports").out
    (shell.folder / "nothing").mkdir()
    missing = shell("usage", "settle", *files, "--reports", "nothing", "--json")
    assert (missing.code, missing.json["settled"], missing.json["convicted"]) == (4, False, [])
    verified = shell.ok("receipt", "verify", "receipts/a.receipt")
    assert (verified["verdict"], verified["receipts"][0]["content"]) == ("holds", "proven")
    (shell.folder / "receipts" / "a.receipt.response").write_bytes(b"another answer")
    assert shell("receipt", "verify", "receipts/a.receipt").code == 4
    # One receipt against the custodian's own record: they agree, so there is no fork to be had.
    address = ("--url", f"https://localhost:{town.port}", "--ca", "home/tls/ca.pem")
    refused = shell("receipt", "fork", "receipts/a.receipt", "--submit", *address, "--json")
    assert (refused.code, refused.json["error"]["code"]) == (4, "no_fork")


@pytest.mark.timeout(240)
def test_the_story_from_seal_to_audit_as_it_is_typed(town: Town) -> None:
    shell = town.shell
    folder = shell.folder
    # Verify: every check is shown, and the simulated tee is loud.
    said = shell("verify", town.url, *town.whom)
    assert said.code == 0, said
    assert "SIMULATED TEE" in said.err
    assert "measurement" in said.out
    verified = shell.ok("verify", town.url, *town.whom)
    assert verified["operator"] == OPERATOR
    assert verified["models"] == {"scan": town.digest}
    assert all(check["verdict"] == "passed" or check["note"] for check in verified["checks"])
    # Without the flag the trust's simulated root is not enough; another operator is refused.
    assert shell("verify", town.url, "--trust", "trust.json").code == 2
    town.write_trust("other.json", "--operator", "Mallory Hosting")
    refused = shell("verify", town.url, "--trust", "other.json", *town.whom[4:], "--json")
    assert refused.code == 4
    assert refused.json["error"]["code"] == "operator_mismatch"
    # Ask with an image, with an array, with two files at once.
    (folder / "receipts").mkdir()
    keep = ("--receipt", "receipts/a.receipt", "--keep-content")
    first = town.infer("--input", picture(folder / "a.png", left=0, right=255), *keep)
    assert first.code == 0, first
    assert first.json["answers"][0]["label"] == "dark left"
    assert first.json["answers"][0]["remaining"] == 2
    receipt = VerifiedReceipt.parse((folder / "receipts" / "a.receipt").read_bytes())
    assert receipt.receipt.index == 1
    assert (folder / "receipts" / "a.receipt").stat().st_mode & 0o777 == 0o600
    demand_ciphertext_only(town)
    demand_tls_of_the_trust(town)
    # A receipt is not written over, and that is said before a unit is spent.
    assert town.infer("--input", "a.png", "--receipt", "receipts/a.receipt").code == 2
    np.savez(folder / "b.npz", image=np.array([[1.0, 0.0]], dtype=np.float32))
    (folder / "c.json").write_text('{"image": [[0.5, 0.25]]}')
    both = town.infer("--input", "b.npz", "--input", "c.json", "--input", "a.png")
    # The third finds nothing left: the enclave refuses, and the two answers before it are not lost.
    assert both.code == 4, both
    assert [answer["label"] for answer in both.json["answers"]] == ["dark right", "dark right"]
    assert both.json["error"]["code"] == "allowance_exhausted"
    # The borrower asks, the custodian approves, a waiting consumer is served.
    asked = shell.ok("loan", "request", "--loan-file", "loan.json", "--units", "5", "--reason", "more")
    shell.ok("loan", "approve", town.loan, asked["id"])
    waited = town.infer("--input", "a.png", "--wait", "30s", "--out", "out.npy")
    assert waited.code == 0, waited
    assert np.load(folder / "out.npy").tolist() == [0]
    # Block: refused within the bound that was printed; the enclave ends by itself.
    shown = shell("loan", "block", town.loan)
    assert "stops within" in shown.out
    assert town.enclave.process.wait(timeout=15) == 4
    assert town.infer("--input", "a.png").code in {4, 5}
    assert not listens(town.enclave_port)
    demand_a_settled_count(town)
    demand_a_whole_log(town)
    # 104: a second custodian on the same home says who holds the lock.
    second = shell.process("custodian", "serve")
    assert second.returncode == 5, second
    assert str(town.custodian.process.pid).encode() in second.stderr
    # 102: SIGTERM drains and ends with 0.
    assert town.custodian.stop(signal.SIGTERM) == 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("town", [("--ticketed", "scan")], indirect=True)
def test_a_ticketed_model_is_asked_and_its_ticket_is_shown_kept_and_proven(town: Town) -> None:
    shell, folder = town.shell, town.shell.folder
    verified = shell("verify", town.url, *town.whom)
    assert f"serves scan {town.digest}, with a ticket for each answer" in verified.out.replace("\n", "")
    assert shell.ok("verify", town.url, *town.whom)["ticketed"] == ["scan"]
    asked = town.infer("--input", picture(folder / "a.png", left=0, right=255), "--receipt", "a.receipt")
    assert asked.code == 0, asked
    assert [answer["ticket"] for answer in asked.json["answers"]] == [1]
    plain = shell("infer", town.url, "--model", "scan", *town.whom, "--input", "a.png")
    assert "ticket 2]" in plain.out
    proven = shell.ok("receipt", "verify", "a.receipt", "--key", town.made["key"])
    assert [item["ticket"] for item in proven["receipts"]] == ["proven"]
    assert shell.ok("loan", "show", town.loan)["meters"]["loan"]["spent"] == 2


def test_enclave_and_custodian_refuse_insecure_flags_in_production(shell: Shell) -> None:
    """T88."""
    shell.ok("trust", "simulated-root", "root.json", "--public", "root.pub.json")
    shell.ok("custodian", "init", "--port", str(free_port()), "--profile", "production")
    said = shell("custodian", "serve", "--insecure-simulated-root", "root.pub.json")
    assert said.code == 2
    assert "production" in said.err
    tee = ("--tee", "simulated", "--insecure-simulated-root", "root.json")
    said = shell("enclave", "serve", "--loan-file", "l", "--model", "m", "--profile", "production", *tee)
    assert said.code == 2
    assert "production" in said.err
