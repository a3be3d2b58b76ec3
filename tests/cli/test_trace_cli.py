"""Variants and tracing as an owner uses them: real handwritten digits, sealed for three, and one copy leaked."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from cloister.cli.demo.digits import Digits, train
from cloister.custodian.setup import open_vault
from cloister.custodian.vaults import unwrap_dek
from cloister.custodian.vaults.unlock import KeyFile
from cloister.sealed.directory import DirectorySource, read_envelope, read_package
from cloister.sealed.open import open_model, verify_manifest
from cloister.sealed.tracing.record import Variant
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Shell

BORROWERS = ("General Hospital", "University Clinic", "Field Station")


@pytest.fixture(scope="module")
def digits() -> Digits:
    return train()


class Owner:
    """A custodian with a model and a variant of it for each borrower, made once and copied from ``template``."""

    def __init__(self, shell: Shell, digits: Digits, template: Path) -> None:
        self.shell, self.folder = shell, shell.folder
        if template.exists():
            shutil.copytree(template, self.folder, dirs_exist_ok=True)
            self.made: list[Any] = json.loads((self.folder / "made.json").read_text())
            return
        shell.ok("custodian", "init", "--port", str(free_port()))
        (self.folder / "model.onnx").write_bytes(digits.onnx)
        np.savez(self.folder / "samples.npz", image=digits.scans, labels=digits.labels)
        self.made = [self.seal(holder, f"sealed-{number}") for number, holder in enumerate(BORROWERS)]
        (self.folder / "made.json").write_text(json.dumps(self.made))
        shutil.copytree(self.folder, template)

    def seal(self, holder: str, out: str, *more: str) -> Any:
        words = ("--for", holder, "--out", out, "--name", "digits", "--samples", "samples.npz")
        return self.shell.ok("model", "variant", "model.onnx", *words, *more)

    def leak(self, number: int) -> bytes:
        """Return what borrower ``number`` would have in memory, opened as an enclave does."""
        package, vault = self.folder / f"sealed-{number}", open_vault(self.folder / "home", self.key)
        dek, _ = unwrap_dek(vault, read_envelope(package))
        parts = read_package(package)
        keys = [vault.publisher_key.verify_key]
        verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, keys)
        with open_model(DirectorySource(package), verified, dek) as opened:
            return bytes(opened.view("model.onnx"))

    @property
    def key(self) -> KeyFile:
        return KeyFile(self.folder / "vault.key")

    def trace(self, data: bytes, name: str = "leaked.onnx", *more: str) -> Any:
        (self.folder / name).write_bytes(data)
        return self.shell.ok("model", "trace", name, *more)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("owner") / "template"


@pytest.fixture
def owner(shell: Shell, digits: Digits, template: Path) -> Owner:
    return Owner(shell, digits, template)


def as_safetensors(model: bytes, dtype: str = "F32") -> bytes:
    """Return the initializers of an ONNX model, in an order and under names of a thief's own."""
    found = [onnx.numpy_helper.to_array(item) for item in onnx.load_model_from_string(model).graph.initializer]
    arrays = [item for item in reversed(found) if item.dtype == np.float32]
    header, blobs, end = {}, [], 0
    for number, item in enumerate(arrays):
        data = item.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
        header[f"w{number}"] = {"data_offsets": [end, end + len(data)], "dtype": dtype, "shape": list(item.shape)}
        end += len(data)
        blobs.append(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(blobs)


def test_a_leaked_copy_names_its_borrower_and_the_original_names_nobody(owner: Owner, digits: Digits) -> None:
    for made in owner.made:
        assert made["drift"]["max"] <= 2.0**-10
        assert made["outputs"]["rms"] < 0.01
        assert made["outputs"]["accuracy_before"] == pytest.approx(digits.accuracy)
        assert abs(made["outputs"]["accuracy_after"] - digits.accuracy) <= 0.01
    leaked = owner.leak(1)
    assert leaked != digits.onnx
    for more in ((), ("--original", "model.onnx")):
        found = owner.trace(leaked, "leaked.onnx", *more)
        assert found["named"] == ["University Clinic"]
        assert found["candidates"] == 3
        assert found["mode"] == ("informed" if more else "blind")
        assert found["findings"][0]["digest"] == owner.made[1]["digest"]
        assert found["findings"][0]["log10_p"] < -100
    assert owner.trace(digits.onnx)["named"] == []
    said = owner.shell("model", "trace", "model.onnx")
    assert said.code == 0
    assert "none: no variant is named" in said.out


def test_a_copy_in_another_format_under_other_names_and_rounded_is_named(owner: Owner, digits: Digits) -> None:
    leaked = owner.leak(2)
    for dtype in ("F32", "F16"):
        assert owner.trace(as_safetensors(leaked, dtype), "stolen.safetensors")["named"] == ["Field Station"]
        assert owner.trace(as_safetensors(digits.onnx, dtype), "honest.safetensors")["named"] == []


def test_a_custodian_restored_from_vault_and_backup_still_names_a_leaked_copy(owner: Owner) -> None:
    leaked, home = owner.leak(1), owner.folder / "home"
    owner.shell.ok("custodian", "backup", "--out", "copy.db")
    shutil.rmtree(home / "traces")
    (home / "custodian.db").unlink()
    told = owner.shell.ok("custodian", "restore", "copy.db", "--yes")
    assert told["variants"] == 3
    found = owner.trace(leaked)
    assert (found["named"], found["candidates"]) == (["University Clinic"], 3)


def test_a_record_that_names_another_borrower_is_refused(owner: Owner) -> None:
    place = owner.folder / "home" / "traces" / f"{owner.made[0]['digest']}.json"
    record = json.loads(place.read_text())
    record["holder"] = "somebody innocent"
    place.write_text(json.dumps(record, sort_keys=True, separators=(",", ":")))
    assert Variant.parse(place.read_bytes()).holder == "somebody innocent"
    said = owner.shell("model", "trace", "model.onnx")
    assert said.code == 4
    assert "wrong_key" in said.err
    assert said.out == ""


def test_a_record_put_in_the_place_of_another_is_refused(owner: Owner) -> None:
    first, second = (owner.folder / "home" / "traces" / f"{made['digest']}.json" for made in owner.made[:2])
    first.write_bytes(second.read_bytes())
    said = owner.shell("model", "trace", "model.onnx")
    assert said.code == 3
    assert said.out == ""


def test_no_trace_key_stands_in_a_record(owner: Owner) -> None:
    vault = open_vault(owner.folder / "home", owner.key)
    for place in (owner.folder / "home" / "traces").iterdir():
        data = place.read_bytes()
        record = Variant.parse(data)
        key = vault.unwrap(record.wrapped, aad=record.aad)
        assert len(key) == 32
        assert key not in record.wrapped
        assert key.hex().encode() not in data
        assert place.stat().st_mode & 0o077 == 0


def test_a_variant_that_changes_the_answers_too_much_is_refused_and_leaves_nothing(owner: Owner) -> None:
    words = ("--for", "x", "--out", "none", "--name", "digits", "--max-drift", "0", "--trace-strength", "high")
    said = owner.shell("model", "variant", "model.onnx", *words)
    assert said.code == 4
    assert "drift_too_large" in said.err
    assert not (owner.folder / "none").exists()
    assert len(list((owner.folder / "home" / "traces").iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("other.txt", b"words", 4), ("bad.onnx", b"\x00" * 64, 3), ("gone.onnx", None, 2), ("bad.safetensors", b"", 3)],
)
def test_what_is_no_model_is_refused(shell: Shell, name: str, content: bytes | None, code: int) -> None:
    shell.ok("custodian", "init", "--port", str(free_port()))
    if content is not None:
        (shell.folder / name).write_bytes(content)
    assert shell("model", "trace", name).code == code


def test_samples_that_are_pickled_or_without_labels_are_refused(owner: Owner, tmp_path: Path) -> None:
    words = ("--for", "x", "--out", "none", "--name", "digits", "--samples")
    np.savez(tmp_path / "objects.npz", image=np.array([{}], dtype=object), labels=np.zeros(1))
    np.savez(tmp_path / "no-labels.npz", image=np.zeros((1, 64), np.float32))
    np.savez(tmp_path / "other.npz", picture=np.zeros((1, 64), np.float32), labels=np.zeros(1))
    (tmp_path / "text.npz").write_text("words")
    for name, code in (("objects.npz", 3), ("no-labels.npz", 2), ("other.npz", 2), ("text.npz", 3)):
        assert owner.shell("model", "variant", "model.onnx", *words, name).code == code, name
