"""One conversion: the library runs in a child process, and what it leaves is looked at before anything is made of it.

The child keeps the library's threads, its memory and its crashes away from the command line, and knows none of its
settings: variables of ours are taken out of its environment. It is no sandbox: it runs with its caller's rights,
which is why a file that may run code is converted on request only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloister.convert.samples import Array, draw, fits
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.sealed.directory import PlainTree
from cloister.sealed.formats import FileSummary, parse_model
from cloister.sealed.formats.places import plain_files
from cloister.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloister.convert.recognise import SourceKind
    from cloister.wire import Json

__all__ = ["MODEL_NAME", "REQUEST_NAME", "RESULT_NAME", "SAMPLES_NAME", "Conversion", "Converted", "convert_model"]

MODEL_NAME, SAMPLES_NAME, REQUEST_NAME, RESULT_NAME = "model.onnx", "samples.npz", "request.json", "result.json"
_MAX_RESULT_BYTES = 64 * 1024
_MAX_SAID = 300  # characters of what the library said
_TRUST = "the file may run code when it is loaded; where you made it yourself, say so with --trust-pickle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What is asked for. ``inputs`` are shapes by name, for models that do not say theirs."""

    source: Path
    kind: SourceKind
    trust: bool = False
    inputs: Mapping[str, tuple[str, tuple[int, ...]]]

    def dump(self) -> str:
        """Return what the child reads."""
        inputs = {name: [dtype, *shape] for name, (dtype, shape) in self.inputs.items()}
        return json.dumps(
            {"inputs": inputs, "kind": self.kind.value, "source": str(self.source.absolute()), "trust": self.trust}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """An ONNX model that was looked into, and what the first model answered to inputs that anybody can draw again."""

    model: Path
    summary: FileSummary
    library: str
    inputs: Mapping[str, Array]
    outputs: tuple[Array, ...]


def convert_model(asked: Conversion, folder: Path) -> Converted:
    """Return the model as ONNX, in the empty ``folder``. That it answers alike is for ``demand_agreement`` to prove.

    Raises ``Rejected`` (``pickle``, ``conversion_unsupported``, ``conversion_failed``, and what ``parse_model``
    refuses), or ``Unavailable`` where the library is not there.
    """
    if asked.kind.runs_code and not asked.trust:
        raise Rejected.because(
            "pickle", asked.source.name, got=f"a file of kind {asked.kind.value}", want="no code", hint=_TRUST
        )
    (folder / REQUEST_NAME).write_text(asked.dump(), encoding="utf-8")
    library = _run_child(asked, folder)
    summary = parse_model(plain_files(PlainTree(folder / MODEL_NAME))).files[0]
    inputs, outputs = _samples(folder / SAMPLES_NAME, summary)
    return Converted(model=folder / MODEL_NAME, summary=summary, library=library, inputs=inputs, outputs=outputs)


def _run_child(asked: Conversion, folder: Path) -> str:
    """Run the library. Returns its name and version."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
    env |= {"CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "torch", "ORT_DISABLE_TELEMETRY": "1"}
    env |= {"KERAS_HOME": str(folder / "keras")}  # where Keras would write its settings: into the home folder
    with (folder / "said").open("wb") as said:
        # -P: modules that lie in the working folder are nobody's business.
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-P", "-m", "cloister.convert.child", str(folder)],
            check=False, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=env,
        )  # fmt: skip
    try:
        data = (folder / RESULT_NAME).read_bytes()
    except FileNotFoundError:
        raise _failed(asked, f"the child ended with {done.returncode}: {_last_words(folder)}") from None
    fields = Fields.parse(data, what="conversion: result", cap=_MAX_RESULT_BYTES)
    problem, text = fields.text("problem"), fields.text("text")
    fields.end()
    match problem:
        case "":
            return text
        case "missing":
            hint = f"pip install 'cloister[{asked.kind.extra}]'"
            msg = f"conversion from {asked.kind.value}: {text} is not installed"
            raise Unavailable(msg, hint=hint)
        case "untrusted":
            raise Rejected.because("pickle", asked.source.name, got=text, want="types that are data", hint=_TRUST)
        case "code":
            raise Rejected.because("code_inside", asked.source.name, got=text, want="layers of Keras itself")
        case "unsupported":
            raise Rejected.because("conversion_unsupported", asked.source.name, got=text, want="a model that converts")
        case _:
            raise _failed(asked, text)


def _failed(asked: Conversion, text: str) -> Rejected:
    hint = "export the model to ONNX with its own library"
    return Rejected.because(
        "conversion_failed", asked.source.name, got=text[:_MAX_SAID], want="a model that converts", hint=hint
    )


def _last_words(folder: Path) -> str:
    lines = (folder / "said").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return ascii(lines[-1][:_MAX_SAID]) if lines else "nothing said"


def _samples(path: Path, summary: FileSummary) -> tuple[dict[str, Array], tuple[Array, ...]]:
    """Return inputs, drawn again here, and the first model's answers to them."""
    try:
        with path.open("rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))  # no archive but one array has no names: ValueError
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as exc:
        msg = "conversion: samples cannot be read"
        raise Malformed(msg) from exc
    given = {name.removeprefix("in/"): item for name, item in arrays.items() if name.startswith("in/")}
    shapes = {name: tuple(map(int, item.shape)) for name, item in given.items()}
    wanted = {port.name for port in summary.inputs}
    if set(shapes) != wanted or not all(fits(port, shapes[port.name]) for port in summary.inputs):
        raise Rejected.because("outputs_differ", "samples", got="other inputs", want="those of the model")
    inputs = draw(summary.inputs, shapes)
    if any(not np.array_equal(inputs[name], given[name]) for name in wanted):
        raise Rejected.because("outputs_differ", "samples", got="other values", want="those drawn from the signature")
    names = [f"out/{number}" for number in range(len(arrays) - len(given))]
    if not names or not set(names) <= set(arrays):
        msg = "conversion: samples without answers"
        raise Malformed(msg)
    return inputs, tuple(arrays[name] for name in names)


def result(problem: str, text: str) -> Json:
    """Return what the child writes in the end."""
    return {"problem": problem, "text": text[: _MAX_RESULT_BYTES // 8]}
