"""``cloister usage``: signed statements of what was used, proven and settled from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.evidence_files import read_evidence
from cloister.cli.evidence_options import AT
from cloister.cli.receipt_files import REPORT_SUFFIX, parse_key, read_receipts, read_reports
from cloister.cli.remote import from_options, remote_options, segment
from cloister.cli.terminal import EXIT_REJECTED, Group, Terminal, pass_terminal, write_file
from cloister.crypto.sign import MAX_STATEMENT_BYTES, Statement
from cloister.errors import Malformed, UsageError
from cloister.lending.dispute import Claim, settle, verify_statement
from cloister.lending.messages import UsageStatement
from cloister.lending.usage_report import verify_report
from cloister.wire import Json, dump_time, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rich.console import Console

    from cloister.cli.remote import Remote
    from cloister.errors import CloisterError
    from cloister.lending.dispute import Finding, Outcome
    from cloister.lending.messages import UsageReport, UsageSpan

__all__ = ["usage"]

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)
_KEY_HELP = "The custodian's public key (base64url), known from elsewhere than the statement."


@click.group(cls=Group)
def usage() -> None:
    """State, prove and settle who used what."""


@usage.command()
@click.argument("loan")
@click.option("--from", "start", type=AT, help="First minute; everything by default.")
@click.option("--to", "end", type=AT, help="The minute behind the last one; everything by default.")
@click.option("--out", type=_file, required=True, help="File to write.")
@click.option("--force", is_flag=True, help="Replace the file.")
@remote_options
@pass_terminal
def statement(
    terminal: Terminal, /, *, loan: str, start: datetime | None, end: datetime | None, out: Path, force: bool,
    **where: Any,
) -> None:  # fmt: skip
    """Get the signed statement of what LOAN used, by model and consumer, from the custodian."""
    with from_options(**where) as remote:
        period = {name: dump_time(at) for name, at in (("from", start), ("to", end)) if at is not None}
        data = remote.raw(f"/v1/loans/{segment(loan)}/usage", **period)
        key = parse_key(str(remote.get("/v1/custodian")["key"]))
    stated = verify_statement(data, key)
    write_file(out, data, force=force)
    result = {**_statement_json(stated), "out": str(out)}
    terminal.result(result, lambda console: _draw_statement(terminal, stated, console))


@usage.command()
@click.argument("statement_file", metavar="STATEMENT", type=_file)
@click.option("--out", type=_folder, required=True, help="Folder to write into, one file a report.")
@remote_options
@pass_terminal
def export(terminal: Terminal, /, *, statement_file: Path, out: Path, **where: Any) -> None:
    """Write the signed usage reports that STATEMENT is summed from to files, exactly as the enclaves signed them."""
    stated = _by_own_key(_read(statement_file))
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    with from_options(**where) as remote:
        for span in stated.spans:
            for report, data in _reports(remote, span):
                name = f"{report.instance}-{report.first:012d}{REPORT_SUFFIX}"
                write_file(out / name, data, force=True)
                written += 1
    result: Json = {"out": str(out), "reports": written}
    terminal.result(result, lambda console: console.print(f"{written} reports in {out}"))


def _reports(remote: Remote, span: UsageSpan) -> Iterator[tuple[UsageReport, bytes]]:
    """Yield an instance's reports, page by page, their signatures proven."""
    after = 0
    while page := remote.get(f"/v1/instances/{segment(span.instance)}/usage", after=after)["reports"]:
        for text in page:
            data = parse_b64u(str(text), what="usage report", cap=MAX_STATEMENT_BYTES)
            report = verify_report(data, span.key)
            if report.first <= after:
                msg = "custodian's answer: usage reports out of order"
                raise Malformed(msg)
            yield report, data
            after = report.first


@usage.command()
@click.argument("statement_file", metavar="STATEMENT", type=_file)
@click.option("--key", help=_KEY_HELP)
@click.option("--reports", type=_folder, help="Recompute every total from the signed reports in this folder.")
@pass_terminal
def verify(terminal: Terminal, /, *, statement_file: Path, key: str | None, reports: Path | None) -> int:
    """Verify STATEMENT offline: its signature, and with --reports every total from the enclaves' own signatures."""
    stated = _stated(terminal, statement_file, key)
    if reports is None:
        terminal.say("only the signature was verified; --reports recomputes the totals")
        terminal.result(_statement_json(stated), lambda console: _draw_statement(terminal, stated, console))
        return 0
    return _settled(terminal, stated, reports, None)


