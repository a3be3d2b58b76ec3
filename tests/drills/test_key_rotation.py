"""Keys are rotated again and again while consumers ask: no request is lost, refused or answered by anybody else.

On SQLite, and on PostgreSQL with two custodians that rotate in turns. What a rotation does by itself is tested in
``tests/custodian/test_rotation.py``.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from counts import ROTATIONS
from drill_house import DrillHouse
from load import Asker, receipts_of, until_served

from cloister.crypto.sign import Statement
from cloister.lending.messages.keys import KeyStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Measured = Callable[[str, object], None]

TTL_S = 30
CEILING = 5000  # an enclave never waits for units: what is refused here is refused for the keys

pytestmark = [
    pytest.mark.drill,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of an empty PostgreSQL database, None for a file in the home."""
    return str(request.getfixturevalue("postgres").create()) if request.param == "postgresql" else None


class Keyholders:
    """Staff that rotates keys, at each custodian of the house in turns."""

    def __init__(self, house: DrillHouse) -> None:
        self._house = house
        self.ports = [house.custodian_port] + ([] if house.second is None else [house.second_port])
        self._headers = {"authorization": f"Bearer {house.made.admin_token}"}
        self.took_s: list[float] = []

    def _url(self, number: int, path: str) -> str:
        return f"https://localhost:{self.ports[number % len(self.ports)]}{path}"

    def rotate(self, *, incident: bool = False) -> dict[str, Any]:
        """Rotate at the next custodian."""
        began = time.monotonic()
        answer = self._house.http.post(
            self._url(len(self.took_s), "/v1/keys/rotate"), json={"incident": incident}, headers=self._headers
        )
        self.took_s.append(time.monotonic() - began)
        assert answer.is_success, (answer.status_code, answer.text)
        return dict(answer.json())

    def status(self, number: int) -> KeyStatus:
        """Return what one custodian signs about the keys."""
        answer = self._house.http.get(self._url(number, "/v1/keys/status"), headers=self._headers)
        payload = Statement.parse(answer.content, label=KeyStatus.LABEL).verify([self._house.made.key])
        return KeyStatus.parse(payload)

    def until_moved(self) -> None:
        """Wait until every custodian says that every live lease is of the newest keys."""
        end = time.monotonic() + 3 * TTL_S
        while not all(self.status(number).moved for number in range(len(self.ports))):
            assert time.monotonic() < end, self.status(0)
            time.sleep(0.1)


def rotate_under_load(folder: Path, database: str | None, *, rounds: int, measured: Measured) -> None:
    """Rotate ``rounds`` times between answers, the last time as after an incident, which destroys the older keys."""
    with DrillHouse(
        folder / "parties", ttl_s=TTL_S, max_ceiling=CEILING, allowance=1_000_000, database=database
    ) as house:
        if database is not None:
            house.start_second()
        house.start_enclave()
        holders = Keyholders(house)
        askers = [Asker(house, name) for name in house.tokens]
        with ExitStack() as stack:
            for asker in askers:
                stack.callback(asker.stop)
                asker.start()
            until_served(house, askers, more=2, within_s=60)
            for turn in range(rounds):
                told = holders.rotate(incident=turn == rounds - 1)
                assert (told["key_epoch"], told["rewrapped"], told["stuck"]) == (turn + 2, 1, [])
                until_served(house, askers, more=2, within_s=60)
            holders.until_moved()
            until_served(house, askers, more=2, within_s=60)
        demand_nothing_lost(house, askers, rounds=rounds, holders=holders)
        measured("rotations, requests answered meanwhile, of them lost", f"{rounds}, {len(receipts_of(askers))}, 0")
        measured("slowest rotation over HTTPS", f"{max(holders.took_s) * 1000:.0f} ms")


def demand_nothing_lost(house: DrillHouse, askers: list[Asker], *, rounds: int, holders: Keyholders) -> None:
    """Prove that each request was answered, once, by the one enclave; and that a new one gets the newest key."""
    for asker in askers:
        assert not asker.refused, asker.refused
    receipts = receipts_of(askers)
    assert sorted(receipt.index for receipt in receipts) == list(range(1, len(receipts) + 1))  # a chain without a gap
    assert {receipt.instance for receipt in receipts} == set(house.instances[:1])
    assert sum(receipt.units for receipt in receipts) == len(receipts)
    keys = holders.status(0).keys
    assert [key.key_epoch for key in keys] == list(range(rounds + 1, 0, -1))
    assert all(key.destroyed_at for key in keys[1:-1])  # all but the one in use, and the vault file's own
    house.new_enclave()
    asker = Asker(house, next(iter(house.tokens)))
    try:
        asker.turn()
    finally:
        asker.end()
    assert [receipt.instance for receipt in asker.receipts] == house.instances[1:], asker.refused


def test_rotations_while_consumers_ask_lose_no_request(
    tmp_path: Path, database: str | None, measured: Measured
) -> None:
    rotate_under_load(tmp_path, database, rounds=ROTATIONS.many, measured=measured)
