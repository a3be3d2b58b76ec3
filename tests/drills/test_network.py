"""R9 and R10: the network between enclave and custodian is cut, flaps, doubles, reorders and repeats.

What must hold whatever it does: one request, one debit (I6); no answer later than a block plus T(1 + drift) + slack
(I3); once it is whole again, service within 2T; and an old message moves nothing.
"""

from __future__ import annotations

import random
import ssl
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from counts import FLAPS, MESSAGES
from disk import read_home
from drill_house import DrillHouse
from load import Asker, demand_expected, receipts_of, until_served
from memory import in_memory
from proxy import Exchange, Fate, Proxy
from toys import ToyBox, lend_to_toys

from cloister.errors import CloisterError, Rejected
from cloister.lending.clock import lifetime
from cloister.lending.messages import Lease
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from custodian_kit import Toy

    Measured = Callable[[str, object], None]

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]

CEILING = 8


class Line:
    """A house whose enclaves know the custodian by the proxy's address only."""

    def __init__(self, house: DrillHouse, proxy: Proxy) -> None:
        self.house, self.proxy = house, proxy
        self.context = ssl.create_default_context(cafile=str(house.home / "tls" / "ca.pem"))
        place = house.world.borrower / "loan.json"
        place.write_bytes(dump_json(house.loan_file | {"custodian_url": proxy.url}))

    def rule(self, rule: Callable[[Exchange], Fate]) -> None:
        """Let ``rule`` decide from now on."""
        self.proxy.rule = rule

    def heal(self) -> None:
        """Let everything through."""
        self.rule(lambda _: Fate.PASS)

    def cut(self) -> None:
        """Let nothing through."""
        self.rule(lambda _: Fate.LOSE_REQUEST)

    def toys(self, made: dict[str, Any]) -> ToyBox:
        """Return a box of toys behind the proxy."""
        return ToyBox(self.house, made, url=self.proxy.url, context=self.context)

    def meter(self, loan: str) -> dict[str, int]:
        """Return where the units of a loan are."""
        return dict(self.house.call("GET", f"/v1/loans/{loan}")["meters"]["loan"])


@contextmanager
def line_in(folder: Path, *, ttl_s: int, allowance: int = 400, ceiling: int = CEILING) -> Iterator[Line]:
    """Yield a custodian behind a proxy; no enclave runs yet."""
    terms = {"ttl_s": ttl_s, "max_ceiling": ceiling, "allowance": allowance, "consumers": 1}
    with (
        in_memory(folder) as place,
        DrillHouse(folder / "parties", home=place / "home", **terms) as house,
        Proxy(house) as proxy,
    ):
        yield Line(house, proxy)


@contextmanager
def asked(line: Line) -> Iterator[Asker]:
    """Yield a consumer who asks an enclave all the time."""
    line.house.start_enclave()
    asker = Asker(line.house, next(iter(line.house.tokens)), pause_s=0.02)
    asker.start()
    try:
        until_served(line.house, [asker], more=2, within_s=60)
        yield asker
    finally:
        asker.stop()
    demand_expected([asker])


@pytest.mark.parametrize("lost", [pytest.param(Fate.LOSE_REQUEST, marks=pytest.mark.drill), Fate.LOSE_ANSWER], ids=str)
def test_a_cut_at_every_step_costs_at_most_one_debit_and_the_next_try_goes_on(tmp_path: Path, lost: Fate) -> None:
    """R9: challenge, attest, grant, lease request, lease, close; toys, so that each message is in hand."""
    with line_in(tmp_path, ttl_s=20) as line, ExitStack() as stack:
        made = lend_to_toys(line.house, allowance=40, max_ceiling=CEILING, ttl_s=20, max_instances=50)
        box = stack.enter_context(line.toys(made))
        for step in ("challenge", "attest", "lease", "close"):
            line.rule(lambda exchange, step=step: lost if exchange.step == step else Fate.PASS)
            toy = box.new()
            before = line.meter(box.lent.id)
            assert walk(toy, until=step)
            line.heal()
            after = line.meter(box.lent.id)
            assert before["balance"] - after["balance"] in {0, CEILING}
            if step in {"challenge", "attest"}:
                toy = box.boot()  # a nonce is good once: whoever lost it begins anew, and nothing was spent
                assert after["balance"] == before["balance"]
            if step == "lease":
                statement = toy.request()
                first, again = toy.send(statement), toy.send(statement)
                assert first.content == again.content
            if step != "close":
                assert isinstance(toy.renew(), Lease)
            assert toy.close().is_success  # the same bytes again where the first went unanswered
        end = line.meter(box.lent.id)
        assert (end["balance"], end["held"], end["written_off"]) == (40 - 4 * CEILING, 0, 4 * CEILING)
        line.house.kill_custodian()
        read_home(line.house.home, line.house.made.key, tmp_path / "scratch")


