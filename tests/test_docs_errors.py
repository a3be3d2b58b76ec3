"""Every code that somebody can meet is in the table of codes, and the table has no other.

A new code gets its row in ``src/cloister/codes/``; ``make reference`` writes the page from it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloister.attest.appraise import _CODES as OF_CLAIMS
from cloister.attest.appraise import mismatch_code
from cloister.cli import exits
from cloister.client.proxy.refusal import STATUS_BY_CODE as PROXY
from cloister.codes import CHAPTERS, CODES, Fault, find, plain
from cloister.custodian.metrics import ALARMS
from cloister.custodian.problems import STATUS_BY_CODE
from cloister.enclave.problems import STATUS_BY_CODE as ENCLAVE
from cloister.verifier.problems import STATUSES as VERIFIER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.codes import Chapter, Code

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "cloister"
CODE = re.compile(r"[a-z][a-z0-9_]*")
PLACE = {"because": 0, "_check": 0, "_skipped": 0, "_refuse": 0, "skip": 0, "expect": 1, "equal": 2}
"""Calls that take a code, and the place of the code among their arguments."""
NAMED = {
    "Reason",
    "Check",
    "Bound",
    "Alarm",
    "UsageError",
    "Malformed",
    "Unavailable",
    "NoAnswer",
}  # calls with a member code=
GOOD = {"ok", "no_bundle", "bundle_good"}  # said by a check that finds nothing wrong
OF_FAULTS = {
    "internal",
    *(code for _, code in exits.OF_FAULTS),
    *(code for *_, code in exits.OF_SYSTEM),
}  # what an error without a reason of its own is called
STANDING = {"ok", "degraded", "failed"}
CLAIMS_OF_ANY_TEE = (
    "measurement",
    "host_data",
    "chip_id",
    "device",
    "software",
    "ak",
    "pcr.0",
    "secure_boot",
    "firmware_version",
)


def spelled(node: ast.expr, tree: ast.Module, function: ast.AST | None) -> set[str]:
    """Return the strings an expression may be: a literal, a choice, a constant, a variable, a table's values."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return spelled(body, tree, function) | spelled(orelse, tree, function)
        case ast.Name(id=name):
            return {text for value in assigned(name, (tree, function)) for text in strings(value)}
        case ast.Subscript(value=ast.Name(id=name)):
            return {text for value in assigned(name, (tree,)) for text in strings(value)}
        case _:
            return set()  # read from the wire, or another module's


def assigned(name: str, scopes: tuple[ast.AST | None, ...]) -> Iterator[ast.expr]:
    """Yield what is assigned to a name in these scopes, tuples taken apart too loosely to miss anything."""
    for scope in scopes:
        for item in ast.iter_child_nodes(scope) if isinstance(scope, ast.Module) else ast.walk(scope or ast.Pass()):
            if isinstance(item, ast.Assign):
                names = {part.id for target in item.targets for part in ast.walk(target) if isinstance(part, ast.Name)}
                if name in names:
                    yield item.value


def strings(value: ast.expr) -> set[str]:
    """Return every string that may come out of an assigned expression."""
    match value:
        case ast.Call() | ast.JoinedStr() | ast.Compare():
            return set()
        case ast.Dict(values=values):
            return {text for item in values if item for text in strings(item)}
        case ast.IfExp(body=body, orelse=orelse):
            return strings(body) | strings(orelse)
        case _:
            found = (item.value for item in ast.walk(value) if isinstance(item, ast.Constant))
            return {text for text in found if isinstance(text, str)}


def codes_in(path: Path) -> set[str]:
    """Return the codes that one file spells."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for scope in (item for item in ast.walk(tree) if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)):
        for call in (item for item in ast.walk(scope) if isinstance(item, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in PLACE and len(call.args) > PLACE[name]:
                found |= spelled(call.args[PLACE[name]], tree, scope)
            elif name in NAMED:
                found |= {
                    text for word in call.keywords if word.arg == "code" for text in spelled(word.value, tree, scope)
                }
    return {text for text in found if CODE.fullmatch(text)}


def told_by_checks(path: Path) -> set[str]:
    """Return the codes that a file pairs with how a part stands, in a tuple or in a call."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told: list[ast.AST] = [item for item in ast.walk(tree) if isinstance(item, ast.Tuple) and len(item.elts) == 2]
    for call in (item for item in ast.walk(tree) if isinstance(item, ast.Call)):
        told += call.args[1:] if getattr(call.func, "id", "") == "_failed" else []
    texts = (part.value for item in told for part in ast.walk(item) if isinstance(part, ast.Constant))
    return {text for text in texts if isinstance(text, str) and CODE.fullmatch(text)} - STANDING


def everything() -> set[str]:
    """Return every code of the source: of reasons, tables of statuses, claims that differ, checks and alarms."""
    files = (path for path in SOURCE.rglob("*.py") if not {"simulator", "codes"} & set(path.parts))
    found = {code for path in files for code in codes_in(path)} | OF_FAULTS | ALARMS
    found |= {code for table in (STATUS_BY_CODE, ENCLAVE, PROXY, VERIFIER) for code in table}
    health = ("custodian/service/health.py", "custodian/service/endorsements.py", "enclave/instance.py")
    found |= {code for name in health for code in told_by_checks(SOURCE / name)}
    return (found | set(OF_CLAIMS.values()) | {mismatch_code(claim) for claim in CLAIMS_OF_ANY_TEE}) - GOOD


def test_every_code_of_the_source_is_in_the_table() -> None:
    assert sorted(everything() - set(CODES)) == [], "add a row in src/cloister/codes/, then run make reference"


def test_the_table_has_no_code_that_is_nowhere() -> None:
    assert sorted(set(CODES) - everything()) == []
    assert len(CODES) == sum(len(chapter.codes) for chapter in CHAPTERS)


def test_checks_and_alarms_are_told_apart_from_refusals() -> None:
    told = {code for name in ("custodian/service/health.py",) for code in told_by_checks(SOURCE / name)}
    assert {"disk_full", "database_taken"} <= told
    assert {name for name, code in CODES.items() if code.fault is Fault.ALARM} <= ALARMS
    assert CODES["usage"].fault is Fault.USAGE


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
def test_every_row_says_cause_and_fix_and_shows_what_is_seen(code: Code) -> None:
    assert CODE.fullmatch(code.name)
    for text in (code.cause, code.fix):
        assert len(text) > 7
        assert not text.endswith(".")
        assert "](" not in plain(text)
        assert "|" not in text
    assert code.name in code.example or code.fault is not Fault.REJECTED
    assert code.urn == f"urn:cloister:problem:{code.name}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.title)
def test_a_chapter_is_in_the_order_of_the_alphabet(chapter: Chapter) -> None:
    names = [code.name for code in chapter.codes]
    assert names == sorted(names)


def test_a_claim_without_a_row_is_explained_by_its_form() -> None:
    code, _ = find("family_id_mismatch")
    assert code is not None
    assert "`family_id`" in code.cause
    assert code.place == "docs/reference/errors.md#evidence-does-not-satisfy-the-policy"
    assert find("_mismatch") == (None, find("_mismatch")[1])
    assert find("blokked") == (None, "blocked")
    assert find("zzzz") == (None, "")
