"""``cloister policy``: appraisal policies made, explained and proven to bite (docs/spec/policy.md)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.attest.appraise import mismatch_code
from cloister.attest.lint import Severity, lint_policy, uncovered_bytes
from cloister.attest.policy import Policy
from cloister.attest.propose import propose
from cloister.attest.rules import wanted
from cloister.attest.vocabulary import describe_claim
from cloister.cli.attest_verify import AT, take_roles
from cloister.cli.evidence_files import read_evidence
from cloister.cli.terminal import EXIT_REJECTED, Group, Terminal, pass_terminal, write_file
from cloister.errors import Rejected, UsageError
from cloister.wire import Json, dump_json

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.attest.dossier import Case
    from cloister.attest.lint import Finding

__all__ = ["policy"]

_file = click.Path(path_type=Path, dir_okay=False)
_MOST_OFFSETS = 2048  # damaged copies of one piece of evidence


@click.group(cls=Group)
def policy() -> None:
    """Make, explain and lint appraisal policies."""


def _read(path: Path) -> Policy:
    data = read_evidence(path, what="policy")
    return Policy.parse_toml(data) if path.suffix == ".toml" else Policy.parse(data)


def _case(tee: str, evidence: Path, roles: tuple[str, ...]) -> Case:
    from cloister.attest.dossier.table import dossier_for  # noqa: PLC0415 - imports every verifier

    kind = dossier_for(tee)
    return kind.open(kind.files(read_evidence(evidence), take_roles(roles)), {})


@policy.command()
@click.option("--tee", required=True, help="Kind of the evidence: sgx, tdx, snp, nitro, nvidia, tpm, ...")
@click.option("--evidence", type=_file, required=True, help="Evidence of an attester that is as it should be.")
@click.option(
    "--role", "roles", multiple=True, metavar="ROLE=FILE", help="What belongs to it: collateral=F, leaf=F, ..."
)
@click.option("--at", "moment", type=AT, help="Verify it as of this time; now, where it is not given.")
@click.option("--version", type=click.IntRange(min=1), default=1, show_default=True, help="Version of the policy.")
@click.option("--out", type=_file, help="Write the policy here (JSON).")
@click.option("--force", is_flag=True, help="Replace the file.")
@pass_terminal
def new(
    terminal: Terminal,
    /,
    *,
    tee: str,
    evidence: Path,
    roles: tuple[str, ...],
    moment: datetime | None,
    version: int,
    out: Path | None,
    force: bool,
) -> None:
    """Propose a policy that accepts this evidence: measurements pinned, versions as minimum, debug refused.

    The evidence is verified first; what nobody vouches for is no reference value. Read the result before you use it.
    """
    verified = _case(tee, evidence, roles).verify(moment or datetime.now(UTC))
    from cloister.attest.schemes import required_claims  # noqa: PLC0415 - imports every verifier

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
    found = _read(file)
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
@click.option("--tee", help="With --evidence: its kind.")
@click.option("--evidence", type=_file, help="Evidence that FILE accepts: its bytes are damaged one by one.")
@click.option("--role", "roles", multiple=True, metavar="ROLE=FILE", help="What belongs to the evidence.")
@click.option("--at", "moment", type=AT, help="Judge the evidence as of this time; now, where it is not given.")
@pass_terminal
def lint(
    terminal: Terminal,
    /,
    *,
    file: Path,
    tee: str | None,
    evidence: Path | None,
    roles: tuple[str, ...],
    moment: datetime | None,
) -> int:
    """Prove by mutation that every rule of FILE bites, and name the ones that do not.

    Exit code 0: all bite, or say why they do not. 4: a rule guards nothing or refuses everything.
    """
    from cloister.attest.schemes import required_claims  # noqa: PLC0415 - imports every verifier

    found = _read(file)
    findings = lint_policy(found, required_claims())
    document: dict[str, Json] = {"findings": [_finding_json(item) for item in findings]}
    ranges: tuple[tuple[int, int], ...] = ()
    tried = 0
    if evidence is not None:
        if tee is None:
            msg = "lint: --evidence without --tee"
            raise UsageError(msg)
        now = moment or datetime.now(UTC)
        tried, ranges = _damage(
            terminal, found, tee=tee, data=read_evidence(evidence), files=take_roles(roles), now=now
        )
        document["evidence"] = {"accepted": [list(item) for item in ranges], "tried": tried}
    terminal.result(document, lambda out: _draw_findings(terminal, findings, tried, ranges, out))
    return EXIT_REJECTED if any(item.severity is Severity.ERROR for item in findings) else 0


def _damage(
    terminal: Terminal, found: Policy, *, tee: str, data: bytes, files: dict[str, bytes], now: datetime
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Damage evidence that the policy accepts, byte by byte; return (offsets tried, ranges still accepted)."""
    from cloister.attest.dossier import judge  # noqa: PLC0415 - with every verifier
    from cloister.attest.dossier.table import dossier_for  # noqa: PLC0415

    kind = dossier_for(tee)

    def accepts(candidate: bytes) -> bool:
        return not judge(kind.open(kind.files(candidate, files), {}), now, found).reasons

    honest = judge(kind.open(kind.files(data, files), {}), now, found)
    if honest.reasons:
        msg = f"lint: the policy refuses this evidence as it is: {honest.reasons[0]}"
        raise Rejected(msg, reasons=honest.reasons, hint="give evidence that the policy accepts")
    with terminal.progress("damaging evidence") as report:
        tried, _, ranges = uncovered_bytes(data, accepts, most=_MOST_OFFSETS, progress=report)
    return tried, ranges


def _finding_json(item: Finding) -> Json:
    return {"claim": item.claim, "severity": item.severity.value, "tee": item.tee, "text": item.text}


def _draw_findings(
    terminal: Terminal,
    findings: tuple[Finding, ...],
    tried: int,
    ranges: tuple[tuple[int, int], ...],
    out: Console,
) -> None:
    rows = [(item.severity.value, item.tee, item.claim, item.text) for item in findings]
    out.print(terminal.table(("", "tee", "claim", "finding"), rows) if rows else "every rule bites")
    if tried:
        where = ", ".join(f"{start}..{end - 1}" for start, end in ranges) or "none"
        out.print(f"evidence: {tried} bytes damaged one by one; still accepted where nothing covers them: {where}")


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
    found = _read(file)
    document: dict[str, Json] = {"bytes": len(dump_json(found.to_json())), "digest": found.digest}
    terminal.result(document, lambda out: out.print(found.digest))