def walk(toy: Toy, *, until: str) -> bool:
    """Go through the protocol; return whether the step ``until`` was the one that got no answer."""
    try:
        answer = toy.lent.attest(toy.attest_statement(toy.take_challenge()))
    except httpx2.HTTPError:
        return until in {"challenge", "attest"}
    toy.accept(answer.content)
    try:
        toy.renew()
    except httpx2.HTTPError:
        return until == "lease"
    try:
        toy.close()
    except httpx2.HTTPError:
        return until == "close"
    return False


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_an_enclave_whose_boot_is_cut_says_so_and_boots_when_the_line_is_whole(tmp_path: Path) -> None:
    with line_in(tmp_path, ttl_s=4) as line:
        house = line.house
        for step in ("attest", "lease"):
            line.rule(lambda exchange, step=step: Fate.LOSE_ANSWER if exchange.step == step else Fate.PASS)
            refused = house.world.run(house.world.borrower, *house.enclave_words(), expect=5)
            assert refused.error["fault"] == "unavailable"
        line.heal()
        with asked(line):
            pass
        assert house.meter()["held"] <= 2 * CEILING  # the one whose first lease was lost, and this one


def partitions(folder: Path, *, rounds: int, seed: int, measured: Measured) -> None:
    """R9: cut, one way, flapping; shorter and longer than T; each time healed."""
    rng = random.Random(seed)
    ttl_s = 3
    back: list[float] = []
    with line_in(folder, ttl_s=ttl_s, allowance=rounds * 2000) as line, asked(line) as asker:
        house = line.house
        for turn in range(rounds):
            how = (Fate.LOSE_REQUEST, Fate.LOSE_ANSWER, None)[turn % 3]
            seconds = rng.uniform(0.3, 1.6) * ttl_s
            started = time.monotonic()
            flip = rng.uniform(0.05, 0.4) * ttl_s
            if how is None:  # flapping
                line.rule(lambda _, since=started, flip=flip: _flap(since, flip))
            else:
                line.rule(lambda _, how=how: how)
            time.sleep(seconds)
            held = house.meter()["held"]
            assert held <= CEILING * sum(item["live"] for item in house.shown()["instances"])
            line.heal()
            healed = time.monotonic()
            until_served(house, [asker], more=2, within_s=60, down_s=2 * ttl_s)
            if len(house.instances) == 1:
                back.append(time.monotonic() - healed)
                assert back[-1] < 2 * ttl_s
        house.kill_custodian()
        now = read_home(house.home, house.made.key, folder / "scratch")
        for instance in house.instances:
            served = sum(receipt.units for receipt in receipts_of([asker]) if receipt.instance == instance)
            assert served <= now.limit_of(instance)
    worst = max(back, default=0.0)
    measured("partitions, enclaves that had to be started again", f"{rounds}, {len(house.instances) - 1}")
    measured(f"worst time to service after healing, bound {2 * ttl_s} s", f"{worst:.2f} s")


def _flap(since: float, period: float) -> Fate:
    return Fate.LOSE_REQUEST if int((time.monotonic() - since) / period) % 2 == 0 else Fate.PASS


@pytest.mark.drill
def test_after_cuts_and_flaps_service_is_back_within_two_lease_times(tmp_path: Path, measured: Measured) -> None:
    partitions(tmp_path, rounds=FLAPS.suite, seed=9, measured=measured)


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_after_many_cuts_and_flaps_service_is_back(tmp_path: Path, measured: Measured) -> None:
    partitions(tmp_path, rounds=FLAPS.many, seed=90, measured=measured)


