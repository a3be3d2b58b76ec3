"""``cloister attest passport`` against a service that runs: a real attester, a real socket, a proven answer."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cli_kit import ended
from verifier_kit import AUDIENCE, Desk, desk

import vendor_kit
from cloister.attest.ear import SUBMOD
from cloister.attest.parts import parse_parts
from cloister.attest.tokens.jws import Jws
from cloister.testing.vendors.arm import PsaToken
from cloister.verifier.callers import add_caller

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path


class Agent(socketserver.BaseRequestHandler):
    """A trusted application's agent: it answers a challenge with a token of the test kit's device."""

    def handle(self) -> None:
        challenge = b""
        while part := self.request.recv(64):
            challenge += part
        token = replace(PsaToken(nonce=b""), nonce=challenge)
        payload = vendor_kit.psa_device().evidence(token).payload
        self.request.sendall(parse_parts(payload, what="token", caps={"token": 1 << 16})["token"])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "psa.sock"
    with socketserver.UnixStreamServer(str(path), Agent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix:{path}"
        server.shutdown()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Desk]:
    home = tmp_path / "home"
    home.mkdir()
    with desk(home, "psa") as found:
        yield found


def ask(issuer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ended("attest", "passport", issuer, *arguments)


def test_a_machine_gets_its_result_and_keeps_it_to_itself(served: Desk, agent: str, tmp_path: Path) -> None:
    out, key, caller = tmp_path / "result", tmp_path / "key", tmp_path / "caller"
    key.write_bytes(b"a public key")
    caller.write_text(add_caller(served.home / "callers", "one", rng=os.urandom))
    caller.chmod(0o600)
    place = ("--tee", "psa", "--psa", agent, "--out", str(out))
    whom = ("--audience", AUDIENCE, "--policy", "psa", "--data", str(key), "--caller-token-file", str(caller))
    done = ask(served.url, *place, *whom, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tee"] == "psa"
    assert out.stat().st_mode & 0o777 == 0o600
    claims = json.loads(Jws.parse(out.read_bytes().strip(), what="token").payload)
    assert (claims["aud"], claims["sub"][:8]) == (AUDIENCE, "psa:psa:")
    assert "data" in claims["submods"][SUBMOD]["ear_verifier_claims"]["bound_sha256"]
    assert out.read_text().strip() not in done.stdout + done.stderr
    assert ask(served.url, *place).returncode == 2  # it is there already


def test_what_the_service_refuses_is_said_and_nothing_is_written(served: Desk, agent: str, tmp_path: Path) -> None:
    out = tmp_path / "result"
    place = ("--tee", "psa", "--psa", agent, "--out", str(out))
    refused = ask(served.url, *place, "--audience", "evil.example", "--json")
    assert refused.returncode == 4
    assert json.loads(refused.stdout)["error"]["reasons"][0]["code"] == "audience_not_allowed"
    assert ask(served.url, *place, "--policy", "nobody").returncode == 4
    assert ask(served.url, "--tee", "psa", "--psa", f"{agent}.none", "--out", str(out)).returncode == 5
    assert ask("http://127.0.0.1:9", *place).returncode == 5
    assert ask("http://attest.example", *place).returncode == 2
    assert not out.exists()
