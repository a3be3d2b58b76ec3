"""``cloister policy``: appraisal policies made, explained and proven to bite (docs/spec/policy.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.appraise import mismatch_code
from cloister.attest.lint import Severity, lint_policy, uncovered_bytes
from cloister.attest.propose import propose
from cloister.attest.rules import wanted
from cloister.attest.vocabulary import describe_claim
from cloister.cli.attest_verify import read_policy
from cloister.cli.evidence_files import read_evidence
from cloister.cli.evidence_options import EvidenceOptions, at_option, evidence_options
from cloister.cli.terminal import EXIT_REJECTED, Group, Terminal, demand_writable, pass_terminal, write_file
from cloister.errors import Rejected, UsageError
from cloister.wire import Json, dump_json

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.attest.lint import Finding
    from cloister.attest.policy import Policy

__all__ = ["policy"]

_file = click.Path(path_type=Path, dir_okay=False)
_MOST_BYTES = 2048  # damaged copies of one piece of evidence
_MAX_BYTES = 1 << 20


@click.group(cls=Group)
def policy() -> None:
    """Make, explain and lint appraisal policies: what evidence has to say to be accepted."""


@policy.command()
@evidence_options()
@at_option
@click.option("--version", type=click.IntRange(min=1), default=1, show_default=True, help="Version of the policy.")
@click.option("--out", type=_file, help="Write the policy here (JSON) [default: stdout].")
@click.option("--force", is_flag=True, help="Replace the file.")
@pass_terminal
def new(
    terminal: Terminal, /, *, moment: datetime | None, version: int, out: Path | None, force: bool, **given: Any
) -> None:
    """Propose a policy that accepts this evidence: measurements pinned, versions as minimum, debug refused.

    The evidence is verified first; what nobody vouches for is no reference value. Read the result before you use it:
    it says what this machine is, not what a good one should be.
    """
    from cloister.attest.schemes import required_claims  # noqa: PLC0415 - imports every verifier
    from cloister.cli.evidence_case import opener  # noqa: PLC0415 - the same

    demand_writable([out], force=force)
    options, now = EvidenceOptions(**given), moment or datetime.now(UTC)
    data = read_evidence(options.evidence)
    verified = opener(terminal, options, data, now).open(data, now, {}, None).verify(now)
    made = propose(verified, required_claims().get(verified.tee, frozenset()), version=version)
    if out is not None:
        write_file(out, json.dumps(made.to_json(), indent=2, sort_keys=True).encode() + b"\n", force=force)
    terminal.result(made.to_json(), lambda console: _draw_new(terminal, made, out, console))


def _draw_new(terminal: Terminal, made: Policy, out: Path | None, console: Console) -> None:
    if out is None:
        console.print(json.dumps(made.to_json(), indent=2, sort_keys=True))
        return
    _draw_rules(terminal, made, console)
    console.print(f"wrote {out}")


@policy.command()
@click.argument("file", type=_file)
@pass_terminal
def explain(terminal: Terminal, /, *, file: Path) -> None:
    """Say in plain words what FILE accepts, and what a refusal would be called."""
    found = read_policy(file)
    rows: list[Json] = [
        {
            "claim": name,
            "code": mismatch_code(name),
            "meaning": describe_claim(tee, name).meaning,
            "tee": tee,
            "wants": wanted(rule),
        }
        for tee, rules in found.tees.items()
        for name, rule in rules.rules.items()
    ]
    document: dict[str, Json] = {"digest": found.digest, "rules": rows, "version": found.version}
    terminal.result(document, lambda out: _draw_explained(terminal, found, out))


def _draw_explained(terminal: Terminal, found: Policy, out: Console) -> None:
    out.print(f"policy version {found.version}, digest {found.digest}")
    _draw_rules(terminal, found, out)
    out.print(f"Every other tee is refused: this policy names {', '.join(sorted(found.tees))}.")


def _draw_rules(terminal: Terminal, found: Policy, out: Console) -> None:
    for tee, rules in found.tees.items():
        rows = [
            (name, wanted(rule), mismatch_code(name), describe_claim(tee, name).meaning)
            for name, rule in sorted(rules.rules.items())
        ]
        out.print(terminal.table((tee, "wants", "else", "meaning"), rows))


@policy.command()
@click.argument("file", type=_file)
@evidence_options(required=False)
@at_option
@click.option(
    "--most",
    type=click.IntRange(1, _MAX_BYTES),
    default=_MOST_BYTES,
    show_default=True,
    help="How many bytes of the evidence to damage, evenly spread.",
)
@pass_terminal
def lint(
    terminal: Terminal,
    /,
    *,
    file: Path,
    tee: str | None,
    evidence: Path | None,
    moment: datetime | None,
    most: int,
    **given: Any,
) -> int:
    """Prove by mutation that every rule of FILE bites, and name the ones that do not.

    With --tee and --evidence, which FILE has to accept, bytes of the evidence are damaged one by one too: what is then
    still accepted is covered by no signature and no rule.

    Exit code 0: all bite, or say why they do not. 4: a rule guards nothing or refuses everything.
    """
    from cloister.attest.schemes import required_claims  # noqa: PLC0415 - imports every verifier

    found = read_policy(file)
    findings = lint_policy(found, required_claims())
    document: dict[str, Json] = {"findings": [_finding_json(item) for item in findings]}
    damage: _Damage | None = None
    if tee is not None and evidence is not None:
        options = EvidenceOptions(tee=tee, evidence=evidence, **given)
        damage = _damage(terminal, found, options, moment or datetime.now(UTC), most)
        accepted: list[Json] = [list(item) for item in damage.accepted]
        document["evidence"] = {"accepted": accepted, "bytes": damage.size, "tried": damage.tried}
    elif tee is not None or evidence is not None or any(given.values()):
        msg = "lint: evidence wants both --tee and --evidence"
        raise UsageError(msg)
    terminal.result(document, lambda out: _draw_findings(terminal, findings, damage, out))
    return EXIT_REJECTED if any(item.severity is Severity.ERROR for item in findings) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Damage:
    """Evidence of ``size`` bytes, of which ``tried`` were damaged; ``accepted`` are ranges that made no difference."""

    size: int
    tried: int
    accepted: tuple[tuple[int, int], ...]


def _damage(terminal: Terminal, found: Policy, options: EvidenceOptions, now: datetime, most: int) -> _Damage:
    """Damage evidence that the policy accepts, byte by byte."""
    from cloister.attest.dossier import judge  # noqa: PLC0415 - with every verifier
    from cloister.cli.evidence_case import opener  # noqa: PLC0415 - the same

    data = read_evidence(options.evidence)
    opened = opener(terminal, options, data, now)
    honest = judge(opened.open(data, now, {}, None), now, found)
    if honest.reasons:
        msg = f"lint: the policy refuses this evidence as it is: {honest.reasons[0]}"
        raise Rejected(msg, reasons=honest.reasons, hint="give evidence that the policy accepts")

    def accepts(candidate: bytes) -> bool:
        return not judge(opened.open(candidate, now, {}, None), now, found).reasons

    with terminal.progress("damaging evidence", unit="bytes tried") as report:
        tried, _, accepted = uncovered_bytes(data, accepts, most=most, progress=report)
    return _Damage(size=len(data), tried=tried, accepted=accepted)


def _finding_json(item: Finding) -> Json:
    return {"claim": item.claim, "severity": item.severity.value, "tee": item.tee, "text": item.text}


def _draw_findings(
    terminal: Terminal,
    findings: tuple[Finding, ...],
    damage: _Damage | None,
    out: Console,
) -> None:
    rows = [(item.severity.value, item.tee, item.claim, item.text) for item in findings]
    out.print(terminal.table(("", "tee", "claim", "finding"), rows) if rows else "every rule bites")
    if damage is not None:
        where = ", ".join(f"{start}..{end - 1}" for start, end in damage.accepted) or "none"
        out.print(f"{damage.tried} of {damage.size} bytes of the evidence damaged, one at a time")
        out.print(f"covered by nothing, and still accepted: {where}")


@policy.command()
@pass_terminal
def schema(terminal: Terminal, /) -> None:
    """Print the JSON Schema of a policy, for editors."""
    text = resources.files("cloister.attest.vocabulary").joinpath("policy.schema.json").read_text(encoding="utf-8")
    terminal.result(json.loads(text), lambda out: out.print(text.rstrip()))


@policy.command()
@click.argument("file", type=_file)
@pass_terminal
def digest(terminal: Terminal, /, *, file: Path) -> None:
    """Print the digest of a policy: the same for JSON and TOML, whatever the spelling."""
    found = read_policy(file)
    document: dict[str, Json] = {"bytes": len(dump_json(found.to_json())), "digest": found.digest}
    terminal.result(document, lambda out: out.print(found.digest))
