"""What keeps the three parties busy while they are killed: consumers that ask, staff that adds units and notes it.

Each keeps what was acknowledged to it; that is what must be there after the kill.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
from drill_house import row

from cloister.client import Client
from cloister.errors import CloisterError, Rejected
from cloister.testing.simulated import SimulatedScheme

if TYPE_CHECKING:
    from collections.abc import Callable

    from drill_house import DrillHouse

    from cloister.lending.messages import Receipt

# What a consumer may be told while its enclave or the custodian is down, starting or out of units.
EXPECTED = {
    "allowance_exhausted", "lease_expired", "instance_not_active", "Unavailable", "UsageError", "truncated",
}  # fmt: skip


class _Worker:
    """A thread that repeats ``turn`` until stopped; an exception nobody expected is raised by ``stop``."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__)
        self.fault: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; raises what went wrong in the thread."""
        self._stopping.set()
        self._thread.join(timeout=40)
        assert not self._thread.is_alive()
        if self.fault is not None:
            raise self.fault

    def wait(self, seconds: float) -> None:
        """Pause, unless stopped."""
        self._stopping.wait(seconds)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.turn()
        except BaseException as exc:  # noqa: BLE001 - shown by the test
            self.fault = exc
        finally:
            self.end()

    def turn(self) -> None:
        """Do one thing."""

    def end(self) -> None:
        """Close what is open."""


class Asker(_Worker):
    """A consumer: asks one question after another, holds every answer against the truth, keeps the receipts."""

    stays: frozenset[str] = frozenset({"allowance_exhausted"})
    """Refusals after which the enclave is asked on without being verified anew."""

    def __init__(
        self, house: DrillHouse, name: str, *, pause_s: float = 0.01, clock: Callable[[], datetime] | None = None
    ) -> None:
        super().__init__()
        self._clock = clock or (lambda: datetime.now(UTC))
        self._house, self._token, self._pause_s = house, house.tokens[name], pause_s
        self._trust = house.trust()
        self._client: Client | None = None
        self._turn = 0
        self.receipts: list[Receipt] = []
        self.refused: Counter[str] = Counter()

    def turn(self) -> None:
        """Ask once."""
        self._turn += 1
        try:
            if self._client is None:
                schemes = [SimulatedScheme(self._house.simulated.public)]
                self._client = Client.verify(
                    self._house.url, self._trust, token=self._token, schemes=schemes, clock=self._clock
                )
            answer = self._client.infer("digits", row(self._turn))
        except CloisterError as exc:
            code = exc.code if isinstance(exc, Rejected) else type(exc).__name__
            self.refused[code] += 1
            if code not in self.stays:
                self.end()
            self.wait(0.1)
            return
        assert answer.outputs["label"].tolist() == [self._turn % 4]
        assert answer.units == 1
        self.receipts.append(answer.receipt.receipt)
        self.wait(self._pause_s)

    def end(self) -> None:
        """Close the client; the next turn verifies anew."""
        if self._client is not None:
            self._client.close()
            self._client = None


class Staff(_Worker):
    """Adds ``units`` at a time and lets the borrower ask for more; remembers what was acknowledged.

    An addition whose answer was lost is sent again under its Idempotency-Key, as a careful client does.
    """

    def __init__(self, house: DrillHouse, *, units: int, pause_s: float = 0.03) -> None:
        super().__init__()
        self._house, self._units, self._pause_s = house, units, pause_s
        self._http = httpx2.Client(
            base_url=house.http.base_url,
            verify=ssl.create_default_context(cafile=str(house.authority)),
            timeout=5,
            trust_env=False,
        )
        self._pending: str | None = None
        self.keys = 0
        self.added = 0
        self.asks: list[str] = []
        self.lost = 0

    def turn(self) -> None:
        """Add units once, and note a request of the borrower's and its denial every other time."""
        try:
            if self._pending is None:
                self.keys += 1
                self._pending = f"drill-{self.keys:08d}"
            self._post("top-up", {"units": self._units}, self._house.made.admin_token, key=self._pending)
            self._pending = None
            self.added += self._units
            if self.keys % 2:
                self._ask()
        except httpx2.HTTPError:
            self.lost += 1
            self.wait(0.05)
        self.wait(self._pause_s)

    def _ask(self) -> None:
        token = str(self._house.loan_file["token"])
        asked = self._post("requests", {"units": 1, "reason": f"drill {self.keys}"}, token)["id"]
        self.asks.append(asked)
        self._post(f"requests/{asked}/deny", {}, self._house.made.admin_token)

    def _post(self, verb: str, body: Any, token: str, *, key: str | None = None) -> Any:
        headers = {"authorization": f"Bearer {token}"} | ({} if key is None else {"idempotency-key": key})
        answer = self._http.post(f"/v1/loans/{self._house.loan}/{verb}", json=body, headers=headers)
        if answer.status_code == 503:
            message = "unavailable"
            raise httpx2.TransportError(message)
        if answer.status_code == 429 or (answer.status_code, answer.json().get("code")) == (409, "too_many_requests"):
            return {"id": self.asks[-1]} if self.asks else {}
        if (answer.status_code, answer.json().get("code")) == (409, "already_decided"):
            return {}  # the denial was committed, its answer was lost, and the place was full when asked anew
        assert answer.is_success, (answer.status_code, answer.text)
        return answer.json()

    def end(self) -> None:
        """Close the connection."""
        self._http.close()


def receipts_of(askers: list[Asker]) -> list[Receipt]:
    """Return every receipt seen, after proving that no place in any instance's chain was used twice (I8)."""
    found = [receipt for asker in askers for receipt in list(asker.receipts)]
    places = [(receipt.instance, receipt.index) for receipt in found]
    assert len(places) == len(set(places))
    return found


def until_served(house: DrillHouse, askers: list[Asker], *, more: int, within_s: float, down_s: float = 0) -> None:
    """Wait until the askers got ``more`` answers than now.

    Where the custodian was gone for ``down_s``, longer than a lease may bridge (a slow machine), an enclave that
    ended by itself is right to, and is started again; else it must not have ended.
    """
    end, before = time.monotonic() + within_s, sum(len(asker.receipts) for asker in askers)
    while sum(len(asker.receipts) for asker in askers) < before + more:
        for asker in askers:
            if asker.fault is not None:
                raise asker.fault
        assert house.enclave is not None
        if house.enclave.process.poll() is not None:
            assert down_s > house.ttl_s / 2, f"the enclave ended after {down_s:.1f} s\n{house.enclave.said()[-1500:]}"
            house.start_enclave()
        told = [dict(asker.refused) for asker in askers]
        assert time.monotonic() < end, f"nobody was served within {within_s} s; {told}\n{house.enclave.said()[-1500:]}"
        time.sleep(0.01)


def demand_expected(askers: list[Asker]) -> None:
    """Prove that consumers were told nothing but what an outage explains."""
    told = set().union(*(asker.refused for asker in askers))
    assert told <= EXPECTED, told - EXPECTED
