"""What fuzzing once reached is replayed at every run: each parser raises ``Malformed`` or ``Rejected``, or takes it."""

from __future__ import annotations

import pytest
from targets import FOLDER, targets

from cloister.errors import Malformed, Rejected

TARGETS = targets()
CORPUS = FOLDER / "corpus"


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_corpus_and_seeds_are_taken_or_refused(name: str) -> None:
    parse, seeds = TARGETS[name]
    honest = seeds()
    assert honest, "no honest input to begin with"
    for data in honest:
        parse(data)  # an honest input is taken
    for path in sorted((CORPUS / name).glob("*")):
        try:
            parse(path.read_bytes())
        except (Malformed, Rejected):
            continue


def test_every_target_has_a_corpus_and_no_corpus_is_of_another() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
