"""The commands that stories, README and spec pages tell are complete: they parse, required options and values too."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import click
import pytest
from examples_kit import EXAMPLES, ROOT

from cloister.cli import app

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [*sorted(EXAMPLES.rglob("*.md")), ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def told(page: Path) -> list[str]:
    """Return the command lines of a page's console blocks, continued lines joined."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [
        line for block in blocks for line in re.findall(r"^\$ cloister (.*)$", block.replace("\\\n", ""), re.MULTILINE)
    ]


def parsed(words: list[str]) -> click.Context:
    """Parse a command line down to its verb without running it."""
    command: click.Command = app
    context = click.Context(app, info_name="cloister")
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    return command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("line", [line for page in PAGES for line in told(page)])
def test_a_told_command_parses(line: str) -> None:
    context = parsed(shlex.split(line, comments=True))
    given = context.params
    if "anybody" in given and not given.get("source"):  # a contract's file says it
        assert bool(given["consumers"]) != given["anybody"], "consumers are named, or anybody is said"
        assert given["tokens"] or not given["consumers"], "named consumers get tokens"


def test_the_stories_tell_commands() -> None:
    assert all(told(page) for page in EXAMPLES.glob("stories/*.md"))
