"""``cloister reference``: values computed from what is deployed, signed, and made rules that evidence satisfies."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from evidence_kit import HOSTILE, Sample, hostile

from cloister.attest.amd.launch import Launch, launch_digest
from cloister.attest.policy import Policy
from cloister.attest.reference import ReferenceValues
from cloister.attest.tpm.predict import predict_pcr4, predict_pcr9, predict_pcr11
from cloister.testing.vendors.amd.firmware import synthetic_firmware
from cloister.testing.vendors.intel.bodies import EnclaveBody
from cloister.testing.vendors.intel.sigstructs import make_key, sigstruct
from cloister.wire import dump_json

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Shell

NAMED = ("--name", "model server 3")


def made(shell: Shell, *words: str | Path, out: str = "values.json") -> dict[str, Any]:
    """Make a set, return its claims by TEE; the file has what was shown."""
    shown = shell.ok("reference", *words, *NAMED, "--out", out, "--force")
    values = ReferenceValues.parse((shell.folder / out).read_bytes())
    assert json.loads(values.dump()) == shown
    assert values.name == "model server 3"
    assert values.version == 1
    return shown


def image(sections: dict[str, bytes]) -> bytes:
    """Return a PE image with these sections, as small as one can be."""
    at = 64 + 24 + 240
    offset = -(-(at + 40 * len(sections)) // 16) * 16
    table, bodies = b"", b""
    for name, data in sections.items():
        raw = data.ljust(-(-len(data) // 16) * 16, b"\x00")
        table += struct.pack("<8sIIII16x", name.encode(), len(data), 0, len(raw), offset + len(bodies))
        bodies += raw
    optional = struct.pack("<H58xI", 0x20B, offset).ljust(108, b"\x00") + struct.pack("<I", 16) + bytes(128)
    coff = struct.pack("<HH12xHH", 0x8664, len(sections), len(optional), 0x22)
    head = b"MZ".ljust(60, b"\x00") + struct.pack("<I", 64) + b"PE\x00\x00" + coff + optional + table
    return head.ljust(offset, b"\x00") + bodies


def test_the_launch_digest_of_an_snp_guest(shell: Shell) -> None:
    files = {"kernel": b"kernel", "initrd": b"initrd", "firmware": synthetic_firmware()}
    for name, data in files.items():
        (shell.folder / name).write_bytes(data)
    words = ["snp", "--firmware", "firmware", "--vcpus", "2", "--vcpu-type", "EPYC-Milan"]
    launch = Launch(firmware=files["firmware"], vcpus=2, vcpu_type="EPYC-Milan")
    found = made(shell, *words)
    assert found["tees"] == {"snp": {"measurement": [launch_digest(launch).hex()]}}
    assert found["inputs"]["firmware"] == hashlib.sha256(files["firmware"]).hexdigest()
    assert found["inputs"]["vcpus"] == "2"
    direct = Launch(
        firmware=files["firmware"],
        vcpus=2,
        vcpu_type="EPYC-Milan",
        kernel=b"kernel",
        initrd=b"initrd",
        cmdline="quiet",
        guest_features=0x21,
        hypervisor="ec2",
    )
    words += ["--kernel", "kernel", "--initrd", "initrd", "--append", "quiet", "--guest-features", "0x21", "--hypervisor", "ec2"]  # fmt: skip # noqa: E501
    found = made(shell, *words)
    assert found["tees"] == {"snp": {"measurement": [launch_digest(direct).hex()]}}
    assert found["inputs"]["append"] == "quiet"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--firmware", "firmware", "--vcpus", "0"), 2),
        (("--firmware", "firmware", "--vcpus", "1", "--vcpu-type", "Pentium"), 2),
        (("--firmware", "firmware", "--vcpus", "1", "--guest-features", "many"), 2),
        (("--firmware", "firmware", "--vcpus", "1", "--append", "quiet"), 2),
        (("--firmware", "firmware", "--vcpus", "1", "--hypervisor", "own"), 2),
        (("--firmware", "odd", "--vcpus", "1"), 2),
        (("--firmware", "zeros", "--vcpus", "1"), 3),
    ],
)
def test_a_launch_that_nobody_makes_is_refused(shell: Shell, words: tuple[str, ...], code: int) -> None:
    (shell.folder / "firmware").write_bytes(synthetic_firmware())
    (shell.folder / "odd").write_bytes(b"x" * 4097)
    (shell.folder / "zeros").write_bytes(bytes(8192))
    said = shell("reference", "snp", *words, *NAMED, "--out", "values.json", "--json")
    assert said.code == code, said
    assert said.json["error"]["exit_code"] == code
    assert not (shell.folder / "values.json").exists()


def test_a_long_command_line_is_recorded_by_its_digest(shell: Shell) -> None:
    for name, data in {"kernel": b"kernel", "firmware": synthetic_firmware()}.items():
        (shell.folder / name).write_bytes(data)
    for text in ("a=b " * 200, "tab\there"):
        words = ("snp", "--firmware", "firmware", "--vcpus", "1", "--kernel", "kernel", "--append", text)
        assert made(shell, *words)["inputs"]["append"] == hashlib.sha256(text.encode()).hexdigest()


def test_pcrs_of_a_unified_kernel_image(shell: Shell) -> None:
    kernel = image({".text": b"kernel"})
    sections = {".linux": kernel, ".cmdline": b"quiet\n\x00junk", ".initrd": b"initrd", ".osrel": b"ID=x\n"}
    whole, loader = image(sections), image({".text": b"loader"})
    for name, data in {"uki": whole, "loader": loader}.items():
        (shell.folder / name).write_bytes(data)
    found = made(shell, "uki", "--image", "uki", "--loader", "loader", "--tee", "gce-vtpm")["tees"]["gce-vtpm"]
    assert found == {
        "pcr.11": [predict_pcr11(sections).hex()],
        "pcr.4": [predict_pcr4([loader, whole, kernel]).hex()],
        "pcr.9": [predict_pcr9("quiet", b"initrd").hex()],
    }
    newer = made(shell, "uki", "--image", "uki", "--stub", "258")
    assert newer["tees"]["tpm"]["pcr.4"] == [predict_pcr4([whole, kernel]).hex()]
    assert "loader0" not in newer["inputs"]
    assert shell("reference", "uki", "--image", "uki", "--stub", "1", *NAMED, "--out", "x").code == 2
    assert shell("reference", "uki", "--image", "uki", "--tee", "sgx", *NAMED, "--out", "x").code == 2
    (shell.folder / "text").write_bytes(b"no image")
    assert shell("reference", "uki", "--image", "text", *NAMED, "--out", "x").code == 3


def test_rtmrs_of_an_event_log_are_what_the_quote_says(shell: Shell) -> None:
    sample = Sample(shell, "tdx")
    (shell.folder / "ccel").write_bytes(sample.parts["ccel"])
    found = made(shell, "tdx", "--ccel", "ccel")["tees"]["tdx"]
    claims = shell.ok("attest", "verify", *sample.trusted)["claims"]
    assert found == {f"rtmr{index}": [claims[f"rtmr{index}"]] for index in range(4)}
    (shell.folder / "ccel").write_bytes(sample.parts["ccel"][:40])
    assert shell("reference", "tdx", "--ccel", "ccel", *NAMED, "--out", "x").code == 3


def test_an_enclaves_signature_file_says_what_its_quote_will(shell: Shell) -> None:
    body, key = EnclaveBody(), make_key()
    (shell.folder / "server.sig").write_bytes(sigstruct(body, key))
    found = made(shell, "sgx", "--sigstruct", "server.sig")["tees"]["sgx"]
    modulus = key.public_key().public_numbers().n.to_bytes(384, "little")
    assert found == {
        "isvprodid": [body.isvprodid],
        "isvsvn": [body.isvsvn],
        "mrenclave": [body.mrenclave.hex()],
        "mrsigner": [hashlib.sha256(modulus).hexdigest()],
    }
    damaged = bytearray(sigstruct(body, key))
    damaged[960] ^= 1
    (shell.folder / "server.sig").write_bytes(damaged)
    said = shell("reference", "sgx", "--sigstruct", "server.sig", *NAMED, "--out", "x", "--json")
    assert said.code == 4
    assert said.json["error"]["code"] == "signature_invalid"
    (shell.folder / "server.sig").write_bytes(damaged[:1000])
    assert shell("reference", "sgx", "--sigstruct", "server.sig", *NAMED, "--out", "x").code == 3
    assert not (shell.folder / "x").exists()


def test_values_of_others_are_imported_and_an_empty_set_is_none(shell: Shell) -> None:
    (shell.folder / "given.json").write_text('{"measurement": ["aa", "bb"], "guest_svn": 3}')
    found = made(shell, "import", "given.json", "--tee", "snp")
    assert found["tees"] == {"snp": {"guest_svn": [3], "measurement": ["aa", "bb"]}}
    for text in (
        "{}",
        "[]",
        "7",
        '{"measurement": []}',
        '{"measurement": [[]]}',
        '{"measurement": true}',
        '{"measurement": ""}',
        '{"measurement": 1.5}',
        '{"measurement": -1}',
        '{"No Claim": "aa"}',
        '{"measurement": "aa", "measurement": "bb"}',
        "",
    ):
        (shell.folder / "given.json").write_text(text)
        said = shell("reference", "import", "given.json", "--tee", "snp", *NAMED, "--out", "x", "--json")
        assert said.code == 3, text
    assert not (shell.folder / "x").exists()
    said = shell("reference", "import", "given.json", "--tee", "snpp", *NAMED, "--out", "x")
    assert said.code == 2
    assert "did you mean 'snp'" in said.err


@pytest.fixture
def custodian(shell: Shell) -> dict[str, str]:
    """Return the public keys of a new custodian."""
    shell.ok("custodian", "init")
    keys: dict[str, str] = shell.ok("custodian", "show")
    return keys


def test_a_signed_set_becomes_rules_that_the_evidence_satisfies(shell: Shell, custodian: dict[str, str]) -> None:
    sample, key = Sample(shell, "tdx"), ("--key", custodian["publisher"])
    shell.ok("policy", "new", *sample.trusted, "--out", "policy.json")
    (shell.folder / "ccel").write_bytes(sample.parts["ccel"])
    made(shell, "tdx", "--ccel", "ccel")
    signed = shell.ok("reference", "sign", "values.json", "--out", "values.signed")
    assert signed["key"] == custodian["publisher"]
    assert "rtmr0" in shell.ok("reference", "show", "values.signed", *key)["tees"]["tdx"]
    assert "model server 3, version 1" in shell("reference", "show", "values.signed", *key).err
    applied = ("reference", "apply", "values.signed", *key, "--policy", "policy.json")
    assert shell.ok(*applied, "--out", "policy-2.json")["version"] == 2
    new = Policy.parse((shell.folder / "policy-2.json").read_bytes())
    assert new.version == 2
    assert shell("attest", "verify", *sample.trusted, "--policy", "policy-2.json").code == 0
    (shell.folder / "given.json").write_text(json.dumps({"rtmr0": "00" * 48}))
    made(shell, "import", "given.json", "--tee", "tdx")
    shell.ok("reference", "sign", "values.json", "--out", "values.signed", "--force")
    shell.ok(*applied, "--out", "policy-2.json", "--force")
    said = shell("attest", "verify", *sample.trusted, "--policy", "policy-2.json", "--json")
    assert [reason["subject"] for reason in said.json["reasons"]] == ["rtmr0"]


def test_sets_of_others_older_ones_and_strange_ones_are_refused(shell: Shell, custodian: dict[str, str]) -> None:
    (shell.folder / "given.json").write_text('{"measurement": "aa"}')
    made(shell, "import", "given.json", "--tee", "snp")
    shell.ok("reference", "sign", "values.json", "--out", "signed")
    policy = {"tees": {"snp": {"debug": {"exact": False}}}, "v": 1, "version": 1}
    (shell.folder / "policy.json").write_bytes(dump_json(policy))
    words = ("reference", "apply", "signed", "--policy", "policy.json", "--out", "new.json", "--json")
    said = shell(*words, "--key", custodian["key"])
    assert said.code == 4
    assert said.json["error"]["code"] == "unknown_key"
    said = shell(*words, "--key", custodian["publisher"], "--newer-than", "1")
    assert said.code == 4
    assert said.json["error"]["code"] == "reference_version_old"
    data = (shell.folder / "signed").read_bytes()
    (shell.folder / "signed").write_bytes(
        data.replace(b'"aa"', b'"ab"') if b'"aa"' in data else data[:-9] + b"A" + data[-8:]
    )
    assert shell(*words, "--key", custodian["publisher"]).code in {3, 4}
    (shell.folder / "signed").write_bytes(data)
    policy["tees"] = {"tdx": {"debug": {"exact": False}}}
    (shell.folder / "policy.json").write_bytes(dump_json(policy))
    said = shell(*words, "--key", custodian["publisher"])
    assert said.code == 2
    assert "a set opens no door" in said.json["error"]["hint"]
    assert not (shell.folder / "new.json").exists()
    assert shell(*words, "--key", "no key").code in {2, 3}
    assert shell("reference", "show", "values.json", "--key", custodian["publisher"]).code == 3  # not signed


def test_96_nothing_is_computed_for_a_file_that_may_not_be_written(shell: Shell) -> None:
    (shell.folder / "given.json").write_text('{"measurement": "aa"}')
    (shell.folder / "there.json").write_text("mine")
    words = ("reference", "import", "given.json", "--tee", "snp", *NAMED)
    assert shell(*words, "--out", "there.json").code == 2
    assert (shell.folder / "there.json").read_text() == "mine"
    assert shell(*words, "--out", "missing/x.json").code == 2
    assert shell(*words, "--out", "there.json", "--force").code == 0
    assert shell("reference", "import", "given.json", "--tee", "snp", "--out", "x.json").code == 2  # no name
    assert shell(*words[:-2], "--name", "a\x1b[2J", "--out", "x.json").code == 3


@pytest.mark.parametrize("kind", HOSTILE)
def test_95_inputs_that_are_no_plain_file_are_refused_at_once(shell: Shell, kind: str) -> None:
    path = hostile(shell.folder, kind)
    (shell.folder / "plain").write_bytes(b"x")
    key = ("--key", "A" * 43)
    for words in (
        ("snp", "--firmware", path, "--vcpus", "1", *NAMED),
        ("uki", "--image", path, *NAMED),
        ("tdx", "--ccel", path, *NAMED),
        ("sgx", "--sigstruct", path, *NAMED),
        ("import", path, "--tee", "snp", *NAMED),
        ("sign", path),
        ("apply", path, *key, "--policy", "plain"),
    ):
        said = shell("reference", *words, "--out", "x", "--json")
        assert said.code == 2, words
        assert said.json["error"]["exit_code"] == 2
    assert shell("reference", "show", path, *key).code == 2
