"""Answers in the forms that people go on with: mappings, tables, tensors, the best classes."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from client_town import Town, scan

from cloister.client import Ranked
from cloister.client.results import table_of, tensors_of, top_of
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.client import Inference

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5]], dtype="f4")
NAMES = {"scores": ("cat", "dog", "owl")}


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def answer(town: Town) -> Inference:
    with town.client() as client:
        return client.infer("digits", np.concatenate([scan(3), scan(17)]))


def test_an_answer_is_a_mapping_of_its_outputs(answer: Inference) -> None:
    assert answer["label"].tolist() == [3, 7]
    assert list(answer) == list(answer.keys()) == ["label"]
    assert dict(answer)["label"] is answer.outputs["label"]
    with pytest.raises(KeyError, match="the outputs are label"):
        answer["labels"]


def test_many_answers_are_a_mapping_too(town: Town) -> None:
    with town.client() as client:
        found = client.infer_many("digits", [scan(1), scan(2)], batch=1)
    assert found["label"].tolist() == [1, 2]
    assert {name: values.tolist() for name, values in dict(found).items()} == {"label": [1, 2]}
    assert found.to_pandas(index=["a", "b"]).loc["b"].tolist() == [2, "2"]
    assert (found.total, found.classes["label"][7]) == (2, "7")
    with pytest.raises(UsageError):
        found.top()
    with pytest.raises(KeyError):
        found["scores"]


def test_the_best_classes_come_first_with_their_names() -> None:
    ranked = top_of({"scores": SCORES}, NAMES, 2, None)
    assert [[(item.label, item.index) for item in row] for row in ranked] == [
        [("dog", 1), ("owl", 2)],
        [("cat", 0), ("owl", 2)],
    ]
    assert ranked[0][0] == Ranked(label="dog", index=1, score=float(np.float32(0.7)))
    assert [item.label for item in top_of({"scores": SCORES}, {}, 9, None)[0]] == ["1", "2", "0"]
    broken = np.array([[np.nan, 1.0, np.inf]], dtype="f4")
    assert [item.index for item in top_of({"scores": broken}, {}, 3, None)[0]] == [2, 1, 0]


def test_which_output_has_scores_is_never_guessed() -> None:
    two = {"scores": SCORES, "embedding": SCORES, "label": np.array([1, 0])}
    assert top_of(two, NAMES, 1, None)[0][0].label == "dog", "the card names the classes of one of them"
    assert top_of(two, NAMES, 1, "embedding")[0][0].label == "1"
    for outputs, output in ((two, None), ({"label": np.array([1])}, None), (two, "label")):
        with pytest.raises(UsageError):
            top_of(outputs, {}, 1, output)
    with pytest.raises(UsageError, match="at least 1"):
        top_of(two, NAMES, 0, None)
    with pytest.raises(KeyError):
        top_of(two, NAMES, 1, "other")


def test_a_table_has_a_row_for_each_item(answer: Inference) -> None:
    table = answer.to_pandas(index=["first", "second"])
    assert isinstance(table, pd.DataFrame)
    assert table.to_dict("list") == {"label": [3, 7], "label.label": ["3", "7"]}
    assert list(table.index) == ["first", "second"]


def test_rows_of_numbers_become_columns_named_by_the_card() -> None:
    words = np.array([["ä".encode()], [b"\xff"]], dtype=object)
    outputs = {"scores": SCORES, "x": SCORES[:, :2], "word": words}
    table = table_of(outputs, {"scores": ("dog", "cat")}, NAMES, None)
    assert list(table.columns) == ["scores.cat", "scores.dog", "scores.owl", "scores.label", "x.0", "x.1", "word"]
    assert table["word"].tolist() == ["ä", b"\xff"]
    assert table["scores.dog"].dtype == np.float32


@pytest.mark.parametrize(
    "outputs",
    [
        {"x": np.zeros((2, 2, 2))},
        {"x": np.zeros(2), "y": np.zeros(3)},
        {"x.0": np.zeros(2), "x": np.zeros((2, 2))},
    ],
)
def test_what_is_no_table_is_not_made_one(outputs: Any) -> None:
    with pytest.raises(UsageError, match="to_pandas"):
        table_of(outputs, {}, {}, None)


def test_tensors_of_torch_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a library with torch's function, for torch itself is no dependency of the tests."""
    library = types.ModuleType("torch")
    library.from_numpy = memoryview  # type: ignore[attr-defined] # shares memory with the array, as torch does
    monkeypatch.setitem(sys.modules, "torch", library)
    outputs = {"scores": SCORES.copy()}
    tensors = tensors_of(outputs)
    tensors["scores"][0, 0] = 9.0
    assert outputs["scores"][0, 0] == np.float32(0.1)
    with pytest.raises(UsageError, match="has strings"):
        tensors_of({"word": np.array([b"a"], dtype=object)})


@pytest.mark.parametrize("name", ["pandas", "torch"])
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, answer: Inference, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=f"{name} is not installed") as caught:
        (answer.to_pandas if name == "pandas" else answer.to_torch)()
    assert f"pip install {name}" in (caught.value.hint or "")


def test_what_is_printed_says_what_it_is_and_no_more(town: Town) -> None:
    with town.client() as client:
        answer = client.infer("digits", scan(3))
        many = client.infer_many("digits", [scan(1), scan(2)])
        info = client.model("digits")
        assert repr(client) == "<Client of https://enclave.test: SIMULATED, warning>"
        assert repr(client.enclave).startswith(
            "VerifiedEnclave(url='https://enclave.test', tee='SIMULATED', tier='warning'"
        )
    assert repr(answer) == (
        "Inference(label='3', model='digits', outputs=[label int64[1]], units=1, remaining=9, receipt=1)"
    )
    assert repr(many) == "Answers(done=2, total=2, outputs=[label], units=2, remaining=7, receipts=1)"
    assert repr(info) == (
        "ModelInfo(name='digits', inputs=[image FP32[any, 64]], outputs=[label INT64[any]], remaining=7)"
    )
    shown = repr(answer.receipt)
    assert "units=1" in shown
    for secret in (answer.receipt.request_salt, answer.receipt.response_salt):
        assert secret.hex() not in shown
        assert repr(secret) not in shown


def test_results_import_neither_pandas_nor_torch_nor_ipython() -> None:
    program = (
        "import sys; from cloister.client import results, inference, batch, client, ProgressBar; ProgressBar();"
        "from cloister.client.notebook import answers, enclave, models, receipts;"
        "assert not {'pandas', 'torch', 'IPython'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)  # noqa: S603 - ours
