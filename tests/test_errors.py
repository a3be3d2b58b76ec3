"""The four faults: each carries what its reader needs, and no refusal is without a reason."""

from __future__ import annotations

import pytest

from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable, UsageError


@pytest.mark.parametrize("fault", [UsageError, Malformed, Unavailable])
def test_every_fault_is_a_cloister_error_with_message_and_hint(fault: type[UsageError]) -> None:
    error = fault("model: missing", hint="seal it first")
    assert isinstance(error, CloisterError)
    assert (str(error), error.message, error.hint) == ("model: missing", "model: missing", "seal it first")


def test_the_faults_are_told_apart() -> None:
    faults = (UsageError, Malformed, Rejected, Unavailable)
    assert not [(a, b) for a in faults for b in faults if a is not b and issubclass(a, b)]


def test_a_rejection_without_a_reason_is_a_mistake_of_ours() -> None:
    with pytest.raises(UsageError, match="at least one reason"):
        Rejected("no", reasons=())


def test_a_rejection_carries_every_reason_and_branches_on_the_first() -> None:
    first = Reason(code="debug_enabled", subject="debug", got="true", want="false")
    second = Reason(code="svn_too_low", subject="svn", got="1", want="at least 2")
    error = Rejected("evidence refused", reasons=(first, second), hint="update")
    assert error.reasons == (first, second)
    assert (error.code, error.hint) == ("debug_enabled", "update")


def test_because_says_subject_code_got_and_want() -> None:
    error = Rejected.because("nonce_used", "nonce", got="aa", want="a fresh one", hint="ask again")
    assert str(error) == "nonce: nonce_used (got aa, want a fresh one)"
    assert error.hint == "ask again"


@pytest.mark.parametrize(
    ("got", "want", "text"),
    [
        ("", "", "loan: blocked"),
        ("1", "", "loan: blocked (got 1, want nothing)"),
        ("", "2", "loan: blocked (got nothing, want 2)"),
    ],
)
def test_a_reason_without_values_shows_no_brackets(got: str, want: str, text: str) -> None:
    assert str(Reason(code="blocked", subject="loan", got=got, want=want)) == text


def test_unavailable_says_when_to_try_again() -> None:
    assert Unavailable("store: busy", retry_after_s=3).retry_after_s == 3
    assert Unavailable("store: busy").retry_after_s is None


class _Special(Unavailable):
    """One of those that a room tells apart for itself."""


def test_an_error_names_one_of_the_four_faults_whatever_its_class_is_called() -> None:
    refused = Rejected.because("blocked", "loan")
    assert [error.fault for error in (_Special("x"), Malformed("x"), UsageError("x"), refused, CloisterError("x"))] == [
        "unavailable", "malformed", "usageerror", "rejected", "cloistererror",
    ]  # fmt: skip
    assert (_Special("x").logged, refused.logged) == ("unavailable", "blocked")


def test_an_error_that_is_raised_again_is_equal_and_holds_no_traceback() -> None:
    try:
        raise Rejected.because("blocked", "loan", hint="ask", got="1")
    except Rejected as exc:
        error = exc
    again = error.again()
    assert type(again) is Rejected
    assert (str(again), again.reasons, again.hint, again.code) == (str(error), error.reasons, error.hint, error.code)
    assert (error.__traceback__ is None, again.__traceback__) == (False, None)