@usage.command("settle")
@click.option("--statement", "statement_file", type=_file, required=True, help="The custodian's signed statement.")
@click.option("--reports", type=_folder, required=True, help="Folder of signed usage reports ('usage export').")
@click.option("--receipts", type=_folder, required=True, help="Folder of receipts that consumers kept.")
@click.option("--key", help=_KEY_HELP)
@pass_terminal
def settle_files(terminal: Terminal, /, *, statement_file: Path, reports: Path, receipts: Path, key: str | None) -> int:
    """Settle a dispute offline, from files alone: who is convicted by what, and what is not shown.

    Exit code 0: statement, reports and receipts agree. 4: somebody is convicted, or something is missing.
    """
    return _settled(terminal, _stated(terminal, statement_file, key), reports, receipts)


def _stated(terminal: Terminal, path: Path, key: str | None) -> UsageStatement:
    """Return the statement once its signature is proven; without a key from elsewhere by the one it names."""
    data = _read(path)
    if key is None:
        terminal.say("the key came from the statement itself; pass --key to hold it against one you know")
        return _by_own_key(data)
    return verify_statement(data, parse_key(key))


def _by_own_key(data: bytes) -> UsageStatement:
    """Return a statement that the key it names signed: whose key that is, is not proven."""
    named = UsageStatement.parse(Statement.parse(data, label=UsageStatement.LABEL).payload).custodian
    return verify_statement(data, named)


def _settled(terminal: Terminal, stated: UsageStatement, reports: Path, receipts: Path | None) -> int:
    found, refused = read_reports(reports, [span.key for span in stated.spans])
    kept, bad = ([], []) if receipts is None else read_receipts(receipts)
    claims = [Claim(name=str(path), receipt=item.receipt, status=item.status) for path, item in kept]
    outcome = settle(stated, [report for _, report in found], claims)
    worthless = [*refused, *bad]
    result = _outcome_json(outcome, worthless)
    terminal.result(result, lambda console: _draw_outcome(terminal, outcome, worthless, console))
    return 0 if outcome.settled else EXIT_REJECTED


def _read(path: Path) -> bytes:
    data = read_evidence(path, what="usage statement", cap=MAX_STATEMENT_BYTES)
    if not data:
        msg = f"{path}: empty"
        raise UsageError(msg)
    return data


def _statement_json(stated: UsageStatement) -> dict[str, Json]:
    return {
        "from": dump_time(stated.start),
        "issued_at": dump_time(stated.issued_at),
        "lines": [line.to_json() for line in stated.lines],
        "loan": stated.loan,
        "not_itemised": stated.not_itemised,
        "spans": [span.to_json() for span in stated.spans],
        "to": dump_time(stated.end),
        "units": stated.units,
    }


def _outcome_json(outcome: Outcome, worthless: list[tuple[Path, CloisterError]]) -> dict[str, Json]:
    return {
        "convicted": sorted({_convict(item) for item in outcome.convictions}),
        "findings": [_finding_json(item) for item in outcome.findings],
        "matched": outcome.matched,
        "not_itemised": outcome.statement.not_itemised,
        "refused_files": [{"file": str(path), "message": error.message} for path, error in worthless],
        "settled": outcome.settled,
        "units": outcome.statement.units,
        "without_receipt": outcome.without_receipt,
    }


def _finding_json(item: Finding) -> Json:
    return {
        "code": item.code,
        "convicts": item.guilt.value,
        "detail": item.detail,
        "index": item.index,
        "instance": item.instance,
        "receipt": item.claim,
    }


def _convict(item: Finding) -> str:
    return "custodian" if item.guilt.value == "custodian" else f"instance {item.instance}"


def _draw_statement(terminal: Terminal, stated: UsageStatement, out: Console) -> None:
    rows = [
        (line.model[:16], line.consumer or "-", str(line.inferences), str(line.units), str(line.cut_units))
        for line in stated.lines
    ]
    out.print(terminal.table(("MODEL", "CONSUMER", "ANSWERS", "UNITS", "OF THEM CUT"), rows))
    out.print(f"{stated.units} units itemised, {stated.not_itemised} written off and not itemised")


def _draw_outcome(
    terminal: Terminal, outcome: Outcome, worthless: list[tuple[Path, CloisterError]], out: Console
) -> None:
    _draw_statement(terminal, outcome.statement, out)
    for path, error in worthless:
        out.print(f"{path}: counts for nothing: {error.message}")
    for item in outcome.findings:
        where = item.claim or (f"instance {item.instance}" if item.instance else "statement")
        out.print(f"{item.code} ({item.guilt.value}): {where}, index {item.index}: {item.detail}")
    out.print(f"{outcome.matched} receipts are in the statement, {outcome.without_receipt} records have none here")
    names = sorted({_convict(item) for item in outcome.convictions})
    if names:
        out.print(f"convicted: {', '.join(names)}")
    else:
        out.print("settled" if outcome.settled else "not settled: something is not shown")
