"""``cloister attest serve`` and what goes with it as processes, from an empty folder to a token that is believed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from cli_kit import ended

from cloister.attest.binding import ServiceBinding
from cloister.attest.software import SoftwareManifest
from cloister.testing.ports import free_port
from cloister.testing.simulated import SimulatedAttester, simulated_policy
from cloister.testing.simulated_root import SimulatedRoot
from cloister.wire import dump_b64u, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = SoftwareManifest(code="11" * 32, python="3.13", packages={}, settings={})


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return ended("attest", *arguments, stdin=stdin)


class Served:
    """A service that runs as a process, in a folder that its own commands made."""

    def __init__(self, folder: Path) -> None:
        self.home, self.root = folder / "home", SimulatedRoot.generate()
        self.issuer = f"http://127.0.0.1:{free_port()}"
        made = run("setup", "--home", str(self.home), "--issuer", self.issuer)
        assert made.returncode == 0, made.stderr
        self.root.save(folder / "root.json")
        (self.home / "policy.json").write_bytes(simulated_policy(MANIFEST).dump())
        settings = self.home / "service.toml"
        text = settings.read_text().replace('# listen = "127.0.0.1:8490"', f'listen = "{self.issuer[7:]}"')
        extra = '[policies.simulated]\nfile = "policy.json"\naudiences = ["me"]\nleast_tier = "warning"\n'
        settings.write_text(text.replace("# [policies.enclaves]", extra))
        self.token = run("caller", "tester", "--home", str(self.home)).stdout.strip()
        ready = folder / "ready.json"
        arguments = ["serve", "--home", str(self.home), "--ready-file", str(ready)]
        arguments += ["--insecure-simulated-root", str(folder / "root.json")]
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "cloister", "attest", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        end = time.monotonic() + 60
        while not ready.exists() and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert ready.exists(), self.process.communicate(timeout=10)
        assert json.loads(ready.read_text()) == {"address": self.issuer, "issuer": self.issuer}

    def post(self, path: str, body: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        content = json.dumps(body).encode() if body else b""
        return httpx2.post(self.issuer + path, content=content, headers=headers, trust_env=False)

    def attest(self, **more: Any) -> str:
        nonce = parse_b64u(self.post("/v1/challenge", None).json()["nonce"], what="nonce")
        attester = SimulatedAttester(self.root, MANIFEST, b"c" * 32)
        evidence = attester.collect(ServiceBinding(nonce=nonce).field(64))
        said = {"payload": dump_b64u(evidence.payload), "tee": "simulated"}
        answer = self.post("/v1/attest", {"evidence": said, "nonce": dump_b64u(nonce), "policy": "simulated", **more})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    def end(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path)
    yield found
    if found.process.poll() is None:
        found.end()


def test_from_an_empty_folder_to_a_token_that_is_believed(served: Served, tmp_path: Path) -> None:
    token = served.attest(audience="me", detail="full")
    believed = run("token", "verify", served.issuer, "--audience", "me", "--json", stdin=token)
    assert believed.returncode == 0, believed.stderr
    assert json.loads(believed.stdout)["status"] == "warning"
    drawn = run("token", "verify", served.issuer, "--audience", "me", stdin=token)
    assert "says warning of simulated" in drawn.stdout
    keys = tmp_path / "keys.json"
    keys.write_bytes(httpx2.get(f"{served.issuer}/.well-known/jwks.json", trust_env=False).content)
    path = tmp_path / "token"
    path.write_text(token + "\n")
    offline = run("token", "verify", served.issuer, "--jwks", str(keys), "--token-file", str(path), "--audience", "me")
    assert offline.returncode == 0, offline.stderr
    other = run("token", "verify", served.issuer, "--jwks", str(keys), "--audience", "you", "--json", stdin=token)
    assert other.returncode == 4
    assert json.loads(other.stdout)["error"]["reasons"][0]["code"] == "audience_mismatch"
    loud = run("token", "verify", served.issuer, "--jwks", str(keys), stdin=token)
    assert loud.returncode == 0
    assert "may be for somebody else" in loud.stderr

    rotated = run("rotate", "--home", str(served.home), "--json")
    assert len(json.loads(rotated.stdout)["keys"]) == 2
    assert len(httpx2.get(f"{served.issuer}/.well-known/jwks.json", trust_env=False).json()["keys"]) == 2
    incident = run("rotate", "--home", str(served.home), "--incident")
    assert incident.returncode == 0
    refused = run("token", "verify", served.issuer, "--audience", "me", stdin=token)
    assert refused.returncode == 4
    assert "unknown_key" in refused.stderr
    code, out, err = served.end()
    assert (code, out) == (0, f"listening on {served.issuer}\nissuer {served.issuer}\n")
    assert served.token not in out + err


def test_a_second_caller_of_the_same_name_and_a_second_home_are_refused(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    assert run("setup", "--home", home, "--issuer", "https://attest.example").returncode == 0
    assert run("setup", "--home", home, "--issuer", "https://attest.example").returncode == 2
    out = tmp_path / "token"
    first = run("caller", "one", "--home", home, "--out", str(out))
    assert (first.returncode, first.stdout) == (0, f"token in {out}\n")
    assert out.stat().st_mode & 0o777 == 0o600
    assert run("caller", "one", "--home", home).returncode == 2
    assert run("caller", "a b", "--home", home).returncode == 2


def test_a_caller_of_a_service_inside_a_custodian_is_in_the_file_that_its_settings_name(tmp_path: Path) -> None:
    text = '[service]\nissuer = "https://lend.example/t/acme/attest"\ncallers = "who"\n'
    (tmp_path / "attest.toml").write_text(text)
    token = run("caller", "one", "--home", str(tmp_path)).stdout.strip()
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert (tmp_path / "who").read_text() == f"one {digest}\n"


@pytest.mark.parametrize(
    ("issuer", "extra"),
    [
        ("http://attest.example", ""),
        ("https://attest.example/", ""),
        ("https://u:p@attest.example", ""),
        ("https://attest.example?x=1", ""),
        ("https://attest.example", 'listen = "0.0.0.0:0"'),
        ("https://attest.example", 'algorithm = "none"'),
        ("https://attest.example", 'default_policy = "nobody"'),
        ("https://attest.example", "token_ttl_s = 86400"),
        ("https://attest.example", "unknown = 1"),
        ("https://attest.example", "open = 1"),
        ("https://attest.example", 'tls_key = "x"'),
        ("https://attest.example", "key_life_s = 86400\nkey_ahead_s = 86400"),
        ("https://attest.example", '[policies."A B"]\nfile = "x"'),
        ("https://attest.example", '[policies.a]\naudiences = ["x"]'),
        ("https://attest.example", '[policies.a]\nfile = "/nonexistent"'),
        ("https://attest.example", "[policies"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_start(tmp_path: Path, issuer: str, extra: str) -> None:
    (tmp_path / "service.toml").write_text(f'[service]\nissuer = "{issuer}"\n{extra}\n')
    ended = run("serve", "--home", str(tmp_path))
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "service.toml").write_text('[service]\nissuer = "https://attest.example"\n')
    assert run("rotate", "--home", str(tmp_path)).returncode == 0
    (tmp_path / "signing-keys.json").chmod(0o644)
    ended = run("serve", "--home", str(tmp_path))
    assert ended.returncode == 2
    assert "chmod 600" in ended.stderr


@pytest.mark.parametrize("text", ["", "a.b.c", "x" * 600_000, "\xff"])
def test_a_token_that_is_none(tmp_path: Path, text: str) -> None:
    keys = tmp_path / "keys"
    key = {"crv": "Ed25519", "kty": "OKP", "x": dump_b64u(os.urandom(32))}
    keys.write_text(json.dumps({"keys": [key]}))
    ended = run("token", "verify", "https://attest.example", "--jwks", str(keys), stdin=text)
    assert ended.returncode in {2, 3}, ended.stderr
