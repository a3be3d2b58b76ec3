"""Write the vectors of voucher and ticket: a few good ones, and each wrong in one way.

Run by hand after a change of format: ``python tests/vectors/voucher/generate.py``. Wrong spellings are made as those
of the lease are; keys are the seeds in the files; nothing is random.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "lease"))
from generate import AT, CLOSE, CUSTODIAN, INSTANCE, LEASE, LOAN, ME, MODEL, OTHER, cases, statement, write

from cloister.crypto.sign import Label
from cloister.lending.messages import Consumption, Ticket, TicketRequest, Voucher, VoucherRequest
from cloister.lending.receipt import GENESIS
from cloister.lending.terms import LOAN_METER, ConsumerId, instance_id

REQUEST = VoucherRequest(
    instance=ME,
    loan=LOAN,
    epoch=2,
    seq=1,
    req_nonce=bytes(16),
    used={},
    reserved={},
    want={LOAN_METER: 500},
    served=9,
    chain_head=GENESIS,
)
VOUCHER = Voucher(
    instance=ME,
    loan=LOAN,
    epoch=2,
    seq=1,
    req_digest=bytes(32),
    chain_head=GENESIS,
    limits={LOAN_METER: 500},
    overdraft=20,
    lasts=timedelta(days=14),
    models=(MODEL,),
    consumers=LEASE.consumers,
    policy_digest="cd" * 32,
    block_version=3,
    issued_at=AT,
)
CONSUMPTION = Consumption(
    instance=ME,
    loan=LOAN,
    voucher=bytes(range(32)),
    number=2,
    used={LOAN_METER: 14},
    chain_head=bytes(range(32)),
    first=3,
    last=9,
    at=AT,
)
TICKET_REQUEST = TicketRequest(
    instance=ME,
    epoch=2,
    index=1,
    request=bytes(range(32)),
    model=MODEL,
    consumer=ConsumerId("ward-7"),
    units=3,
)
TICKET = Ticket(
    instance=ME,
    epoch=2,
    index=1,
    req_digest=bytes(32),
    request=bytes(range(32)),
    model=MODEL,
    units=3,
    ttl=timedelta(seconds=30),
    block_version=3,
)


def answers(label: Label, good: Any, changes: dict[str, tuple[dict[str, Any], str]]) -> list[dict[str, str]]:
    """Return signed answers to one pending request, and what an enclave says to each."""
    kind = type(good).__name__
    made = {f"the {kind.lower()}": (CUSTODIAN, label, good, kind)}
    shared = {
        "for another instance": ({"instance": instance_id(OTHER.verify_key.raw)}, "wrong_instance"),
        "to another request": ({"req_digest": bytes(range(32))}, "not_pending"),
        "of an older epoch": ({"epoch": 1}, "stale_epoch"),
        "of an older block version": ({"block_version": 1}, "stale_block_version"),
    }
    for name, (members, expect) in (shared | changes).items():
        made[name] = (CUSTODIAN, label, replace(good, **members), expect)
    made |= {
        "signed by another key": (OTHER, label, good, "unknown_key"),
        "signed by the instance itself": (INSTANCE, label, good, "unknown_key"),
        "a lease": (CUSTODIAN, Label.LEASE, LEASE, "wrong_statement"),
        "a lease under this label": (CUSTODIAN, label, LEASE, "Malformed"),
        "a close under this label": (CUSTODIAN, label, CLOSE, "Malformed"),
    }
    return [
        {"name": name, "statement": statement(key, kind_of, message.dump()), "expect": expect}
        for name, (key, kind_of, message, expect) in made.items()
    ]


def main() -> None:
    """Write all four files."""
    seeds = {"custodian_seed": bytes(range(32)).hex(), "instance_seed": bytes(range(32, 64)).hex()}
    known = {"format": 1, **seeds, "epoch": 2, "block_version": 2}
    spelled = {
        "voucher": {"voucher-request": REQUEST, "voucher": VOUCHER, "consumption": CONSUMPTION},
        "ticket": {"ticket-request": TICKET_REQUEST, "ticket": TICKET},
    }
    for folder, messages in spelled.items():
        found = [case for kind, message in messages.items() for case in cases(kind, message.dump())]
        found = [case for case in found if case["name"] != "ticket-request: consumer null"]  # that is anybody
        write(f"{folder}/messages.json", {"format": 1, "cases": found})
    chain = {"of another chain head": ({"chain_head": bytes(range(32))}, "wrong_chain")}
    write("voucher/answers.json", {**known, "cases": answers(Label.VOUCHER, VOUCHER, chain)})
    wrong = {
        "of another index": ({"index": 2}, "wrong_ticket"),
        "for another request": ({"request": bytes(32)}, "wrong_ticket"),
        "for another model": ({"model": "ef" * 32}, "wrong_ticket"),
        "for more units": ({"units": 4}, "wrong_ticket"),
    }
    write("ticket/answers.json", {**known, "cases": answers(Label.TICKET, TICKET, wrong)})


if __name__ == "__main__":
    main()
