"""The messages: one spelling, strict members, every field signed (T46, T47), 10,000 mutations each."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from cloister.attest.rats import Evidence, Nonce, TeeKind
from cloister.crypto.sign import Label, SigningKey, Statement, VerifyKey
from cloister.errors import Malformed, Reason, Rejected
from cloister.lending.messages import (
    AttestRequest,
    CertificateRequest,
    Challenge,
    Close,
    Consumption,
    Grant,
    InstanceCertificate,
    IssuersAnswer,
    IssuersRequest,
    Lease,
    LeaseRequest,
    Receipt,
    Refusal,
    ReleasedKey,
    Status,
    Ticket,
    TicketRequest,
    UsageAck,
    UsageLine,
    UsageRecord,
    UsageReport,
    UsageSpan,
    UsageStatement,
    Voucher,
    VoucherRequest,
)
from cloister.lending.messages.usage import minute_of
from cloister.lending.terms import (
    LOAN_METER,
    Consumer,
    ConsumerId,
    InstanceId,
    LoanId,
    Meter,
    ModelDigest,
    ModelTerms,
    Terms,
    instance_id,
)
from cloister.lending.watch import WatchKind
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Message: TypeAlias = (
    AttestRequest
    | CertificateRequest
    | Challenge
    | Close
    | Consumption
    | Grant
    | InstanceCertificate
    | Lease
    | LeaseRequest
    | Receipt
    | Refusal
    | Status
    | IssuersRequest
    | IssuersAnswer
    | UsageAck
    | UsageReport
    | UsageStatement
    | Ticket
    | TicketRequest
    | Voucher
    | VoucherRequest
)
Path: TypeAlias = "tuple[str | int, ...]"

KEY = SigningKey(bytes(range(32)))
LOAN = LoanId("loan-abcdefghij234567")
INSTANCE = instance_id(KEY.verify_key.raw)
MODEL = ModelDigest("ab" * 32)
NOW = datetime(2026, 7, 1, 12, 0, 0, 250, tzinfo=UTC)
CONSUMER = Consumer(id=ConsumerId("clinic-1"), token_sha256=b"\x11" * 32, metered=True)
UNITS = {LOAN_METER: 10, Meter("model:digits"): 7, Meter("consumer:clinic-1"): 3}
TERMS = Terms(
    loan=LOAN,
    borrower="Étude & Söhne",
    models=(ModelTerms(name="digits", digest=MODEL, metered=True), ModelTerms(name="other", digest=MODEL)),
    consumers=(CONSUMER,),
)

SAMPLES: tuple[Message, ...] = (
    Challenge(nonce=Nonce(b"\x01" * 32), custodian=KEY.verify_key, loan=LOAN, epoch=1, ttl=timedelta(seconds=60)),
    AttestRequest(
        loan=LOAN,
        nonce=Nonce(b"\x01" * 32),
        instance_pub=KEY.verify_key,
        kem_id=0x647A,
        kem_pub=b"\x02" * 1216,
        evidence=Evidence(tee=TeeKind("simulated"), payload=b"\x03" * 99),
        software=b'{"v":1}',
    ),
    Grant(
        instance=INSTANCE,
        request_digest=b"\x04" * 32,
        epoch=1,
        terms=TERMS,
        policy_digest="cd" * 32,
        result="eyJ.eyJ.sig",
        publisher=KEY.verify_key,
        keys=(ReleasedKey(model=MODEL, key_version=1, enc=b"\x05" * 1120, ciphertext=b"\x06" * 48),),
        block_version=2,
    ),
    LeaseRequest(
        instance=INSTANCE,
        epoch=1,
        seq=3,
        req_nonce=b"\x07" * 16,
        used=UNITS,
        reserved={},
        want=UNITS,
        served=7,
        chain_head=b"\x08" * 32,
        alarms={WatchKind.NEAR: 2},
    ),
    Lease(
        instance=INSTANCE,
        epoch=1,
        seq=3,
        req_digest=b"\x09" * 32,
        limits=UNITS,
        balances={LOAN_METER: 2**53 - 1},
        ttl=timedelta(seconds=60),
        models=(MODEL,),
        consumers=(CONSUMER,),
        policy_digest="cd" * 32,
        block_version=2,
        issued_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        unserved=5,
        issuers=3,
    ),
    Refusal(
        instance=INSTANCE,
        req_digest=b"\x09" * 32,
        reasons=(Reason(code="blocked", subject="loan", got="", want="not blocked"),),
        stop=True,
        retry_after=timedelta(seconds=0),
        block_version=2,
    ),
    Close(instance=INSTANCE, epoch=1, seq=4, used=UNITS, served=7, chain_head=b"\x08" * 32),
    Status(
        instance=INSTANCE,
        nonce=Nonce(b"\x01" * 32),
        operator="Étude & Söhne",
        loan=LOAN,
        kem_digest=b"\x0a" * 32,
        models=(MODEL,),
        state="active",
        valid_for=timedelta(seconds=30),
        block_version=2,
        issued_at=NOW,
    ),
    Receipt(
        instance=INSTANCE,
        index=1,
        loan=LOAN,
        model=MODEL,
        consumer=CONSUMER.id,
        metered=True,
        units=5,
        request=b"\x0b" * 32,
        response=b"\x0c" * 32,
        previous=b"\x0d" * 32,
        policy_digest="cd" * 32,
        issued_at=NOW,
    ),
    UsageReport(
        instance=INSTANCE,
        loan=LOAN,
        previous=b"\x0e" * 32,
        records=(
            UsageRecord(index=3, model=MODEL, consumer=CONSUMER.id, units=5, at=minute_of(NOW), content=b"\x0f" * 32),
            UsageRecord(index=4, model=MODEL, consumer=None, units=1, at=minute_of(NOW), content=None),
        ),
    ),
    IssuersRequest(instance=INSTANCE, nonce=b"\x07" * 16, kem_pub=b"\x02" * 1216),
    IssuersAnswer(instance=INSTANCE, req_digest=b"\x09" * 32, version=3, enc=b"\x05" * 1120, sealed=b"\x06" * 99),
    UsageAck(instance=INSTANCE, last=4, head=b"\x10" * 32),
    UsageStatement(
        custodian=KEY.verify_key,
        loan=LOAN,
        start=minute_of(NOW),
        end=minute_of(NOW) + timedelta(hours=1),
        lines=(
            UsageLine(model=MODEL, consumer=CONSUMER.id, inferences=2, units=5, cut_units=0),
            UsageLine(model=MODEL, consumer=None, inferences=0, units=1, cut_units=1),
        ),
        spans=(
            UsageSpan(
                key=KEY.verify_key,
                after=3,
                upto=6,
                previous=b"\x11" * 32,
                head=b"\x12" * 32,
                units=6,
                reported=7,
                itemised=20,
                granted=100,
                ended=True,
            ),
        ),
        issued_at=NOW,
    ),
    VoucherRequest(
        instance=INSTANCE,
        loan=LOAN,
        epoch=1,
        seq=3,
        req_nonce=b"\x07" * 16,
        used=UNITS,
        reserved={LOAN_METER: 1},
        want=UNITS,
        served=9,
        chain_head=b"\x08" * 32,
    ),
    Voucher(
        instance=INSTANCE,
        loan=LOAN,
        epoch=1,
        seq=3,
        req_digest=b"\x09" * 32,
        chain_head=b"\x08" * 32,
        limits=UNITS,
        overdraft=4,
        lasts=timedelta(days=14),
        models=(MODEL,),
        consumers=(CONSUMER,),
        policy_digest="cd" * 32,
        block_version=2,
        issued_at=NOW,
    ),
    Consumption(
        instance=INSTANCE,
        loan=LOAN,
        voucher=b"\x0e" * 32,
        number=2,
        used=UNITS,
        chain_head=b"\x08" * 32,
        first=3,
        last=9,
        at=NOW,
    ),
    TicketRequest(
        instance=INSTANCE,
        epoch=1,
        index=5,
        request=b"\x0b" * 32,
        model=MODEL,
        consumer=CONSUMER.id,
        units=2,
    ),
    Ticket(
        instance=INSTANCE,
        epoch=1,
        index=5,
        req_digest=b"\x09" * 32,
        request=b"\x0b" * 32,
        model=MODEL,
        units=2,
        ttl=timedelta(seconds=30),
        block_version=2,
    ),
    CertificateRequest(instance=INSTANCE, csr=b"\x13" * 200, server=True),
    InstanceCertificate(
        instance=INSTANCE,
        req_digest=b"\x09" * 32,
        certificate=b"\x14" * 400,
        authorities=(b"\x15" * 400, b"\x16" * 401),
        life=timedelta(hours=1),
    ),
)

every_message = pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)

_DATA_MEMBERS = {"used", "reserved", "want", "limits", "balances"}  # their member names are data
_MAY_BE_NULL = {"consumer", "consumers"}
_NULL_CELLS = {2, 4}  # consumer and content of a usage record


def _leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every member and item, outermost first."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _leaves(member, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _changed(value: Any, path: Path, member: Any) -> Any:
    fresh = copy.deepcopy(value)
    _at(fresh, path[:-1])[path[-1]] = member
    return fresh


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@every_message
def test_a_message_round_trips_in_one_spelling(message: Message) -> None:
    data = message.dump()
    assert type(message).parse(data) == message
    assert type(message).parse(data).dump() == data
    assert _canonical(json.loads(data)) == data


def test_the_messages_and_their_labels_match_one_to_one() -> None:
    labels = [type(message).LABEL for message in SAMPLES]
    assert len(set(labels)) == len(SAMPLES)
    assert set(labels) <= set(Label)


@every_message
def test_no_message_parses_as_another(message: Message) -> None:
    for other in SAMPLES:
        if type(other) is not type(message):
            with pytest.raises(Malformed):
                type(other).parse(message.dump())


@every_message
def test_every_missing_member_is_malformed(message: Message) -> None:
    value = json.loads(message.dump())
    for path in _leaves(value):
        if isinstance(path[-1], int) or (len(path) > 1 and path[-2] in _DATA_MEMBERS):
            continue
        if isinstance(message, Lease) and path[-1] in {"issued_at", "issuers", "unserved"}:
            continue  # those that may be left out
        if isinstance(message, LeaseRequest) and path == ("alarms",):
            continue  # where there were none
        fresh = copy.deepcopy(value)
        del _at(fresh, path[:-1])[path[-1]]
        with pytest.raises(Malformed):
            type(message).parse(_canonical(fresh))


@every_message
def test_every_unknown_member_is_malformed(message: Message) -> None:
    value = json.loads(message.dump())
    for path in [(), *_leaves(value)]:
        if isinstance(_at(value, path), dict):
            with pytest.raises(Malformed):
                type(message).parse(_canonical(_changed(value, (*path, "zz"), 1)))


@every_message
def test_every_member_of_another_type_is_malformed(message: Message) -> None:
    value = json.loads(message.dump())
    strangers: tuple[Any, ...] = (None, True, 1.5, -1, 2**53, "\n", "\u202e", [[]], {"zz": 1})
    for path in _leaves(value):
        was = _at(value, path)
        for stranger in strangers:
            if stranger is None and (path[-1] in _MAY_BE_NULL or (len(path) == 3 and path[-1] in _NULL_CELLS)):
                continue
            if (type(was) is bool and type(stranger) is bool) or was is stranger:
                continue
            with pytest.raises(Malformed):
                type(message).parse(_canonical(_changed(value, path, stranger)))


@every_message
def test_a_double_key_or_a_second_spelling_is_malformed(message: Message) -> None:
    data = message.dump()
    for bad in (data + b" ", b" " + data, data[:-1] + b',"v":1}', re.sub(rb'"v":(\d)', rb'"v":\1.0', data)):
        with pytest.raises(Malformed):
            type(message).parse(bad)


@every_message
@pytest.mark.parametrize("version", [0, 1, 2, 3, "1", True, None])
def test_another_version_is_malformed(message: Message, version: object) -> None:
    value = json.loads(message.dump())
    if (version, type(version)) == (value["v"], int):
        return
    with pytest.raises(Malformed):
        type(message).parse(_canonical({**value, "v": version}))


@every_message
def test_t46_integers_are_0_to_2_53_minus_1(message: Message) -> None:
    value = json.loads(message.dump())
    for path in _leaves(value):
        if type(_at(value, path)) is not int:
            continue
        for bad in (-1, 2**53, 2**63, 2**64, 1.5, "5", True, None, [1]):
            if bad is None and path[-1] in _NULL_CELLS:
                continue
            with pytest.raises(Malformed):
                type(message).parse(_canonical(_changed(value, path, bad)))


def _another(value: Any) -> Any:
    """Return another value of the same form."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("A" if value[-1:] != "A" else "B")
    return None


