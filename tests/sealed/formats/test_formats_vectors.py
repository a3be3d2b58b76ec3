"""Every vector of the model formats is answered as it says, and good ones that are cut or changed are answered too."""

from __future__ import annotations

import random
from typing import Any

import pytest
from formats_kit import GROUPS, VECTORS, cases, model_files

from cloister.errors import Malformed, Rejected
from cloister.sealed.formats import parse_model

CASES = cases()


def answer(files: dict[str, bytes]) -> str:
    """Return what the readers say."""
    try:
        parse_model(model_files(files))
    except Malformed:
        return "malformed"
    except Rejected as exc:
        return " and ".join(reason.code for reason in exc.reasons)
    return "ok"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vector_is_answered_as_it_says(case: dict[str, Any]) -> None:
    assert answer(case["files"]) == case["expect"]


def test_names_are_single_and_most_vectors_are_bad() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert sum(case["expect"] == "ok" for case in CASES) * 3 < len(CASES)
    assert {path.stem for path in VECTORS.glob("*.json")} == set(GROUPS)


def small_good(suffix: str) -> list[dict[str, bytes]]:
    return [
        case["files"]
        for case in CASES
        if case["expect"] == "ok" and all(len(data) < 2000 for data in case["files"].values())
        if any(path.endswith(suffix) for path in case["files"])
    ]


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".gguf"])
def test_a_good_model_cut_at_any_byte_is_refused(suffix: str) -> None:
    for files in small_good(suffix):
        for path in files:
            if path.endswith(suffix):
                whole = files[path]
                answers = [answer({**files, path: whole[:end]}) for end in range(len(whole))]
                taken = [end for end, said in enumerate(answers) if said == "ok"]
                # What follows the last tensor of a GGUF file is padding. Protocol buffers have no end of their own: a
                # model without the function behind its graph is another one, which only the seal tells from the first.
                assert len(taken) <= {".onnx": 1, ".gguf": 64}.get(suffix, 0), f"{path}: {taken}"


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".gguf", ".json"])
def test_ten_thousand_mutations_raise_malformed_or_rejected_and_nothing_else(suffix: str) -> None:
    rng = random.Random(20260301)
    good = small_good(suffix)
    for _ in range(2500):
        files = dict(rng.choice(good))
        path = rng.choice([name for name in files if name.endswith(suffix)])
        data = bytearray(files[path])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        answer({**files, path: bytes(data)})
