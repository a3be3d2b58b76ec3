"""``cloister drill``: measure what is promised, for real."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from cloister.cli.consumer import connect, consumer_options
from cloister.cli.drill_stop import Asker
from cloister.cli.pending import is_pending
from cloister.cli.remote import from_options, home_option, segment
from cloister.cli.terminal import EXIT_REJECTED, Group, Terminal, pass_terminal
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from cloister.cli.drill_stop import Measured
    from cloister.cli.remote import Remote
    from cloister.wire import Json

__all__ = ["drill"]

_MARGIN_S = 2.0  # seconds asked beyond the bound before an enclave counts as not stopping
_ANSWER_S = 30.0  # seconds an enclave may take to its first answer
_TICK_S = 0.05


@click.group(cls=Group)
def drill() -> None:
    """Measure what is promised, for real."""


def _staff_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which custodian, beside a consumer's own ``--token-file``."""
    file = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--staff-token-file", metavar="FILE", help="File with your API token (mode 0600)."),
        click.option("--ca", type=file, help="PEM file of the custodian's TLS authority."),
        click.option("--url", help="Base URL of the custodian's API."),
        home_option,
    ):
        command = option(command)
    return command


@drill.command()
@click.argument("loan", required=False)
@click.option("--model", help="Stop a model, by its digest, in all loans.")
@click.option("--instance", help="Stop one enclave instance, by its id.")
@click.option("--enclave", "enclaves", multiple=True, required=True, help="URL of a live enclave; repeat for more.")
@click.option("--ask", help="Name of the model to ask; needed where an enclave has several.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 100), default=5, show_default=True, help="Questions a second and enclave."
)
@click.option("--reason", default="drill", show_default=True, help="Why; written to the audit log.")
@click.option(
    "--lift", is_flag=True, help="Lift the block afterwards, or ask a second person to; else it stays in force."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_staff_options
@consumer_options
@pass_terminal
def stop(
    terminal: Terminal,
    /,
    *,
    loan: str | None,
    model: str | None,
    instance: str | None,
    enclaves: tuple[str, ...],
    ask: str | None,
    rate: float,
    reason: str,
    lift: bool,
    yes: bool,
    home: Path | None,
    url: str | None,
    ca: Path | None,
    staff_token_file: str | None,
    **whom: Any,
) -> int:
    """Block a loan, model or instance for real, and measure when each enclave gives its last answer.

    Every enclave is asked without pause, one unit a question. Exits with 4 where one exceeds its bound.
    """
    target = _target(loan=loan, model=model, instance=instance)
    with ExitStack() as stack:
        remote = stack.enter_context(from_options(home=home, url=url, ca=ca, token_file=staff_token_file))
        clients = [stack.enter_context(connect(terminal, place, **whom)) for place in enclaves]
        askers = [Asker(client, ask or _only_model(client.enclave.keyset.models), rate=rate) for client in clients]
        question = f"block {target.kind} {target.subject} now, and stop {len(askers)} enclave(s)?"
        terminal.confirm(question, yes=yes)
        stopped = _measure(terminal, remote, target, askers, reason)
        shown = _finish(remote, target, stopped, lift=lift)
    terminal.result(shown, lambda out: _draw(terminal, shown, stopped.enclaves, out))
    return 0 if all(item.kept for item in stopped.enclaves) else EXIT_REJECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What is blocked."""

    kind: str
    subject: str


def _target(**named: str | None) -> _Target:
    found = [_Target(kind=kind, subject=subject) for kind, subject in named.items() if subject is not None]
    if len(found) != 1:
        msg = f"drill stop: {len(found)} subjects, want one of LOAN, --model and --instance"
        raise UsageError(msg)
    return found[0]


def _only_model(models: Sequence[Any]) -> str:
    if len(models) != 1:
        msg = f"drill stop: an enclave has {len(models)} models"
        raise UsageError(msg, hint="say which to ask with --ask")
    return str(models[0].name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stopped:
    """The block as the custodian answered it, and what every enclave did."""

    block: dict[str, Any]
    enclaves: tuple[Measured, ...]
    not_asked: tuple[str, ...]


def _measure(terminal: Terminal, remote: Remote, target: _Target, askers: Sequence[Asker], reason: str) -> _Stopped:
    """Ask, block, go on asking until every enclave has stopped or the bound is over by a margin."""
    for asker in askers:
        asker.start()
    try:
        _until_answering(askers)
        since = time.monotonic()
        block = remote.post("/v1/blocks", {"kind": target.kind, "reason": reason, "subject": target.subject})
        seconds = float(block["bound"]["seconds"])
        terminal.say(f"blocked; promised to stop within {seconds:g} s or {block['bound']['units']} units")
        while time.monotonic() < since + seconds + _MARGIN_S and not all(asker.over for asker in askers):
            time.sleep(_TICK_S)
    finally:
        for asker in askers:
            asker.stop()
    units = {str(item["instance"]): int(item["units"]) for item in block["instances"]}
    return _Stopped(
        block=block,
        enclaves=tuple(asker.measured(since, seconds, units.get(asker.instance, 0)) for asker in askers),
        not_asked=tuple(sorted(set(units) - {asker.instance for asker in askers})),
    )


def _until_answering(askers: Sequence[Asker]) -> None:
    """Wait until every enclave has answered. Raises what one said instead; then nothing was blocked."""
    end = time.monotonic() + _ANSWER_S
    while not all(asker.answered for asker in askers):
        silent = next(asker for asker in askers if not asker.answered)
        if silent.over or time.monotonic() > end:
            if silent.refusal is not None:
                raise silent.refusal
            msg = f"drill stop: {silent.url} gives no answer"
            raise Unavailable(msg, hint="nothing was blocked")
        time.sleep(_TICK_S)


def _finish(remote: Remote, target: _Target, stopped: _Stopped, *, lift: bool) -> dict[str, Json]:
    """Have the figures logged, lift the block where asked, and return everything as JSON."""
    results: list[Json] = [item.result_json() for item in stopped.enclaves]
    remote.post("/v1/drills", {"kind": target.kind, "results": results, "subject": target.subject})
    if lift:
        lift = not is_pending(remote.delete(f"/v1/blocks/{segment(target.kind)}/{segment(target.subject)}"))
    return {
        "bound": dict(stopped.block["bound"]),
        "enclaves": [item.to_json() for item in stopped.enclaves],
        "kind": target.kind,
        "lifted": lift,
        "not_asked": list(stopped.not_asked),
        "subject": target.subject,
        "worst_s": round(max(max(item.last_answer_s, item.last_chunk_s) for item in stopped.enclaves), 3),
        "worst_units": max(item.units_after for item in stopped.enclaves),
    }


def _draw(terminal: Terminal, shown: dict[str, Any], enclaves: Sequence[Measured], out: Console) -> None:
    columns = ("enclave", "instance", "before", "last answer", "units after", "promised", "end", "verdict")
    rows = [
        (
            item.url,
            item.instance[:16],
            str(item.answers_before),
            f"{max(item.last_answer_s, item.last_chunk_s):.3f} s",
            str(item.units_after),
            f"{item.promised_s:g} s, {item.promised_units} units",
            item.end,
            "kept" if item.kept else "EXCEEDED",
        )
        for item in enclaves
    ]
    rows += [("not asked", name[:16], "", "", "", "", "", "not measured") for name in shown["not_asked"]]
    out.print(terminal.table(columns, rows))
    bound = shown["bound"]
    words = f"worst: {shown['worst_s']:g} s and {shown['worst_units']} units; promised {bound['seconds']:g} s"
    out.print(
        Text(f"{words} or {bound['units']} units in all; the block is {'lifted' if shown['lifted'] else 'in force'}")
    )
