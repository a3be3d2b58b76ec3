"""``cloister explain``: what a code means, who can mend it and how, without a network (docs/reference/errors.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.codes import Code
    from cloister.wire import Json

__all__ = ["explain"]

_URN = "urn:cloister:problem:"


def _known(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the codes that begin like that, for a shell that completes."""
    from cloister.codes import CODES  # noqa: PLC0415 - the whole table, for this command alone

    return [name for name in sorted(CODES) if name.startswith(begun)]


@click.command(cls=Verb)
@click.argument("codes", nargs=-1, shell_complete=_known)
@pass_terminal
def explain(terminal: Terminal, /, *, codes: tuple[str, ...]) -> None:
    """Print cause and fix of CODES, or without any the list of all. Reads nothing and asks nobody."""
    if not codes:
        _list(terminal)
        return
    found = [_find(word.removeprefix(_URN)) for word in codes]
    answered = [(code, _statuses(code.name)) for code in found]
    terminal.result(
        {"codes": [_json(code, statuses) for code, statuses in answered]},
        lambda console: _draw(terminal, answered, console),
    )


def _find(name: str) -> Code:
    """Return a code. Raises ``UsageError`` for a word that is none, with the nearest."""
    from cloister.codes import find  # noqa: PLC0415 - the whole table, for this command alone

    code, near = find(name)
    if code is None:
        msg = f"{name[:80]}: no such code"
        raise UsageError(msg, hint=f"did you mean {near!r}?" if near else "'cloister explain' lists all")
    return code


def _list(terminal: Terminal) -> None:
    from cloister.codes import CHAPTERS, plain  # noqa: PLC0415 - the whole table, for this command alone

    def draw(console: Console) -> None:
        for chapter in CHAPTERS:
            rows = [(code.name, plain(code.cause)) for code in chapter.codes]
            console.print(terminal.table(("", ""), rows, title=f"\n{chapter.title}"))

    terminal.result({"codes": [_json(code, {}) for chapter in CHAPTERS for code in chapter.codes]}, draw)


def _statuses(name: str) -> dict[str, int]:
    """Return the HTTP status by server, where a server answers this code with one of its own."""
    from cloister.client.proxy.refusal import STATUS_BY_CODE as PROXY  # noqa: PLC0415 - for this command alone
    from cloister.custodian.problems import STATUS_BY_CODE as CUSTODIAN  # noqa: PLC0415 - for this command alone
    from cloister.enclave.problems import STATUS_BY_CODE as ENCLAVE  # noqa: PLC0415 - for this command alone
    from cloister.verifier.problems import STATUSES as VERIFIER  # noqa: PLC0415 - for this command alone

    servers = {"custodian": CUSTODIAN, "enclave": ENCLAVE, "proxy": PROXY, "attestation service": VERIFIER}
    return {server: table[name] for server, table in servers.items() if name in table}


def _json(code: Code, statuses: dict[str, int]) -> Json:
    from cloister.codes import plain  # noqa: PLC0415 - the whole table, for this command alone

    document: dict[str, Json] = {
        "cause": plain(code.cause),
        "code": code.name,
        "docs": code.place,
        "example": code.example,
        "exit_code": int(code.fault.value) if code.fault.value.isdigit() else None,
        "fix": plain(code.fix),
        "type": code.urn,
        "who": code.who.value,
    }
    return document | ({"statuses": dict(statuses)} if statuses else {})


def _draw(terminal: Terminal, answered: list[tuple[Code, dict[str, int]]], out: Console) -> None:
    from cloister.codes import plain  # noqa: PLC0415 - the whole table, for this command alone

    for number, (code, statuses) in enumerate(answered):
        rows = [
            ("cause", plain(code.cause)),
            ("fix", plain(code.fix)),
            ("who", code.who.value),
            ("exit code", plain(code.fault.value)),
            *(
                (("http", ", ".join(f"{status} ({server})" for server, status in statuses.items())),)
                if statuses
                else ()
            ),
            ("looks like", code.example),
            ("docs", code.place),
        ]
        out.print(terminal.table(("", ""), rows, title=f"\n{code.name}" if number else code.name))
