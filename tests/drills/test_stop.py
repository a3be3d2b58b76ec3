"""The kill switch, measured: from the block to the last answer, by real processes (I3; T36, T37).

With the network whole a block arrives with the next renewal; with it cut the lease's own end stops the enclave; with
its clocks lying as well, the count does.
"""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cutting import CuttingProxy
from drill_house import DrillHouse
from load import Asker as Consumer

from cloister.cli.drill_stop import Asker
from cloister.client import Client
from cloister.testing.ports import free_port
from cloister.testing.simulated import SimulatedScheme
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloister.cli.demo.world import Running
    from cloister.cli.drill_stop import Measured

pytestmark = pytest.mark.timeout(180)
T, N = 4, 400
BOUND_S = 6  # T(1 + drift) + slack, in whole seconds as printed
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def start_second(house: DrillHouse) -> tuple[str, str]:
    """Start another enclave of the same loan; return its URL and instance."""
    port, ready = free_port(), house.world.borrower / "ready-2.json"
    words = [word.replace("ready.json", "ready-2.json") for word in house.enclave_words()]
    words[words.index("--listen") + 1] = f"127.0.0.1:{port}"
    running = house.world.start(house.world.borrower, "enclave-2", *words)
    return f"http://127.0.0.1:{port}", str(house.world.until_file(running, ready)["instance"])


def consumer_words(house: DrillHouse) -> tuple[str, ...]:
    """Write a consumer's trust and token, and return the words that name them."""
    trust, token = house.world.consumer / "trust.json", house.world.consumer / "clinic.token"
    trust.write_bytes(house.trust().dump())
    token.touch(mode=0o600)
    token.write_text(house.tokens["clinic-0"])
    root = str(house.world.root / "simulated-root.pub.json")
    return ("--trust", str(trust), "--token-file", str(token), "--insecure-simulated-root", root)


def drill(house: DrillHouse, *words: str, expect: int = 0) -> Any:
    """Run ``cloister drill stop`` as the custodian's staff."""
    token = house.world.custodian / "staff.token"
    token.touch(mode=0o600)
    token.write_text(house.made.admin_token)
    words = (*words, "--staff-token-file", str(token), *consumer_words(house))
    return house.world.run(house.world.custodian, "drill", "stop", *words, expect=expect).value


def test_a_drill_measures_two_live_enclaves_and_has_it_logged(tmp_path: Path) -> None:
    with DrillHouse(tmp_path, ttl_s=T, max_ceiling=N, allowance=10_000) as house:
        first = house.start_enclave()
        url, second = start_second(house)
        shown = drill(house, house.loan, "--enclave", house.url, "--enclave", url, "--yes", "--rate", "20", "--lift")
        by_instance = {item["instance"]: item for item in shown["enclaves"]}
        assert set(by_instance) == {first, second}
        for item in by_instance.values():
            assert item["answers_before"] >= 1
            assert item["verdict"] == "kept"
            assert item["end"] in {"blocked", "gone"}
            assert item["last_answer_s"] <= item["promised_s"] == BOUND_S
            assert item["units_after"] <= item["promised_units"] <= N
        assert shown["worst_s"] == max(item["last_answer_s"] for item in by_instance.values())
        assert shown["not_asked"] == []
        assert house.call("GET", "/v1/blocks")["blocks"] == [], "--lift"
        logged = [e for e in house.call("GET", "/v1/audit?limit=1000")["entries"] if e["kind"] == "drill_recorded"]
        assert {entry["subject"] for entry in logged} == {first, second}
        for entry in logged:
            details = entry["details"]
            assert (details["exceeded"], details["promised_ms"]) == (False, BOUND_S * 1000)
            assert details["measured_ms"] >= by_instance[entry["subject"]]["last_answer_s"] * 1000 - 1


@pytest.mark.drill
def test_a_drill_of_one_instance_leaves_the_other_alone_and_nothing_is_blocked_unconfirmed(tmp_path: Path) -> None:
    with DrillHouse(tmp_path, ttl_s=T, max_ceiling=N, allowance=10_000) as house:
        first = house.start_enclave()
        url, second = start_second(house)
        refused = drill(house, "--instance", second, "--enclave", url, expect=2)
        assert "not confirmed" in refused["error"]["message"]
        assert house.call("GET", "/v1/blocks")["blocks"] == []
        both = drill(house, house.loan, "--instance", second, "--enclave", url, "--yes", expect=2)
        assert "want one of" in both["error"]["message"]
        shown = drill(house, "--instance", second, "--enclave", url, "--yes")
        assert [item["instance"] for item in shown["enclaves"]] == [second]
        assert not shown["lifted"]
        (block,) = house.call("GET", "/v1/blocks")["blocks"]
        assert (block["kind"], block["subject"], block["reason"]) == ("instance", second, "drill")
        consumer = Consumer(house, "clinic-0")
        consumer.turn()
        consumer.end()
        assert len(consumer.receipts) == 1, first


@contextmanager
def asked(house: DrillHouse, *urls: str, rate: float = 30) -> Iterator[list[Asker]]:
    """Ask every enclave continuously, once each has answered."""
    with ExitStack() as stack:
        askers = []
        for url in urls:
            schemes = [SimulatedScheme(house.simulated.public)]
            client = Client.verify(url, house.trust(), token=house.tokens["clinic-0"], schemes=schemes)
            askers.append(Asker(stack.enter_context(client), "digits", rate=rate))
        for asker in askers:
            asker.start()
            stack.callback(asker.stop)
        end = time.monotonic() + 60
        while not all(asker.answered for asker in askers):
            assert time.monotonic() < end, [str(asker.refusal) for asker in askers]
            time.sleep(0.02)
        yield askers


