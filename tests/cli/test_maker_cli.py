"""The maker's signature on the command line: never believed unasked, refused where it does not hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import oms_kit as kit
import pytest
from cli_kit import Shell
from enclave_models import doubler

from cloister.testing.ports import free_port
from cloister.wire import dump_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a custodian's desk with a model, its maker's key, and another's."""
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.ok("custodian", "init", "--port", str(free_port()))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "toy.onnx").write_bytes(doubler())
    (tmp_path / "model" / ".gitattributes").write_text("*.onnx lfs\n")
    (tmp_path / "maker.pem").write_bytes(kit.public_pem(kit.key()))
    (tmp_path / "other.pem").write_bytes(kit.public_pem(kit.key(2)))
    return shell


def sign(shell: Shell, place: str = "model/model.sig") -> None:
    statement = kit.statement({"toy.onnx": doubler()})
    (shell.folder / place).write_bytes(kit.text(kit.bundle(kit.text(statement), kit.key())))


SEAL = ("model", "seal", "model", "--name", "toy", "--out")


def test_a_signed_model_is_sealed_with_its_signature_and_says_so(shell: Shell) -> None:
    sign(shell)
    said = shell(*SEAL, "sealed", "--maker", "maker.pem", "--require-model-signature")
    maker = kit.maker(kit.key())
    assert said.code == 0
    assert f"made by key {maker.fingerprint}" in said.out
    assert "left out, for the maker passed over them: .gitattributes" in said.err
    again = shell.ok(*SEAL, "again", "--maker", "maker.pem")
    assert again["files"] == 2
    assert again["maker"] == {
        "fingerprint": maker.fingerprint, "kind": "key", "left_out": [".gitattributes"], "signer": maker.shown,
    }  # fmt: skip
    assert shell.ok("model", "verify", "again")["makers"] == [maker.shown]
    assert f"held to: {maker.shown}" in shell("model", "verify", "again").out


def test_a_signature_that_lies_there_is_never_believed_or_passed_over_unasked(shell: Shell) -> None:
    sign(shell)
    said = shell(*SEAL, "sealed")
    assert said.code == 2
    assert "nothing says whose it has to be" in said.err
    assert not (shell.folder / "sealed").exists()
    said = shell(*SEAL, "sealed", "--unverified-maker")
    assert said.code == 0
    assert "not verified" in said.err
    assert shell.ok("model", "verify", "sealed")["makers"] is None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--maker", "other.pem"), "unknown_key"),
        (("--maker", "maker.pem", "--unverified-maker"), ""),
        (("--model-signature", "model/model.sig"), ""),
        (("--model-signature", "model/model.sig", "--unverified-maker"), ""),
        (("--require-model-signature", "--unverified-maker"), "model_unsigned"),
        (("--maker", "model/toy.onnx"), ""),
        (("--maker", "not-there.pem"), ""),
        (("--maker", "maker.pem", "--convert"), ""),
        (("--maker", "maker.pem", "--model-signature", "not-there"), ""),
    ],
)
def test_what_does_not_hold_or_makes_no_sense_seals_nothing(shell: Shell, words: tuple[str, ...], code: str) -> None:
    sign(shell)
    said = shell(*SEAL, "sealed", *words, "--json")
    assert said.code == (4 if code else said.code)
    assert said.code != 0
    assert not code or said.json["error"]["code"] == code
    assert not (shell.folder / "sealed").exists()


def test_t98_an_altered_model_is_not_sealed(shell: Shell) -> None:
    sign(shell)
    (shell.folder / "model" / "toy.onnx").write_bytes(doubler().replace(b"two", b"duo"))
    said = shell(*SEAL, "sealed", "--maker", "maker.pem", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "signed_otherwise")
    assert not (shell.folder / "sealed").exists()


def test_t98_a_model_that_nobody_signed_is_refused_where_that_is_wanted(shell: Shell) -> None:
    for words in (("--require-model-signature",), ("--maker", "maker.pem")):
        said = shell(*SEAL, "sealed", *words, "--json")
        assert (said.code, said.json["error"]["code"]) == (4, "model_unsigned")
    assert shell.ok(*SEAL, "sealed")["files"] == 2


def test_inspect_tells_what_a_signature_says_from_what_is_proven(shell: Shell) -> None:
    assert "maker" not in shell.ok("model", "inspect", "model")
    assert shell("model", "inspect", "model", "--maker", "maker.pem").code == 4
    sign(shell)
    told = shell.ok("model", "inspect", "model")["maker"]
    assert (told["verified"], told["kind"], told["signature"]) == (False, "key", "model.sig")
    assert "not proven" in shell("model", "inspect", "model").out
    proven = shell.ok("model", "inspect", "model", "--maker", "maker.pem")["maker"]
    assert (proven["verified"], proven["signer"]) == (True, kit.maker(kit.key()).shown)
    assert "proven" in shell("model", "inspect", "model", "--maker", "maker.pem").out
    assert shell("model", "inspect", "model", "--maker", "other.pem").code == 4
    (shell.folder / "model" / "toy.onnx").write_bytes(doubler().replace(b"two", b"duo"))
    assert shell("model", "inspect", "model", "--maker", "maker.pem").code == 4


def test_inspect_shows_the_name_in_a_certificate_and_knows_keyless(shell: Shell) -> None:
    payload = kit.text(kit.statement({"toy.onnx": doubler()}))
    place = shell.folder / "model" / "model.sig"
    place.write_bytes(kit.text(kit.bundle(payload, kit.LEAF_KEY, (kit.LEAF, kit.BETWEEN))))
    assert shell.ok("model", "inspect", "model")["maker"]["signer"] == "CN=A maker of models"
    keyless = {"certificate": {"rawBytes": kit.b64(kit.der(kit.LEAF))}}
    place.write_bytes(kit.text(kit.bundle(payload, kit.LEAF_KEY, **keyless)))
    assert shell.ok("model", "inspect", "model")["maker"]["kind"] == "keyless"


def test_a_variant_says_that_it_is_not_what_the_maker_signed(shell: Shell) -> None:
    sign(shell)
    said = shell("model", "variant", "model", "--for", "clinic", "--name", "toy", "--out", "variant")
    assert "not what the maker signed" in said.err


def test_t99_manifests_are_signed_twice_and_who_pins_the_second_key_demands_it(shell: Shell) -> None:
    shell.ok(*SEAL, "sealed")
    shown = shell.ok("custodian", "show", "--second-publisher-file", "second.key")
    words = ("model", "verify", "sealed", "--publisher", shown["publisher"], "--second-publisher", "second.key")
    assert shell.ok(*words)["publisher_proven"]
    assert shell("model", "verify", "sealed", "--second-publisher", "second.key").code == 2
    (shell.folder / "short.key").write_bytes(b"short")
    assert shell(*words[:-1], "short.key").code == 2
    assert shell(*words[:-1], "not-there.key").code == 2
    place = shell.folder / "sealed" / "manifest.sig"
    signature = json.loads(place.read_bytes())
    del signature["second"]
    place.write_bytes(dump_json(signature))
    for stripped in (words, words[:-2]):
        said = shell(*stripped, "--json")
        assert (said.code, said.json["error"]["code"]) == (4, "second_signature_missing")
