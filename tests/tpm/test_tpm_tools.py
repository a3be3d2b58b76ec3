"""Cross-checks with tpm2-tools, an independent implementation: what one makes, the other opens."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.chain import parse_certificates
from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.credential import Credential, make_credential
from cloister.attest.tpm.eventlog import EventLog, replay
from cloister.attest.tpm.policy import pcr_policy
from cloister.attest.tpm.quote import verify_attestation_key, verify_pcrs, verify_signature
from cloister.attest.tpm.structures import Public, parse_signature
from cloister.tpm.commands import Tpm
from cloister.tpm.keys import AkKind, EkKind, activate, attestation_key, ek_certificate, endorsement_key
from cloister.tpm.transport import SocketTransport
from swtpm import start_swtpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swtpm import Swtpm

pytestmark = [
    pytest.mark.tpm,
    pytest.mark.skipif(shutil.which("tpm2_quote") is None, reason="tpm2-tools is not installed"),
]
EVIDENCE = Path(os.environ.get("CLOISTER_EVIDENCE") or Path(__file__).parents[3] / "shared" / "evidence")
LOG = EVIDENCE / "tpm" / "gce-cos-85-nonce9009.eventlog.bin"
NONCE = hashlib.sha256(b"nonce").digest()
BRIDGE = """
import os, socket, sys
tpm = socket.socket(socket.AF_UNIX); tpm.connect(sys.argv[1])
while command := os.read(0, 4096):
    tpm.sendall(command)
    answer = tpm.recv(10, socket.MSG_WAITALL)
    os.write(1, answer + tpm.recv(int.from_bytes(answer[2:6], "big") - 10, socket.MSG_WAITALL))
