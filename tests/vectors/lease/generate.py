"""Write the vectors of lease, receipt and audit log: a few good ones, and each wrong in one way.

Run by hand after a change of format: ``python tests/vectors/lease/generate.py``. Keys are the seeds in
the files; nothing is random.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.errors import Reason
from cloister.lending.audit import FIRST_PREVIOUS, Checkpoint, MerkleTree
from cloister.lending.events import Event, EventKind
from cloister.lending.messages import Close, Lease, LeaseRequest, Receipt, Refusal
from cloister.lending.receipt import GENESIS, commit, content_of, head_after, record_of
from cloister.lending.receipt_batch import sign_receipts
from cloister.lending.terms import (
    LOAN_METER,
    Consumer,
    ConsumerId,
    LoanId,
    ModelDigest,
    instance_id,
    model_meter,
)
from cloister.lending.watch import WatchKind
from cloister.wire import dump_json, dump_time

ROOT = Path(__file__).parent.parent
CUSTODIAN = SigningKey(bytes(range(32)))
INSTANCE = SigningKey(bytes(range(32, 64)))
OTHER = SigningKey(bytes(range(64, 96)))
ME = instance_id(INSTANCE.verify_key.raw)
DIGEST = hashlib.sha256(b"request").digest()
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOAN = LoanId("loan-" + "a" * 16)
MODEL = ModelDigest("ab" * 32)

REQUEST = LeaseRequest(
    instance=ME,
    epoch=2,
    seq=7,
    req_nonce=bytes(range(16)),
    used={LOAN_METER: 12},
    reserved={LOAN_METER: 2},
    want={LOAN_METER: 1014},
    served=9,
    chain_head=bytes(range(32)),
)
LEASE = Lease(
    instance=ME,
    epoch=2,
    seq=7,
    req_digest=DIGEST,
    limits={LOAN_METER: 1012, model_meter("digits"): 50},
    balances={LOAN_METER: 8988, model_meter("digits"): 0},
    ttl=timedelta(seconds=60),
    models=(MODEL,),
    consumers=(Consumer(id=ConsumerId("ward-7"), token_sha256=bytes(32), metered=True),),
    policy_digest="cd" * 32,
    block_version=3,
)
REFUSAL = Refusal(
    instance=ME,
    req_digest=DIGEST,
    reasons=(Reason(code="blocked", subject="loan"),),
    stop=True,
    retry_after=timedelta(0),
    block_version=4,
)
CLOSE = Close(instance=ME, epoch=2, seq=8, used={LOAN_METER: 14}, served=10, chain_head=bytes(range(32)))
RECEIPT = Receipt(
    instance=ME,
    index=1,
    loan=LOAN,
    model=MODEL,
    consumer=ConsumerId("ward-7"),
    metered=True,
    units=3,
    request=commit(bytes(32), b"question"),
    response=commit(bytes(32), b"answer"),
    previous=GENESIS,
    policy_digest="cd" * 32,
    issued_at=AT,
)


def wrong(good: bytes) -> list[tuple[str, str]]:
    """Return the message wrong in one way each: every member missing, null, of another type; and the form."""
    members: dict[str, Any] = json.loads(good)
    text = good.decode()
    cases = [
        ("empty", ""),
        ("no object", "[]"),
        ("a space", text.replace(":", ": ", 1)),
        ("a line end", text + "\n"),
        ("cut", text[:-1]),
        ("twice", text + text),
        ("unknown member", _dump({**members, "zz": 1})),
        ("double member", '{"v":1,' + text[1:]),
        ("members out of order", f'{{"v":{members["v"]},' + text[1:].replace(f',"v":{members["v"]}', "")),
        ("another version", _dump({**members, "v": members["v"] + 1})),
        ("version as text", _dump({**members, "v": str(members["v"])})),
    ]
    for name, value in members.items():
        rest = {key: item for key, item in members.items() if key != name}
        cases.append((f"{name} missing", _dump(rest)))
        for kind, bad in _bad(name, value):
            cases.append((f"{name} {kind}", _dump({**members, name: bad})))
    return cases


def _bad(name: str, value: Any) -> list[tuple[str, Any]]:
    if value is None or name == "v":
        return []
    nullable = name == "consumers"
    bad: list[tuple[str, Any]] = [] if nullable else [("null", None)]
    match value:
        case bool():
            bad += [("as a number", 1), ("as text", "true")]
        case int():
            bad += [
                ("negative", -1),
                ("as text", str(value)),
                ("true", True),
                ("a fraction", 1.5),
                ("too large", 2**53),
            ]
        case str():
            bad += [
                ("a number", 1),
                ("a list", [value]),
                ("with a line end", value + "\n"),
                ("too long", value + "A" * 1100),
            ]
        case dict():
            bad += [("a list", []), ("of a list", {"loan": [1]}), ("below zero", {"loan": -1})]
            bad += [("of text", {"loan": "1"})] if name != "details" else []
            bad += [("of no meter", {"other": 1}), ("of a bad name", {"model:../x": 1})]
        case list():
            bad += [("an object", {}), ("of null", [None])]
    return bad


def _dump(value: Any) -> str:
    """Return canonical JSON where it can be written so, else the nearest."""
    try:
        return dump_json(value).decode()
    except Exception:  # noqa: BLE001 - out of range on purpose
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def cases(kind: str, good: bytes) -> list[dict[str, str]]:
    """Return the good message and all wrong ones."""
    found = [{"name": f"{kind}: good", "format": kind, "text": good.decode(), "expect": "valid"}]
    return found + [
        {"name": f"{kind}: {name}", "format": kind, "text": text, "expect": "Malformed"} for name, text in wrong(good)
    ]


def clocked_cases() -> list[dict[str, str]]:
    """Return leases with the two members that may be left out: alone, together, and each wrong in every way."""
    both = replace(LEASE, issued_at=AT, unserved=100)
    good = {"issued_at": replace(both, unserved=None), "unserved": replace(both, issued_at=None), "both": both}
    found = [(f"with {name}", lease.dump().decode(), "valid") for name, lease in good.items()]
    members = json.loads(both.dump())
    for name, more in (("issued_at", ("2026-01-02T03:04:05+00:00", "yesterday", "")), ("unserved", (0, 1_000_001))):
        bad = [*_bad(name, members[name]), *((f"of {value!r}", value) for value in more)]
        found += [(f"{name} {kind}", _dump({**members, name: value}), "Malformed") for kind, value in bad]
    return [{"name": f"lease: {name}", "format": "lease", "text": text, "expect": want} for name, text, want in found]


def alarmed_cases() -> list[dict[str, str]]:
    """Return requests that tell of alarms, and the ways in which none are told."""
    good = replace(REQUEST, alarms={WatchKind.NEAR: 2, WatchKind.DISTINCT: 1})
    members = json.loads(good.dump())
    found = [("with alarms", good.dump().decode(), "valid")]
    bad: list[Any] = [
        None,
        {},
        [],
        {"near": 0},
        {"near": "1"},
        {"near": True},
        {"odd": 1},
        {"near": 1, "zz": 1},
        {"near": 2**53},
    ]
    found += [(f"alarms of {value!r}", _dump({**members, "alarms": value}), "Malformed") for value in bad]
    return [
        {"name": f"lease-request: {name}", "format": "lease-request", "text": text, "expect": want}
        for name, text, want in found
    ]


def write(name: str, content: object) -> None:
    """Write one file of vectors."""
    path = ROOT / name
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def statement(key: SigningKey, label: Label, payload: bytes) -> str:
    """Return a signed statement as text."""
    return Statement.sign(key, label, payload).dump().decode()


def answers() -> list[dict[str, str]]:
    """Return signed answers to the pending request of digest ``DIGEST``, and what an enclave says to each."""
    other = instance_id(OTHER.verify_key.raw)
    lease = {
        "the lease": (CUSTODIAN, Label.LEASE, LEASE, "Lease"),
        "the refusal": (CUSTODIAN, Label.REFUSAL, REFUSAL, "Refusal"),
        "75 for another instance": (CUSTODIAN, Label.LEASE, replace(LEASE, instance=other), "wrong_instance"),
        "a refusal for another instance": (
            CUSTODIAN,
            Label.REFUSAL,
            replace(REFUSAL, instance=other),
            "wrong_instance",
        ),
        "to another request": (CUSTODIAN, Label.LEASE, replace(LEASE, req_digest=bytes(32)), "not_pending"),
        "a refusal of another request": (
            CUSTODIAN,
            Label.REFUSAL,
            replace(REFUSAL, req_digest=bytes(32)),
            "not_pending",
        ),
        "76 of an older epoch": (CUSTODIAN, Label.LEASE, replace(LEASE, epoch=1), "stale_epoch"),
        "of an older block version": (CUSTODIAN, Label.LEASE, replace(LEASE, block_version=1), "stale_block_version"),
        "a refusal of an older block version": (
            CUSTODIAN,
            Label.REFUSAL,
            replace(REFUSAL, block_version=1),
            "stale_block_version",
        ),
        "85 signed by another key": (OTHER, Label.LEASE, LEASE, "unknown_key"),
        "signed by the instance itself": (INSTANCE, Label.LEASE, LEASE, "unknown_key"),
        "86 a receipt": (CUSTODIAN, Label.RECEIPT, RECEIPT, "wrong_statement"),
        "86 a close": (CUSTODIAN, Label.CLOSE, CLOSE, "wrong_statement"),
        "86 a lease labelled as status": (CUSTODIAN, Label.STATUS, LEASE, "wrong_statement"),
        "86 a receipt labelled as lease": (CUSTODIAN, Label.LEASE, RECEIPT, "Malformed"),
        "a refusal labelled as lease": (CUSTODIAN, Label.LEASE, REFUSAL, "Malformed"),
        "a lease labelled as refusal": (CUSTODIAN, Label.REFUSAL, LEASE, "Malformed"),
    }
    found = [
        {"name": name, "statement": statement(key, label, message.dump()), "expect": expect}
        for name, (key, label, message, expect) in lease.items()
    ]
    good = json.loads(statement(CUSTODIAN, Label.LEASE, LEASE.dump()))
    signature = good["signatures"][0]
    broken = {
        "no signature": ({**good, "signatures": []}, "Malformed"),
        "two signatures": ({**good, "signatures": [signature, signature]}, "Malformed"),
        "a short signature": ({**good, "signatures": [{**signature, "sig": signature["sig"][:-4]}]}, "Malformed"),
        "a wrong signature": ({**good, "signatures": [{**signature, "sig": "A" * 86}]}, "signature_invalid"),
        "another key id": ({**good, "signatures": [{**signature, "keyid": "0" * 32}]}, "unknown_key"),
        "padded payload": ({**good, "payload": good["payload"] + "="}, "Malformed"),
        "an unknown member": ({**good, "x": 1}, "Malformed"),
    }
    found += [{"name": name, "statement": _dump(value), "expect": expect} for name, (value, expect) in broken.items()]
    return found


def receipts() -> dict[str, object]:
    """Return commitments, a chain and receipts with what verifying them says."""
    second = replace(
        RECEIPT,
        index=2,
        previous=head_after(RECEIPT),
    )
    stolen = replace(RECEIPT, instance=instance_id(OTHER.verify_key.raw))
    return {
        "format": 1,
        "instance_seed": bytes(range(32, 64)).hex(),
        "commitments": [
            {"salt": salt.hex(), "data": data.hex(), "commitment": commit(salt, data).hex()}
            for salt, data in ((bytes(32), b""), (bytes(32), b"answer"), (bytes(range(32)), bytes(1000)))
        ],
        "heads": [
            {
                "previous": head.hex(),
                "content": content_of(RECEIPT.request, RECEIPT.response).hex(),
                "receipt": replace(RECEIPT, previous=head, **changes).dump().decode(),
                "record": record_of(replace(RECEIPT, previous=head, **changes)).dump().decode(),
                "head": head_after(replace(RECEIPT, previous=head, **changes)).hex(),
            }
            for head, changes in (
                (GENESIS, {}),
                (bytes(range(32)), {"index": 2**40, "metered": False}),
                (bytes(32), {"consumer": None, "metered": False, "units": 0}),
            )
        ],
        "statements": [
            {"name": "first", "statement": statement(INSTANCE, Label.RECEIPT, RECEIPT.dump()), "expect": "valid"},
            {"name": "second", "statement": statement(INSTANCE, Label.RECEIPT, second.dump()), "expect": "valid"},
            {
                "name": "by another",
                "statement": statement(OTHER, Label.RECEIPT, RECEIPT.dump()),
                "expect": "unknown_key",
            },
            {
                "name": "in another's name",
                "statement": statement(INSTANCE, Label.RECEIPT, stolen.dump()),
                "expect": "wrong_instance",
            },
            {
                "name": "a lease as receipt",
                "statement": statement(INSTANCE, Label.LEASE, LEASE.dump()),
                "expect": "wrong_statement",
            },
            {
                "name": "a close as receipt",
                "statement": statement(INSTANCE, Label.RECEIPT, CLOSE.dump()),
                "expect": "Malformed",
            },
        ],
    }


def batches() -> dict[str, object]:
    """Return receipts signed together, and each way to be wrong that a statement alone has not."""
    payloads = [replace(RECEIPT, index=index).dump() for index in range(1, 6)]
    good = sign_receipts(INSTANCE, payloads)
    other = sign_receipts(INSTANCE, [replace(RECEIPT, index=index).dump() for index in range(11, 16)])
    cases = [(f"receipt {at} of 5", text.decode(), "valid") for at, text in enumerate(good, start=1)]
    cases += [
        (f"receipt {at} of 2", text.decode(), "valid")
        for at, text in enumerate(sign_receipts(INSTANCE, payloads[:2]), 1)
    ]
    first: dict[str, Any] = json.loads(good[0])
    strange: dict[str, Any] = json.loads(other[0])

    def changed(name: str, expect: str, tree: dict[str, Any] | None = None, **members: Any) -> None:
        text = dump_json({**first, "tree": {**first["tree"], **(tree or {})}, **members})
        cases.append((name, text.decode(), expect))

    path = first["tree"]["path"]
    changed("in another's place", "not_included", {"index": 1})
    changed("a place beyond the tree", "Malformed", {"index": 5})
    changed("a place below none", "Malformed", {"index": -1})
    changed("a larger tree", "not_included", {"size": 17})
    changed("a tree of another size with the same path", "signature_invalid", {"size": 6})
    changed("a tree of one", "Malformed", {"size": 1, "index": 0, "path": []})
    changed("a tree too large", "Malformed", {"size": 1025})
    changed("a path too short", "not_included", {"path": path[:-1]})
    changed("a path too long", "not_included", {"path": [*path, path[0]]})
    changed("a path of eleven", "Malformed", {"path": path[:1] * 11})
    changed("a path in another order", "not_included", {"path": path[::-1]})
    changed("a hash cut short", "Malformed", {"path": [*path[:-1], path[-1][:-2]]})
    changed("no path", "Malformed", {"path": None})
    changed("the root of another tree", "not_included", {"root": strange["tree"]["root"]})
    changed("another tree under this signature", "signature_invalid", strange["tree"], payload=strange["payload"])
    changed("the receipt of another tree", "not_included", payload=strange["payload"])
    changed("something more in the tree", "Malformed", {"more": 1})
    changed("something more beside it", "Malformed", more=1)
    changed("two signatures", "Malformed", signatures=first["signatures"] * 2)
    changed("no signature", "Malformed", signatures=[])
    changed("a lease's type", "wrong_statement", payloadType=Label.LEASE.value)
    changed("the tree's own type", "wrong_statement", payloadType=Label.RECEIPT_TREE.value)
    changed("another's key id", "unknown_key", signatures=[{**first["signatures"][0], "keyid": OTHER.key_id}])
    alone = json.loads(statement(INSTANCE, Label.RECEIPT, payloads[0]))
    changed("the signature of the receipt alone", "signature_invalid", signatures=alone["signatures"])
    cases.append(
        (
            "the tree's signature over the receipt alone",
            dump_json({**alone, "signatures": first["signatures"]}).decode(),
            "signature_invalid",
        )
    )
    cases.append(("the tree as null", dump_json({**first, "tree": None}).decode(), "Malformed"))
    cases.append(("a line end", good[0].decode() + "\n", "Malformed"))
    by_other = sign_receipts(OTHER, payloads)[0]
    cases.append(("by another", by_other.decode(), "unknown_key"))
    stolen = sign_receipts(
        INSTANCE, [replace(RECEIPT, instance=instance_id(OTHER.verify_key.raw)).dump(), payloads[0]]
    )[0]
    cases.append(("in another's name", stolen.decode(), "wrong_instance"))
    closing = sign_receipts(INSTANCE, [CLOSE.dump(), payloads[0]])[0]
    cases.append(("a close as receipt", closing.decode(), "Malformed"))
    return {
        "format": 1,
        "instance_seed": bytes(range(32, 64)).hex(),
        "statements": [{"name": name, "statement": text, "expect": expect} for name, text, expect in cases],
    }


def logs() -> tuple[list[str], Checkpoint]:
    """Return a small log and the checkpoint over it."""
    events = (
        Event(kind=EventKind.CUSTODIAN_INITIALISED, actor="admin", subject="custodian"),
        Event(kind=EventKind.LOAN_CREATED, actor="lender", subject=LOAN, details={"units": 100}),
        Event(kind=EventKind.KEY_RELEASED, actor="custodian", subject=ME, details={"loan": LOAN, "tee": "simulated"}),
        Event(kind=EventKind.LEASE_GRANTED, actor=ME, subject=LOAN, details={"seq": 1, "limit": 100, "used": 0}),
        Event(kind=EventKind.BLOCKED, actor="lender", subject=LOAN, details={"block_version": 1, "reason": "unpaid"}),
    )
    tree, previous, lines = MerkleTree(), FIRST_PREVIOUS, []
    for index, event in enumerate(events):
        line = _first(event, index, AT + timedelta(seconds=index), previous)
        previous = tree.append(line.encode())
        lines.append(line)
    checkpoint = Checkpoint(
        origin=CUSTODIAN.verify_key,
        size=tree.size,
        root=tree.root(),
        epoch=1,
        ledger_size=2,
        escrowed=100,
        block_version=1,
        at=AT + timedelta(minutes=1),
    )
    return lines, checkpoint


def audit() -> dict[str, object]:
    """Return whole logs, most of them tampered with."""
    lines, checkpoint = logs()
    text = statement(CUSTODIAN, Label.CHECKPOINT, checkpoint.dump())
    older = statement(CUSTODIAN, Label.CHECKPOINT, replace(checkpoint, root=bytes(32)).dump())
    tampered = [line.replace('"units":100', '"units":900') for line in lines]
    cases = [
        ("whole", lines, text, "valid", None),
        ("longer than its checkpoint", [*lines, _next(lines)], text, "valid", None),
        ("last line cut", lines[:-1], text, "audit_cut", 4),
        ("empty", [], text, "audit_cut", 0),
        ("first line cut", lines[1:], text, "audit_broken", 0),
        ("a line in the middle cut", [*lines[:2], *lines[3:]], text, "audit_broken", 2),
        ("two lines swapped", [lines[0], lines[2], lines[1], *lines[3:]], text, "audit_broken", 1),
        ("a line repeated", [*lines[:3], lines[2], *lines[3:]], text, "audit_broken", 3),
        ("a figure changed", tampered, text, "audit_broken", 2),
        ("the last line changed", [*lines[:-1], lines[-1].replace("unpaid", "paid")], text, "audit_changed", 5),
        ("another root", lines, older, "audit_changed", 5),
    ]
    return {
        "format": 1,
        "custodian_seed": bytes(range(32)).hex(),
        "root": checkpoint.root.hex(),
        "cases": [
            {"name": name, "lines": log, "checkpoint": signed, "expect": expect, "index": index}
            for name, log, signed, expect, index in cases
        ],
    }


def _next(lines: list[str]) -> str:
    tree = MerkleTree()
    previous = FIRST_PREVIOUS
    for line in lines:
        previous = tree.append(line.encode())
    event = Event(kind=EventKind.UNBLOCKED, actor="lender", subject=LOAN, details={"block_version": 2})
    return _first(event, len(lines), AT + timedelta(hours=1), previous)


def _first(event: Event, index: int, at: datetime, previous: bytes) -> str:
    """Return an entry of version 1, which no program writes any more and all of them read."""
    members = {"actor": event.actor, "at": dump_time(at), "details": dict(event.details), "index": index}
    more = {"kind": event.kind.value, "previous": previous.hex(), "subject": event.subject, "v": 1}
    return _dump({**members, **more})


def entry_cases(lines: list[str]) -> list[dict[str, str]]:
    """Return one line of the log and the ways to spell it wrong."""
    found = cases("entry", lines[1].encode())
    members = json.loads(lines[1])
    for name, change in {
        "an unknown event": {"kind": "something_happened"},
        "a detail off the allow-list": {"details": {"input": "what is wrong with me"}},
        "a detail of another form": {"details": {"loan": "a b"}},
        "a nested detail": {"details": {"units": {"a": 1}}},
        "an actor with a space": {"actor": "a b"},
        "a time with a zone": {"at": "2026-01-02T03:04:06+00:00"},
        "previous in upper case": {"previous": "AB" * 32},
    }.items():
        text = _dump({**members, **change})
        found.append({"name": f"entry: {name}", "format": "entry", "text": text, "expect": "Malformed"})
    return found


def second_cases(lines: list[str]) -> list[dict[str, str]]:
    """Return entries of version 2, which commit to what they do not show, and ways to spell them wrong."""
    zeros = "00" * 32
    first = json.loads(lines[1])
    good = {**first, "committed": {"reason": zeros}, "subject": "p:" + "0" * 32, "v": 2}
    plain = {name: value for name, value in good.items() if name != "committed"}
    found: list[tuple[str, Any, str]] = [
        ("v2: good", good, "valid"),
        ("v2: nothing committed", {**good, "committed": {}}, "valid"),
        ("v2: no member committed", plain, "Malformed"),
        ("v1: with commitments", {**good, "v": 1}, "Malformed"),
        ("v3", {**good, "v": 3}, "Malformed"),
        ("v0", {**good, "v": 0}, "Malformed"),
        ("v2: commitment to no detail", {**good, "committed": {"password": zeros}}, "Malformed"),
        ("v2: shown and committed", {**good, "details": {"reason": "x"}}, "Malformed"),
        ("v2: commitment too short", {**good, "committed": {"reason": zeros[2:]}}, "Malformed"),
        ("v2: commitment in capitals", {**good, "committed": {"reason": "AB" * 32}}, "Malformed"),
        ("v2: commitment is a number", {**good, "committed": {"reason": 1}}, "Malformed"),
        ("v2: what is left of a pruned one", {"index": 1, "leaf": zeros, "pruned": 1, "v": 2}, "Malformed"),
    ]
    return [
        {"name": f"entry {name}", "format": "entry", "text": _dump(members), "expect": want}
        for name, members, want in found
    ]


def main() -> None:
    """Write all files."""
    messages = {"lease-request": REQUEST, "lease": LEASE, "refusal": REFUSAL, "close": CLOSE}
    parsed = [case for kind, message in messages.items() for case in cases(kind, message.dump())]
    parsed += clocked_cases() + alarmed_cases()
    write("lease/messages.json", {"format": 1, "cases": parsed})
    keys = {"custodian_seed": bytes(range(32)).hex(), "instance_seed": bytes(range(32, 64)).hex()}
    known = {"epoch": 2, "block_version": 2, "req_digest": DIGEST.hex()}
    write("lease/answers.json", {"format": 1, **keys, **known, "cases": answers()})
    write("receipt/messages.json", {"format": 1, "cases": cases("receipt", RECEIPT.dump())})
    write("receipt/receipts.json", receipts())
    write("receipt/batches.json", batches())
    lines, checkpoint = logs()
    parsed = [*entry_cases(lines), *cases("checkpoint", checkpoint.dump()), *second_cases(lines)]
    write("audit/parse.json", {"format": 1, "cases": parsed})
    write("audit/logs.json", audit())


if __name__ == "__main__":
    main()
