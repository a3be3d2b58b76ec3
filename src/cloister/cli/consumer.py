"""What the consumer's commands share: whom to trust, who we are, how a verdict is shown.

The one place on the consumer's side where a simulated TEE can be let in: the trust file must name its root, and
the command line must name the same root again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from cloister.attest.rats import Verdict
from cloister.cli.endorsement_folder import read_endorsements
from cloister.cli.terminal import read_secret
from cloister.client import Client, Trust
from cloister.client.way import Way
from cloister.errors import UsageError
from cloister.journal import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rich.console import Console

    from cloister.attest.rats import Check
    from cloister.attest.verifier import Scheme
    from cloister.cli.terminal import Terminal

__all__ = ["Whom", "connect", "consumer_options", "draw_checks", "whom"]

TOKEN_VARIABLE = "CLOISTER_TOKEN"  # noqa: S105 - the name of a variable
TRUST_VARIABLE = "CLOISTER_TRUST"
_file = click.Path(path_type=Path, dir_okay=False)
_MARKS = {Verdict.PASSED: ("✓", "green"), Verdict.FAILED: ("✗", "red"), Verdict.NOT_CHECKED: ("·", "dim")}
_SHOWN = 40  # characters of a value in the table; --json has all


@dataclass(frozen=True, slots=True, kw_only=True)
class Whom:
    """Whom a consumer trusts and who it is, as ``Client.verify`` takes it."""

    trust: Trust
    schemes: tuple[Scheme, ...]
    endorsements: Mapping[str, bytes]
    token: Secret[str] | None
    token_file: Path | None
    certificate_file: Path | None
    allowance: Path | None
    way: Way

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything but the trust."""
        return {
            "endorsements": self.endorsements,
            "schemes": self.schemes,
            "sub_allowance": self.allowance,
            "token": None if self.token is None else self.token.reveal(),
            "token_file": self.token_file,
            "certificate_file": self.certificate_file,
            "way": self.way,
        }


def consumer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a consumer: the command gets ``trust``, ``token_file`` and what may be let in."""
    for option in (
        click.option(
            "--allowance",
            type=_file,
            help="Sub-allowance file in place of a token ('cloister allowance new').",
        ),
        click.option(
            "--certificate",
            type=_file,
            help="Client certificate with its key (PEM, mode 0600), shown over pinned TLS.",
        ),
        click.option(
            "--endorsements",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of vendors' endorsements of your own, in place of those the enclave sends.",
        ),
        click.option(
            "--insecure-simulated-root", type=_file, help="Accept the simulated TEE of the trust. Protects nothing."
        ),
        click.option(
            "--token-file",
            metavar="FILE",
            help=f"File with your token (mode 0600), read again when it changes; - for stdin [env {TOKEN_VARIABLE}].",
        ),
        click.option(
            "--trust",
            type=_file,
            envvar=TRUST_VARIABLE,
            required=True,
            help=f"Whom you trust: see 'cloister trust new' [env {TRUST_VARIABLE}].",
        ),
        click.option(
            "--way",
            type=click.Choice([str(way) for way in Way]),
            default=str(Way.AUTO),
            show_default=True,
            help="How requests go in: encapsulated, over TLS under an attested key, or the cheaper that is as strong.",
        ),
    ):
        command = option(command)
    return command


def whom(
    terminal: Terminal,
    *,
    trust: Path,
    token_file: str | None,
    insecure_simulated_root: Path | None,
    endorsements: Path | None,
    allowance: Path | None = None,
    certificate: Path | None = None,
    way: str = Way.AUTO,
) -> Whom:
    """Return whom to trust and who we are.

    A trust file that names a simulated root is not enough: the flag must name the same root.
    """
    decided = Trust.load(trust)
    own = token_file != "-"  # noqa: S105 - stdin; a file of ours is read by the client itself, whenever it changes
    return Whom(
        trust=decided,
        schemes=_simulated(terminal, decided, insecure_simulated_root),
        endorsements=read_endorsements(endorsements),
        token=None if (own and token_file) or (allowance and not token_file) else _token(token_file),
        token_file=Path(token_file) if own and token_file else None,
        certificate_file=certificate,
        allowance=allowance,
        way=Way.of(way),
    )


def connect(terminal: Terminal, url: str, **options: Any) -> Client:
    """Return a client of the enclave at ``url`` once it satisfies the trust file; ``options`` are those of ``whom``."""
    found = whom(terminal, **options)
    return Client.verify(url, found.trust, **found.arguments)


def _token(token_file: str | None) -> Secret[str] | None:
    if token_file is not None:
        return read_secret(token_file, what="token")
    text = os.environ.get(TOKEN_VARIABLE)
    return Secret(text) if text else None


def _simulated(terminal: Terminal, trust: Trust, root: Path | None) -> tuple[Scheme, ...]:
    if root is None:
        if trust.simulated_root is not None:
            msg = "trust: accepts a simulated tee, which protects nothing"
            raise UsageError(msg, hint="say --insecure-simulated-root too if that is what you want")
        return ()
    from cloister.testing.simulated import WARNING, SimulatedScheme  # noqa: PLC0415 - in no production process
    from cloister.testing.simulated_root import load_root_key  # noqa: PLC0415 - the same

    key = load_root_key(root)
    if trust.simulated_root != key:
        msg = f"{root}: is not the simulated root that the trust file names"
        raise UsageError(msg)
    terminal.warn(WARNING)
    return (SimulatedScheme(key),)


def draw_checks(terminal: Terminal, checks: Iterable[Check], out: Console) -> None:
    """Draw every check: what was compared, what was there, what had to be, or why it was not compared."""
    table = terminal.table(("", "check", "got", "want"), ())
    for check in checks:
        mark, style = _MARKS[check.verdict]
        cells = (mark, check.subject, check.got[:_SHOWN], (check.want or check.note)[:_SHOWN])
        table.add_row(*(Text(cell) for cell in cells), style=style)
    out.print(table)
