"""``cloister manual``: man pages, written from the commands themselves (man-pages(7), groff_man(7)).

One page for ``cloister`` and one for each noun, so that ``man cloister-loan`` says what ``cloister loan --help`` says
of every verb. The wheel carries them in ``share/man/man1``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

import cloister
from cloister.cli.terminal import Terminal, Verb, pass_terminal, write_file
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["manual", "manual_pages"]

_EXITS = (
    ("0", "Done."),
    ("2", "Usage: a bad argument, a missing file, a setting out of range."),
    ("3", "Malformed: somebody's bytes do not parse."),
    ("4", "Rejected: well formed, and the answer is no; every reason is shown."),
    ("5", "Unavailable: it could not be decided."),
    ("130", "Interrupted."),
)
_ESCAPES = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "^": "\\(ha", "~": "\\(ti"})
"""Characters that groff shows as others, or takes for requests (groff_char(7))."""


@click.command(cls=Verb)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--force", is_flag=True, help="Replace pages that are there.")
@pass_terminal
def manual(terminal: Terminal, /, *, out: Path, force: bool) -> None:
    """Write the man pages into the folder OUT: cloister manual ~/.local/share/man/man1."""
    from cloister.cli import app  # noqa: PLC0415 - the whole command line, which loads this file

    pages = manual_pages(app)
    for name, text in pages.items():
        write_file(out / name, text.encode("utf-8"), force=force)
    terminal.result(
        {"folder": str(out), "pages": sorted(pages)}, lambda console: console.print(f"{len(pages)} pages in {out}")
    )


def manual_pages(app: click.Command) -> Mapping[str, str]:
    """Return every page by its file's name. Raises ``UsageError`` where ``app`` has no nouns."""
    if not isinstance(app, click.Group):
        msg = "manual: a command line without nouns"
        raise UsageError(msg)
    context = click.Context(app, info_name="cloister", **app.context_settings)
    nouns = {name: app.get_command(context, name) for name in app.list_commands(context)}
    found = {name: command for name, command in nouns.items() if command is not None}
    pages = {f"cloister-{name}.1": _page(name, command, context, found) for name, command in found.items()}
    return {"cloister.1": _top(app, found)} | pages


def _top(app: click.Command, nouns: Mapping[str, click.Command]) -> str:
    lines = [*_head("cloister", _summary(app)), ".SH SYNOPSIS", ".B cloister", "NOUN VERB [OPTIONS]"]
    lines += [".SH DESCRIPTION", *_prose(app), ".SH NOUNS"]
    for name, command in nouns.items():
        lines += [".TP", f".BR cloister\\-{_escape(name)} (1)", _escape(_summary(command))]
    lines += [".SH EXIT STATUS"]
    for code, meaning in _EXITS:
        lines += [".TP", f".B {code}", meaning]
    return _text([*lines, *_see_also(nouns)])


def _page(name: str, command: click.Command, context: click.Context, nouns: Mapping[str, click.Command]) -> str:
    lines = [*_head(f"cloister-{name}", _summary(command)), ".SH SYNOPSIS"]
    verbs = list(_verbs(command, click.Context(command, info_name=name, parent=context)))
    for verb, inner in verbs:
        lines += [f".B {_escape(inner.command_path)}", _escape(" ".join(verb.collect_usage_pieces(inner))), ".br"]
    lines += [".SH DESCRIPTION", *_prose(command)]
    if isinstance(command, click.Group):
        lines += [".SH VERBS"]
    for verb, inner in verbs:
        if isinstance(command, click.Group):
            lines += [f".SS {_escape(inner.command_path)}", *_prose(verb)]
        lines += _options(verb, inner)
    return _text([*lines, *_see_also({other: nouns[other] for other in nouns if other != name})])


def _verbs(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield every command below this one that does something, itself where it does."""
    if not isinstance(command, click.Group):
        yield command, context
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None:
            yield from _verbs(found, click.Context(found, info_name=name, parent=context))


def _options(verb: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in verb.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield from (".TP", f".B {_escape(record[0])}", _escape(record[1]))


def _head(name: str, summary: str) -> list[str]:
    title = f'.TH {_escape(name.upper())} 1 "" "cloister {cloister.__version__}" "Cloister"'
    return [title, ".SH NAME", f"{_escape(name)} \\- {_escape(summary.rstrip('.'))}"]


def _see_also(nouns: Mapping[str, click.Command]) -> list[str]:
    names = ["cloister", *(f"cloister-{name}" for name in nouns)]
    return [".SH SEE ALSO", *(f".BR {_escape(name)} (1)," for name in names[:-1]), f".BR {_escape(names[-1])} (1)"]


def _summary(command: click.Command) -> str:
    return command.get_short_help_str(limit=200)


def _prose(command: click.Command) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", (command.help or "").replace("\b", "").strip()):
        yield from (".PP", _escape(" ".join(paragraph.split())))


def _escape(text: str) -> str:
    """Return text as roff shows it: nothing in it is a request or an escape (groff(7), "Escape sequences")."""
    plain = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    )
    return f"\\&{plain}" if plain.startswith((".", "\\(aq")) else plain


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
