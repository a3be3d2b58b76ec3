"""Rules one by one: what satisfies them, what they say of themselves, and which cannot be made."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.attest.rules import (
    MAX_VALUE_CHARS,
    AtLeast,
    AtMost,
    Exact,
    NoneOf,
    NotChecked,
    OneOf,
    Rule,
    dump_rule,
    satisfies,
    show,
    take_rule,
    wanted,
)
from cloister.errors import Malformed, UsageError
from cloister.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attest.rats import ClaimValue


@pytest.mark.parametrize(
    ("got", "rule", "passes"),
    [
        # Deny-lists.
        ("cc", NoneOf(("aa", "bb")), True),
        ("aa", NoneOf(("aa", "bb")), False),
        ("AA", NoneOf(("aa",)), True),
        (5, NoneOf((6,)), True),
        (6, NoneOf((6,)), False),
        ("6", NoneOf((6,)), False),  # of another type: that is no denial to rely on
        (6, NoneOf(("6",)), False),
        (True, NoneOf((0,)), False),
        (False, NoneOf((0, 1)), False),
        (True, NoneOf(("true",)), False),
        (5, NoneOf((6, "a")), False),
        ("b", NoneOf((6, "a")), False),
        # Bounds.
        (3, AtMost(3), True),
        (0, AtMost(0), True),
        (4, AtMost(3), False),
        (-1, AtMost(3), True),
        (False, AtMost(3), False),
        (True, AtMost(3), False),
        ("2", AtMost(3), False),
        ((), AtMost(3), False),
        (-1, AtLeast(0), False),
        ((), AtLeast(0), False),
        ("9", AtLeast(3), False),
        # Sets: every member for a list, no member for a deny-list.
        (("aa",), OneOf(("aa", "bb")), True),
        (("aa", "bb"), OneOf(("bb", "aa")), True),
        (("aa", "cc"), OneOf(("aa", "bb")), False),
        (("cc",), OneOf(("aa", "bb")), False),
        ((), OneOf(("aa",)), True),
        (("1",), OneOf((1,)), False),
        (("cc",), NoneOf(("aa", "bb")), True),
        (("aa", "cc"), NoneOf(("aa", "bb")), False),
        ((), NoneOf(("aa",)), True),
        (("1",), NoneOf((1,)), False),
        (("aa",), Exact("aa"), False),
        ((), Exact("aa"), False),
        # Mixed types and booleans.
        ("1", OneOf(("1", 1)), True),
        (1, OneOf(("1", 1)), True),
        (True, OneOf(("1", 1)), False),
        (True, Exact(value=True), True),
        (1, Exact(value=True), False),
        ("true", Exact(value=True), False),
    ],
)
def test_a_rule_is_satisfied_by_what_it_says_and_nothing_else(
    got: ClaimValue, rule: Exact | OneOf | NoneOf | AtLeast | AtMost, *, passes: bool
) -> None:
    assert satisfies(got, rule) is passes


_SCALARS = st.one_of(st.booleans(), st.integers(-1, 3), st.sampled_from(["", "a", "0", "1", "true"]))
_SETS = st.lists(st.sampled_from(["a", "b", "1"]), unique=True).map(tuple)
_LISTS = st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["a", "b", "1"])), min_size=1, unique_by=repr).map(tuple)


@given(st.one_of(_SCALARS, _SETS), _LISTS)
def test_what_a_list_allows_its_deny_list_refuses(got: ClaimValue, values: tuple[str | int, ...]) -> None:
    allowed, denied = satisfies(got, OneOf(values)), satisfies(got, NoneOf(values))
    assert not (allowed and denied) or got == ()


@given(st.one_of(_SCALARS, _SETS), _LISTS, st.sampled_from(["c", 9]))
def test_a_longer_list_allows_more_and_a_longer_deny_list_less(
    got: ClaimValue, values: tuple[str | int, ...], more: str | int
) -> None:
    longer = (*values, more)
    assert satisfies(got, OneOf(values)) <= satisfies(got, OneOf(longer))
    assert satisfies(got, NoneOf(values)) >= satisfies(got, NoneOf(longer))


@given(_SCALARS, st.integers(0, 3))
def test_bounds_are_integers_and_meet_in_one_value(got: ClaimValue, value: int) -> None:
    both = satisfies(got, AtLeast(value)) and satisfies(got, AtMost(value))
    assert both == satisfies(got, Exact(value))


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoneOf(()),
        lambda: NoneOf(("",)),
        lambda: NoneOf(("a", "b", "a")),
        lambda: NoneOf((True,)),
        lambda: NoneOf(("a", False)),
        lambda: NoneOf(tuple(range(257))),
        lambda: NoneOf(("a\nb",)),
        lambda: NoneOf((None,)),  # type: ignore[arg-type]  # the mistake
        lambda: NoneOf((1.0,)),  # type: ignore[arg-type]  # the mistake
        lambda: AtMost(True),  # noqa: FBT003 - the mistake
        lambda: AtMost(-1),
        lambda: AtMost(2**53),
        lambda: AtMost("3"),  # type: ignore[arg-type]  # the mistake
        lambda: AtMost(1.0),  # type: ignore[arg-type]  # the mistake
        lambda: AtLeast("3"),  # type: ignore[arg-type]  # the mistake
    ],
)
def test_t18_a_deny_list_or_a_bound_that_is_none_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


RULES: list[Rule] = [
    Exact("a"),
    Exact(1),
    Exact(value=False),
    OneOf(("a", 1)),
    NoneOf(("a", "b")),
    NoneOf((0,)),
    AtLeast(0),
    AtMost(2**53 - 1),
    NotChecked("why not"),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_rule_is_read_as_it_was_written(rule: Rule) -> None:
    assert take_rule(Fields(dump_rule(rule), what="rule")) == rule


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(RULES, 2)), ids=repr)
def test_no_two_rules_in_one(one: Rule, two: Rule) -> None:
    first, second = dump_rule(one), dump_rule(two)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    if set(first) != set(second):
        with pytest.raises(Malformed):
            take_rule(Fields({**first, **second}, what="rule"))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (None, ""),
        (Exact(value=True), "true"),
        (Exact(5), "5"),
        (OneOf(("a", 1)), "a or 1"),
        (NoneOf(("a",)), "not a"),
        (NoneOf(("a", "b", "c", "d", "e")), "not a or b or c or d or 1 more"),
        (AtLeast(3), "at least 3"),
        (AtMost(3), "at most 3"),
        (NotChecked("why not"), "any value"),
    ],
)
def test_what_a_rule_wants_is_said_in_words(rule: Rule | None, text: str) -> None:
    assert wanted(rule) == text


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        ((), "none"),
        (("a", "b"), "a, b"),
        (("a\x1b[2J",), r"'a\x1b[2J'"),
        ("", ""),
        ("a\u202eb", r"'a\u202eb'"),
    ],
)
def test_a_claim_is_shown_as_printable_text(claim: ClaimValue | None, text: str) -> None:
    assert show(claim) == text


def test_a_long_claim_is_shown_short() -> None:
    for claim in ("\x1b" * 1000, "a" * 1000, tuple(f"{index:064d}" for index in range(100))):
        assert len(show(claim)) <= MAX_VALUE_CHARS
        assert show(claim).isprintable()
