"""``cloister doctor``: what this host has, what is missing, and what to do about it (docs/reference/doctor.md).

Looks, and changes nothing but one file of a page that it writes and takes away. No secret is read.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.doctor.enclave import look_at_enclave
from cloister.cli.doctor.finding import State
from cloister.cli.doctor.ground import look_at_home, look_at_port, look_at_process
from cloister.cli.doctor.host import Host
from cloister.cli.doctor.system import look_at_system
from cloister.cli.terminal import EXIT_REJECTED, Terminal, Verb, pass_terminal
from cloister.custodian.config import Config
from cloister.enclave.attesters.machine import Machine
from cloister.enclave.config import DEFAULT_HOST, DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from cloister.cli.doctor.finding import Finding

__all__ = ["doctor", "examine"]

ROLES = ("custodian", "enclave", "consumer")
_MARKS = {State.GOOD: "ok", State.NOTE: "--", State.WARNING: "!!", State.FAILED: "XX"}
_STYLES = {State.GOOD: "green", State.NOTE: "dim", State.WARNING: "yellow", State.FAILED: "bold red"}


@click.command(cls=Verb)
@click.option(
    "--role", type=click.Choice(ROLES), multiple=True, help="What the host is to be; repeatable. [default: all]"
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="The custodian's home [env CLOISTER_CUSTODIAN_HOME].",
)
@click.option("--tpm", default="", help="Where the TPM is, where it is not at its usual place: PATH or unix:PATH.")
@click.option("--all", "everything", is_flag=True, help="Show what is as it should be, too.")
@pass_terminal
def doctor(terminal: Terminal, /, *, role: tuple[str, ...], home: Path | None, tpm: str, everything: bool) -> None:
    """Look at this host: TEE, TPM, clock, entropy, memory, disk, ports, versions; say what to do.

    Exit code 4 where something will not work for one of the roles.
    """
    place = home or Path(os.environ.get("CLOISTER_CUSTODIAN_HOME") or "custodian")
    found = tuple(examine(role or ROLES, Host(), home=place, machine=Machine(tpm=tpm)))
    terminal.result([item.to_json() for item in found], lambda out: _show(terminal, out, found, everything=everything))
    if any(item.state is State.FAILED for item in found):
        raise click.exceptions.Exit(EXIT_REJECTED)


def examine(roles: tuple[str, ...], host: Host, *, home: Path, machine: Machine) -> Iterator[Finding]:
    """Yield every finding for these roles."""
    yield from look_at_system(host)
    if roles[0] != "consumer" or len(roles) > 1:
        yield look_at_process(host)
    if "enclave" in roles:
        yield from look_at_enclave(host, machine)
        yield look_at_port(DEFAULT_HOST, DEFAULT_PORT)
    if "custodian" in roles:
        yield from look_at_home(home, host)
        yield look_at_port(Config().host, Config().port)


def _show(terminal: Terminal, out: Console, found: tuple[Finding, ...], *, everything: bool) -> None:
    shown = [item for item in found if everything or item.state in (State.WARNING, State.FAILED) or item.fix]
    if shown:
        out.print(
            terminal.table(("", "what", "found", "do"), [(_MARKS[i.state], i.name, i.found, i.fix) for i in shown])
        )
    counts = Counter(item.state for item in found)
    out.print(
        f"{len(found)} things: " + ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    )
