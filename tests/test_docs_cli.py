"""The command line's page says what the command line does: every command, every option, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from cloister.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
README = Path(__file__).parent.parent


def _verbs(command: click.Command = app, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from _verbs(found, (*path, name))


VERBS = dict(_verbs())


def _sections() -> dict[tuple[str, ...], str]:
    parts = re.split(r"^### `cloister ([^`]*)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        words = tuple(word for word in heading.split() if re.fullmatch(r"[a-z][a-z-]*", word))
        found[words] = text.split("\n## ", 1)[0]
    return found


def test_every_command_has_a_section_and_no_section_is_of_another() -> None:
    assert set(_sections()) == set(VERBS)


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_option_is_documented_and_no_other(path: tuple[str, ...]) -> None:
    options = [item for item in VERBS[path].params if isinstance(item, click.Option)]
    names = {name for option in options for name in option.opts} - {"--json"}
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", _sections()[path], re.MULTILINE))
    documented = {name for row in rows for name in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row.split(" ", 1)[0])}
    assert documented == names
    assert all(meaning.strip() for meaning in rows.values())


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_command_and_option_explains_itself(path: tuple[str, ...]) -> None:
    command = VERBS[path]
    assert (command.help or "").strip()
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, option.opts


def _told() -> Iterator[tuple[str, list[str]]]:
    """Yield each command line that the docs and examples show, continued lines joined."""
    pages = [README / "README.md", *(README / "docs").rglob("*.md"), *(README / "examples").rglob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        if page != PAGE:
            for line in re.findall(r"^\$ cloister (.*)$|`cloister ([a-z][^`]*)`", text, re.MULTILINE):
                told = line[0] or line[1]
                yield f"{page.name}: {told}", told.split("#")[0].split()


def test_commands_that_the_docs_show_exist_with_their_options() -> None:
    wrong = []
    for place, words in _told():
        path = next((path for path in VERBS if tuple(words[: len(path)]) == path), None)
        if path is None:
            nouns = {path[: len(words)] for path in VERBS}
            wrong += [] if tuple(words) in nouns else [place]
            continue
        known = {name for option in VERBS[path].params for name in option.opts}
        wrong += [f"{place}: {word}" for word in words if word.startswith("--") and word.split("=")[0] not in known]
    assert wrong == []


def test_every_public_python_name_is_documented() -> None:
    import cloister  # noqa: PLC0415 - the names, not the command line

    page = (PAGE.parent / "python.md").read_text(encoding="utf-8")
    kinds = {"Malformed", "Rejected", "Unavailable", "UsageError"}
    for name in cloister.__all__:
        assert f"`{name}`" in page or name in kinds, name
        assert getattr(cloister, name) is not None


def test_arguments_of_the_client_are_documented() -> None:
    import inspect  # noqa: PLC0415 - here only

    from cloister import AsyncClient, Client  # noqa: PLC0415 - here only

    page = (PAGE.parent / "python.md").read_text(encoding="utf-8")
    for method in (Client.verify, Client.infer, AsyncClient.verify, AsyncClient.infer):
        for name in set(inspect.signature(method).parameters) - {"self"}:
            assert re.search(rf"\b{name}\b", page), name
    for name in ("model", "enclave", "url", "reverify", "close", "transport"):
        assert f"`client.{name}" in page
        assert hasattr(Client, name)
        assert hasattr(AsyncClient, name)
