"""Write the vectors of the receipt file (docs/spec/receipt-file.md): a few good ones, and each wrong in one way.

Run by hand after a change of format: ``python tests/vectors/receipt/generate.py``. Wrong spellings are made as those
of the lease are; keys are the seeds in the file; nothing is random.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "lease"))
from generate import CUSTODIAN, INSTANCE, ME, MODEL, OTHER, RECEIPT, write, wrong

from cloister.client.receipts import VerifiedReceipt
from cloister.client.tickets import MAX_TICKET_BYTES
from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.lending.messages import Receipt, Ticket
from cloister.lending.terms import instance_id
from cloister.wire import dump_b64u, dump_json

TICKET = Ticket(
    instance=ME,
    epoch=2,
    index=7,
    req_digest=bytes(32),
    request=RECEIPT.request,
    model=MODEL,
    units=3,
    ttl=timedelta(seconds=30),
    block_version=3,
)
LOOSE = frozenset({"a line end", "a space", "members out of order"})  # people edit files; what is signed stays exact


def signed(ticket: Ticket, key: SigningKey = CUSTODIAN) -> bytes:
    """Return a ticket as its signer sent it."""
    return Statement.sign(key, Label.TICKET, ticket.dump()).dump()


def kept(receipt: Receipt = RECEIPT, key: SigningKey = INSTANCE, ticket: bytes | None = None) -> bytes:
    """Return a receipt file."""
    statement = Statement.sign(key, Label.RECEIPT, receipt.dump()).dump()
    return VerifiedReceipt(
        receipt=receipt,
        statement=statement,
        key=key.verify_key,
        request_salt=bytes(32),
        response_salt=bytes(32),
        ticket=ticket,
    ).dump()


def files() -> list[dict[str, str]]:
    """Return receipt files, and what reading them says."""
    plain, ticketed = kept(), kept(ticket=signed(TICKET))
    members: dict[str, Any] = json.loads(ticketed)
    found = [("without a ticket", plain.decode(), "valid"), ("with a ticket", ticketed.decode(), "valid")]
    for name, text in wrong(ticketed):
        if name not in {"ticket missing", "ticket too long"}:  # one is a good one; the other stands below
            found.append((name, text, "valid" if name in LOOSE else "Malformed"))
    found += [
        (
            "ticket too long",
            dump_json({**members, "ticket": dump_b64u(bytes(MAX_TICKET_BYTES + 1))}).decode(),
            "Malformed",
        ),
        ("ticket of padding alone", dump_json({**members, "ticket": "="}).decode(), "Malformed"),
        ("of another instance's key", kept(key=OTHER).decode(), "wrong_instance"),
        ("key of another", dump_json({**members, "key": OTHER.verify_key.dump()}).decode(), "unknown_key"),
        (
            "the ticket as the statement",
            dump_json({**members, "statement": dump_b64u(signed(TICKET))}).decode(),
            "wrong_statement",
        ),
    ]
    return [{"name": name, "text": text, "expect": expect} for name, text, expect in found]


def tickets() -> list[dict[str, str]]:
    """Return good receipt files, and what proving their ticket by the custodian's key says."""
    cases: dict[str, tuple[bytes | None, str]] = {
        "the ticket": (signed(TICKET), "proven"),
        "another ticket index": (signed(replace(TICKET, index=1)), "proven"),  # it counts tickets, not answers
        "none": (None, "ticket_missing"),
        "for another request": (signed(replace(TICKET, request=bytes(32))), "ticket_mismatch"),
        "for the response": (signed(replace(TICKET, request=RECEIPT.response)), "ticket_mismatch"),
        "for another instance": (
            signed(replace(TICKET, instance=instance_id(OTHER.verify_key.raw))),
            "ticket_mismatch",
        ),
        "for another model": (signed(replace(TICKET, model="ef" * 32)), "ticket_mismatch"),
        "for fewer units": (signed(replace(TICKET, units=2)), "ticket_mismatch"),
        "signed by another": (signed(TICKET, OTHER), "unknown_key"),
        "signed by the instance": (signed(TICKET, INSTANCE), "unknown_key"),
        "a receipt": (Statement.sign(INSTANCE, Label.RECEIPT, RECEIPT.dump()).dump(), "wrong_statement"),
        "a receipt under its label": (
            Statement.sign(CUSTODIAN, Label.TICKET, RECEIPT.dump()).dump(),
            "ticket_malformed",
        ),
        "cut": (signed(TICKET)[:-1], "ticket_malformed"),
        "no statement": (b"{}", "ticket_malformed"),
    }
    forged = signed(TICKET).replace(b'"sig":"', b'"sig":"AAAA', 1)
    cases["a signature that is too long"] = (forged, "ticket_malformed")
    return [
        {"name": name, "text": kept(ticket=ticket).decode(), "expect": expect}
        for name, (ticket, expect) in cases.items()
    ]


def main() -> None:
    """Write the file."""
    seeds = {"custodian_seed": bytes(range(32)).hex(), "instance_seed": bytes(range(32, 64)).hex()}
    write("receipt/files.json", {"format": 1, **seeds, "files": files(), "tickets": tickets()})


if __name__ == "__main__":
    main()
