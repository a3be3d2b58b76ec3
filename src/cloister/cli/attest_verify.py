"""``cloister attest verify``: judge one piece of evidence from files, offline, at any time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.appraise import NO_RULE
from cloister.attest.dossier import judge, refused
from cloister.attest.policy import MAX_POLICY_BYTES, Policy
from cloister.attest.rats import Verdict
from cloister.cli.consumer import draw_checks
from cloister.cli.evidence_files import read_evidence
from cloister.cli.evidence_options import AT, EvidenceOptions, at_option, evidence_options
from cloister.cli.terminal import EXIT_REJECTED, Terminal, Verb, pass_terminal
from cloister.client.verdict import check_json
from cloister.errors import Rejected, UsageError
from cloister.wire import Fields, Json, dump_time, parse_json, reason_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from cloister.attest.dossier import Judgement

__all__ = ["AT", "read_policy", "verify"]

_MAX_MEMBERS = 256


@click.command(cls=Verb)
@evidence_options()
@at_option
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Appraise by this policy (JSON or TOML), not by the default.",
)
@click.option("--nonce", help="Nonce or report data that the evidence has to carry, hex.")
@pass_terminal
def verify(
    terminal: Terminal,
    /,
    *,
    moment: datetime | None,
    policy_file: Path | None,
    nonce: str | None,
    **given: Any,
) -> int:
    """Verify evidence and show every check: what was there, and what had to be.

    Chain, signatures and times are proven up to roots that come with this program. Then claims are appraised: by
    --policy, or by default only that debugging is off.

    Exit code 0: accepted. 3: malformed. 4: rejected, with all reasons. 5: could not be decided, for something is
    missing.
    """
    from cloister.attest.schemes import required_claims  # noqa: PLC0415 - imports every verifier
    from cloister.cli.evidence_case import opener  # noqa: PLC0415 - the same

    options, now = EvidenceOptions(**given), moment or datetime.now(UTC)
    data = read_evidence(options.evidence)
    policy, expectations = _expected(policy_file)
    carried = None if nonce is None else _hex(nonce)
    opened = opener(terminal, options, data, now)
    try:
        case = opened.open(data, now, expectations, carried)
        judgement = judge(case, now, policy, required=required_claims())
    except Rejected as exc:  # of a format or an algorithm that nobody verifies: a judgement too
        judgement = refused(exc)
    terminal.result(_json(options.tee, judgement, now), lambda out: _draw(terminal, options.tee, judgement, out))
    return EXIT_REJECTED if judgement.reasons else 0


def read_policy(path: Path) -> Policy:
    """Return a policy file: TOML by its name, else JSON. Raises ``UsageError``, ``Malformed``."""
    data = read_evidence(path, what="policy", cap=MAX_POLICY_BYTES)
    return Policy.parse_toml(data) if path.suffix == ".toml" else Policy.parse(data)


def _expected(path: Path | None) -> tuple[Policy | None, Mapping[str, Json]]:
    """Return a policy, or what the flat object of an evidence index expects (docs/spec/evidence-index.md)."""
    if path is None:
        return None, {}
    if path.suffix != ".toml":
        value = parse_json(read_evidence(path, what="policy", cap=MAX_POLICY_BYTES), what="policy")
        if isinstance(value, dict) and "tees" not in value:
            return None, Fields({"policy": value}, what="policy").members("policy", cap=_MAX_MEMBERS)
    return read_policy(path), {}


def _hex(text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as exc:
        msg = "--nonce: want an even number of hex digits"
        raise UsageError(msg) from exc
    if not value:
        msg = "--nonce: empty"
        raise UsageError(msg)
    return value


def _json(tee: str, judgement: Judgement, now: datetime) -> Json:
    return {
        "at": dump_time(now),
        "checks": [check_json(check) for check in judgement.checks],
        "claims": judgement.claims,
        "reasons": [reason_json(item) for item in judgement.reasons],
        "tee": tee,
        "verdict": judgement.reasons[0].code if judgement.reasons else "ok",
    }


def _draw(terminal: Terminal, tee: str, judgement: Judgement, out: Console) -> None:
    idle = [check for check in judgement.checks if check.note == NO_RULE]
    made = [check for check in judgement.checks if check.note != NO_RULE]
    draw_checks(terminal, made, out)
    if idle:
        rows = [("·", check.subject, check.got) for check in idle]
        out.print(terminal.table(("", "proven, and compared with nothing", "value"), rows))
    if judgement.reasons:
        out.print(f"{tee} evidence rejected: {len(judgement.reasons)} of {len(made)} checks failed")
        for reason in judgement.reasons:
            out.print(f"  - {reason}")
        return
    skipped = sum(check.verdict is Verdict.NOT_CHECKED for check in made)
    counted = f"{len(made) - skipped} checks passed, {skipped} not made, {len(idle)} claims without a rule"
    out.print(f"{tee} evidence accepted: {counted}")