"""
Tool = "Callable[..., str]"


@pytest.fixture(scope="module")
def swtpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with start_swtpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture
def tool(swtpm: Swtpm, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs one of tpm2-tools on the same TPM, in a scratch folder."""
    bridge = tmp_path / "bridge.py"
    bridge.write_text(BRIDGE)
    environment = os.environ | {"TPM2TOOLS_TCTI": f"cmd:{sys.executable} {bridge} {swtpm.socket}"}

    def run(name: str, *arguments: str, flush: bool = True) -> str:
        if flush:  # these tools leave their transient objects behind
            for option in ("-t", "-l", "-s"):
                subprocess.run(["tpm2_flushcontext", option], env=environment, check=True, timeout=60)  # noqa: S603, S607
        done = subprocess.run(  # noqa: S603
            [f"tpm2_{name}", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def offline(tmp_path: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [f"tpm2_{name}", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("ak", AkKind)
def test_tpm2_checkquote_accepts_our_quotes(swtpm: Swtpm, tmp_path: Path, ak: AkKind) -> None:
    with SocketTransport(swtpm.socket) as transport:
        tpm = Tpm(transport)
        with attestation_key(tpm, ak) as (handle, public):
            attest, signature = tpm.quote(handle, extra=NONCE, pcrs=(0, 7, 23))
    pem = public.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, data in (("ak.pem", pem), ("quote", attest), ("signature", signature)):
        (tmp_path / name).write_bytes(data)
    arguments = ("-u", "ak.pem", "-m", "quote", "-s", "signature", "-g", "sha256", "-q")
    assert offline(tmp_path, "checkquote", *arguments, NONCE.hex()).returncode == 0
    assert offline(tmp_path, "checkquote", *arguments, bytes(32).hex()).returncode != 0


@pytest.mark.parametrize("algorithm", ["rsa", "ecc"])
def test_quotes_of_tpm2_tools_hold(tool: Callable[..., str], tmp_path: Path, algorithm: str) -> None:
    tool("createek", "-c", "ek.ctx", "-G", "rsa")
    scheme = "rsassa" if algorithm == "rsa" else "ecdsa"
    key = ("-C", "ek.ctx", "-c", "ak.ctx", "-G", algorithm, "-g", "sha256", "-s", scheme, "-u", "ak.pub")
    tool("createak", *key, "-f", "tpmt", "-n", "ak.name")
    tool("quote", "-c", "ak.ctx", "-l", "sha256:0,7,23", "-q", NONCE.hex(), "-m", "quote", "-s", "signature")
    ak = Public.parse(tpmt(tmp_path / "ak.pub"))
    assert ak.name == (tmp_path / "ak.name").read_bytes()
    verify_attestation_key(ak)
    signature = parse_signature((tmp_path / "signature").read_bytes())
    quote = verify_signature((tmp_path / "quote").read_bytes(), signature, ak)
    assert quote.extra_data == NONCE
    read = tool("pcrread", "sha256:0,7,23")
    pcrs = {int(index): bytes.fromhex(value) for index, value in re.findall(r"(\d+) *: 0x([0-9A-F]{64})", read)}
    verify_pcrs(quote, Alg.SHA256, pcrs)


def test_our_credentials_are_activated_by_tpm2_tools(tool: Callable[..., str], tmp_path: Path) -> None:
    tool("createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub", "-f", "tpmt")
    tool("createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-n", "ak.name")
    ek = Public.parse(tpmt(tmp_path / "ek.pub"))
    secret = os.urandom(32)
    made = make_credential(ek, (tmp_path / "ak.name").read_bytes(), secret, rng=os.urandom)
    blob = bytes.fromhex("badcc0de00000001")  # the header of this tool's files
    blob += len(made.id_object).to_bytes(2, "big") + made.id_object
    blob += len(made.encrypted_secret).to_bytes(2, "big") + made.encrypted_secret
    (tmp_path / "credential").write_bytes(blob)
    tool("startauthsession", "--policy-session", "-S", "session")
    tool("policysecret", "-S", "session", "-c", "e", flush=False)
    tool(
        "activatecredential", "-c", "ak.ctx", "-C", "ek.ctx",
        "-i", "credential", "-o", "secret", "-P", "session:session", flush=False,
    )  # fmt: skip
    assert (tmp_path / "secret").read_bytes() == secret
    tool("flushcontext", "-s")


def tpmt(path: Path) -> bytes:
    """Return a TPMT_PUBLIC from a file that may hold a TPM2B."""
    data = path.read_bytes()
    return data[2:] if int.from_bytes(data[:2], "big") == len(data) - 2 else data


@pytest.mark.parametrize("kind", [EkKind.RSA_2048, EkKind.ECC_P256])
def test_credentials_of_tpm2_tools_are_activated_by_us(swtpm: Swtpm, tmp_path: Path, kind: EkKind) -> None:
    secret = os.urandom(32)
    (tmp_path / "secret").write_bytes(secret)
    with SocketTransport(swtpm.socket) as transport:
        tpm = Tpm(transport)
        with endorsement_key(tpm, kind) as ek, attestation_key(tpm) as (handle, public):
            (tmp_path / "ek.pem").write_bytes(
                ek.public.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            )
            algorithm = "rsa" if kind is EkKind.RSA_2048 else "ecc"
            done = offline(
                tmp_path, "makecredential", "-T", "none", "-u", "ek.pem", "-G", algorithm,
                "-s", "secret", "-n", public.name.hex(), "-o", "credential",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            blob = (tmp_path / "credential").read_bytes()[8:]
            size = int.from_bytes(blob[:2], "big")
            credential = Credential(id_object=blob[2 : 2 + size], encrypted_secret=blob[4 + size :])
            assert activate(tpm, handle, ek, credential) == secret


def test_tpm2_policypcr_arrives_at_our_digest(tool: Callable[..., str], swtpm: Swtpm, tmp_path: Path) -> None:
    tool("startauthsession", "-S", "session")
    tool("policypcr", "-S", "session", "-l", "sha256:0,4,7,23", "-L", "policy", flush=False)
    tool("flushcontext", "session", flush=False)
    with SocketTransport(swtpm.socket) as transport:
        pcrs = Tpm(transport).pcr_read((0, 4, 7, 23))
    assert (tmp_path / "policy").read_bytes() == pcr_policy(pcrs)


def test_tpm2_nvread_reads_the_certificate_we_read(tool: Callable[..., str], swtpm: Swtpm, tmp_path: Path) -> None:
    tool("nvread", "0x1c00002", "-o", "ek.der")
    with SocketTransport(swtpm.socket) as transport:
        ours = ek_certificate(Tpm(transport), EkKind.RSA_2048)
    assert (tmp_path / "ek.der").read_bytes() == ours
    assert parse_certificates(ours)[0].der == ours


@pytest.mark.skipif(not LOG.exists(), reason="recorded evidence is not beside the checkout: set CLOISTER_EVIDENCE")
def test_tpm2_eventlog_replays_as_we_do(tmp_path: Path) -> None:
    done = offline(tmp_path, "eventlog", str(LOG))
    assert done.returncode == 0, done.stderr
    bank = done.stdout[done.stdout.rindex("sha256:") :]
    theirs = {int(index): value for index, value in re.findall(r"(\d+) *: 0x([0-9a-f]{64})\b", bank)}
    ours = {index: value.hex() for index, value in replay(EventLog.parse(LOG.read_bytes())).items()}
    assert ours == theirs, json.dumps([ours, theirs])
