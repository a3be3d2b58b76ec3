"""cloister attest collect and detect, and the TEE of enclave commands, over trees, sockets and a software TPM."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import click
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from guest_fakes import FakeNvml, http_service

from cloister.attest.parts import parse_parts
from cloister.attest.software import SoftwareManifest
from cloister.attest.tpm.evidence import TpmEvidence
from cloister.cli import attest_collect, enclave_tee
from cloister.cli.attest_collect import TEES, collect, detect
from cloister.cli.terminal import Verb, run
from cloister.enclave.attesters.machine import Machine
from cloister.enclave.attesters.table import CPU_KINDS, TPM_KINDS
from cloister.errors import Unavailable, UsageError
from cloister.testing.vendors.gce import Instance, SyntheticGoogle, certificate
from cloister.tpm.commands import Tpm
from cloister.tpm.keys import attestation_key
from cloister.tpm.transport import SocketTransport
from swtpm import start_swtpm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NONCE = "00112233445566778899aabbccddeeff" * 2
Shell = "Callable[..., tuple[int, Any, str]]"


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any, str]]:
    """Return a function that runs one command: exit code, JSON, words on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(command: click.Command, *words: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = run(command, [*map(str, words), "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out), captured.err

    return call


@pytest.fixture
def sgx(tmp_path: Path) -> Path:
    """Return the tree of a Gramine enclave."""
    root = tmp_path / "root"
    folder = root / "dev/attestation"
    folder.mkdir(parents=True)
    for name, data in (("attestation_type", b"dcap"), ("user_report_data", b""), ("quote", b"a quote")):
        (folder / name).write_bytes(data)
    return root


def test_kinds_on_the_command_line_are_those_that_have_an_attester() -> None:
    assert list(TEES) == sorted(CPU_KINDS | TPM_KINDS)


def test_evidence_is_collected_from_what_was_detected(shell: Any, sgx: Path, tmp_path: Path) -> None:
    code, said, _ = shell(collect, "--root", sgx, "--nonce", NONCE, "--out", "evidence", "--raw", "raw")
    assert code == 0
    assert said["tee"] == "sgx"
    assert said["why"] == "gramine: hardware tee, nothing else was found"
    assert said["report_data"] == NONCE
    assert said["evidence"] == [
        {"bytes": said["evidence"][0]["bytes"], "out": "evidence", "parts": {"quote": 7}, "tee": "sgx"}
    ]
    written = (sgx / "dev/attestation/user_report_data").read_bytes()
    assert written == bytes.fromhex(NONCE).ljust(64, b"\x00")
    assert (tmp_path / "raw/quote").read_bytes() == b"a quote"
    payload = (tmp_path / "evidence").read_bytes()
    assert parse_parts(payload, what="sgx", caps={"quote": 100}) == {"quote": b"a quote"}


def test_a_nonce_nobody_gave_is_fresh_and_told(shell: Any, sgx: Path) -> None:
    told = {shell(collect, "--root", sgx, "--tee", "sgx", "--out", f"e{index}")[1]["report_data"] for index in (1, 2)}
    assert len(told) == 2
    assert {len(item) for item in told} == {64}


def test_report_data_fill_the_field_exactly(shell: Any, sgx: Path) -> None:
    code, _, _ = shell(collect, "--root", sgx, "--report-data", "ab" * 64, "--out", "e")
    assert code == 0
    assert (sgx / "dev/attestation/user_report_data").read_bytes() == b"\xab" * 64


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("--out", "e", "--report-data", "ab" * 63), "63 bytes, want 64"),
        (("--out", "e", "--nonce", "ab" * 65), "65 bytes, want at most 64"),
        (("--out", "e", "--nonce", "abc"), "even number of hex digits"),
        (("--out", "e", "--nonce", ""), "empty"),
        (("--out", "e", "--nonce", "ab", "--report-data", "ab"), "want one of them"),
        (("--nonce", "ab"), "nothing to write to"),
        (("--out", "root"), "is a directory"),
        (("--out", "e", "--tee", "nonsense"), "nonsense"),
        (("--out", "e", "--tee", "psa"), "place that gives tokens"),
        (("--out", "e", "--tee", "confidential-space"), "audience"),
        (("--out", "e", "--ak-certificate", "missing.pem"), "no certificates in pem"),
    ],
)
def test_wrong_words_are_usage_errors(shell: Any, sgx: Path, words: tuple[str, ...], shown: str) -> None:
    code, said, _ = shell(collect, "--root", sgx, *words)
    assert code == 2
    assert shown in said["error"]["message"]


