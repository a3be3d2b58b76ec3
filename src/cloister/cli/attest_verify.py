"""``cloister attest verify``: judge one piece of evidence from files, offline, at any time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.attest.dossier import Judgement, judge
from cloister.attest.policy import MAX_POLICY_BYTES, Policy
from cloister.attest.rats import Verdict
from cloister.cli.consumer import check_json, draw_checks
from cloister.cli.evidence_files import read_evidence
from cloister.cli.terminal import EXIT_REJECTED, Terminal, Verb, pass_terminal
from cloister.errors import UsageError
from cloister.wire import Fields, Json, dump_time, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from cloister.attest.dossier.table import Dossier

__all__ = ["AT", "take_roles", "verify"]

_file = click.Path(path_type=Path, dir_okay=False)


class _Moment(click.ParamType[datetime]):
    """A point in time: ``2026-06-01``, ``2026-06-01T12:00:00Z``, or with an offset."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware time; one without an offset is in UTC."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r}: want a time such as 2026-06-01T12:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


AT = _Moment()


@click.command(cls=Verb)
@click.option("--tee", required=True, help="Kind of evidence: sgx, tdx, snp, nitro, nvidia, tpm, ...")
@click.option("--evidence", type=_file, required=True, help="The evidence itself: quote, report, document or token.")
@click.option(
    "--role", "roles", multiple=True, metavar="ROLE=FILE", help="What belongs to it: collateral=F, leaf=F, crl=F, ..."
)
@click.option("--at", "moment", type=AT, help="Judge as of this time; now, where it is not given.")
@click.option("--policy", "policy_file", type=_file, help="Appraisal policy (JSON or TOML) in place of the default.")
@click.option("--nonce", help="Challenge or report data that the evidence has to carry, hex.")
@pass_terminal
def verify(
    terminal: Terminal,
    /,
    *,
    tee: str,
    evidence: Path,
    roles: tuple[str, ...],
    moment: datetime | None,
    policy_file: Path | None,
    nonce: str | None,
) -> int:
    """Verify evidence against pinned vendor roots and show every check, got and want.

    Exit code 0: accepted. 3: malformed. 4: rejected, with all reasons. 5: could not be decided.
    """
    from cloister.attest.dossier.table import dossier_for  # noqa: PLC0415 - imports every verifier

    kind = dossier_for(tee)
    files = kind.files(read_evidence(evidence), take_roles(roles))
    policy, expectations = _policy(policy_file)
    if nonce is not None:
        expectations = {**expectations, kind.freshness: _nonce(kind, nonce)}
    now = moment or datetime.now(UTC)
    judgement = judge(kind.open(files, expectations), now, policy)
    terminal.result(_json(tee, judgement, now), lambda out: _draw(terminal, tee, judgement, out))
    return EXIT_REJECTED if judgement.reasons else 0


def take_roles(roles: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files of ``--role ROLE=FILE`` options by role."""
    return {name: read_evidence(path) for name, path in map(_role, roles)}


def _role(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        msg = f"--role {text}: want ROLE=FILE"
        raise UsageError(msg)
    return name, Path(path)


def _nonce(kind: Dossier, text: str) -> str:
    """Return the value that the evidence has to carry, in the field's full width where it has one."""
    try:
        value = bytes.fromhex(text)
    except ValueError as exc:
        msg = "--nonce: want an even number of hex digits"
        raise UsageError(msg) from exc
    return value.ljust(kind.freshness_bytes, b"\x00").hex()


def _policy(path: Path | None) -> tuple[Policy | None, Mapping[str, Json]]:
    """Return a policy, or what the flat object of an evidence index expects."""
    if path is None:
        return None, {}
    data = read_evidence(path, what="policy")
    if path.suffix == ".toml":
        return Policy.parse_toml(data), {}
    value = parse_json(data, what="policy", cap=MAX_POLICY_BYTES)
    if isinstance(value, dict) and "tees" in value:
        return Policy.parse(data), {}
    members = Fields({"policy": value}, what="policy").members("policy", cap=64)
    return None, members


def _json(tee: str, judgement: Judgement, now: datetime) -> Json:
    return {
        "at": dump_time(now),
        "checks": [check_json(check) for check in judgement.checks],
        "claims": judgement.claims,
        "reasons": [
            {"code": item.code, "got": item.got, "subject": item.subject, "want": item.want}
            for item in judgement.reasons
        ],
        "tee": tee,
        "verdict": judgement.reasons[0].code if judgement.reasons else "ok",
    }


def _draw(terminal: Terminal, tee: str, judgement: Judgement, out: Console) -> None:
    draw_checks(terminal, judgement.checks, out)
    if judgement.reasons:
        out.print(f"{tee} evidence rejected: {len(judgement.reasons)} of {len(judgement.checks)} checks failed")
        for reason in judgement.reasons:
            out.print(f"  - {reason}")
        return
    skipped = sum(check.verdict is Verdict.NOT_CHECKED for check in judgement.checks)
    out.print(f"{tee} evidence accepted: {len(judgement.checks) - skipped} checks passed, {skipped} not checked")
