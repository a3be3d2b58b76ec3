"""Every reason code that somebody can meet has a line in the reference, and the reference names no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.attest.appraise import mismatch_code
from cloister.custodian.problems import STATUS_BY_CODE
from cloister.enclave.problems import _STATUSES

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "cloister"
PAGE = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
CODE = re.compile(r"[a-z][a-z0-9_]*")
PLACE = {"because": 0, "_check": 0, "_skipped": 0, "_refuse": 0, "skip": 0, "expect": 1, "equal": 2}
"""Calls that take a code, and the place of the code among their arguments."""
NAMED = {"Reason", "Check", "Bound"}  # calls with a member code=
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


def everything() -> set[str]:
    """Return every code of the source, of both tables of statuses, and of claims that do not match.

    Those of health are no errors: docs/reference/observability.md has them.
    """
    files = (path for path in SOURCE.rglob("*.py") if "simulator" not in path.parts and path.name != "health.py")
    found = {code for path in files for code in codes_in(path)} | set(STATUS_BY_CODE) | set(_STATUSES)
    return found | {mismatch_code(claim) for claim in ("debug", "migratable", "svn", *CLAIMS_OF_ANY_TEE)}


def documented() -> list[str]:
    return re.findall(r"^\| `([a-z0-9_]+)` \|", PAGE, re.MULTILINE)


def test_every_code_has_a_line() -> None:
    assert sorted(everything() - set(documented())) == []


def test_no_line_is_about_a_code_that_is_nowhere() -> None:
    assert sorted(set(documented()) - everything()) == []
    assert len(documented()) == len(set(documented()))


def test_every_line_says_what_it_means_and_what_to_do() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| `[a-z0-9_]+` \|", line)]
    for row in rows:
        meaning, advice = (cell.strip() for cell in row.strip("| ").split("|")[1:])
        assert len(meaning) > 10, row
        assert len(advice) > 7, row
