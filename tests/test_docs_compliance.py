"""The page for auditors: every command on it is one, and every article has its row."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from cloister.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[1] / "docs" / "compliance.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    set(re.findall(r"^\$ cloister (.*)$", PAGE, re.MULTILINE)) | set(re.findall(r"`cloister ([a-z][^`]*)`", PAGE))
)
LOOKING = (
    "audit gaps", "audit hold list", "audit list", "audit prove", "audit retention", "audit verify", "audit export",
    "custodian proposals", "custodian show", "custodian token list", "loan list",
)  # fmt: skip
"""Commands that change nothing: ``tests/cli/test_audit_persons_cli.py`` runs them, in the order of the page."""
NEEDS_MORE = ("--witness", "--loan-file", "contract", "log.ocsf.manifest --key")


def parsed(words: list[str]) -> click.Context:
    """Return the context of the last command of a line, its options and arguments taken. Raises ``UsageError``."""
    context = click.Context(app, info_name="cloister")
    command: click.Command = app
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, name
        command, context = found, click.Context(command, parent=context)
    return command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_is_one(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.jsonl").touch()
    parsed(shlex.split(line))


def test_a_command_that_is_none_is_found() -> None:
    for line in ("audit export --format xml", "audit nothing", "audit hold add", "audit forget"):
        with pytest.raises((click.UsageError, AssertionError)):
            parsed(shlex.split(line))


def told() -> Iterator[str]:
    """Yield the commands that only look, as the page has them from top to bottom."""
    seen = set()
    for line in re.findall(r"(?:^\$ |`)cloister ([a-z][^`\n]*)", PAGE, re.MULTILINE):
        looks = line.startswith(LOOKING) and not any(word in line for word in NEEDS_MORE)
        if looks and line not in seen:
            seen.add(line)
            yield line


@pytest.mark.parametrize(
    "article",
    [
        "(a)(1)", "(a)(2)(i)", "(a)(2)(ii)", "(a)(2)(iii)", "(a)(2)(iv)", "(b)", "(c)(1)", "(d)", "(e)(1)", "5(1)(c)",
        "5(1)(e)", "5(1)(f)", "17", "25", "30", "32(1)(a)", "CC6.1", "CC6.2", "CC6.6", "CC6.7", "CC6.8", "CC7.1",
        "CC7.3", "CC7.5", "12(1)", "19(1)",
    ],
)  # fmt: skip
def test_every_requirement_has_a_row_with_a_command(article: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| {article}")]
    assert rows, article
    assert all("`cloister " in row or row.endswith(" as 25, and 164.312(a)(2)(iv) |") for row in rows)


@pytest.mark.parametrize("law", ["HIPAA", "GDPR", "SOC 2", "EU AI Act"])
def test_every_law_says_what_is_not_covered(law: str) -> None:
    section = PAGE.split(f"## {law}", 1)[1].split("\n## ", 1)[0]
    assert "**Not covered:**" in section
