"""scikit-learn becomes ONNX for real: what agrees is written, what does not is refused, and no pickle runs unasked."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
import skops.io
from cli_kit import Shell
from convert_kit import TABLE, TARGETS, classifier, pickled
from sklearn.cluster import KMeans
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from cloister.cli.converted import _run
from cloister.convert.agreement import demand_agreement
from cloister.convert.child import main
from cloister.convert.conversion import MODEL_NAME, RESULT_NAME, SAMPLES_NAME, Conversion, _samples, convert_model
from cloister.convert.recognise import SourceKind
from cloister.errors import Malformed, Rejected
from cloister.sealed.directory import PlainTree
from cloister.sealed.formats import parse_model
from cloister.sealed.formats.places import plain_files

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = np.array(["no", "yes"])[(TABLE[:, 0] > 0).astype(int)]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


class Runs:
    """A pickle that leaves a file behind when it is loaded, and writes down what it saw."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Return what the loader calls."""
        code = f"__import__('json').dump(dict(__import__('os').environ), open({str(self.place)!r}, 'w'))"
        return exec, (code,)


class Ends:
    """A pickle that ends the process that loads it."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Return what the loader calls."""
        return os._exit, (3,)


def in_this_process(tmp_path: Path, model: Any) -> tuple[dict[str, str], list[np.ndarray[Any, Any]], Any]:
    """Convert without a process: what the child does, and what the engine answers."""
    source = pickled(tmp_path / "model.pkl", model)
    asked = Conversion(source=source, kind=SourceKind.SKLEARN, trust=True, inputs={})
    (tmp_path / "request.json").write_text(asked.dump())
    main(tmp_path)
    said = json.loads((tmp_path / RESULT_NAME).read_text())
    if said["problem"]:
        return said, [], None
    summary = parse_model(plain_files(PlainTree(tmp_path / MODEL_NAME))).files[0]
    inputs, reference = _samples(tmp_path / SAMPLES_NAME, summary)
    return said, _run(tmp_path / MODEL_NAME, inputs), reference


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()), NAMES),
        (RandomForestClassifier(8, random_state=1), TARGETS),
        (RandomForestRegressor(8, random_state=1), TABLE[:, :2]),
        (GradientBoostingRegressor(n_estimators=20, random_state=1), TABLE[:, 0]),
        (LinearRegression(), TABLE[:, 0]),
        (MLPClassifier((8,), max_iter=5, random_state=1), NAMES),
        (LinearSVC(random_state=1), NAMES),
        (LinearSVC(random_state=1), TARGETS),
        (KMeans(3, n_init=1, random_state=1), None),
        (StandardScaler(), None),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("ignore")  # an unfinished training is good enough here
def test_models_of_every_kind_agree(tmp_path: Path, model: Any, targets: Any) -> None:
    _, ours, reference = in_this_process(tmp_path, model.fit(TABLE, targets))
    found = demand_agreement(reference, ours, tolerance=1e-4)
    assert found.values >= 256


@pytest.mark.filterwarnings("ignore")  # what scikit-learn has to say of it is no error
def test_a_model_that_answers_otherwise_as_onnx_is_refused(tmp_path: Path) -> None:
    """The scores of an SVC of several classes are one-against-one in ONNX, and not in scikit-learn."""
    _, ours, reference = in_this_process(tmp_path, SVC().fit(TABLE, TARGETS))
    with pytest.raises(Rejected) as refused:
        demand_agreement(reference, ours, tolerance=1e-4)
    assert [(reason.code, reason.subject) for reason in refused.value.reasons] == [("outputs_differ", "output 1")]


@pytest.mark.parametrize("model", [{"a": 1}, LogisticRegression(), [1, 2]], ids=["dict", "not fitted", "list"])
def test_what_is_no_fitted_model_is_unsupported(tmp_path: Path, model: Any) -> None:
    said, _, _ = in_this_process(tmp_path, model)
    assert said["problem"] == "unsupported"


def test_a_joblib_file_is_converted_in_a_process_of_its_own(shell: Shell) -> None:
    joblib.dump(classifier(), shell.folder / "model.joblib", compress=3)
    made = shell.ok("model", "convert", "model.joblib", "--out", "model.onnx", "--trust-pickle")
    assert made["agreement"]["outputs"] == 2
    assert made["agreement"]["largest_difference"] < made["agreement"]["tolerance"] == 1e-4
    assert made["library"].startswith("scikit-learn ")
    shown = shell.ok("model", "inspect", "model.onnx")
    assert [port["name"] for port in shown["files"][0]["inputs"]] == ["input"]
    again = shell("model", "convert", "model.joblib", "--out", "model.onnx", "--trust-pickle")
    assert (again.code, "exists already" in again.err) == (2, True)


def test_no_pickle_is_loaded_unless_it_is_said_to_be_trusted(shell: Shell) -> None:
    marker = shell.folder / "ran"
    pickled(shell.folder / "model.pkl", Runs(marker))
    for words in (["convert", "model.pkl", "--out", "m.onnx"], ["seal", "model.pkl", "--out", "s", "--name", "n"]):
        refused = shell("model", *words, "--json")
        assert (refused.code, refused.json["error"]["code"]) == (4, "pickle")
        assert not marker.exists()
    sealed = shell("model", "seal", "model.pkl", "--out", "s", "--name", "n", "--convert", "--json")
    assert (sealed.code, sealed.json["error"]["code"]) == (4, "pickle")
    assert not marker.exists()


