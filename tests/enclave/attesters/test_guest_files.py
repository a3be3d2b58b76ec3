"""Gramine's files, tokens from sockets and launchers, and Azure's metadata service over real HTTP."""

from __future__ import annotations

import errno
import http.client
import json
import socket
import socketserver
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest_fakes import Service, failed, http_service, serving

from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind
from cloister.enclave.attesters.confidential_space import TEESERVER, ConfidentialSpaceAttester
from cloister.enclave.attesters.files import LocalFiles
from cloister.enclave.attesters.gramine import ATTESTATION, MAX_QUOTE_BYTES, GramineAttester
from cloister.enclave.attesters.imds import MAX_CERTIFICATES_BYTES, td_quote, vcek_certificates
from cloister.enclave.attesters.local_http import HostService, SocketService
from cloister.enclave.attesters.psa_source import MAX_TOKEN_BYTES, PsaAttester
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.enclave.attesters import Attester

DATA, CHALLENGE, NONCE = bytes(range(64)), bytes(range(64)), bytes(range(32))
CAPS = {"quote": 1 << 16, "token": 1 << 16}
TOKEN = b"eyJh.eyJi.c2ln"
TDREPORT = bytes(range(256)) * 4


def part(attester: Attester, data: bytes) -> bytes:
    evidence = attester.collect(data)
    assert evidence.tee == attester.tee
    (found,) = parse_parts(evidence.payload, what="evidence", caps=CAPS).values()
    return found


class Gramine(LocalFiles):
    """The library OS: a quote is made of what was written last."""

    def read(self, path: str, *, cap: int) -> bytes:
        data = super().read(path, cap=cap)
        return data + super().read(f"{ATTESTATION}/user_report_data", cap=64) if path.endswith("/quote") else data


@pytest.fixture
def gramine(tmp_path: Path) -> Path:
    folder = tmp_path / ATTESTATION
    folder.mkdir(parents=True)
    for name, data in (("attestation_type", b"dcap"), ("user_report_data", bytes(64)), ("quote", b"quote over ")):
        (folder / name).write_bytes(data)
    return tmp_path


def test_a_gramine_quote_is_over_the_data_that_were_written(gramine: Path) -> None:
    attester = GramineAttester(Gramine(gramine))
    assert part(attester, DATA) == b"quote over " + DATA
    assert part(attester, DATA[::-1]) == b"quote over " + DATA[::-1]
    assert attester.tee == TeeKind("sgx")


@pytest.mark.parametrize("kind", [b"none", b"epid", b"", b"dcap2", b"\xff"])
def test_gramine_without_dcap_is_unavailable_and_says_what_to_set(gramine: Path, kind: bytes) -> None:
    (gramine / ATTESTATION / "attestation_type").write_bytes(kind)
    with pytest.raises(Unavailable, match="want 'dcap'") as refused:
        GramineAttester(LocalFiles(gramine)).collect(DATA)
    assert "sgx.remote_attestation" in (refused.value.hint or "")


def test_a_gramine_quote_that_is_empty_or_endless_is_none(gramine: Path) -> None:
    quote = gramine / ATTESTATION / "quote"
    quote.write_bytes(b"")
    with pytest.raises(Unavailable, match="empty"):
        GramineAttester(LocalFiles(gramine)).collect(DATA)
    quote.write_bytes(bytes(MAX_QUOTE_BYTES + 1))
    with pytest.raises(Malformed, match="more than"):
        GramineAttester(LocalFiles(gramine)).collect(DATA)


@pytest.mark.parametrize("name", ["attestation_type", "user_report_data", "quote"])
def test_a_file_of_gramine_that_is_missing_is_unavailable(gramine: Path, name: str) -> None:
    (gramine / ATTESTATION / name).unlink()
    with pytest.raises(Unavailable, match=f"/{ATTESTATION}/{name}"):
        GramineAttester(LocalFiles(gramine)).collect(DATA)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_write_that_gramine_refuses_is_unavailable(gramine: Path, number: int) -> None:
    class Refusing(LocalFiles):
        def write(self, *_: object) -> None:
            raise failed(number)

    with pytest.raises(Unavailable, match="cannot write"):
        GramineAttester(Refusing(gramine)).collect(DATA)