def block(house: DrillHouse) -> Any:
    return house.call("POST", "/v1/blocks", {"kind": "loan", "reason": "drill", "subject": house.loan})


def behind(house: DrillHouse, proxy: CuttingProxy) -> None:
    """Let the enclave reach its custodian through ``proxy`` only."""
    place = house.world.borrower / "loan.json"
    loan = json.loads(place.read_text())
    place.write_bytes(dump_json(loan | {"custodian_url": f"https://localhost:{proxy.port}"}))


def measured(askers: Sequence[Asker], since: float, answer: Any) -> list[Measured]:
    units = {item["instance"]: item["units"] for item in answer["instances"]}
    return [asker.measured(since, answer["bound"]["seconds"], units[asker.instance]) for asker in askers]


def test_t36_with_the_network_cut_the_lease_ends_serving_within_the_bound(tmp_path: Path) -> None:
    with (
        DrillHouse(tmp_path, ttl_s=T, max_ceiling=N, allowance=10_000) as house,
        CuttingProxy(house.custodian_port) as proxy,
    ):
        behind(house, proxy)
        house.start_enclave()
        url, _ = start_second(house)
        with asked(house, house.url, url) as askers:
            proxy.cut()
            since = time.monotonic()
            answer = block(house)
            time.sleep(BOUND_S + 2)
        for item in measured(askers, since, answer):
            assert item.kept, item
            assert item.answers_after > 0, "cut off, it goes on until its lease ends"
            assert item.end in {"lease_expired", "gone"}
            assert item.last_answer_s <= T * 1.001 + 1


def test_t36_with_the_network_cut_and_a_small_ceiling_the_count_ends_serving_first(tmp_path: Path) -> None:
    with (
        DrillHouse(tmp_path, ttl_s=20, max_ceiling=5, allowance=10_000) as house,
        CuttingProxy(house.custodian_port) as proxy,
    ):
        behind(house, proxy)
        house.start_enclave()
        with asked(house, house.url, rate=50) as askers:
            proxy.cut()
            since = time.monotonic()
            answer = block(house)
            time.sleep(3)
        (item,) = measured(askers, since, answer)
        assert item.units_after <= item.promised_units <= 5
        assert item.end == "allowance_exhausted"


def preload(house: DrillHouse, said: Path, first: str) -> None:
    """Start the borrower's processes under libfaketime, which reads what to say from a file at each call."""
    assert FAKETIME is not None
    said.write_text(first)
    house.world.variables[house.world.borrower] |= {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(said),
        "FAKETIME_NO_CACHE": "1",
    }


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (scripts/system-packages)")
@pytest.mark.parametrize(
    "lie",
    ["frozen", *(pytest.param(lie, marks=pytest.mark.drill) for lie in ("-1h", "+0 x0.01", "slow from the start"))],
)
def test_t37_with_its_clocks_lying_and_the_network_cut_at_most_n_units_are_served_after_a_block(
    tmp_path: Path, lie: str
) -> None:
    """Wall and monotonic clock lie together: an hour back, frozen, a hundred times too slow; or ten times, always."""
    with (
        DrillHouse(tmp_path, ttl_s=T, max_ceiling=30, allowance=10_000) as house,
        CuttingProxy(house.custodian_port) as proxy,
    ):
        behind(house, proxy)
        said = tmp_path / "faketime"
        preload(house, said, "+0 x0.1" if lie == "slow from the start" else "+0")
        house.start_enclave()
        with asked(house, house.url, rate=40) as askers:
            fresh = said.with_suffix(".new")
            fresh.write_text(time.strftime("%Y-%m-%d %H:%M:%S") if lie == "frozen" else lie)
            proxy.cut()
            since = time.monotonic()
            answer = block(house)
            if lie != "slow from the start":  # else nothing ever steps, and only the count is left
                fresh.replace(said)
            time.sleep(BOUND_S + 2)
        (item,) = measured(askers, since, answer)
        assert item.units_after <= item.promised_units <= 30, item
        assert item.end != "answering", "the count ended it"


@pytest.mark.drill
@pytest.mark.parametrize("stopped_s", [3, 7])
def test_t37_a_process_that_was_stopped_serves_nothing_on_waking_after_a_block(tmp_path: Path, stopped_s: int) -> None:
    """SIGSTOP, a block meanwhile, SIGCONT: the bound counts from the block, asleep or not."""
    with DrillHouse(tmp_path, ttl_s=30, max_ceiling=N, allowance=10_000) as house:
        house.start_enclave()
        with asked(house, house.url) as askers:
            running: Running | None = house.enclave
            assert running is not None
            running.process.send_signal(signal.SIGSTOP)
            since = time.monotonic()
            answer = block(house)
            time.sleep(stopped_s)
            running.process.send_signal(signal.SIGCONT)
            time.sleep(16)
        (item,) = measured(askers, since, answer)
        assert item.kept, item
        if stopped_s > 5:
            assert item.units_after <= 1, "a gap voids the lease: it asks its custodian first"
            assert '"code": "clock_gap"' in running.said()
