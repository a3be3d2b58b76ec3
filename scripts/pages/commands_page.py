"""Writes docs/reference/commands.md from the commands themselves: usage, help, arguments and options."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from cloister.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "commands.md"
_HEAD = """# Every command

Made from the source by `make reference`: what `--help` says of each command, in one page. What a command is for, its answers in JSON and what to know
about it: [command line](cli.md). Every verb takes `--json` too. Exit codes: [errors](errors.md).
"""


def page() -> str:
    """Return the page."""
    return _HEAD + "".join(_sections(app, click.Context(app, info_name="cloister")))


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield _section(command, context)
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None:
            inner = click.Context(found, info_name=name, parent=context)
            if context.parent is None:
                yield f"\n## {name}\n\n{_prose(found)}\n"
            yield from _sections(found, inner)


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    rows = [row for item in command.get_params(context) if (row := _row(item, context))]
    table = f"| Option | Meaning |\n|---|---|\n{''.join(rows)}" if rows else ""
    words = "" if context.parent is not None and context.parent.parent is None else f"{_prose(command)}\n\n"
    return f"\n### {context.command_path}\n\n{words}```text\n{usage}\n```\n\n{table}".rstrip() + "\n"


def _row(item: click.Parameter, context: click.Context) -> str:
    record = item.get_help_record(context)
    if record is None or not record[1] or "--help" in item.opts:
        return ""
    names, meaning = (" ".join(text.split()).replace("|", "\\|") for text in record)
    return f"| `{names}` | {_text(meaning)} |\n"


def _prose(command: click.Command) -> str:
    paragraphs = re.split(r"\n\s*\n", (command.help or "").replace("\b", "").strip())
    return "\n\n".join(_text(" ".join(paragraph.split())) for paragraph in paragraphs)


def _text(words: str) -> str:
    """Return words of a terminal as Markdown: what is marked there is no tag and no link here."""
    return words.replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*").replace("_", "\\_")