def test_files_are_not_written_over(shell: Any, sgx: Path, tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"mine")
    assert shell(collect, "--root", sgx, "--out", "e")[0] == 2
    assert (tmp_path / "e").read_bytes() == b"mine"
    assert shell(collect, "--root", sgx, "--out", "e", "--force")[0] == 0
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/quote").write_bytes(b"mine")
    assert shell(collect, "--root", sgx, "--raw", "raw")[0] == 2
    (tmp_path / "file").write_bytes(b"")
    assert shell(collect, "--root", sgx, "--raw", "file/below")[0] == 5


def test_a_machine_without_a_tee_is_unavailable(shell: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, said, _ = shell(collect, "--root", "empty", "--out", "e")
    assert code == 5
    assert "no tee found" in said["error"]["message"]
    code, said, _ = shell(collect, "--root", "empty", "--tee", "nitro", "--out", "e")
    assert code == 5
    assert "/dev/nsm: no such file" in said["error"]["message"]
    assert not (tmp_path / "e").exists()


def test_a_confidential_space_token_is_collected(shell: Any, tmp_path: Path) -> None:
    path = tmp_path / "space/run/container_launcher/teeserver.sock"
    path.parent.mkdir(parents=True)
    with http_service({("POST", "/v1/token"): (200, b"a.b.c")}, socket=path) as service:
        words = ("--root", "space", "--audience", "https://custodian.example", "--nonce", NONCE, "--raw", "raw")
        code, said, _ = shell(collect, *words)
    assert code == 0, said
    assert (tmp_path / "raw/token").read_bytes() == b"a.b.c"
    assert json.loads(service.asked[0][3])["nonces"] == [NONCE]


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Give the machine of the command line this many GPUs."""
    monkeypatch.setattr(
        attest_collect, "machine_at", lambda root, tpm: Machine(root=root, tpm=tpm, nvml=lambda: FakeNvml(count))
    )


def test_gpus_beside_a_cpu_carry_the_same_nonce(
    shell: Any, sgx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 2)
    words = ("--root", sgx, "--gpu", "--report-data", "ab" * 32 + "cd" * 32, "--out", "e", "--raw", "raw")
    code, said, _ = shell(collect, *words)
    assert code == 0
    assert [item["tee"] for item in said["evidence"]] == ["sgx", "nvidia-gpu", "nvidia-gpu"]
    assert [item["out"] for item in said["evidence"]] == ["e", "e.gpu0", "e.gpu1"]
    for index in (0, 1):
        assert (tmp_path / f"raw/gpu{index}/report").read_bytes().endswith(b"\xab" * 32)
        assert (tmp_path / f"e.gpu{index}").exists()


def test_gpus_alone_are_collected_too(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1)
    code, said, _ = shell(collect, "--tee", "nvidia-gpu", "--nonce", NONCE, "--out", "gpu")
    assert code == 0
    assert [item["out"] for item in said["evidence"]] == ["gpu"]
    gpus(monkeypatch, 2)
    _, said, _ = shell(collect, "--tee", "nvidia-gpu", "--nonce", NONCE, "--out", "gpus")
    assert [item["out"] for item in said["evidence"]] == ["gpus.gpu0", "gpus.gpu1"]
    assert shell(collect, "--tee", "nvidia-gpu", "--nonce", NONCE * 2, "--out", "x")[0] == 2
    gpus(monkeypatch, 0)
    assert shell(collect, "--tee", "nvidia-gpu", "--out", "x")[0] == 5


def test_detect_prints_every_interface_and_the_choice(
    shell: Any, sgx: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = shell(detect, "--root", sgx)
    assert code == 0
    assert said["chosen"] == "sgx"
    assert said["why"] == "sgx by gramine: hardware tee, nothing else was found"
    found = {item["interface"]: item for item in said["interfaces"]}
    assert found["gramine"]["strength"] == "hardware tee"
    assert found["/dev/nsm"] == {"interface": "/dev/nsm", "note": "not there", "strength": None, "tee": None}
    assert run(detect, ["--root", str(sgx)]) == 0
    assert "chosen: sgx by gramine" in capsys.readouterr().out


def test_detect_says_why_nothing_was_chosen(shell: Any, sgx: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sgx / "dev/nsm").write_bytes(b"")
    code, said, _ = shell(detect, "--root", sgx)
    assert (code, said["chosen"]) == (2, None)
    assert "several tees of one strength" in said["why"]
    (sgx / "dev/nsm").unlink()
    (sgx / "dev/attestation/attestation_type").write_bytes(b"none")
    code, said, _ = shell(detect, "--root", sgx)
    assert (code, said["chosen"], said["why"]) == (5, None, "no tee found")
    assert run(detect, ["--root", str(sgx)]) == 5
    captured = capsys.readouterr()
    assert "none chosen: no tee found" in captured.out
    assert "hint:" in captured.err


@pytest.mark.tpm
def test_a_tpms_quote_is_collected_with_every_part(shell: Any, tmp_path: Path) -> None:
    google = SyntheticGoogle.generate()
    with start_swtpm(tmp_path) as swtpm:
        with SocketTransport(swtpm.socket) as transport, attestation_key(Tpm(transport)) as (_, public):
            leaf = certificate(public, google.issue(Instance()))  # type: ignore[arg-type]
        (tmp_path / "ak.pem").write_bytes(leaf.x509.public_bytes(Encoding.PEM))
        words = ("--tpm", f"unix:{swtpm.socket}", "--ak-certificate", "ak.pem", "--root", tmp_path / "none")
        code, said, _ = shell(collect, *words, "--nonce", NONCE, "--out", "e", "--raw", "raw")
        assert code == 0, said
        assert said["why"] == "tpm: tpm, nothing else was found"
        assert set(said["evidence"][0]["parts"]) == {"ak_public_tpmt", "chain", "pcrs", "quote", "signature_tpmt"}
        evidence = TpmEvidence.parse((tmp_path / "e").read_bytes())
        assert (tmp_path / "raw/quote").read_bytes() == evidence.attest
        assert evidence.attest.count(bytes.fromhex(NONCE)) == 1
        _enclave_commands_use_it(f"unix:{swtpm.socket}", tmp_path / "ak.pem")


@click.command(cls=Verb)
@enclave_tee.tee_options
def chosen(tee: enclave_tee.Tee) -> None:
    """Keep what the options made of the words."""
    CHOSEN.append(tee)


CHOSEN: list[enclave_tee.Tee] = []
MANIFEST = SoftwareManifest(code="ab" * 32, python="3.11.0", packages={}, settings={})


def tee_of(*words: object) -> enclave_tee.Tee:
    """Return the TEE that an enclave command would use."""
    assert run(chosen, list(map(str, words))) == 0
    return CHOSEN.pop()


def _enclave_commands_use_it(tpm: str, certificates: Path) -> None:
    for kind in ("tpm", "auto"):
        tee = tee_of("--tee", kind, "--tpm", tpm, "--ak-certificate", certificates)
        attester = enclave_tee.attester_for(tee, MANIFEST)
        evidence = TpmEvidence.parse(attester.collect(bytes(32)).payload)
        assert evidence.software == hashlib.sha256(MANIFEST.dump()).digest()
        attester._tpm._transport.close()  # type: ignore[attr-defined]
        policy = enclave_tee.policy_for(tee, MANIFEST, version=3)
        assert [str(item) for item in policy.tees] == ["tpm"]


def test_enclave_commands_take_every_kind(tmp_path: Path) -> None:
    for kind in sorted(CPU_KINDS):
        tee = tee_of("--tee", kind, "--audience", "a", "--psa", tmp_path / "token")
        assert not tee.is_simulated
        assert enclave_tee.attester_for(tee, MANIFEST).tee == kind
        with pytest.raises(UsageError, match=f"--tee {kind}"):
            enclave_tee.policy_for(tee, MANIFEST, version=1)
    for kind in sorted(TPM_KINDS - {"tpm"}):
        with pytest.raises(Unavailable, match="cannot open"):
            enclave_tee.attester_for(tee_of("--tee", kind, "--tpm", tmp_path / "none"), MANIFEST)
    with pytest.raises(UsageError, match="want --ak-certificate"):
        enclave_tee.attester_for(tee_of(), MANIFEST)


def test_a_simulated_tee_is_never_chosen_and_wants_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(chosen, ["--tee", "simulated"]) == 2
    assert "--insecure-simulated-root" in capsys.readouterr().err
    assert "simulated" not in TEES
