"""Vouchers and usage files of a running enclave: what a medium that is pulled out holds up, and what it does not."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from enclave_parties import FakeClock

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.enclave.logs import EventLog
from cloister.enclave.media import ASK, VOUCHER, VOUCHER_REQUEST, MediaFolder
from cloister.enclave.metering import Metering
from cloister.enclave.vouchers import Vouchers
from cloister.errors import Rejected
from cloister.lending import usage_chain
from cloister.lending.clauses import Clauses, OfflineTerm
from cloister.lending.messages import Grant, Voucher, VoucherRequest
from cloister.lending.terms import LOAN_METER, LoanId, ModelDigest, ModelTerms, OutageRule, Terms, instance_id

if TYPE_CHECKING:
    from pathlib import Path

KEY, CUSTODIAN = SigningKey(bytes(range(32))), SigningKey(bytes(range(32, 64)))
MODEL = ModelTerms(name="digits", digest=ModelDigest("ab" * 32))
TERMS = Terms(
    loan=LoanId("loan-" + "a" * 16),
    borrower="b",
    models=(MODEL,),
    consumers=None,
    outage=OutageRule.OFFLINE,
    clauses=Clauses(offline=OfflineTerm(lasts=timedelta(days=1), units=100)),
)


class Ship:
    """An enclave without a network, and a medium that comes and goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "medium"
        self.folder.mkdir()
        self.clock = FakeClock()
        self.log = io.StringIO()
        grant = Grant(
            instance=instance_id(KEY.verify_key.raw), request_digest=bytes(32), epoch=1, terms=TERMS,
            policy_digest="cd" * 32, result="", publisher=CUSTODIAN.verify_key, keys=(), block_version=0,
        )  # fmt: skip
        log = EventLog(self.clock.wall, self.log)
        self.metering = Metering(key=KEY, grant=grant, custodian=CUSTODIAN.verify_key, clock=self.clock, log=log)
        self.vouchers = Vouchers(self.metering, MediaFolder(self.folder), log=log)

    def top_up(self) -> None:
        """Carry a request out and a voucher in."""
        (self.folder / ASK).touch()
        self.vouchers.tick()
        (self.folder / VOUCHER).write_bytes(self.answer())
        self.vouchers.tick()

    def answer(self) -> bytes:
        """Return the custodian's voucher for the request in the folder."""
        asked = Statement.parse((self.folder / VOUCHER_REQUEST).read_bytes(), label=Label.VOUCHER_REQUEST)
        request = VoucherRequest.parse(asked.payload)
        voucher = Voucher(
            instance=request.instance, loan=TERMS.loan, epoch=1, seq=request.seq,
            req_digest=hashlib.sha256(asked.payload).digest(), chain_head=request.chain_head, limits={LOAN_METER: 100},
            overdraft=0, lasts=timedelta(days=1), models=(MODEL.digest,), consumers=None, policy_digest="cd" * 32,
            block_version=0, issued_at=self.clock.wall(),
        )  # fmt: skip
        return Statement.sign(CUSTODIAN, Label.VOUCHER, voucher.dump()).dump()

    def serve(self) -> None:
        reservation = self.metering.reserve(MODEL.name, None, 1)
        self.metering.charge(reservation, 1, bytes(32), bytes(32))

    def usage_files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("usage-*.json"))

    def pull_out(self) -> None:
        self.folder.rename(self.folder.with_name("ashore"))

    def put_in(self) -> None:
        self.folder.with_name("ashore").rename(self.folder)

    def failures(self) -> list[str]:
        events = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [event["code"] for event in events if event["event"] == "voucher_failed"]


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ship:
    """Return an enclave with a voucher, that keeps three records at most."""
    monkeypatch.setattr(usage_chain, "MAX_UNREPORTED", 3)
    made = Ship(tmp_path)
    made.top_up()
    return made


def demand_full(ship: Ship) -> None:
    with pytest.raises(Rejected, match="usage_unreported"):
        ship.serve()


def test_records_in_files_hold_up_no_inference(ship: Ship) -> None:
    for _ in range(4):
        for _ in range(3):
            ship.serve()
        demand_full(ship)
        ship.clock.advance(6)
        ship.vouchers.tick()
    assert ship.usage_files() == [f"usage-{first:012d}.json" for first in (1, 4, 7, 10)]
    assert ship.metering.snapshot().unreported == 12
    ship.top_up()  # the custodian has them: else it would sign nothing
    assert (ship.usage_files(), ship.metering.snapshot().unreported) == ([], 0)


def test_records_that_a_missing_medium_could_not_take_count_until_it_is_back(ship: Ship) -> None:
    for _ in range(3):
        ship.serve()
    ship.pull_out()
    ship.clock.advance(6)
    ship.vouchers.tick()
    assert ship.failures() == ["unavailable"]
    demand_full(ship)  # nobody carries them
    ship.put_in()
    ship.clock.advance(6)
    ship.vouchers.tick()
    assert ship.usage_files() == ["usage-000000000001.json"]
    ship.serve()


def test_files_that_are_asked_for_again_are_all_written_again(ship: Ship) -> None:
    ship.serve()
    ship.clock.advance(6)
    ship.vouchers.tick()
    for path in ship.folder.glob("usage-*.json"):
        path.unlink()  # a medium was lost
    ship.serve()
    ship.clock.advance(6)
    ship.vouchers.tick()
    assert ship.usage_files() == ["usage-000000000002.json"]
    (ship.folder / ASK).touch()
    ship.vouchers.tick()
    assert ship.usage_files() == ["usage-000000000001.json", "usage-000000000002.json"]


def test_a_voucher_keeps_the_files_of_what_was_served_after_its_request(ship: Ship) -> None:
    ship.serve()
    (ship.folder / ASK).touch()
    ship.vouchers.tick()
    answer = ship.answer()
    ship.serve()
    ship.clock.advance(6)
    ship.vouchers.tick()
    assert len(ship.usage_files()) == 2
    (ship.folder / VOUCHER).write_bytes(answer)
    ship.vouchers.tick()
    assert ship.usage_files() == ["usage-000000000002.json"]
