"""Regular expressions of the program: what they may be made of."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cloister

_BROKEN = {"POSSESSIVE_REPEAT", "ATOMIC_GROUP"}


def _patterns(path: Path) -> list[tuple[str | bytes, int]]:
    """Return what is compiled in a file and written out there, with its line."""
    return [
        (node.args[0].value, node.lineno)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile"
        if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str | bytes)
    ]


def _made_of(pattern: str | bytes) -> set[str]:
    """Return the kinds of nodes in an expression."""
    parser = re._parser  # type: ignore[attr-defined]  # nothing public tells
    return set(re.findall(r"[A-Z_]{3,}", repr(parser.parse(pattern))))


def test_no_expression_is_possessive_which_is_broken_before_python_3_11_5() -> None:
    """gh-106052: such a repeat of what can be read in two ways may match too little. Debian 12 has Python 3.11.2."""
    assert _made_of("(?:a|b)*+") & _BROKEN
    assert _made_of("(?>a)") & _BROKEN
    source = sorted(Path(cloister.__file__).parent.rglob("*.py"))
    found = [(path, pattern, line) for path in source for pattern, line in _patterns(path)]
    assert len(found) > 50
    assert [(path.name, line) for path, pattern, line in found if _made_of(pattern) & _BROKEN] == []
