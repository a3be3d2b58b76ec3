"""PyTorch and Keras become ONNX for real. PyTorch is hundreds of megabytes: ``make test-converters`` brings it."""

from __future__ import annotations

import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from cli_kit import Shell

torch = pytest.importorskip("torch", reason="PyTorch has an environment of its own: make test-converters")
os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


class Small(torch.nn.Module):  # type: ignore[misc,name-defined]
    """One convolution and one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.look = torch.nn.Conv2d(1, 4, 3)
        self.decide = torch.nn.Linear(4 * 36, 10)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities, and what they came from."""
        scores = self.decide(torch.relu(self.look(image)).flatten(1))
        return torch.softmax(scores, 1), scores


def module() -> Any:
    torch.manual_seed(1)
    return Small().eval()


def exported(path: Path) -> None:
    image = torch.rand(2, 1, 8, 8)
    program = torch.export.export(module(), (image,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path)


def network() -> Any:
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
    return keras.Sequential(layers)


def test_an_exported_program_is_converted(shell: Shell) -> None:
    exported(shell.folder / "m.pt2")
    refused = shell("model", "convert", "m.pt2", "--out", "m.onnx", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (4, "pickle")
    made = shell.ok("model", "convert", "m.pt2", "--out", "m.onnx", "--trust-pickle")
    assert made["agreement"]["outputs"] == 2
    shown = shell.ok("model", "inspect", "m.onnx")["files"][0]
    assert [port["shape"][1:] for port in shown["inputs"]] == [[1, 8, 8]]
    assert isinstance(shown["inputs"][0]["shape"][0], str)


@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript_is_converted_with_inputs_that_are_given(shell: Shell, how: str) -> None:
    made = torch.jit.trace(module(), torch.rand(1, 1, 8, 8)) if how == "trace" else torch.jit.script(module())
    made.save(str(shell.folder / "m.pt"))
    words = ("model", "convert", "m.pt", "--out", "m.onnx", "--trust-pickle")
    refused = shell(*words, "--json")
    assert refused.json["error"]["code"] == "conversion_unsupported"
    assert shell.ok(*words, "--input", "image=FP32:3,1,8,8")["agreement"]["outputs"] == 2


class Scaled(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Two inputs, one without dimensions."""

    def forward(self, table: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Return the product."""
        return table * factor


def test_torchscript_may_take_a_scalar(shell: Shell) -> None:
    torch.jit.script(Scaled()).save(str(shell.folder / "m.pt"))
    words = ("model", "convert", "m.pt", "--out", "m.onnx", "--trust-pickle", "--input", "table=FP32:2,3")
    assert shell.ok(*words, "--input", "factor=INT64:")["agreement"]["values"] == 6
    wrong = shell(*words, "--input", "factor=INT64")
    assert (wrong.code, "NAME=TYPE:SHAPE" in wrong.err) == (2, True)


def test_weights_without_a_model_are_refused(shell: Shell) -> None:
    torch.save(module().state_dict(), shell.folder / "pytorch_model.bin")
    refused = shell("model", "convert", "pytorch_model.bin", "--out", "m.onnx", "--trust-pickle", "--json")
    assert refused.json["error"]["code"] == "conversion_unsupported"
    refused = shell("model", "inspect", "pytorch_model.bin", "--json")
    assert refused.json["error"]["code"] == "pickle"


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_keras_is_converted(shell: Shell, name: str) -> None:
    network().save(shell.folder / name)
    made = shell.ok("model", "convert", name, "--out", "m.onnx")
    assert made["library"].startswith("keras ")
    assert made["agreement"]["values"] == 40


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_keras_with_a_lambda_layer_is_refused_before_it_is_loaded(shell: Shell, name: str) -> None:
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)]).save(shell.folder / name)
    refused = shell("model", "convert", name, "--out", "m.onnx", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (4, "code_inside")


def test_keras_with_a_class_from_elsewhere_is_refused(shell: Shell) -> None:
    """A configuration names modules and classes: ``os`` and ``system`` among them, where somebody writes so."""
    network().save(shell.folder / "good.keras")
    with zipfile.ZipFile(shell.folder / "good.keras") as good, zipfile.ZipFile(shell.folder / "m.keras", "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if name == "config.json":
                config = json.loads(data)
                config["config"]["layers"][1].update(module="os", class_name="system")
                data = json.dumps(config).encode()
            bad.writestr(name, data)
    refused = shell("model", "convert", "m.keras", "--out", "m.onnx", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (4, "code_inside")
