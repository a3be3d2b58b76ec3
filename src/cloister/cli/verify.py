"""``cloister verify``: is this the enclave that I trust? Every check is shown; nothing is asked of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.text import Text

from cloister.cli.consumer import Consumer, consumer_options
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.wire import Json, dump_time

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.attest.rats import Check
    from cloister.client import VerifiedEnclave

__all__ = ["enclave_json", "verify"]

_MARKS = {"passed": ("✓", "green"), "not_checked": ("-", "yellow"), "failed": ("✗", "bold red")}
_SHOWN_CHARS = 72


@click.command(cls=Verb)
@click.argument("url")
@click.option("--all", "every", is_flag=True, help="Show whole values.")
@consumer_options
@pass_terminal
def verify(terminal: Terminal, /, *, url: str, every: bool, consumer: Consumer) -> None:
    """Verify the enclave at URL: fresh evidence by your own policy, and the custodian's status.

    Exit code 0 means that the enclave satisfies the trust file, 4 that it does not, 5 that it could not be decided.
    """
    with consumer.connect(url, terminal, with_token=False) as client:
        enclave = client.enclave
    terminal.result(enclave_json(enclave), lambda out: _show(out, terminal, enclave, every=every))


def enclave_json(enclave: VerifiedEnclave) -> Json:
    """Return a verified enclave as ``--json`` prints it."""
    status = enclave.status
    return {
        "checks": [
            {
                "code": check.code,
                "got": check.got,
                "note": check.note,
                "subject": check.subject,
                "verdict": check.verdict.value,
                "want": check.want,
            }
            for check in enclave.checks
        ],
        "custodian": enclave.keyset.custodian.dump(),
        "expires": dump_time(enclave.keyset.exp),
        "instance": enclave.instance,
        "kem": enclave.suite.kem.name,
        "loan": enclave.keyset.loan,
        "models": [{"digest": model.digest, "name": model.name} for model in enclave.keyset.models],
        "operator": status.operator if status else None,
        "policy_digest": enclave.result.policy_digest,
        "service": enclave.keyset.service,
        "state": status.state if status else None,
        "tee": enclave.result.tee,
        "tier": enclave.result.tier.value,
        "url": enclave.url,
    }


def _show(out: Console, terminal: Terminal, enclave: VerifiedEnclave, *, every: bool) -> None:
    for check in enclave.checks:
        out.print(_line(check, every=every))
    rows = [
        ("verified", f"{enclave.url} ({enclave.result.tee}, tier {enclave.result.tier.value})"),
        ("instance", enclave.instance),
        ("operator", enclave.operator or "not asked"),
        ("loan", enclave.keyset.loan),
        *(("model", f"{model.name} {model.digest}") for model in enclave.keyset.models),
        ("encrypts to", f"{enclave.suite.kem.name}, until {dump_time(enclave.keyset.exp)}"),
    ]
    out.print(terminal.table(("", ""), rows))


def _line(check: Check, *, every: bool) -> Text:
    """Return one check as a line: mark, subject, value, and why it was not compared."""
    mark, style = _MARKS[check.verdict.value]
    got = check.got if every or len(check.got) <= _SHOWN_CHARS else check.got[:_SHOWN_CHARS] + "…"
    line = Text.assemble((mark, style), f" {check.subject}")
    if got:
        line.append(f"  {got}", style="dim")
    if check.note:
        line.append(f"  not checked: {check.note}", style="yellow")
    return line
