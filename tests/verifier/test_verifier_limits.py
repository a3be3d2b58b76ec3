"""T100, T101: who floods a service fills no memory, and takes the places of nobody else."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from verifier_kit import Clock, desk

from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.verifier.callers import Callers, add_caller, parse_callers
from cloister.verifier.challenges import Challenges
from cloister.verifier.limits import Places

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 29, tzinfo=UTC)
TTL = timedelta(seconds=60)


def test_a_hundred_thousand_challenges_that_nobody_answers_cost_no_memory() -> None:
    challenges = Challenges(ttl=TTL, rng=os.urandom)
    assert len({challenges.give(NOW)[0] for _ in range(100_000)}) == 100_000
    assert len(challenges) == 0


def test_answered_nonces_are_forgotten_once_they_have_ended() -> None:
    challenges = Challenges(ttl=TTL, rng=os.urandom)
    for second in range(300):
        now = NOW + timedelta(seconds=second)
        for _ in range(10):
            challenges.take(challenges.give(now)[0], now)
        assert len(challenges) <= 10 * 62


def test_a_full_memory_takes_nothing_rather_than_forgetting_what_was_used() -> None:
    challenges = Challenges(ttl=TTL, rng=os.urandom, max_spent=2)
    used = [challenges.give(NOW)[0] for _ in range(2)]
    for nonce in used:
        challenges.take(nonce, NOW)
    with pytest.raises(Unavailable):
        challenges.take(challenges.give(NOW)[0], NOW)
    for nonce in used:
        with pytest.raises(Rejected, match="nonce_used"):
            challenges.take(nonce, NOW)
    later = NOW + TTL
    challenges.take(challenges.give(later)[0], later)


def test_a_nonce_of_before_a_restart_is_unknown_used_or_not() -> None:
    before, after = (Challenges(ttl=TTL, rng=os.urandom) for _ in range(2))
    with pytest.raises(Rejected, match="nonce_unknown"):
        after.take(before.give(NOW)[0], NOW)


def test_callers_have_rates_of_their_own_and_one_together(tmp_path: Path) -> None:
    rates = "requests_per_minute = 3\nall_per_minute = 5\nchallenges_per_minute = 4"
    with desk(tmp_path, service=rates, clock=Clock(stands_at=NOW)) as found:
        tokens = [add_caller(found.home / "callers", name, rng=os.urandom) for name in ("one", "two", "three")]

        def ask(token: str) -> int:
            return found.post("/v1/verify", b"{}", authorization=f"Bearer {token}").status_code

        assert [ask(tokens[0]) for _ in range(5)] == [400, 400, 400, 429, 429]
        assert [ask(tokens[1]) for _ in range(2)] == [400, 400]  # one's flood took nothing of two's
        assert ask(tokens[2]) == 429  # of all together five
        found.clock.shift = timedelta(minutes=1)
        assert ask(tokens[2]) == 400
        statuses = [found.post("/v1/challenge", b"").status_code for _ in range(6)]
        assert statuses == [200] * 4 + [429] * 2
        assert found.post("/v1/challenge", b"").headers["retry-after"]
        assert found.get("/.well-known/jwks.json").status_code == 200  # who federates is never told to wait


def test_who_is_not_known_gets_nothing_but_what_is_public(tmp_path: Path) -> None:
    with desk(tmp_path) as found:
        token = add_caller(found.home / "callers", "one", rng=os.urandom)
        assert found.post("/v1/challenge", b"", authorization=f"Bearer {token}").status_code == 200
        for header in (
            f"Bearer {token}x",
            f"Bearer {token[:-1]}",
            "Bearer x",
            f"Basic {token}",
            token,
            "Bearer " + "A" * 43,
        ):
            answer = found.post("/v1/challenge", b"", authorization=header)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), header
            assert token not in answer.text
        assert token.encode() not in (found.home / "callers").read_bytes()
        assert (found.home / "callers").stat().st_mode & 0o777 == 0o600


def test_a_service_that_is_not_open_wants_a_token_and_one_taken_out_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "callers"
    callers = Callers(path, is_open=False)
    with pytest.raises(Rejected, match="unauthenticated"):
        callers.known(None, "127.0.0.1")
    token = add_caller(path, "one", rng=os.urandom)
    other = add_caller(path, "two", rng=os.urandom)
    assert callers.known(f"Bearer {token}", "") == "caller:one"
    with pytest.raises(UsageError):
        add_caller(path, "two", rng=os.urandom)
    kept = [line for line in path.read_text().splitlines() if not line.startswith("one ")]
    path.write_text("\n".join(kept) + "\n")
    with pytest.raises(Rejected, match="unauthenticated"):
        callers.known(f"Bearer {token}", "")
    assert callers.known(f"Bearer {other}", "") == "caller:two"
    path.write_text("two not a digest\n")
    with pytest.raises(Unavailable):
        callers.known(f"Bearer {other}", "")


def test_failed_logins_are_counted_by_address(tmp_path: Path) -> None:
    with desk(tmp_path, clock=Clock(stands_at=NOW)) as found:
        codes = [
            found.post("/v1/challenge", b"", authorization="Bearer nobody-knows-this").status_code for _ in range(62)
        ]
        assert codes == [401] * 60 + [429] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"one",
        b"one 00",
        b"one " + b"g" * 64,
        b"a b " + b"0" * 64,
        b"\xff " + b"0" * 64,
        (b"a " + b"0" * 64 + b"\n") * 2,
    ],
)
def test_a_file_of_callers_out_of_form(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_callers(data)


def test_verifications_have_places_and_the_next_are_told_to_come_back() -> None:
    async def story() -> None:
        places, goes_on = Places(at_once=2, waiting=1), threading.Event()
        tasks = [asyncio.create_task(places.run(lambda: goes_on.wait(30))) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Rejected, match="too_many_requests"):
            await places.run(lambda: True)
        tasks[0].cancel()  # who goes away leaves its work behind: its place is not free before that has ended
        await asyncio.sleep(0.05)
        with pytest.raises(Rejected, match="too_many_requests"):
            await places.run(lambda: True)
        goes_on.set()
        assert await asyncio.gather(*tasks[1:]) == [True, True]
        await asyncio.sleep(0.05)
        assert await places.run(lambda: 7) == 7
        places.close()

    asyncio.run(story())


def test_a_verification_that_takes_long_keeps_nobody_from_the_keys(tmp_path: Path) -> None:
    with desk(tmp_path, service="verifications = 1\nwaiting = 1\nrequests_per_minute = 1000") as found:
        service, slow = found.opened.service, threading.Event()
        honest = service.verify
        service.verify = lambda asked: (slow.wait(30), honest(asked))[1]  # type: ignore[method-assign]
        body = found.asked(nonce=b"a nonce of ours")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(lambda: found.post("/v1/verify", body).status_code) for _ in range(4)]
            time.sleep(0.3)
            began = time.monotonic()
            assert found.get("/.well-known/jwks.json").status_code == 200
            assert time.monotonic() - began < 5
            slow.set()
            assert sorted(item.result() for item in asked) == [200, 200, 429, 429]
