"""R19: every secret of a whole demo run, searched for in all that all parties stored, logged, sent and showed.

Each secret has the places where it may be, by name. Anywhere else it is a leak. The search must also find each
one where it belongs, or it proves nothing.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from cloister.cli.demo.search import Needle, files_below, find
from cloister.client import Trust
from cloister.custodian.setup import open_vault
from cloister.custodian.vaults import unwrap_dek
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.lending.audit import AuditEntry
from cloister.lending.exports import FORMATS
from cloister.sealed.directory import read_envelope
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from demo_run import DemoRun

pytestmark = pytest.mark.timeout(240)  # one of them waits for the whole demo
CONSUMERS_OWN = ("run/consumer/*",)


@dataclass(frozen=True)
class Secret:
    """One secret, and the places (patterns) where it may be."""

    needle: Needle
    homes: tuple[str, ...] = ()

    def leaks(self, places: list[tuple[str, bytes]]) -> list[str]:
        """Return where it is and must not be."""
        away = [item for item in places if not any(fnmatch.fnmatch(item[0], home) for home in self.homes)]
        return find([self.needle], away)


def secret(name: str, value: bytes, *homes: str) -> Secret:
    return Secret(Needle(name=name, value=value), homes)


def custodians_secrets(root: Path) -> list[Secret]:
    """Return the custodian's keys, tokens and weights."""
    home = root / "custodian" / "home"
    vault = open_vault(home, KeyFile(root / "custodian" / "vault.key"))
    dek, _ = unwrap_dek(vault, read_envelope(root / "custodian" / "sealed"))
    inside = vault._secrets
    found = [
        secret("model key", dek),
        secret("key encryption key", inside.kek),
        secret("signing key", inside.signing),
        secret("publisher key", inside.publisher),
        secret("TLS authority key", inside.tls_authority[-100:]),
        secret("device authority key", inside.device_authority[-100:]),
        secret("vault key file", (root / "custodian" / "vault.key").read_bytes(), "run/custodian/vault.key"),
        secret("admin token", (home / "admin.token").read_bytes().strip(), "run/custodian/home/admin.token"),
    ]
    pem = (home / "tls" / "server.key").read_bytes().splitlines()
    found += [secret("TLS server key", line, "run/custodian/home/tls/server.key") for line in pem[1:3]]
    weights = (root / "custodian" / "digits.onnx").read_bytes()
    windows = [weights[at : at + 32] for at in range(0, len(weights) - 32, 512)]
    return found + [secret("weights", part, "run/custodian/digits.onnx") for part in windows if len(set(part)) > 12]


def borrowers_secrets(root: Path) -> list[Secret]:
    """Return the borrower's token, and the key of the simulated TEE's maker."""
    loan = json.loads((root / "borrower" / "loan.json").read_bytes())
    seed = json.loads((root / "borrower" / "simulated-root.json").read_bytes())
    return [
        secret("borrower's token", loan["token"].encode(), "run/borrower/loan.json"),
        secret("simulated root", seed["seed"].encode(), "run/borrower/simulated-root.json"),
    ]


def consumers_secrets(run: DemoRun) -> list[Secret]:
    """Return the consumer's token, questions, file names and answers."""
    folder = run.root / "consumer"
    token = (folder / "clinic.token").read_bytes().strip()
    found = [secret("consumer's token", token, "run/consumer/clinic.token")]
    for path in sorted(folder.glob("*.png")):
        # The demo's last words name one of its own files in a command to try.
        found.append(secret("file name", path.name.encode(), *CONSUMERS_OWN, "err.txt"))
        found += [secret("pixels", row.tobytes(), *CONSUMERS_OWN) for row in rows_of(path)]
    said = (folder / "commands.log").read_text().split("$ cloister infer")[1:6]
    printed = [json.JSONDecoder().raw_decode(part, part.index("\n{") + 1)[0] for part in said]
    for scores in [*(answer["answers"][0]["outputs"]["probabilities"] for answer in printed), *run.answers]:
        found.append(secret("answer", np.asarray(scores, dtype="<f4").tobytes(), *CONSUMERS_OWN))
        found.append(secret("answer", str(scores[0][0]).encode(), *CONSUMERS_OWN, "answers.json"))
    return found


def rows_of(path: Path) -> list[np.ndarray]:
    """Return the model's input rows of one picture that could not be there by accident."""
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("L").resize((8, 8)), dtype="<f4") * np.float32(16 / 255)
    return [row for row in pixels if (row > 0).sum() > 4]


def places_of(run: DemoRun) -> list[tuple[str, bytes]]:
    """Return every file of the run with its name: folders, temporary files, wire, pages, story."""
    return list(files_below(run.base))