@contextmanager
def launcher(tmp_path: Path, status: int, answer: bytes) -> Iterator[tuple[ConfidentialSpaceAttester, Service]]:
    path = tmp_path / TEESERVER
    path.parent.mkdir(parents=True)
    with http_service({("POST", "/v1/token"): (status, answer)}, socket=path) as service:
        yield ConfidentialSpaceAttester(SocketService(path), audience="https://custodian.example"), service


def test_a_confidential_space_token_is_asked_for_over_the_launchers_socket(tmp_path: Path) -> None:
    with launcher(tmp_path, 200, TOKEN + b"\n") as (attester, service):
        assert part(attester, NONCE) == TOKEN
        method, path, headers, body = service.asked[0]
        assert (method, path, headers["content-type"]) == ("POST", "/v1/token", "application/json")
        assert json.loads(body) == {
            "audience": "https://custodian.example",
            "nonces": [NONCE.hex()],
            "token_type": "PKI",
        }
        assert 10 <= len(NONCE.hex()) <= 74  # what the service takes as a nonce


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (400, b"audience?", Rejected),
        (404, b"", Rejected),
        (302, b"", Rejected),
        (429, b"slow down", Unavailable),
        (500, b"", Unavailable),
        (503, b"", Unavailable),
        (200, b"no token", Malformed),
        (200, b"", Malformed),
        (200, TOKEN + b"\x1b[2J", Malformed),
        (200, b"a" * (64 * 1024 + 1), Malformed),
    ],
)
def test_answers_of_a_launcher_that_are_no_token(
    tmp_path: Path, status: int, answer: bytes, error: type[CloisterError]
) -> None:
    with launcher(tmp_path, status, answer) as (attester, _), pytest.raises(error) as refused:
        attester.collect(NONCE)
    if isinstance(refused.value, Rejected):
        assert refused.value.code == "tee_refused"
        assert f"status {status}" in str(refused.value)


def test_no_launcher_is_unavailable(tmp_path: Path) -> None:
    attester = ConfidentialSpaceAttester(SocketService(tmp_path / "none"), audience="a")
    with pytest.raises(Unavailable, match="no such file"):
        attester.collect(NONCE)


@pytest.mark.parametrize("audience", ["", "a" * 513, "a\n"])
def test_a_token_for_nobody_is_not_asked_for(audience: str) -> None:
    with pytest.raises(UsageError, match="audience"):
        ConfidentialSpaceAttester(SocketService(Path("none")), audience=audience)


class Agent(socketserver.BaseRequestHandler):
    """A trusted application's agent: it reads the challenge to its end and answers with a token around it."""

    answer = b"token over "
    bare = False

    def handle(self) -> None:
        challenge = b""
        while part := self.request.recv(64):
            challenge += part
        self.request.sendall(self.answer + (b"" if self.bare else challenge))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[str, type[Agent]]]:
    handler = type("Handler", (Agent,), {})
    path = tmp_path / "psa.sock"
    with serving(socketserver.UnixStreamServer(str(path), handler)):
        yield f"unix:{path}", handler


def test_a_psa_token_comes_from_a_socket(agent: tuple[str, type[Agent]]) -> None:
    assert part(PsaAttester(agent[0]), CHALLENGE) == b"token over " + CHALLENGE


def test_a_psa_token_of_another_challenge_is_noticed(agent: tuple[str, type[Agent]]) -> None:
    agent[1].bare = True
    with pytest.raises(Unavailable, match="not for this challenge"):
        PsaAttester(agent[0]).collect(CHALLENGE)


def test_a_psa_token_without_end_is_malformed(agent: tuple[str, type[Agent]]) -> None:
    agent[1].answer = bytes(MAX_TOKEN_BYTES + 1)
    with pytest.raises(Malformed, match="more than"):
        PsaAttester(agent[0]).collect(CHALLENGE)


def test_no_agent_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no such file"):
        PsaAttester(f"unix:{tmp_path}/none").collect(CHALLENGE)


