"""The same request again costs nothing; the same id for another request is refused (T44)."""

from __future__ import annotations

import pytest

from cloister.errors import Rejected, Unavailable, UsageError
from cloister.lending.replies import Replies, RequestKey

ONE = RequestKey(consumer="ann", request_id="1")
DIGEST, OTHER = b"d" * 32, b"o" * 32


def test_t44_the_same_request_again_gets_the_same_bytes() -> None:
    replies = Replies()
    assert replies.begin(ONE, DIGEST) is None
    replies.finish(ONE, b"answer")
    assert replies.begin(ONE, DIGEST) == b"answer"
    assert replies.begin(ONE, DIGEST) == b"answer"


def test_t44_another_request_under_the_same_id_is_refused() -> None:
    replies = Replies()
    replies.begin(ONE, DIGEST)
    for _ in range(2):
        with pytest.raises(Rejected) as caught:
            replies.begin(ONE, OTHER)
        assert caught.value.code == "request_id_reused"
        assert DIGEST.hex() not in str(caught.value.reasons), "a digest of somebody's input may be guessed"
    replies.finish(ONE, b"answer")
    with pytest.raises(Rejected):
        replies.begin(ONE, OTHER)


def test_t44_a_second_try_while_the_first_runs_waits() -> None:
    replies = Replies()
    replies.begin(ONE, DIGEST)
    with pytest.raises(Rejected) as caught:
        replies.begin(ONE, DIGEST)
    assert caught.value.code == "request_in_flight"


def test_ids_of_different_consumers_never_meet() -> None:
    replies = Replies()
    replies.begin(ONE, DIGEST)
    replies.finish(ONE, b"ann's answer")
    assert replies.begin(RequestKey(consumer="bob", request_id="1"), OTHER) is None
    assert replies.begin(RequestKey(consumer=None, request_id="1"), OTHER) is None


def test_a_failed_request_may_be_tried_again() -> None:
    replies = Replies()
    replies.begin(ONE, DIGEST)
    replies.forget(ONE)
    assert replies.begin(ONE, OTHER) is None


def test_the_oldest_finished_reply_makes_room() -> None:
    replies = Replies(max_entries=3, max_bytes=100)
    keys = [RequestKey(consumer="ann", request_id=str(number)) for number in range(4)]
    for key in keys:
        assert replies.begin(key, DIGEST) is None
        replies.finish(key, b"x" * 40)
    assert replies.begin(keys[3], DIGEST) == b"x" * 40
    assert replies.begin(keys[2], DIGEST) == b"x" * 40
    assert replies.begin(keys[0], DIGEST) is None


def test_a_full_house_of_running_requests_is_unavailable_not_forgotten() -> None:
    replies = Replies(max_entries=2)
    keys = [RequestKey(consumer="ann", request_id=str(number)) for number in range(3)]
    replies.begin(keys[0], DIGEST)
    replies.begin(keys[1], DIGEST)
    with pytest.raises(Unavailable):
        replies.begin(keys[2], DIGEST)
    replies.finish(keys[0], b"answer")
    assert replies.begin(keys[2], DIGEST) is None


def test_a_reply_larger_than_the_cache_is_not_kept() -> None:
    replies = Replies(max_bytes=10)
    replies.begin(ONE, DIGEST)
    replies.finish(ONE, b"x" * 11)
    assert replies.begin(ONE, OTHER) is None


@pytest.mark.parametrize("request_id", ["", "x" * 129])
def test_ids_are_bounded(request_id: str) -> None:
    with pytest.raises(Rejected, match="request_id_too_long"):
        Replies().begin(RequestKey(consumer=None, request_id=request_id), DIGEST)


def test_finishing_what_does_not_run_is_our_mistake() -> None:
    replies = Replies()
    with pytest.raises(UsageError):
        replies.finish(ONE, b"")
    replies.begin(ONE, DIGEST)
    replies.finish(ONE, b"")
    for again in (lambda: replies.finish(ONE, b""), lambda: replies.forget(ONE)):
        with pytest.raises(UsageError):
            again()
