"""An enclave that reaches nobody: booted, topped up and settled by files that a person carries between two folders."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cloister.crypto.sign import Label, Statement
from cloister.lending.messages import Consumption, Voucher
from cloister.lending.terms import LOAN_METER
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli_kit import Server, Shell

TEE = ("--tee", "simulated", "--insecure-simulated-root")


class Site:
    """A custodian's machine, and an air-gapped one that shares nothing with it but what is carried."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.servers: list[Server] = []
        self.port, self.enclave_port = free_port(), free_port()
        self.media = shell.folder / "media"
        self.media.mkdir()
        (shell.folder / "model.onnx").write_bytes(_toy())
        shell.ok("trust", "simulated-root", "root.json", "--public", "root.pub.json")
        self.made = shell.ok("custodian", "init", "--port", str(self.port))
        self.custodian = self.serve("custodian", "serve", "--insecure-simulated-root", "root.pub.json")
        self.custodian.until_port(self.port)
        self.digest = shell.ok("model", "seal", "model.onnx", "--out", "sealed", "--name", "toy")["digest"]
        shell.ok("model", "publish", "sealed")
        shell.ok("enclave", "measure", "--policy", "policy.json", *TEE, "root.pub.json")
        lent = shell.ok(
            "loan", "create", "--borrower", "A ship at sea", "--model", f"toy={self.digest}", "--allowance", "4",
            "--anybody", "--policy", "policy.json", "--ttl", "2", "--offline", "3600:3:2", "--out", "loan.json",
        )  # fmt: skip
        self.loan: str = lent["loan"]
        self._cut_off()

    def _cut_off(self) -> None:
        """Let the enclave's loan file name a custodian that is not there: whoever opens a connection fails."""
        given = json.loads((self.shell.folder / "loan.json").read_text())
        path = self.shell.folder / "sea.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(given | {"custodian_url": "https://localhost:1"}))

    def serve(self, *words: str) -> Server:
        self.servers.append(self.shell.start(*words))
        return self.servers[-1]

    def boot(self) -> Server:
        """Start the enclave and carry its first three files."""
        enclave = self.serve(
            "enclave", "serve", "--loan-file", "sea.json", "--model", "sealed", "--listen",
            f"127.0.0.1:{self.enclave_port}", "--media", "media", "--airgapped", "--ready-file", "ready.json",
            *TEE, "root.json",
        )  # fmt: skip
        enclave.until((self.media / "challenge-request.json").exists)
        self.shell.ok("loan", "voucher", "challenge", "--loan-file", "loan.json", "--out", "challenge.json")
        self.carry_in("challenge.json", again=enclave)
        enclave.until((self.media / "attest.json").exists)
        self.shell.ok(
            "loan", "voucher", "attest", "media/attest.json", "--loan-file", "loan.json", "--out", "grant.json"
        )
        self.carry_in("grant.json", again=enclave)
        enclave.until((self.shell.folder / "ready.json").exists)
        return enclave

    def carry_in(self, name: str, *, again: Server) -> None:
        assert again.process.poll() is None, again.log.read_text()
        shutil.copy(self.shell.folder / name, self.media / name)

    def infer(self) -> Any:
        """Ask once, as a consumer on board."""
        (self.shell.folder / "input.json").write_text(json.dumps({"image": [[0.0, 1.0]]}))
        return self.shell(
            "infer", f"http://127.0.0.1:{self.enclave_port}", "--model", "toy", "--trust", "trust.json",
            "--insecure-simulated-root", "root.pub.json", "--input", "input.json", "--json",
        )  # fmt: skip

    def state(self) -> Any:
        """Return what the custodian knows of the loan's units."""
        return self.shell.ok("loan", "show", self.loan)["meters"]["loan"]

    def close(self) -> None:
        """End every process."""
        for server in reversed(self.servers):
            server.__exit__()