def test_a_psa_token_comes_from_a_file_that_was_written_for_the_challenge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_bytes(b"file " + CHALLENGE)
    assert part(PsaAttester(str(tmp_path / "token")), CHALLENGE) == b"file " + CHALLENGE
    monkeypatch.chdir(tmp_path)
    assert part(PsaAttester("token"), CHALLENGE) == b"file " + CHALLENGE
    with pytest.raises(Unavailable, match="not for this challenge"):
        PsaAttester("token").collect(bytes(64))
    with pytest.raises(Unavailable, match="no such file"):
        PsaAttester("missing").collect(CHALLENGE)
    (tmp_path / "token").write_bytes(CHALLENGE + bytes(MAX_TOKEN_BYTES))
    with pytest.raises(Malformed, match="more than"):
        PsaAttester("token").collect(CHALLENGE)


def test_report_data_of_another_size_are_refused() -> None:
    for size in (0, 31, 33, 64):
        with pytest.raises(UsageError, match="want 32"):
            ConfidentialSpaceAttester(SocketService(Path("x")), audience="a").collect(bytes(size))
    for size in (0, 32, 63, 65):
        for attester in (GramineAttester(LocalFiles()), PsaAttester("x")):
            with pytest.raises(UsageError, match="want 64"):
                attester.collect(bytes(size))


def test_a_td_quote_is_asked_for_as_azure_wants_it() -> None:
    answer = json.dumps({"quote": "cXVvdGU="}).encode()
    with http_service({("POST", "/acc/tdquote"): (200, answer)}) as service:
        assert td_quote(HostService("127.0.0.1", service.port), TDREPORT) == b"quote"
        method, path, headers, body = service.asked[0]
    assert (method, path, headers["content-type"]) == ("POST", "/acc/tdquote", "application/json")
    report = json.loads(body)["report"]
    assert report.startswith("AAECAwQF")
    assert len(report) == 1366  # base64url without padding
    assert not set(report) & set("+/=")


def test_the_certificates_of_an_snp_chip_come_from_azure() -> None:
    answer = json.dumps({"vcekCert": "leaf\n", "certificateChain": "above\n", "tcbm": "DB", "cacheControl": 86400})
    with http_service({("GET", "/metadata/THIM/amd/certification"): (200, answer.encode())}) as service:
        assert vcek_certificates(HostService("127.0.0.1", service.port)) == (b"leaf\n", b"above\n")
        _, _, headers, body = service.asked[0]
    assert headers["metadata"] == "true"
    assert not body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"quote": 7}',
        b'{"quote": "?"}',
        b'{"quote": "A", "quote": "A"}',
        json.dumps({"quote": "A" * 45000}).encode(),
        b"x" * (64 * 1024 + 1),
    ],
)
def test_answers_that_are_no_td_quote_are_malformed(answer: bytes) -> None:
    with http_service({("POST", "/acc/tdquote"): (200, answer)}) as service, pytest.raises(Malformed):
        td_quote(HostService("127.0.0.1", service.port), TDREPORT)


@pytest.mark.parametrize(
    "answer",
    [
        {"vcekCert": "leaf"},
        {"certificateChain": "above"},
        {"vcekCert": 7, "certificateChain": "above"},
        {"vcekCert": "l\u00e9af", "certificateChain": "above"},
        {"vcekCert": "x" * (MAX_CERTIFICATES_BYTES + 1), "certificateChain": "above"},
    ],
)
def test_answers_that_are_no_certificates_are_malformed(answer: dict[str, object]) -> None:
    path = ("GET", "/metadata/THIM/amd/certification")
    with http_service({path: (200, json.dumps(answer).encode())}) as service, pytest.raises(Malformed):
        vcek_certificates(HostService("127.0.0.1", service.port))


def test_a_metadata_service_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def babble() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"SSH-2.0-nothing\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(Malformed, match="no http"):
            td_quote(HostService("127.0.0.1", port), TDREPORT)
        thread.join()
    with pytest.raises(Unavailable, match="no answer: connection refused"):
        td_quote(HostService("127.0.0.1", port), TDREPORT)

    def slow(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(http.client.HTTPConnection, "connect", slow)
    with pytest.raises(Unavailable, match="timeout"):
        td_quote(HostService("127.0.0.1", port), TDREPORT)
