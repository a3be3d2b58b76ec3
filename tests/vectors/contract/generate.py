"""Write the vectors of contract, sub-allowance and its revocation: a few good ones, and each wrong in one way.

Run by hand after a change of format: ``python tests/vectors/contract/generate.py``. Keys are the seeds in the
files; nothing is random.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.lending.clauses import Clauses, OfflineTerm, RefundRule, Window
from cloister.lending.consumer_limits import Budget, ConsumerLimits, Limits, Rate
from cloister.lending.contract import Contract, SignedContract
from cloister.lending.output_rule import OutputRule, Shown
from cloister.lending.revocation import RevocationList
from cloister.lending.sub_allowance import Block, BlockId, Caveats, Chain
from cloister.lending.terms import Consumer, ConsumerId, InstanceId, LoanId, ModelDigest, ModelTerms, OutageRule, Terms
from cloister.lending.watch import Watch, WatchAction, WatchKind
from cloister.wire import dump_b64u, dump_json

ROOT = Path(__file__).parent.parent
CUSTODIAN, BORROWER, ANN, BOB, OTHER = (SigningKey(bytes([n]) * 32) for n in range(1, 6))
AT = datetime(2026, 1, 5, 8, 0, 0, tzinfo=UTC)  # a Monday
LOAN = LoanId("loan-" + "a" * 16)
INSTANCE = InstanceId("1" * 64)
CLAUSES = Clauses(
    purpose="Triage",
    hours=(Window(day=1, start=480, end=1080),),
    precision=3,
    budget=5000,
    offline=OfflineTerm(lasts=timedelta(days=2), units=300, overdraft=20),
    refund=RefundRule.UNUSED,
    borrower=BORROWER.verify_key,
    sub_allowances=True,
)
TERMS = Terms(
    loan=LOAN,
    borrower="Clinic",
    models=(ModelTerms(name="digits", digest=ModelDigest("ab" * 32), ticketed=True),),
    consumers=(Consumer(id=ConsumerId("ann"), token_sha256=bytes(32)),),
    outage=OutageRule.OFFLINE,
    clauses=CLAUSES,
)


def contract(terms: Terms = TERMS) -> Contract:
    return Contract.of(terms, custodian=CUSTODIAN.verify_key, policy_digest="cd" * 32, created_at=AT)


def both(terms: Terms = TERMS) -> SignedContract:
    return SignedContract.offer(contract(terms), CUSTODIAN).accept(BORROWER, custodian=CUSTODIAN.verify_key)


def case(name: str, text: bytes | str, expect: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "text": text if isinstance(text, str) else text.decode(), "expect": expect, **more}


def contracts() -> list[dict[str, Any]]:
    plain = replace(TERMS, clauses=Clauses(), outage=OutageRule.STOP)
    good, offer = both(), SignedContract.offer(contract(), CUSTODIAN)
    newer = replace(TERMS, models=(replace(TERMS.models[0], replaces=(ModelDigest("aa" * 32),)),))
    members: dict[str, Any] = json.loads(good.dump())
    first, second = members["signatures"]

    model = json.loads(good.payload)["terms"]["models"][0]

    def changed(**parts: Any) -> bytes:
        return dump_json({**members, **parts})

    def payload(**parts: Any) -> bytes:
        value = {**json.loads(good.payload), **parts}
        data = dump_json({name: item for name, item in value.items() if item is not None})
        sigs = [{**first, "sig": sig(CUSTODIAN, data)}, {**second, "sig": sig(BORROWER, data)}]
        return changed(payload=dump_b64u(data), signatures=sigs)

    def terms(**parts: Any) -> bytes:
        value = {**json.loads(good.payload)["terms"], **parts}
        return payload(terms={name: item for name, item in value.items() if item != "left out"})

    limited = replace(
        CLAUSES,
        consumer_limits=ConsumerLimits(
            each=Limits(
                rate=Rate(units=5, per_s=1, burst=20), budgets=(Budget(units=1000, window_s=3600, fixed=True),)
            ),
            guests=Limits(budgets=(Budget(units=100, window_s=86_400),)),
            named=(("ann", Limits()),),
        ),
        outputs=(
            OutputRule(model=TERMS.models[0].name, output="logits", show=Shown.NOTHING),
            OutputRule(model=TERMS.models[0].name, output="scores", top=3, minimum="0.01", fill="-1"),
        ),
        watches=(
            Watch(kind=WatchKind.NEAR, above=20, action=WatchAction.STOP),
            Watch(kind=WatchKind.REGULAR, above=150),
        ),
    )

    def budget(**members: int) -> Any:
        return {"each": {"budgets": [members]}}

    def clause(**parts: Any) -> bytes:
        value = {**json.loads(good.payload)["terms"]["clauses"], **parts}
        return terms(clauses={name: item for name, item in value.items() if item != "left out"})

    return [
        case("signed by both", good.dump(), "valid"),
        case("a loan that nobody countersigns", SignedContract.offer(contract(plain), CUSTODIAN).dump(), "valid"),
        case("anybody may ask", both(replace(TERMS, consumers=None)).dump(), "valid"),
        case("only offered", offer.dump(), "contract_unsigned"),
        case("another custodian", both().dump(), "unknown_key", custodian_seed=OTHER.seed().hex()),
        case(
            "custodian's signature over other bytes",
            changed(signatures=[{**first, "sig": sig(CUSTODIAN, b"x")}, second]),
            "signature_invalid",
        ),
        case(
            "borrower's signature over other bytes",
            changed(signatures=[first, {**second, "sig": sig(BORROWER, b"x")}]),
            "signature_invalid",
        ),
        case(
            "both signatures the custodian's",
            changed(signatures=[first, {**second, "sig": first["sig"]}]),
            "signature_invalid",
        ),
        case(
            "signed as another statement",
            changed(signatures=[{**first, "sig": dump_b64u(CUSTODIAN.sign(Label.LOAN, good.payload))}, second]),
            "signature_invalid",
        ),
        case("signatures in the other order", changed(signatures=[second, first]), "Malformed"),
        case("no signature", changed(signatures=[]), "Malformed"),
        case("only the borrower's", changed(signatures=[second]), "Malformed"),
        case("three signatures", changed(signatures=[first, second, second]), "Malformed"),
        case("a short signature", changed(signatures=[{**first, "sig": dump_b64u(bytes(63))}, second]), "Malformed"),
        case(
            "signed by a key that it does not name",
            changed(signatures=[first, {**second, "keyid": OTHER.key_id}]),
            "Malformed",
        ),
        case("another type", changed(payloadType=Label.LOAN.value), "Malformed"),
        case("a payload that is none", changed(payload="e30"), "Malformed"),
        case("unknown member", changed(zz=1), "Malformed"),
        case("a space", good.dump().decode().replace(":", ": ", 1), "Malformed"),
        case("cut", good.dump()[:-1], "Malformed"),
        case("another version of the format", payload(v=2), "Malformed"),
        case("without a policy", payload(policy_digest=None), "Malformed"),
        case("without a time", payload(created_at=None), "Malformed"),
        case("a key of small order", payload(custodian=dump_b64u(bytes(32))), "Malformed"),
        case("one party alone", clause(borrower=CUSTODIAN.verify_key.dump()), "Malformed"),
        case(
            "a hash of a token",
            terms(consumers=[{"id": "ann", "metered": False, "token_sha256": "00" * 32}]),
            "Malformed",
        ),
        case("a consumer twice", terms(consumers=[{"id": "ann", "metered": False}] * 2), "Malformed"),
        case("a consumer that is none", terms(consumers=["ann"]), "Malformed"),
        case("consumers left out", terms(consumers="left out"), "Malformed"),
        case("no model", terms(models=[]), "Malformed"),
        case("a newer version of a model", both(newer).dump(), "valid"),
        *(
            case(f"a version that replaces {what}", terms(models=[{**model, "replaces": value}]), "Malformed")
            for what, value in (
                ("nothing", []),
                ("null", None),
                ("itself", [model["digest"]]),
                ("another twice", ["aa" * 32] * 2),
                ("no digest", ["aa" * 31]),
                ("a digest in capitals", ["AA" * 32]),
                ("32 others", [f"{number:064x}" for number in range(32)]),
            )
        ),
        case("limits and output rules", both(replace(TERMS, clauses=limited)).dump(), "valid"),
        case(
            "a rule for a model that is not lent",
            clause(outputs=[{"model": "other", "output": "y", "top": 1}]),
            "Malformed",
        ),
        case("a rule that holds nothing back", clause(outputs=[{"model": "digits", "output": "y"}]), "Malformed"),
        case(
            "two rules for one output",
            clause(outputs=[{"model": "digits", "output": "y", "top": 1}] * 2),
            "Malformed",
        ),
        case("no rules", clause(outputs=[]), "Malformed"),
        case(
            "watches out of order",
            clause(watches=[{"above": 1, "kind": kind} for kind in ("near", "distinct")]),
            "Malformed",
        ),
        case("an unknown watch", clause(watches=[{"above": 1, "kind": "odd"}]), "Malformed"),
        case("no limits", clause(consumer_limits={}), "Malformed"),
        case("a budget of a minute and a bit", clause(consumer_limits=budget(units=9, window_s=61)), "Malformed"),
        case("a budget smaller than instances", clause(consumer_limits=budget(units=1, window_s=60)), "Malformed"),
        case(
            "a rate without a burst", clause(consumer_limits={"each": {"rate": {"per_s": 1, "units": 1}}}), "Malformed"
        ),
        case("offline without its term", clause(offline="left out"), "Malformed"),
        case("version 0", terms(version=0), "Malformed"),
        case(
            "hours out of order",
            clause(hours=[{"day": 2, "end": 9, "start": 0}, {"day": 1, "end": 9, "start": 0}]),
            "Malformed",
        ),
        case("hours that end before they start", clause(hours=[{"day": 1, "end": 5, "start": 9}]), "Malformed"),
        case("no hour at all", clause(hours=[]), "Malformed"),
        case("sixteen places", clause(precision=16), "Malformed"),
        case("a default spelled out", clause(refund="none"), "Malformed"),
        case(
            "revocations of sub-allowances that nobody gets",
            clause(revocations=True, sub_allowances="left out"),
            "Malformed",
        ),
        case("revocations denied in words", clause(revocations=False), "Malformed"),
        case("sub-allowances denied in words", clause(sub_allowances=False), "Malformed"),
        case("sub-allowances without the key that signs them", clause(borrower="left out"), "Malformed"),
        case("an unknown clause", clause(resale="allowed"), "Malformed"),
    ]


def sig(key: SigningKey, payload: bytes) -> str:
    return dump_b64u(key.sign(Label.CONTRACT, payload))


def chains() -> list[dict[str, Any]]:
    end = AT + timedelta(days=1)
    root = Chain.start(
        BORROWER, loan=LOAN, holder=ANN.verify_key, caveats=Caveats(not_after=end, models=("digits", "faces"), units=9)
    )
    full = Caveats(
        name="bed-1", purpose="Triage", models=("digits",), units=3, per_minute=2,
        hours=(Window(day=1, start=480, end=1080),), not_before=AT, not_after=end, precision=2, instance=INSTANCE,
    )  # fmt: skip
    two = root.narrow(ANN, holder=BOB.verify_key, caveats=full)
    wide = root.narrow(ANN, holder=BOB.verify_key, caveats=Caveats(models=("digits", "faces", "voices")))
    three = two.narrow(BOB, holder=ANN.verify_key, caveats=Caveats())
    other = Chain.start(
        BORROWER, loan=LoanId("loan-" + "b" * 16), holder=ANN.verify_key, caveats=Caveats(not_after=end)
    )
    twin = Chain.start(BORROWER, loan=LOAN, holder=ANN.verify_key, caveats=Caveats(not_after=end, units=1000))
    forged = Chain.start(OTHER, loan=LOAN, holder=ANN.verify_key, caveats=Caveats(not_after=end))
    far = Chain.start(
        BORROWER, loan=LOAN, holder=ANN.verify_key, caveats=Caveats(not_after=AT + timedelta(days=31, seconds=1))
    )
    later = Chain.start(
        BORROWER, loan=LOAN, holder=ANN.verify_key, caveats=Caveats(not_after=end, not_before=AT + timedelta(seconds=1))
    )

    def of(name: str, chain: Chain | bytes, holder: SigningKey, expect: str, **use: Any) -> dict[str, Any]:
        data = chain if isinstance(chain, bytes) else chain.dump()
        return case(name, data, expect, token=dump_b64u(holder.seed()), use={"model": "digits", **use})

    def blocks(*items: Block) -> bytes:
        return Chain(blocks=items).dump()

    def first(**parts: Any) -> bytes:
        value = {**json.loads(root.blocks[0].payload), **parts}
        return signed_first({name: item for name, item in value.items() if item is not None})

    def signed_first(value: dict[str, Any]) -> bytes:
        payload = dump_json(value)
        entry = {"payload": dump_b64u(payload), "sig": dump_b64u(BORROWER.sign(Label.SUB_ALLOWANCE, payload))}
        return dump_json({"blocks": [entry], "v": 1})

    def caveats(**parts: Any) -> bytes:
        said = {**json.loads(root.blocks[0].payload)["caveats"], **parts}
        return first(caveats={name: item for name, item in said.items() if item != "left out"})

    elsewhere = "2" * 64
    document: dict[str, Any] = json.loads(root.dump())
    return [
        of("one block", root, ANN, "valid", ids=list(root.ids)),
        of("two blocks", two, BOB, "valid", ids=list(two.ids)),
        of("three blocks", three, ANN, "valid", ids=list(three.ids)),
        of("a model that the second block left out", two, BOB, "sub_allowance_scope", model="faces"),
        of("a caveat widened further down", wide, BOB, "sub_allowance_scope", model="voices"),
        of("another instance", two, BOB, "sub_allowance_scope", instance=elsewhere),
        of("after its end", root, ANN, "sub_allowance_expired", now="2026-01-06T08:00:00Z"),
        of("before its beginning", later, ANN, "sub_allowance_expired"),
        of("outside its hours", two, BOB, "outside_hours", now="2026-01-05T18:00:00Z"),
        of("an end that is too far ahead", far, ANN, "sub_allowance_expired"),
        of("token of the holder before", two, ANN, "sub_allowance_invalid"),
        of("token of a stranger", root, OTHER, "sub_allowance_invalid"),
        of("the last block dropped", blocks(two.blocks[0]), BOB, "sub_allowance_invalid"),
        of("the middle block dropped", blocks(three.blocks[0], three.blocks[2]), ANN, "sub_allowance_invalid"),
        of("blocks reordered", blocks(three.blocks[0], three.blocks[2], three.blocks[1]), BOB, "sub_allowance_invalid"),
        of("a block twice", blocks(two.blocks[0], two.blocks[1], two.blocks[1]), BOB, "sub_allowance_invalid"),
        of(
            "spliced onto a wider chain of the same holder",
            blocks(twin.blocks[0], two.blocks[1]),
            BOB,
            "sub_allowance_invalid",
        ),
        of("spliced onto another loan's", blocks(other.blocks[0], two.blocks[1]), BOB, "sub_allowance_invalid"),
        of("for another loan", other, ANN, "sub_allowance_invalid"),
        of("signed by another borrower", forged, ANN, "sub_allowance_invalid"),
        of(
            "a signature of another block",
            blocks(replace(two.blocks[0], signature=two.blocks[1].signature)),
            ANN,
            "sub_allowance_invalid",
        ),
        of("no end", caveats(not_after="left out"), ANN, "Malformed"),
        of("no loan", first(loan=None), ANN, "Malformed"),
        of("a first block behind another", first(previous="0" * 64), ANN, "Malformed"),
        of("a second block first", blocks(two.blocks[1]), BOB, "Malformed"),
        of("a first block second", blocks(root.blocks[0], root.blocks[0]), ANN, "Malformed"),
        of("no block", dump_json({"blocks": [], "v": 1}), ANN, "Malformed"),
        of("nine blocks", dump_json({"blocks": document["blocks"] * 9, "v": 1}), ANN, "Malformed"),
        of("more than 16 KiB", dump_json({"blocks": document["blocks"], "v": 1, "zz": "z" * 16384}), ANN, "Malformed"),
        of("another version", dump_json({**document, "v": 2}), ANN, "Malformed"),
        of("unknown member", dump_json({**document, "zz": 1}), ANN, "Malformed"),
        of("a space", root.dump().decode().replace(":", ": ", 1).encode(), ANN, "Malformed"),
        of("cut", root.dump()[:-1], ANN, "Malformed"),
        of("an unknown caveat", caveats(resale=True), ANN, "Malformed"),
        of("units as text", caveats(units="9"), ANN, "Malformed"),
        of("units below zero", caveats(units=-1), ANN, "Malformed"),
        of("a null caveat", caveats(precision=None), ANN, "Malformed"),
        of("models out of order", caveats(models=["faces", "digits"]), ANN, "Malformed"),
        of("hours that are none", caveats(hours=[]), ANN, "Malformed"),
        of("a holder that nobody can be", first(holder=dump_b64u(bytes(32))), ANN, "Malformed"),
        of("another version of the block", first(v=2), ANN, "Malformed"),
        of("an unknown member of the block", first(zz=1), ANN, "Malformed"),
    ]


def revocations() -> list[dict[str, Any]]:
    first = RevocationList(
        loan=LOAN, number=3, not_after=AT + timedelta(days=7), blocks=frozenset(map(BlockId, ("0a" * 32, "0b" * 32)))
    )
    second = first.following(frozenset({BlockId("0c" * 32)}), not_after=AT + timedelta(days=9))
    document: dict[str, Any] = json.loads(first.sign(BORROWER))

    def of(name: str, text: bytes, expect: str, *, before: RevocationList | None = None) -> dict[str, Any]:
        return case(name, text, expect, **({} if before is None else {"before": before.sign(BORROWER).decode()}))

    def payload(**parts: Any) -> bytes:
        value = {**json.loads(first.dump()), **parts}
        data = dump_json({name: item for name, item in value.items() if item != "left out"})
        return Statement.sign(BORROWER, Label.REVOCATIONS, data).dump()

    def again(number: int, *blocks: str) -> bytes:
        return replace(first, number=number, blocks=frozenset(map(BlockId, blocks))).sign(BORROWER)

    return [
        of("two sub-allowances", first.sign(BORROWER), "valid"),
        of("one more", second.sign(BORROWER), "valid", before=first),
        of("the same list again", first.sign(BORROWER), "revocations_old", before=first),
        of("an older list", first.sign(BORROWER), "revocations_old", before=second),
        of("the same number with more", again(3, "0a" * 32, "0b" * 32, "0c" * 32), "revocations_old", before=first),
        of("a newer list with one left out", again(5, "0a" * 32, "0c" * 32), "revocations_shrunk", before=first),
        of("a newer list of nobody", again(5), "revocations_shrunk", before=first),
        of("signed by another borrower", first.sign(OTHER), "unknown_key"),
        of("signed by the custodian", first.sign(CUSTODIAN), "unknown_key"),
        of("signed by the holder of a sub-allowance", first.sign(ANN), "unknown_key"),
        of(
            "another's signature under the borrower's name",
            dump_json({**document, "signatures": [{"keyid": BORROWER.key_id, "sig": sig(OTHER, first.dump())}]}),
            "signature_invalid",
        ),
        of(
            "the signature of another list",
            dump_json({**document, "signatures": json.loads(second.sign(BORROWER))["signatures"]}),
            "signature_invalid",
        ),
        of("for another loan", replace(first, loan=LoanId("loan-" + "b" * 16)).sign(BORROWER), "wrong_loan"),
        of(
            "signed as a block of a sub-allowance",
            Statement.sign(BORROWER, Label.SUB_ALLOWANCE, first.dump()).dump(),
            "wrong_statement",
        ),
        of("no signature", dump_json({**document, "signatures": []}), "Malformed"),
        of("an id twice", payload(revoked=["0a" * 32, "0a" * 32]), "Malformed"),
        of("ids out of order", payload(revoked=["0b" * 32, "0a" * 32]), "Malformed"),
        of("a short id", payload(revoked=["0a" * 31]), "Malformed"),
        of("an upper-case id", payload(revoked=["0A" * 32]), "Malformed"),
        of("an id that is a number", payload(revoked=[1]), "Malformed"),
        of("no ids", payload(revoked="left out"), "Malformed"),
        of("null ids", payload(revoked=None), "Malformed"),
        of("number 0", payload(number=0), "Malformed"),
        of("a number as text", payload(number="3"), "Malformed"),
        of("no number", payload(number="left out"), "Malformed"),
        of("no end", payload(not_after="left out"), "Malformed"),
        of("no loan", payload(loan="left out"), "Malformed"),
        of("another version", payload(v=2), "Malformed"),
        of("unknown member", payload(zz=1), "Malformed"),
        of("a space", first.sign(BORROWER).decode().replace(":", ": ", 1).encode(), "Malformed"),
        of("cut", first.sign(BORROWER)[:-1], "Malformed"),
        of("empty", b"", "Malformed"),
    ]


def write(name: str, content: dict[str, Any]) -> None:
    (ROOT / name).write_text(json.dumps({"format": 1, **content}, indent=1) + "\n")


write(
    "contract/contracts.json",
    {"custodian_seed": CUSTODIAN.seed().hex(), "borrower_seed": BORROWER.seed().hex(), "cases": contracts()},
)
write(
    "sub-allowance/chains.json",
    {
        "borrower_seed": BORROWER.seed().hex(),
        "loan": LOAN,
        "now": "2026-01-05T08:00:00Z",
        "instance": INSTANCE,
        "cases": chains(),
    },
)
write(
    "sub-allowance/revocations.json",
    {"borrower_seed": BORROWER.seed().hex(), "loan": LOAN, "cases": revocations()},
)