def test_no_secret_is_where_it_does_not_belong(demo_run: DemoRun) -> None:
    places = places_of(demo_run)
    names = {name for name, _ in places}
    assert {
        "err.txt", "pages/enclave-metrics", "pages/custodian-openapi.json-none", "run/borrower/enclave.log",
        "run/borrower/wire-inside-tls.bin", "run/custodian/commands.log", "run/custodian/custodian.log",
        "run/custodian/home/custodian.db", "run/custodian/home/custodian.db-wal",
    } <= names  # fmt: skip
    assert any(name.startswith("pages/process-") for name in names)
    assert not [name for name in names if name.rpartition("/")[2].startswith("core")]
    secrets = custodians_secrets(demo_run.root) + borrowers_secrets(demo_run.root) + consumers_secrets(demo_run)
    assert len(secrets) > 60
    assert [leak for item in secrets for leak in item.leaks(places)] == []


def test_the_search_finds_each_secret_where_it_belongs(demo_run: DemoRun) -> None:
    """A search that finds nothing anywhere is no proof."""
    secrets = custodians_secrets(demo_run.root) + borrowers_secrets(demo_run.root) + consumers_secrets(demo_run)
    places = places_of(demo_run)
    planted = [("planted", b"\x00\x01" + item.needle.value.hex().encode()) for item in secrets]
    for item in secrets:
        assert find([item.needle], [*places, *planted]), item.needle.name
    at_home = {item.needle.name for item in secrets if item.homes and find([item.needle], places)}
    assert at_home >= {
        "admin token", "borrower's token", "consumer's token", "file name", "vault key file", "weights",
        "TLS server key", "simulated root", "answer",
    }  # fmt: skip


def test_the_database_that_was_searched_is_the_one_in_use(demo_run: DemoRun) -> None:
    """What is public of the tokens, their hashes, is in the database or its write-ahead log: both were readable."""
    home = demo_run.root / "custodian" / "home"
    stored = b"".join(path.read_bytes() for path in home.glob("custodian.db*"))
    for token in ("custodian/home/admin.token", "consumer/clinic.token"):
        text = (demo_run.root / token).read_bytes().strip()
        digest = hashlib.sha256(text).digest()
        assert find([Needle(name=token, value=digest)], [("database", stored)])


def test_no_sink_of_the_audit_log_names_a_person_or_holds_a_secret(demo_run: DemoRun) -> None:
    """The log of the whole run in every format: no consumer, no free text, no secret of anybody's."""
    database = demo_run.root / "custodian" / "home" / "custodian.db"
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        lines = [bytes(row[0]) for row in connection.execute("SELECT entry FROM audit ORDER BY idx")]
    assert len(lines) > 20
    sinks = [(name, b"\n".join(made.dump(line) for line in lines)) for name, made in FORMATS.items()]
    secrets = custodians_secrets(demo_run.root) + borrowers_secrets(demo_run.root) + consumers_secrets(demo_run)
    assert [leak for item in secrets for leak in find([item.needle], sinks)] == []
    for name, data in sinks:
        assert b"clinic" not in data.lower(), name
    kinds = {AuditEntry.parse(line).kind.value: AuditEntry.parse(line) for line in lines}
    assert "borrower" in kinds["loan_created"].committed


def test_the_metrics_page_names_nobody(demo_run: DemoRun) -> None:
    page = (demo_run.base / "pages" / "metrics").read_text()
    assert "cloister_units_total" in page
    assert "clinic" not in page
    assert json.loads((demo_run.root / "borrower" / "loan.json").read_bytes())["loan"] not in page


def test_the_recorded_wire_is_the_consumers_own(demo_run: DemoRun) -> None:
    wire = (demo_run.root / "borrower" / "wire-inside-tls.bin").read_bytes()
    assert wire.count(b"POST /.well-known/ohttp-gateway") > 10
    assert Trust.load(demo_run.root / "consumer" / "trust.json").models


RIGHT, WRONG = "canary-passphrase-b1946ac92492d234", "canary-wrong-passphrase-7c6a180b"


def test_a_passphrase_is_never_shown(tmp_path: Path) -> None:
    for text in (RIGHT, WRONG):
        path = tmp_path / text[-8:]
        path.touch(mode=0o600)
        path.write_text(text)
    variables = {**os.environ, "CLOISTER_CUSTODIAN_HOME": str(tmp_path / "home")}
    shown, codes = b"", []
    for verb, text in (("init", RIGHT), ("show", RIGHT), ("show", WRONG), ("serve", WRONG), ("serve", RIGHT)):
        words = ["--port", str(free_port())] if verb == "init" else []
        words += ["--passphrase-file", str(tmp_path / text[-8:])]
        command = [sys.executable, "-m", "cloister", "custodian", verb, *words]
        with subprocess.Popen(  # noqa: S603 - our own words
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            if (verb, text) == ("serve", RIGHT):
                shown += process.stdout.readline()
                time.sleep(0.5)
                shown += Path(f"/proc/{process.pid}/environ").read_bytes()
                process.terminate()
            shown += process.communicate(timeout=60)[0]
            codes.append(process.returncode)
    assert codes == [0, 0, 4, 4, 0]
    places = [("shown", shown), *files_below(tmp_path / "home")]
    assert find([Needle(name="passphrase", value=text.encode()) for text in (RIGHT, WRONG)], places) == []
    assert shown.count(b"cloister explain wrong_key") == 2