def _toy() -> bytes:
    from onnx import TensorProto, helper  # noqa: PLC0415 - heavy, and for this alone

    graph = helper.make_graph(
        [helper.make_node("ArgMin", ["image"], ["label"], axis=1, keepdims=0)],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.fixture
def site(shell: Shell) -> Iterator[Site]:
    """Yield a site with a custodian and a loan."""
    made = None
    try:
        made = Site(shell)
        yield made
    finally:
        if made is not None:
            made.close()


def test_boot_top_up_serve_and_settle_by_files_alone(site: Site) -> None:
    shell, folder = site.shell, site.shell.folder
    enclave = site.boot()
    # A consumer on board asks nobody ashore either; it says so in its trust file.
    shell.ok(
        "trust", "new", "--policy", "policy.json", "--insecure-simulated-root", "root.pub.json", "--no-custodian",
        "at sea", "--any-operator", "at sea", "--model", f"toy={site.digest}", "--any-tls", "on board", "--out",
        "trust.json",
    )  # fmt: skip
    assert site.infer().code == 4  # keys it has, units it has none
    # 1. Ask; the custodian signs; the file goes back.
    asked = shell.ok("loan", "voucher", "request", "media")
    shown = shell.ok("loan", "voucher", "show", asked["request"])
    assert (shown["kind"], shown["proven"]) == ("voucher request", False)
    signed = shell.ok("loan", "voucher", "sign", "media/voucher-request.json", "--out", "voucher.json")
    assert (signed["limits"], signed["overdraft"], signed["lasts_s"]) == ({"loan": 3}, 2, 3600)
    assert shell.ok("loan", "voucher", "show", "voucher.json", "--key", site.made["key"])["proven"]
    assert site.state()["balance"] == 1
    site.carry_in("voucher.json", again=enclave)
    enclave.until(lambda: "voucher_accepted" in enclave.log.read_text())
    # 2. Its statement goes out; it has served nothing yet.
    enclave.until((site.media / "consumption.json").exists)
    settled = shell.ok("loan", "voucher", "settle", "media/consumption.json")["files"][0]
    assert (settled["settled"], settled["used"]) == ({}, {"loan": 0})
    # 3. The same request is the same voucher, and an older voucher is no news.
    shell.ok("loan", "voucher", "sign", "media/voucher-request.json", "--out", "again.json")
    assert (folder / "again.json").read_bytes() == (folder / "voucher.json").read_bytes()
    # 4. Three units and two of the overdraft, and not one more.
    assert [site.infer().code for _ in range(6)] == [0, 0, 0, 0, 0, 4]
    enclave.until(lambda: b"5" in _used(site.media / "consumption.json"))
    *reports, settled = shell.ok("loan", "voucher", "settle", "media")["files"]
    assert (settled["settled"], settled["owed"]) == ({"loan": 5}, {"loan": 1})
    assert [reports[0]["first"], reports[-1]["last"]] == [1, 5]
    # 5. The next voucher is signed only with every record at hand; it tells the enclave that they arrived.
    shell.ok("loan", "top-up", site.loan, "--units", "3")
    shell.ok("loan", "voucher", "request", "media")
    shell.ok("loan", "voucher", "sign", "media/voucher-request.json", "--out", "second.json")
    shutil.copy(folder / "second.json", site.media / "voucher.json")
    enclave.until(lambda: not list(site.media.glob("usage-*.json")))
    assert site.infer().code == 0
    # 6. Two lease times have long gone by: it still stands. Ended, it leaves its last records and its last count.
    time.sleep(2)
    assert enclave.stop() == 0
    *reports, _, closed = shell.ok("loan", "voucher", "settle", "media", "--loan-file", "loan.json")["files"]
    assert reports[-1]["last"] == 6
    assert closed == {"file": "media/close.json", "closed": True}
    meter = site.state()
    assert (meter["held"], meter["spent"], meter["owed"]) == (0, 6, 0)
    used = shell.ok("usage", "statement", site.loan, "--out", "usage.json")
    assert used["units"] == 6


def test_a_swapped_an_edited_and_an_old_voucher_give_nothing(site: Site) -> None:
    shell, folder = site.shell, site.shell.folder
    enclave = site.boot()
    shell.ok("loan", "voucher", "request", "media")
    shell.ok("loan", "voucher", "sign", "media/voucher-request.json", "--out", "first.json")
    shell.ok("loan", "voucher", "request", "media")  # the first is given up
    data = (folder / "first.json").read_bytes()
    for number, bad in enumerate((b"", b"{", data[:-10], _more_units(data), data), start=1):
        (site.media / "voucher.json").write_bytes(bad)
        if bad:
            enclave.until(lambda n=number: enclave.log.read_text().count("voucher_failed") >= n - 1)
    enclave.until(lambda: "not_pending" in enclave.log.read_text())
    log = enclave.log.read_text()
    assert "signature_invalid" in log
    assert "voucher_accepted" not in log
    said = shell("loan", "voucher", "show", "model.onnx")
    assert said.code != 0


def _used(path: Path) -> bytes:
    used = Consumption.parse(Statement.parse(path.read_bytes(), label=Label.CONSUMPTION).payload).used
    return str(used.get(LOAN_METER, 0)).encode()


def _more_units(voucher: bytes) -> bytes:
    statement = Statement.parse(voucher, label=Label.VOUCHER)
    return replace(statement, payload=replace(Voucher.parse(statement.payload), overdraft=500).dump()).dump()
