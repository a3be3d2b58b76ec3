"""Write the vectors of docs/spec/usage.md. Run it with ``src`` and ``tests`` on the path."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT.parent / "lending"))

from dispute_kit import (  # noqa: E402 - found by the line above
    CUSTODIAN,
    INSTANCE,
    KEPT,
    OTHER,
    RECORDS,
    TRUE,
    a_status,
    claims,
    head_behind,
    receipts,
    report,
    stated,
    with_span,
)

from cloister.crypto.sign import Label, Statement  # noqa: E402 - the same
from cloister.lending.dispute import settle  # noqa: E402 - the same
from cloister.lending.messages import UsageAck  # noqa: E402 - the same
from cloister.lending.receipt import record_of  # noqa: E402 - the same


def _lease_vectors() -> Any:
    """Return the generator of the lease vectors, whose ways to spell a message wrong serve here too."""
    spec = importlib.util.spec_from_file_location("lease_vectors", ROOT / "lease" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rows(text: str) -> list[dict[str, str]]:
    """Return a report whose rows are wrong in one way each."""
    good = "[29715121,0,0,1,"
    found = []
    for name, bad in {
        "a row of four": "[29715121,0,0,1",
        "a row of six": "[29715121,0,0,1,null,",
        "a model that is not listed": "[29715121,1,0,1,",
        "a consumer that is not listed": "[29715121,0,1,1,",
        "negative units": "[29715121,0,0,-1,",
        "units as text": '[29715121,0,0,"1",',
        "a minute that runs back": "[29715200,0,0,1,",
        "a minute beyond the year 9999": "[9999999999,0,0,1,",
    }.items():
        found.append(
            {
                "name": f"usage-report: {name}",
                "format": "usage-report",
                "text": text.replace(good, bad, 1),
                "expect": "Malformed",
            }
        )
    unused = text.replace('"consumers":["ann"]', '"consumers":["ann","bob"]')
    found.append(
        {
            "name": "usage-report: a consumer listed for nothing",
            "format": "usage-report",
            "text": unused,
            "expect": "Malformed",
        }
    )
    return found


def disputes() -> list[dict[str, Any]]:
    """Return signed sets of files and what settling them finds."""
    short = with_span(replace(TRUE, lines=stated(RECORDS[:3]).lines), units=6)
    framed = [record_of(item) for item in receipts(salt=b"b")]
    halves = [report(RECORDS[:2]), report(RECORDS[2:], head_behind(RECORDS[:2]))]
    empty = replace(TRUE, lines=(), spans=())
    sets = {
        "honest": (TRUE, halves, claims(KEPT)),
        "the consumer shows one receipt": (TRUE, halves, claims(KEPT[:1])),
        "the custodian leaves a record out of its sums": (short, halves, []),
        "the custodian names another head": (with_span(TRUE, head=bytes(32)), halves, []),
        "the custodian shows half of its reports": (TRUE, halves[:1], claims(KEPT)),
        "the custodian states less than it granted": (
            stated(RECORDS[:3], granted=6),
            [report(RECORDS[:3])],
            claims(KEPT),
        ),
        "written off without a record": (stated(RECORDS[:3]), [report(RECORDS[:3])], claims(KEPT)),
        "alive and not reported yet": (stated(RECORDS[:3], ended=False), [report(RECORDS[:3])], claims(KEPT)),
        "a whole instance left out, with its status": (empty, [], claims(KEPT, a_status(CUSTODIAN))),
        "a whole instance left out, without": (empty, [], claims(KEPT)),
        "an instance that somebody made up": (TRUE, halves, claims(receipts(key=OTHER))),
        "a receipt of a copy": (TRUE, halves, claims(receipts(salt=b"b")[:1])),
        "two receipts of one index": (TRUE, halves, claims([*KEPT, receipts(salt=b"b")[0]])),
        "reports of a copy beside the true ones": (TRUE, [*halves, report(framed)], []),
    }
    found = []
    for name, (statement, reports, kept) in sets.items():
        outcome = settle(statement, reports, kept)
        found.append(
            {
                "name": name,
                "statement": _signed(CUSTODIAN, Label.USAGE_STATEMENT, statement.dump()),
                "reports": [_signed(INSTANCE, Label.USAGE_REPORT, item.dump()) for item in reports],
                "receipts": [
                    {
                        "statement": _signed(
                            OTHER if item.receipt.instance != TRUE.spans[0].instance else INSTANCE,
                            Label.RECEIPT,
                            item.receipt.dump(),
                        ),
                        "status": None if item.status is None else item.status.decode(),
                    }
                    for item in kept
                ],
                "findings": sorted([item.code, item.guilt.value] for item in outcome.findings),
                "settled": outcome.settled,
                "matched": outcome.matched,
            }
        )
    return found


def _signed(key: Any, label: Label, payload: bytes) -> str:
    return Statement.sign(key, label, payload).dump().decode()


def main() -> None:
    """Write all files."""
    lease = _lease_vectors()
    text = report(RECORDS).dump().decode()
    messages = {
        "usage-report": report(RECORDS),
        "usage-ack": UsageAck(instance=TRUE.spans[0].instance, last=4, head=head_behind(RECORDS)),
        "usage-statement": TRUE,
    }
    parsed = [case for kind, message in messages.items() for case in lease.cases(kind, message.dump())]
    lease.write("usage/messages.json", {"format": 1, "cases": [*parsed, *rows(text)]})
    seeds = {
        "custodian_seed": CUSTODIAN.seed().hex(),
        "instance_seed": INSTANCE.seed().hex(),
        "other_seed": OTHER.seed().hex(),
    }
    lease.write("usage/disputes.json", {"format": 1, **seeds, "cases": disputes()})


if __name__ == "__main__":
    main()