@every_message
def test_t47_every_field_is_under_the_signature(message: Message) -> None:
    """Move a message to another account, model, epoch, instance or custodian: no change survives."""
    honest = Statement.sign(KEY, type(message).LABEL, message.dump())
    value = json.loads(honest.payload)
    changed = 0
    for path in _leaves(value):
        other = _another(_at(value, path))
        if other is None:
            continue
        moved = replace(honest, payload=_canonical(_changed(value, path, other)))
        with pytest.raises(Rejected) as refused:
            Statement.parse(moved.dump(), label=type(message).LABEL).verify([KEY.verify_key])
        assert refused.value.code == "signature_invalid"
        changed += 1
    assert changed >= len(fields(message))


@every_message
def test_every_field_of_the_value_is_in_the_payload(message: Message) -> None:
    """Two messages that differ anywhere differ in what is signed: nothing is left out of ``dump``."""
    for field in fields(message):
        other = _another_field(getattr(message, field.name))
        assert replace(message, **{field.name: other}).dump() != message.dump(), field.name


_OTHERS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (bool, lambda value: not value),
    (int, lambda value: value + 1),
    (str, lambda value: value + "2"),
    (bytes, lambda value: value + b"2"),
    (timedelta, lambda value: value + timedelta(seconds=1)),
    (datetime, lambda value: value + timedelta(microseconds=1)),
    (dict, lambda value: {**value, WatchKind.NEAR if WatchKind.NEAR in value else LOAN_METER: 999}),
    (tuple, lambda value: value[:-1]),
    (Evidence, lambda value: replace(value, payload=b"other")),
    (Terms, lambda value: replace(value, version=2)),
    (VerifyKey, lambda _: SigningKey(bytes(range(2, 34))).verify_key),
)


