"""Every check that a consumer or a verifier makes has a question in plain words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cloister
from cloister.attest.rats import Check, TeeKind, Verdict
from cloister.attest.words import GROUPS, group_of, outcome_of, question_of

CLIENT = Path(cloister.__file__).parent / "client"
ASKED = sorted(
    {
        code
        for name in ("trust.py", "contract.py")
        for code in re.findall(r'(?:_check|_skipped|Check)\(\s*(?:code=)?"([a-z_]+)"', (CLIENT / name).read_text())
    }
    - {"nonce_mismatch"}
)


def _made(code: str, **members: str) -> Check:
    return Check(code=code, subject="it", verdict=Verdict.NOT_CHECKED, **members)


@pytest.mark.parametrize("code", ASKED)
def test_what_a_consumer_compares_has_a_question_and_a_group(code: str) -> None:
    assert question_of(TeeKind("simulated"), _made(code)).endswith("?")
    assert group_of(_made(code)) in {"fresh", "loan"} <= set(GROUPS)


def test_what_was_not_checked_says_why() -> None:
    assert outcome_of(_made("operator_mismatch", note="a test")) == "○ not checked: a test"
    assert outcome_of(_made("operator_mismatch")) == "○ not checked"
