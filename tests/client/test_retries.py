"""Asking again: what is, how often, after what pause; and that nothing is counted twice by it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from client_town import ENCLAVE, TOKEN, Reply, Town, problem, scan

from cloister.channel.bhttp import BinaryResponse
from cloister.client import AsyncClient, Retry, Retrying, TruncatedResponse
from cloister.client.retries import Attempt, EnclaveFault, NoAnswer
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.terms import InstanceId

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.client import Inference

ANSWER = "message/ohttp-chunked-res"
AT_ONCE = Retry(first_pause=timedelta(0))


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    """Return a town whose clients do not really wait: its clock moves instead."""
    made = Town()

    def pause(seconds: float) -> None:
        made.clock.pauses.append(seconds)
        made.clock.advance(seconds)

    async def pausing(seconds: float) -> None:
        pause(seconds)

    monkeypatch.setattr("time.sleep", pause)
    monkeypatch.setattr("cloister.client.wire.asyncio.sleep", pausing)
    return made


def ask(town: Town, kind: str, *, begin: Callable[[], None] = lambda: None, **options: Any) -> Inference:
    """Ask one question by the blocking or the awaiting client; what is lost is lost after the model was described."""
    if kind == "blocking":
        with town.client(retry=Retry()) as client:
            client.model("digits")
            begin()
            return client.infer("digits", scan(3), **options)

    async def awaiting() -> Inference:
        made = {"token": TOKEN, "schemes": town.schemes, "transport": town, "clock": town.clock}
        async with await AsyncClient.verify(ENCLAVE, town.trust(), **made) as client:
            await client.model("digits")
            begin()
            return await client.infer("digits", scan(3), **options)

    return asyncio.run(awaiting())


def losing(town: Town, *what: Callable[[Reply], Reply] | Exception) -> Callable[[], None]:
    """Return what makes the next answers to questions get lost, one after the other, in these ways."""
    left = list(what)

    def lose(reply: Reply) -> Reply:
        if reply.kind != ANSWER or not left:
            return reply
        how = left.pop(0)
        if isinstance(how, Exception):
            raise how
        return how(reply)

    def begin() -> None:
        town.reply_change = lose

    return begin


def cut(reply: Reply) -> Reply:
    return replace(reply, parts=[part[:-20] for part in reply.parts if isinstance(part, bytes)])


def broken(reply: Reply) -> Reply:
    return replace(reply, parts=[httpx2.ReadError("reset")])


def busy(_: Reply) -> Reply:
    return Reply(status=503, kind="text/plain", headers={"retry-after": "2"})


def keys(town: Town) -> list[str]:
    return [dict(request.headers)["idempotency-key"] for request in town.enclave.seen if request.method == "POST"]


@pytest.mark.parametrize("kind", ["blocking", "awaiting"])
@pytest.mark.parametrize(
    "how",
    [cut, broken, busy, httpx2.ReadTimeout("late"), httpx2.RemoteProtocolError("gone")],
    ids=["cut", "broken", "busy", "late", "gone"],
)
def test_a_question_whose_answer_was_lost_is_counted_once(town: Town, kind: str, how: Any) -> None:
    """The enclave has run it, charged it and answered; only the answer did not arrive, three times."""
    told: list[Retrying] = []
    found = ask(town, kind, begin=losing(town, how, how, how), on_retry=told.append)
    assert (found.label, found.units, found.remaining, found.tries) == ("3", 1, 9, 4)
    assert town.enclave.allowance == 9
    assert len(keys(town)) == 4
    assert len(set(keys(town))) == 1
    assert [item.number for item in told] == [2, 3, 4]
    assert [item.pause.total_seconds() for item in told] == town.clock.pauses
    assert all(isinstance(item.cause, TruncatedResponse | Unavailable) for item in told)


@pytest.mark.parametrize("kind", ["blocking", "awaiting"])
def test_it_can_be_switched_off(town: Town, kind: str) -> None:
    with pytest.raises(TruncatedResponse):
        ask(town, kind, begin=losing(town, cut), retry=Retry.never())
    assert town.clock.pauses == []
    assert len(keys(town)) == 1


@pytest.mark.parametrize("kind", ["blocking", "awaiting"])
def test_it_ends_after_the_tries_there_are(town: Town, kind: str) -> None:
    with pytest.raises(TruncatedResponse):
        ask(town, kind, begin=losing(town, *[cut] * 9), retry=Retry(tries=3))
    assert len(keys(town)) == 3
    first, second = town.clock.pauses
    assert 0.5 <= first <= 1
    assert 1.5 <= second <= 3


@pytest.mark.parametrize("code", ["allowance_exhausted", "blocked", "unauthorized", "input", "request_id_reused"])
def test_a_refusal_is_an_answer_and_never_asked_about_again(town: Town, code: str) -> None:
    town.enclave.change = lambda _: problem(403, code)
    with pytest.raises(Rejected) as caught:
        ask(town, "blocking")
    assert caught.value.code == code
    assert (len(keys(town)), town.clock.pauses) == (1, [])


def test_an_enclave_that_says_it_failed_is_not_asked_to_fail_again(town: Town) -> None:
    town.enclave.change = lambda _: BinaryResponse(status=500, body=b'{"code":"engine_failed"}')
    with pytest.raises(EnclaveFault, match="engine_failed"):
        ask(town, "blocking")
    assert len(keys(town)) == 1


def test_an_answer_that_was_altered_at_its_end_is_a_lost_one(town: Town) -> None:
    """Damage to the final chunk cannot be told from a cut; asked again, the answer is the one that was charged."""

    def flip(reply: Reply) -> Reply:
        data = bytearray(b"".join(part for part in reply.parts if isinstance(part, bytes)))
        data[-1] ^= 1
        return replace(reply, parts=[bytes(data)])

    found = ask(town, "blocking", begin=losing(town, flip))
    assert (found.label, found.tries, town.enclave.allowance) == ("3", 2, 9)


def test_an_answer_in_another_form_is_not_asked_for_again(town: Town) -> None:
    with pytest.raises(Malformed):
        ask(town, "blocking", begin=losing(town, lambda _: Reply(kind="text/html", parts=[b"<p>hello"])))
    assert len(keys(town)) == 1


def test_a_first_try_that_still_runs_is_waited_for(town: Town) -> None:
    running = [True, True]

    def change(response: BinaryResponse) -> BinaryResponse:
        return problem(409, "request_in_flight") if running and running.pop() else response

    with town.client(retry=Retry()) as client:
        client.model("digits")
        town.enclave.change = change
        town.enclave.kept = _Forgetful()
        assert client.infer("digits", scan(3), idempotency_key="mine").tries == 3
    assert set(keys(town)) == {"mine"}


class _Forgetful(dict[Any, Any]):
    """What an enclave keeps of answers that were never given: nothing."""

    def __contains__(self, _: object) -> bool:
        return False


@pytest.mark.parametrize("kind", ["blocking", "awaiting"])
def test_what_comes_before_the_question_is_asked_again_too(town: Town, kind: str) -> None:
    """The model is described first, for nothing."""
    lose = losing(town, cut, cut)

    async def awaiting() -> Inference:
        made = {"token": TOKEN, "schemes": town.schemes, "transport": town, "clock": town.clock}
        async with await AsyncClient.verify(ENCLAVE, town.trust(), **made) as client:
            lose()
            return await client.infer("digits", scan(3))

    if kind == "awaiting":
        found = asyncio.run(awaiting())
    else:
        with town.client(retry=Retry()) as client:
            lose()
            found = client.infer("digits", scan(3))
    assert (found.label, found.tries, town.enclave.allowance) == ("3", 1, 9)
    assert len(town.clock.pauses) == 2


# --- another instance


@pytest.mark.parametrize("how", [cut, broken, httpx2.ReadTimeout("late")], ids=["cut", "broken", "late"])
def test_another_instance_does_not_count_again_what_the_lost_one_may_have_counted(town: Town, how: Any) -> None:
    """Whoever cuts answers and starts instances anew would otherwise have one question counted four times."""

    def lost_and_restarted(reply: Reply) -> Reply:
        town.restart()
        if isinstance(how, Exception):
            raise how
        changed: Reply = how(reply)
        return changed

    with pytest.raises(Rejected) as caught:
        ask(town, "blocking", begin=losing(town, lost_and_restarted))
    assert caught.value.code == "instance_changed"
    assert "other_instance=True" in (caught.value.hint or "")
    assert isinstance(caught.value.__cause__, TruncatedResponse | NoAnswer)
    assert town.enclave.allowance == 9, "the new instance was verified and not asked"


def test_who_allows_it_is_answered_by_another_instance_once_that_is_verified(town: Town) -> None:
    def lost_and_restarted(reply: Reply) -> Reply:
        town.restart()
        return cut(reply)

    found = ask(town, "blocking", begin=losing(town, lost_and_restarted), retry=Retry(other_instance=True))
    assert (found.label, found.tries, town.enclave.allowance) == ("3", 2, 8)
    assert found.receipt.receipt.instance == town.enclave.instance
    assert town.asked.count("GET enclave.test /.well-known/attested-keyset") == 2


def test_another_instance_that_does_not_satisfy_the_trust_is_never_asked(town: Town) -> None:
    def lost_and_replaced(reply: Reply) -> Reply:
        town.restart()
        town.enclave.debug = True
        return cut(reply)

    with pytest.raises(Rejected, match="debug"):
        ask(town, "blocking", begin=losing(town, lost_and_replaced), retry=Retry(other_instance=True))
    assert len(keys(town)) == 1, "what the first instance saw; the second saw nothing"


def test_where_nothing_was_sent_another_instance_may_answer(town: Town) -> None:
    """A connection that was never made has asked nobody, so a restart in between costs nobody anything."""
    with town.client(retry=AT_ONCE) as client:
        client.model("digits")
        send = town.handle_request
        refused = [True]

        def first_refused(request: httpx2.Request) -> httpx2.Response:
            if refused and refused.pop():
                town.restart()
                msg = "refused"
                raise httpx2.ConnectError(msg)
            return send(request)

        town.handle_request = first_refused  # type: ignore[method-assign] # the network of this test
        found = client.infer("digits", scan(3))
    assert (found.label, found.tries, town.enclave.allowance) == ("3", 2, 9)


def test_the_custodian_ended_the_loan_between_two_tries(town: Town) -> None:
    """The instance that is verified again is refused, and that is the answer."""

    def lost_and_blocked(reply: Reply) -> Reply:
        town.restart()
        town.state = "blocked"
        return cut(reply)

    with pytest.raises(Rejected) as caught:
        ask(town, "blocking", begin=losing(town, lost_and_blocked), retry=Retry(other_instance=True))
    assert caught.value.code == "instance_not_active"
    assert len(town.clock.pauses) == 1


# --- the deadline


@pytest.mark.parametrize("kind", ["blocking", "awaiting"])
def test_no_pause_and_no_try_goes_beyond_the_deadline(town: Town, kind: str) -> None:
    with pytest.raises(TruncatedResponse):
        ask(town, kind, begin=losing(town, *[cut] * 9), deadline=timedelta(seconds=2))
    assert sum(town.clock.pauses) < 2
    assert len(keys(town)) == 2


def test_an_answer_that_trickles_is_left_at_the_deadline(town: Town) -> None:
    def trickle(reply: Reply) -> Reply:
        whole = b"".join(part for part in reply.parts if isinstance(part, bytes))
        return replace(reply, parts=_Slow(town, whole))

    with pytest.raises(Unavailable, match="before the deadline"):
        ask(town, "blocking", begin=losing(town, trickle), deadline=timedelta(seconds=30))
    assert len(keys(town)) == 1


class _Slow(list[Any]):
    """Bytes that come one by one, each a second after the other."""

    def __init__(self, town: Town, data: bytes) -> None:
        super().__init__(data[at : at + 1] for at in range(len(data)))
        self._town = town

    def __iter__(self) -> Any:
        for part in super().__iter__():
            self._town.clock.advance(1)
            yield part


def test_a_deadline_bounds_waiting_for_units_too(town: Town) -> None:
    town.enclave.allowance = 0
    with pytest.raises(Unavailable, match="before the deadline"):
        ask(town, "blocking", wait=timedelta(hours=1), deadline=timedelta(seconds=5))
    assert sum(town.clock.pauses) <= 5 + 10


def test_silence_is_cut_at_the_deadline(town: Town) -> None:
    seen: list[Any] = []
    send = town.handle_request

    def noting(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.extensions["timeout"]["read"])
        return send(request)

    with town.client() as client:
        client.model("digits")
        town.handle_request = noting  # type: ignore[method-assign] # the network of this test
        client.infer("digits", scan(1), deadline=timedelta(seconds=7))
        client.infer("digits", scan(1))
    assert seen == [7.0, 60.0]


# --- the value itself


@pytest.mark.parametrize(
    "wrong",
    [
        {"tries": 0},
        {"tries": 101},
        {"first_pause": timedelta(seconds=-1)},
        {"first_pause": timedelta(minutes=1), "longest_pause": timedelta(seconds=1)},
    ],
)
def test_what_is_no_bound_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Retry(**wrong)


def test_pauses_grow_are_spread_and_never_longer_than_said() -> None:
    retry, cause = Retry(tries=100), Unavailable("away")
    low = [retry.pause(tried, cause, b"\0\0") for tried in range(1, 100)]
    high = [retry.pause(tried, cause, b"\xff\xff") for tried in range(1, 100)]
    assert [pause.total_seconds() for pause in low[:5] if pause] == [0.5, 1.5, 4.5, 13.5, 15]
    assert all(
        a is not None and b is not None and a < b < timedelta(seconds=30) for a, b in zip(low, high, strict=True)
    )
    assert retry.pause(100, cause, b"\0\0") is None
    assert retry.pause(1, Unavailable("away", retry_after_s=30), b"\0\0") == timedelta(seconds=30)
    assert retry.pause(1, Unavailable("away", retry_after_s=31), b"\0\0") is None


def test_an_attempt_holds_one_question_to_one_instance() -> None:
    attempt = Attempt(other_instance=False)
    attempt.demand(InstanceId("a"))
    attempt.lose(InstanceId("a"), NoAnswer("lost"))
    attempt.demand(InstanceId("a"))
    with pytest.raises(Rejected, match="instance_changed"):
        attempt.demand(InstanceId("b"))


def test_a_closed_client_says_so(town: Town) -> None:
    with town.client() as client:
        client.infer("digits", scan(1))
    with pytest.raises(UsageError, match="closed"):
        client.infer("digits", scan(1))
    with pytest.raises(UsageError, match="closed"):
        client.reverify()