def _another_field(value: Any) -> Any:
    return next(other(value) for kind, other in _OTHERS if isinstance(value, kind))


@every_message
def test_ten_thousand_mutations_only_malformed(message: Message) -> None:
    honest = message.dump()
    for data in mutated(honest):
        try:
            parsed = type(message).parse(data)
        except Malformed:
            continue
        assert parsed.dump() == data


@dataclass(frozen=True)
class Bad:
    """One member of one message and a value that is well typed and still refused."""

    message: type[Message]
    path: Path
    value: Any


BAD = [
    Bad(Challenge, ("nonce",), "AQ"),
    Bad(Challenge, ("loan",), "loan-1"),
    Bad(Challenge, ("loan",), "loan-ABCDEFGHIJ234567"),
    Bad(Challenge, ("loan",), "../../etc/passwd"),
    Bad(Challenge, ("epoch",), 0),
    Bad(Challenge, ("ttl_s",), 0),
    Bad(Challenge, ("custodian",), "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    Bad(AttestRequest, ("kem_id",), 0x10000),
    Bad(AttestRequest, ("kem_pub",), "A" * 4000),
    Bad(AttestRequest, ("software",), "A" * 100_000),
    Bad(AttestRequest, ("evidence",), "A" * 700_000),
    Bad(AttestRequest, ("tee",), "x" * 33),
    Bad(Grant, ("keys", 0, "ciphertext"), "A" * 400),
    Bad(Grant, ("keys", 0, "key_version"), 0),
    Bad(Grant, ("terms", "models"), []),
    Bad(Grant, ("policy_digest",), "CD" * 32),
    Bad(LeaseRequest, ("req_nonce",), "AQ"),
    Bad(LeaseRequest, ("seq",), 0),
    Bad(LeaseRequest, ("used",), {"money": 1}),
    Bad(LeaseRequest, ("used",), {"model:../x": 1}),
    Bad(LeaseRequest, ("used",), {"consumer:": 1}),
    Bad(LeaseRequest, ("want",), {"loan": 2**53}),
    Bad(LeaseRequest, ("want",), {"loan": -1}),
    Bad(LeaseRequest, ("want",), {"loan\n": 1}),
    Bad(LeaseRequest, ("want",), {f"consumer:c{n}": 1 for n in range(1100)}),
    Bad(Lease, ("instance",), "ab"),
    Bad(Lease, ("models",), ["ab"]),
    Bad(Lease, ("models",), ["ab" * 32] * 65),
    Bad(Lease, ("consumers",), [{"id": "c", "metered": False, "token_sha256": "11"}]),
    Bad(Lease, ("issuers",), 0),
    Bad(Lease, ("issuers",), 2**53),
    Bad(IssuersRequest, ("nonce",), "AQ"),
    Bad(IssuersRequest, ("kem_pub",), "A" * 4000),
    Bad(IssuersAnswer, ("req_digest",), "AQ"),
    Bad(IssuersAnswer, ("version",), 0),
    Bad(IssuersAnswer, ("sealed",), "A" * 800_000),
    Bad(Refusal, ("reasons",), []),
    Bad(Refusal, ("reasons", 0, "code"), "Not A Code"),
    Bad(Refusal, ("reasons", 0, "got"), "\x1b[2J"),
    Bad(Status, ("state",), "ACTIVE"),
    Bad(Status, ("issued_at",), "2026-07-01T12:00:00+00:00"),
    Bad(Status, ("operator",), "x" * 201),
    Bad(Receipt, ("index",), 0),
    Bad(Receipt, ("request",), "AQ"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.message.__name__}-{'.'.join(map(str, bad.path))}")
def test_a_value_out_of_form_or_bounds_is_malformed(bad: Bad) -> None:
    honest = next(message for message in SAMPLES if type(message) is bad.message)
    with pytest.raises(Malformed):
        bad.message.parse(_canonical(_changed(json.loads(honest.dump()), bad.path, bad.value)))


def test_a_lease_for_anybody_says_null_and_one_for_nobody_says_nothing() -> None:
    lease = next(message for message in SAMPLES if isinstance(message, Lease))
    anybody, nobody = replace(lease, consumers=None), replace(lease, consumers=())
    assert Lease.parse(anybody.dump()).consumers is None
    assert Lease.parse(nobody.dump()).consumers == ()
    assert anybody.dump() != nobody.dump()


def test_an_instance_id_is_the_hash_of_its_key() -> None:
    assert instance_id(KEY.verify_key.raw) == InstanceId(INSTANCE)
    assert len(INSTANCE) == 64
