"""What the consumer's commands share: whom to trust, who we are, how a verdict is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.rats import Verdict
from cloister.client import Client, Trust
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from cloister.attest.rats import Check
    from cloister.attest.verifier import Scheme
    from cloister.cli.terminal import Terminal
    from cloister.client import VerifiedEnclave
    from cloister.wire import Json

__all__ = ["check_json", "connect", "consumer_options", "draw_checks", "enclave_json"]

_file = click.Path(path_type=Path, dir_okay=False)
_MARKS = {Verdict.PASSED: ("✓", "green"), Verdict.FAILED: ("✗", "red"), Verdict.NOT_CHECKED: ("·", "dim")}
_SHOWN = 40  # characters of a value in the table; --json has all


def consumer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a consumer: the command gets ``trust``, ``token_file``, ``insecure_simulated_root``."""
    for option in (
        click.option("--insecure-simulated-root", type=_file, help="Accept a simulated TEE under this root."),
        click.option("--token-file", metavar="FILE", help="File with your consumer token (mode 0600)."),
        click.option("--trust", type=_file, required=True, help="Whom you trust: see 'cloister trust new'."),
    ):
        command = option(command)
    return command


def connect(
    terminal: Terminal, url: str, *, trust: Path, token_file: str | None, insecure_simulated_root: Path | None
) -> Client:
    """Return a client of the enclave at ``url`` once it satisfies the trust file.

    A trust file that names a simulated root is not enough: the flag must name the same root.
    """
    decided = Trust.load(trust)
    schemes = _simulated(terminal, decided, insecure_simulated_root)
    return Client.verify(url, decided, token_file=token_file, schemes=schemes)


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


def check_json(check: Check) -> Json:
    """Return one check as ``--json`` prints it."""
    return {
        "code": check.code,
        "got": check.got,
        "note": check.note,
        "subject": check.subject,
        "verdict": check.verdict.value,
        "want": check.want,
    }


def enclave_json(enclave: VerifiedEnclave) -> dict[str, Json]:
    """Return a verified enclave as ``--json`` prints it."""
    return {
        "checks": [check_json(check) for check in enclave.checks],
        "instance": enclave.instance,
        "models": {model.name: model.digest for model in enclave.keyset.models},
        "operator": enclave.operator,
        "policy_digest": enclave.result.policy_digest,
        "tee": enclave.result.tee,
        "tier": enclave.result.tier.value,
        "url": enclave.url,
    }


def draw_checks(terminal: Terminal, checks: Iterable[Check], out: Console) -> None:
    """Draw every check: what was compared, what was there, what had to be."""
    table = terminal.table(("", "check", "got", "want"), ())
    for check in checks:
        mark, style = _MARKS[check.verdict]
        table.add_row(mark, check.subject, check.got[:_SHOWN], (check.want or check.note)[:_SHOWN], style=style)
    out.print(table, markup=False)
