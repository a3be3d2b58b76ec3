"""``cloister audit`` as auditor, borrower and consumer type it, against a custodian that serves (T54, T83, T92)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from enclave_models import doubler

from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli_kit import Server, Shell


class Office:
    """A custodian that serves, with one loan; no enclave."""

    def __init__(self, shell: Shell) -> None:
        self.shell, self.port = shell, free_port()
        self.server: Server | None = None

    def open(self) -> None:
        """Make the custodian, serve it, lend."""
        shell, folder = self.shell, self.shell.folder
        (folder / "weights").mkdir()
        (folder / "weights" / "model.onnx").write_bytes(doubler())
        shell.ok("trust", "simulated-root", "root.json", "--public", "root.pub.json")
        self.key = shell.ok("custodian", "init", "--port", str(self.port))["key"]
        self.server = self._serve()
        shell.ok("enclave", "measure", "--policy", "policy.json", "--tee", "simulated", "--insecure-simulated-root",
                 "root.pub.json")  # fmt: skip
        self.digest = shell.ok("model", "seal", "weights", "--out", "sealed", "--name", "scan")["digest"]
        shell.ok("model", "publish", "sealed")
        self.loan = self.lend("loan.json")

    def _serve(self, **more: str) -> Server:
        server = self.shell.start("custodian", "serve", "--insecure-simulated-root", "root.pub.json", **more)
        server.until_port(self.port)
        return server

    def stop(self) -> None:
        """Let the custodian end."""
        assert self.server is not None
        self.server.stop()

    def restart(self, **more: str) -> None:
        """Serve again, with other settings."""
        self.stop()
        self.server = self._serve(**more)

    def lend(self, out: str) -> str:
        """Make a loan and return its id."""
        made = self.shell.ok(
            "loan", "create", "--borrower", "b", "--model", f"scan={self.digest}", "--allowance", "3",
            "--policy", "policy.json", "--out", out, "--anybody",
        )  # fmt: skip
        return str(made["loan"])

    def where(self) -> tuple[str, ...]:
        """Return the options of somebody who only knows address and key."""
        return ("--url", f"https://localhost:{self.port}", "--ca", "home/tls/ca.pem", "--key", self.key)


@pytest.fixture
def office(shell: Shell) -> Iterator[Office]:
    """Yield an office with its custodian running."""
    made = Office(shell)
    try:
        made.open()
        yield made
    finally:
        if made.server is not None:
            made.server.__exit__()


def _bend(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


def demand_export(office: Office) -> Any:
    """Export, go on, and see what was changed refused."""
    shell = office.shell
    first = shell.ok("audit", "export", "--folder", "copy", "--key", office.key)
    assert first["fetched"] == first["size"]
    assert shell.ok("audit", "export", "--folder", "copy", "--key", office.key)["fetched"] == 0
    office.lend("second.json")
    again = shell.ok("audit", "export", "--folder", "copy", "--out", "log.jsonl", "--key", office.key)
    assert again["size"] > first["size"]
    for copy in (
        ("copy",),
        ("log.jsonl", "--checkpoint", "log.jsonl.checkpoint"),
        ("log.jsonl", "--checkpoint", "copy/checkpoint"),
    ):
        assert shell.ok("audit", "verify", *copy, "--key", office.key)["size"] >= again["size"]
    assert shell.ok("audit", "gaps", "copy")["whole"] is True
    assert shell.ok("audit", "gaps", "log.jsonl")["entries"] == again["entries"]
    return again


def demand_bent_copies_refused(office: Office) -> None:
    """T83: a bent bundle, a bent tile, a lost line."""
    shell, folder = office.shell, office.shell.folder / "copy"
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "tile" in path.parts):
        whole = path.read_bytes()
        _bend(path)
        assert shell("audit", "verify", "copy", "--key", office.key).code in {3, 4}, path
        path.write_bytes(whole)
    (bundle,) = (path for path in folder.rglob("*") if path.is_file() and "entries" in path.parts)
    whole = bundle.read_bytes()
    bundle.unlink()
    said = shell("audit", "gaps", "copy", "--json")
    assert (said.code, said.json["missing"]) == (4, [[0, said.json["missing"][0][1]]])
    bundle.write_bytes(whole)
    lines = (shell.folder / "log.jsonl").read_bytes().splitlines(keepends=True)
    (shell.folder / "cut.jsonl").write_bytes(b"".join([*lines[:3], b"{}\n", *lines[5:], lines[-1]]))
    said = shell("audit", "gaps", "cut.jsonl", "--json")
    assert said.code == 4
    last = len(lines) - 1
    assert (said.json["missing"], said.json["unreadable"], said.json["repeated"]) == ([[3, 4]], [3], [last])
    plain = shell("audit", "gaps", "cut.jsonl")
    assert "missing: 3 to 4" in plain.out


def demand_proofs(office: Office) -> None:
    """Prove to a borrower what is about its loan, and verify it with nobody's help."""
    shell = office.shell
    entries = [json.loads(line) for line in (shell.folder / "log.jsonl").read_text().splitlines()]
    mine = next(entry["index"] for entry in entries if entry["subject"] == office.loan)
    made = shell.ok("audit", "prove", mine, "--out", "p.tlog-proof", "--loan-file", "loan.json")
    assert made["entry"] == entries[mine]
    office_gone = shell.ok("audit", "prove", "--check", "p.tlog-proof", "--key", office.key)
    assert (office_gone["entry"], office_gone["size"]) == (entries[mine], made["size"])
    line = (shell.folder / "log.jsonl").read_bytes().splitlines()[mine]
    (shell.folder / "line").write_bytes(line + b"\n")
    shell.ok("audit", "prove", "--check", "p.tlog-proof", "--entry", "line", "--key", office.key)
    (shell.folder / "line").write_bytes(line.replace(b'"v":2', b'"v":1'))
    said = shell("audit", "prove", "--check", "p.tlog-proof", "--entry", "line", "--key", office.key, "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "not_included")
    assert shell("audit", "prove", 0, "--out", "q.tlog-proof", "--loan-file", "loan.json").code == 4
    assert shell("audit", "prove", mine, "--out", "p.tlog-proof", "--loan-file", "loan.json").code == 2
    for words in (("0",), ("--check", "p.tlog-proof"), ("0", "--check", "p.tlog-proof", "--key", office.key)):
        assert shell("audit", "prove", *words).code == 2


@pytest.mark.timeout(240)
def test_the_log_exported_proven_and_bent(office: Office) -> None:
    demand_export(office)
    demand_bent_copies_refused(office)
    demand_proofs(office)


@pytest.mark.timeout(240)
def test_borrower_and_consumer_witness_and_a_reader_demands_both(office: Office) -> None:
    shell = office.shell
    shell.ok(
        "trust", "new", "--policy", "policy.json", "--insecure-simulated-root", "root.pub.json",
        "--any-operator", "test",
        "--custodian-url", f"https://localhost:{office.port}", "--custodian-key", office.key,
        "--custodian-ca", "home/tls/ca.pem", "--any-model", "test", "--out", "trust.json",
    )  # fmt: skip
    first = shell("audit", "witness", "wb", "--name", "borrower.example", "--loan-file", "loan.json", "--json")
    assert first.code == 0, first
    assert "witnesses" in first.err
    assert first.json["submitted"] is False
    other = shell.ok("audit", "witness", "wc", "--name", "consumer.example", "--trust", "trust.json", "--no-submit")
    keys = (first.json["key"], other["key"])
    assert (shell.folder / "wb" / "key").stat().st_mode & 0o777 == 0o600
    office.restart(CLOISTER_CUSTODIAN_WITNESSES=",".join(keys), CLOISTER_CUSTODIAN_WITNESS_WINDOW_S="3600")
    sizes = {shell.ok("audit", "witness", folder)["size"] for folder in ("wb", "wc")}
    assert len(sizes) == 1
    both = ("--witness", keys[0], "--witness", keys[1])
    assert set(shell.ok("audit", "verify", *both)["witnesses"]) == {"borrower.example", "consumer.example"}
    proven = shell.ok("audit", "prove", 0, "--out", "p.tlog-proof", *both)
    assert set(proven["witnesses"]) == {"borrower.example", "consumer.example"}
    shell.ok("audit", "prove", "--check", "p.tlog-proof", "--key", office.key, *both)
    stranger = shell.ok("audit", "witness", "ws", "--name", "stranger.example", *office.where())["key"]
    missed = shell(
        "audit", "prove", "--check", "p.tlog-proof", "--key", office.key, *both, "--witness", stranger, "--json"
    )
    assert (missed.code, missed.json["error"]["code"]) == (4, "quorum_missed")
    shell.ok(
        "audit", "prove", "--check", "p.tlog-proof", "--key", office.key, *both, "--witness", stranger, "--quorum", "2"
    )
    shell.ok("audit", "witness", "wb", "--peer", "wc/cosigned.note")
    for words in (
        ("wb", "--name", "again"), ("w9",), ("w9", "--name", "x"), ("w9", "--name", "x", "--url", "https://localhost"),
        ("w9", "--name", "x", "--loan-file", "loan.json", "--trust", "trust.json"),
    ):  # fmt: skip
        assert shell("audit", "witness", *words).code == 2, words
    assert shell("audit", "verify", "--quorum", "1").code == 2
    assert shell("audit", "verify", "--witness", office.key).code == 2
    assert shell("audit", "export").code == 2


@pytest.mark.timeout(240)
def test_t92_a_custodian_that_was_put_back_is_refused_with_evidence(office: Office) -> None:
    """The database of before, recovered: what it logged since is another history than the witness saw."""
    shell, home = office.shell, office.shell.folder / "home"
    office.stop()
    old = (home / "custodian.db").read_bytes()
    office.restart()
    for number in range(4):
        office.lend(f"lost-{number}.json")
    shell.ok("audit", "witness", "w", "--name", "b.example", *office.where(), "--no-submit")
    shell.ok("audit", "export", "--folder", "copy", "--key", office.key)
    office.stop()
    for path in home.glob("custodian.db*"):
        path.unlink()
    (home / "custodian.db").write_bytes(old)
    (home / "custodian.db").chmod(0o600)
    shell.ok("custodian", "recover", "--yes")
    office.restart()
    shrunk = shell("audit", "witness", "w", "--no-submit", "--json")
    assert (shrunk.code, shrunk.json["error"]["code"]) == (4, "log_shrunk")
    (place,) = (shell.folder / "w" / "evidence").iterdir()
    assert {path.name for path in place.iterdir()} == {"remembered.note", "shown.note", "answer.txt"}
    for number in range(8):
        office.lend(f"new-{number}.json")
    copy = {path: path.read_bytes() for path in (shell.folder / "copy").rglob("*") if path.is_file()}
    said = shell("audit", "witness", "w", "--no-submit", "--json")
    assert said.code == 4, said
    assert said.json["error"]["code"] == "not_consistent"
    assert len(list((shell.folder / "w" / "evidence").iterdir())) == 2
    again = shell("audit", "export", "--folder", "copy", "--key", office.key, "--json")
    assert (again.code, again.json["error"]["code"]) == (4, "not_consistent")
    assert copy == {path: path.read_bytes() for path in (shell.folder / "copy").rglob("*") if path.is_file()}