def test_a_trusted_pickle_sees_no_secret_of_ours_in_its_environment(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = shell.folder / "ran"
    pickled(shell.folder / "model.pkl", Runs(marker))
    monkeypatch.setenv("CLOISTER_TOKEN", "canary")
    said = shell("model", "convert", "model.pkl", "--out", "m.onnx", "--trust-pickle", "--json")
    assert said.json["error"]["code"] == "conversion_unsupported"
    seen = json.loads(marker.read_text())
    assert seen["PATH"]
    assert not [name for name in seen if name.startswith("CLOISTER_")]
    assert "canary" not in marker.read_text()


def test_a_pickle_that_ends_its_process_ends_nothing_else(shell: Shell) -> None:
    pickled(shell.folder / "model.pkl", Ends())
    said = shell("model", "convert", "model.pkl", "--out", "m.onnx", "--trust-pickle", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "conversion_failed")
    assert not (shell.folder / "m.onnx").exists()


def test_skops_files_of_plain_types_need_no_trust_and_others_are_named(shell: Shell) -> None:
    skops.io.dump(classifier(), shell.folder / "plain.skops")
    assert shell.ok("model", "convert", "plain.skops", "--out", "plain.onnx")["agreement"]["outputs"] == 2
    forest = RandomForestClassifier(4, random_state=1).fit(TABLE, TARGETS)
    skops.io.dump(forest, shell.folder / "trees.skops")
    refused = shell("model", "convert", "trees.skops", "--out", "trees.onnx")
    assert refused.code == 4
    assert "sklearn.tree._tree.Tree" in refused.err


def test_a_converted_model_is_sealed_in_one_step(shell: Shell) -> None:
    skops.io.dump(classifier(), shell.folder / "plain.skops")
    shell.ok("custodian", "init", "--port", "9")
    sealed = shell.ok("model", "seal", "plain.skops", "--convert", "--out", "sealed", "--name", "plain")
    assert sealed["conversion"]["agreement"]["outputs"] == 2
    assert (shell.folder / "sealed" / "manifest.json").exists()
    odd = shell("model", "seal", "plain.skops", "--trust-pickle", "--out", "other", "--name", "plain")
    assert (odd.code, "--convert" in odd.err) == (2, True)


def spoilt(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Convert, change the samples that the child left, and take them."""
    in_this_process(tmp_path, classifier())
    with np.load(tmp_path / SAMPLES_NAME) as archive:
        arrays = {name: archive[name] for name in archive.files}
    change(arrays)
    np.savez(tmp_path / SAMPLES_NAME, **arrays)
    _samples(tmp_path / SAMPLES_NAME, parse_model(plain_files(PlainTree(tmp_path / MODEL_NAME))).files[0])


def test_a_child_that_chooses_its_own_inputs_is_refused(tmp_path: Path) -> None:
    def zeros(arrays: dict[str, Any]) -> None:
        arrays["in/input"] = np.zeros_like(arrays["in/input"])

    def narrow(arrays: dict[str, Any]) -> None:
        arrays["in/input"] = arrays["in/input"][:, :3]

    def objects(arrays: dict[str, Any]) -> None:
        arrays["out/0"] = np.array([{}], dtype=object)

    def silent(arrays: dict[str, Any]) -> None:
        del arrays["out/0"], arrays["out/1"]

    for change, error in ((zeros, Rejected), (narrow, Rejected), (objects, Malformed), (silent, Malformed)):
        with pytest.raises(error):
            spoilt(tmp_path, change)


def test_samples_that_are_no_archive_are_malformed(tmp_path: Path) -> None:
    in_this_process(tmp_path, classifier())
    summary = parse_model(plain_files(PlainTree(tmp_path / MODEL_NAME))).files[0]
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    for data in (b"", b"PK\x03\x04", b"\x93NUMPY", b"text", array.getvalue()):
        (tmp_path / SAMPLES_NAME).write_bytes(data)
        with pytest.raises(Malformed):
            _samples(tmp_path / SAMPLES_NAME, summary)


def test_a_library_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skl2onnx", None)
    monkeypatch.delitem(__import__("sys").modules, "cloister.convert.from_sklearn", raising=False)
    said, _, _ = in_this_process(tmp_path, classifier())
    assert said == {"problem": "missing", "text": "skl2onnx"}


def test_the_source_is_one_file(shell: Shell) -> None:
    (shell.folder / "many").mkdir()
    for name in "ab":
        (shell.folder / "many" / name).write_bytes(b"x")
    said = shell("model", "convert", "many", "--out", "m.onnx")
    assert (said.code, "one file" in said.err) == (2, True)


def test_convert_model_demands_trust_itself(tmp_path: Path) -> None:
    asked = Conversion(source=Path("x"), kind=SourceKind.TORCHSCRIPT, inputs={})
    with pytest.raises(Rejected) as refused:
        convert_model(asked, tmp_path)
    assert refused.value.code == "pickle"
