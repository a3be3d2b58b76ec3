"""``cloister model inspect``, and ``model seal`` before it encrypts: what a model holds, and why it is refused."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
from cli_kit import Shell
from enclave_models import doubler, external


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def safetensors(names: list[str], *, data: int | None = None) -> bytes:
    entries = {name: {"dtype": "U8", "shape": [2], "data_offsets": [2 * n, 2 * n + 2]} for n, name in enumerate(names)}
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + bytes(2 * len(names) if data is None else data)


def test_inputs_outputs_and_weights_are_shown(shell: Shell) -> None:
    external(shell.folder / "model")
    (shell.folder / "model" / "labels.txt").write_text("cat\ndog\n")
    said = shell("model", "inspect", "model")
    assert said.code == 0
    for word in (
        "model.onnx",
        "weights/w.bin",
        "labels.txt",
        "ai.onnx.MatMul",
        "[batch, 3]",
        "FLOAT",
        "external_files",
    ):
        assert word in said.out, word
    shown = shell.ok("model", "inspect", "model")
    assert shown["formats"] == ["onnx"]
    assert [entry["format"] for entry in shown["files"]] == ["other", "onnx", "other"]
    assert shown["files"][1]["tensors"] == [
        {"bytes": 24, "dtype": "FLOAT", "file": "weights/w.bin", "name": "w", "shape": [3, 2]}
    ]


def test_many_tensors_are_shown_on_request_and_a_name_cannot_steer_the_terminal(shell: Shell) -> None:
    names = [*(f"layer.{number}" for number in range(60)), "evil\x1b[2J\u202e"]
    (shell.folder / "m.safetensors").write_bytes(safetensors(names))
    said = shell("model", "inspect", "m.safetensors")
    assert "... and 21 more (--all)" in said.out
    assert "layer.59" not in said.out
    said = shell("model", "inspect", "m.safetensors", "--all")
    assert "layer.59" in said.out
    assert not {"\x1b", "\u202e"} & set(said.out)


@pytest.mark.parametrize(
    ("name", "data", "exit_code", "code"),
    [
        ("m.safetensors", safetensors(["a"], data=3), 4, "trailing_data"),
        ("m.safetensors", (10**9).to_bytes(8, "little"), 3, "malformed"),
        ("m.onnx", doubler()[:-3], 3, "malformed"),
        ("m.gguf", b"GGUF", 3, "malformed"),
        ("m.bin", pickle.dumps([1]), 4, "pickle"),
        ("README.md", b"no model at all", 4, "no_model"),
        ("empty", b"", 4, "no_model"),
    ],
)
def test_inspect_and_seal_refuse_with_the_same_words_and_nothing_is_written(
    shell: Shell, name: str, data: bytes, exit_code: int, code: str
) -> None:
    (shell.folder / name).write_bytes(data)
    shown = shell("model", "inspect", name, "--json")
    sealed = shell("model", "seal", name, "--out", "sealed", "--name", "m", "--json")
    assert shown.json == sealed.json
    assert (shown.code, sealed.code) == (exit_code, exit_code)
    assert shown.json["error"]["code"] == code
    assert not (shell.folder / "sealed").exists()


@pytest.mark.parametrize("what", ["missing", "link", "folder of links"])
def test_links_and_missing_files_are_not_followed(shell: Shell, what: str) -> None:
    (shell.folder / "m.onnx").write_bytes(doubler())
    (shell.folder / "link").symlink_to("m.onnx")
    (shell.folder / "folder of links").mkdir()
    (shell.folder / "folder of links" / "m.onnx").symlink_to(Path("..") / "m.onnx")
    assert shell("model", "inspect", what).code == 2