@pytest.mark.drill
def test_a_block_behind_a_cut_line_holds_within_its_bound(tmp_path: Path, measured: Measured) -> None:
    """R9, I3: the borrower cuts the line the moment the custodian blocks, and flips it when that might help."""
    ttl_s = 2
    with line_in(tmp_path, ttl_s=ttl_s, allowance=4000, ceiling=1000) as line, asked(line) as asker:
        house = line.house
        line.cut()
        house.call("POST", "/v1/blocks", {"kind": "loan", "subject": house.loan, "reason": "drill"})
        blocked = time.monotonic()
        last, count = blocked, len(asker.receipts)
        bound = lifetime(timedelta(seconds=ttl_s)).total_seconds()
        while time.monotonic() < blocked + bound + 1:
            if len(asker.receipts) > count:
                last, count = time.monotonic(), len(asker.receipts)
            time.sleep(0.005)
        assert ttl_s / 3 < last - blocked <= bound, "it was served on, as its lease says, and not longer"
        measured(f"last answer after a block behind a cut line, bound {bound:.1f} s", f"{last - blocked:.2f} s")


def messages(folder: Path, *, count: int, seed: int, measured: Measured) -> None:
    """R10: a proxy that doubles, loses, swaps and repeats; then every message again, ten lease times old."""
    rng = random.Random(seed)
    with line_in(folder, ttl_s=1) as line, ExitStack() as stack:
        terms = {"allowance": 10 * count, "max_ceiling": CEILING, "ttl_s": 1, "max_instances": 200}
        made = lend_to_toys(line.house, **terms)
        box = stack.enter_context(line.toys(made))
        line.rule(lambda _: rng.choices(list(Fate), weights=[4, 1, 1, 2, 1])[0])
        begun = time.monotonic()
        served = lost = 0
        stale: Counter[str] = Counter()
        toy = booted(box)
        while len(line.proxy.seen) < count:
            try:
                toy.renew()
            except httpx2.HTTPError:
                lost += 1
                continue
            except Rejected as refusal:
                stale[refusal.code] += 1
                continue
            except AssertionError:  # a repeated answer that is no lease: the instance is over
                toy = booted(box)
                continue
            served += serve_some(toy, rng)
            repeat(line, rng)
            if rng.random() < 0.005:
                toy = booted(box)
        assert set(stale) <= {"not_pending"}
        seconds = time.monotonic() - begun
        line.heal()
        time.sleep(max(0.0, begun + 11 - time.monotonic()))
        old = rng.sample(line.proxy.seen, k=min(len(line.proxy.seen), count // 2))
        time.sleep(3)  # whatever is dead is written off by now
        before = line.meter(box.lent.id)
        statuses = {line.proxy.forward(exchange).status for exchange in old if exchange.step != "challenge"}
        assert line.meter(box.lent.id) == before
        assert statuses <= {200, 400, 403, 404, 409, 429}, statuses
        assert before["held"] == 0
        assert before["granted"] == before["balance"] + before["spent"] + before["written_off"]
        assert served <= before["spent"] + before["written_off"]
        line.house.kill_custodian()
        read_home(line.house.home, line.house.made.key, folder / "scratch")
        said = f"{count}, {len(old)}, {lost}, {stale.total()}"
        measured("messages, of them repeated ten lease times later, lost, answers of another request", said)
        measured("messages a second", f"{count / seconds:.0f}")


def booted(box: ToyBox) -> Toy:
    """Return a toy that got its grant, however often that was tried."""
    while True:
        toy = box.new()
        try:
            answer = toy.lent.challenge()
            if not answer.is_success:
                time.sleep(0.2)
                continue
            challenge = toy.take_challenge()
            granted = toy.lent.attest(toy.attest_statement(challenge))
            toy.accept(granted.content)
        except (httpx2.HTTPError, CloisterError, AssertionError):
            continue
        return toy


def serve_some(toy: Toy, rng: random.Random) -> int:
    """Serve up to three units; return how many."""
    done = 0
    for _ in range(rng.randrange(4)):
        try:
            toy.serve(1)
        except Rejected:
            break
        done += 1
    return done


def repeat(line: Line, rng: random.Random) -> None:
    """Send any earlier lease request again, as whoever listens may."""
    old = rng.choice(line.proxy.seen)
    if old.step == "lease":
        assert line.proxy.forward(old).status in {200, 403, 404, 409}


@pytest.mark.drill
def test_doubled_reordered_and_old_messages_move_nothing(tmp_path: Path, measured: Measured) -> None:
    messages(tmp_path, count=MESSAGES.suite, seed=10, measured=measured)


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_very_many_doubled_reordered_and_old_messages_move_nothing(tmp_path: Path, measured: Measured) -> None:
    messages(tmp_path, count=MESSAGES.many, seed=100, measured=measured)
