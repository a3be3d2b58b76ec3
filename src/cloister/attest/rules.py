"""Rules of a policy: what one claim has to be (docs/spec/policy.md).

Six words: exact, one of, none of, at least, at most, not checked with a reason. A rule says what it wants in
the words of a person, and whether a claim satisfies it; it never guesses at types.

Not done here: which claims need a rule (``appraise``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, assert_never

from cloister.errors import UsageError
from cloister.wire import MAX_INT, Fields, Json

if TYPE_CHECKING:
    from cloister.attest.rats import ClaimValue

__all__ = [
    "MAX_VALUES",
    "MAX_VALUE_CHARS",
    "AtLeast",
    "AtMost",
    "Exact",
    "NoneOf",
    "NotChecked",
    "OneOf",
    "Rule",
    "dump_rule",
    "satisfies",
    "show",
    "take_rule",
    "wanted",
]

MAX_VALUES = 256  # reference values of one claim
MAX_VALUE_CHARS = 256  # characters of one reference value
MAX_WHY_CHARS = 200  # characters of the reason why a claim is not checked
_SHOWN_VALUES = 4  # reference values spelled out in a mismatch


@dataclass(frozen=True, slots=True)
class Exact:
    """The claim equals ``value`` in value and type."""

    value: str | int | bool

    def __post_init__(self) -> None:
        """Refuse a value that no claim can have."""
        _demand_value(self.value)


@dataclass(frozen=True, slots=True)
class OneOf:
    """The claim equals one of ``values``: a set of Reference Values, never empty (T18).

    Of a claim that is a set (advisories), every member is one of ``values``; the empty set has none that is not.
    """

    values: tuple[str | int | bool, ...]

    def __post_init__(self) -> None:
        """Refuse an empty set, doubles, and booleans: both of them would be no rule at all."""
        _demand_values(self.values, "one_of")


@dataclass(frozen=True, slots=True)
class NoneOf:
    """The claim, or any member of one that is a set, equals none of ``values``: a deny-list (T12)."""

    values: tuple[str | int | bool, ...]

    def __post_init__(self) -> None:
        """Refuse an empty set, doubles, and booleans."""
        _demand_values(self.values, "none_of")


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The claim is an integer of ``value`` or more: security versions."""

    value: int

    def __post_init__(self) -> None:
        """Refuse what is no integer."""
        _demand_integer(self.value, "at_least")


@dataclass(frozen=True, slots=True)
class AtMost:
    """The claim is an integer of ``value`` or less: ages."""

    value: int

    def __post_init__(self) -> None:
        """Refuse what is no integer."""
        _demand_integer(self.value, "at_most")


@dataclass(frozen=True, slots=True)
class NotChecked:
    """The claim is not compared, and ``why`` is shown wherever the result is."""

    why: str

    def __post_init__(self) -> None:
        """Refuse to skip without a reason."""
        if not self.why.strip() or len(self.why) > MAX_WHY_CHARS or not self.why.isprintable():
            msg = f"not_checked: want a reason of 1 to {MAX_WHY_CHARS} printable characters"
            raise UsageError(msg)


Rule: TypeAlias = Exact | OneOf | NoneOf | AtLeast | AtMost | NotChecked


def _demand_values(values: tuple[str | int | bool, ...], name: str) -> None:
    if not 0 < len(values) <= MAX_VALUES:
        msg = f"{name}: {len(values)} reference values, want 1 to {MAX_VALUES}"
        raise UsageError(msg)
    for value in values:
        _demand_value(value)
        if isinstance(value, bool):
            msg = f"{name}: true and false have exact; both would be no rule"
            raise UsageError(msg)
    if len(set(values)) != len(values):
        msg = f"{name}: a reference value twice"
        raise UsageError(msg)


def _demand_integer(value: int, name: str) -> None:
    if type(value) is not int:
        msg = f"{name}: want an integer"
        raise UsageError(msg)
    _demand_value(value)


def _demand_value(value: str | int | bool) -> None:  # noqa: FBT001 - a reference value may be a boolean
    if type(value) is str:
        if not 0 < len(value) <= MAX_VALUE_CHARS or not value.isprintable():
            msg = f"reference value: want 1 to {MAX_VALUE_CHARS} printable characters"
            raise UsageError(msg)
    elif type(value) is int:
        if not 0 <= value <= MAX_INT:
            msg = f"reference value: {value} is outside 0..2**53-1"
            raise UsageError(msg)
    elif type(value) is not bool:
        msg = "reference value: want a string, an integer or a boolean"
        raise UsageError(msg)


def take_rule(fields: Fields) -> Rule:
    """Return the one rule in an object with exactly one member. Raises ``Malformed``."""
    rule: Rule
    try:
        if "exact" in fields:
            rule = Exact(_take_value(fields, fields.take("exact")))
        elif "one_of" in fields:
            rule = OneOf(_take_values(fields, "one_of"))
        elif "none_of" in fields:
            rule = NoneOf(_take_values(fields, "none_of"))
        elif "at_least" in fields:
            rule = AtLeast(fields.integer("at_least"))
        elif "at_most" in fields:
            rule = AtMost(fields.integer("at_most"))
        elif "not_checked" in fields:
            rule = NotChecked(fields.text("not_checked", cap=MAX_WHY_CHARS, floor=1))
        else:
            fields.fail("rule", "want exact, one_of, none_of, at_least, at_most or not_checked")
    except UsageError as exc:  # the values refuse themselves; here their author is the other party
        fields.fail("rule", exc.message)
    fields.end()
    return rule


def _take_values(fields: Fields, name: str) -> tuple[str | int | bool, ...]:
    return tuple(_take_value(fields, value) for value in fields.items(name, cap=MAX_VALUES))


def _take_value(fields: Fields, value: Json) -> str | int | bool:
    if not isinstance(value, (str, int)):
        fields.fail("rule", "reference value: want a string, an integer or a boolean")
    return value


def dump_rule(rule: Rule) -> Json:
    """Return the JSON object of docs/spec/policy.md."""
    match rule:
        case Exact(value):
            return {"exact": value}
        case OneOf(values):
            return {"one_of": list(values)}
        case NoneOf(values):
            return {"none_of": list(values)}
        case AtLeast(value):
            return {"at_least": value}
        case AtMost(value):
            return {"at_most": value}
        case NotChecked(why):
            return {"not_checked": why}
        case _:
            assert_never(rule)


def satisfies(got: ClaimValue, rule: Exact | OneOf | NoneOf | AtLeast | AtMost) -> bool:
    """Tell whether a claim is as the rule wants it."""
    match rule:
        case Exact(value):
            return _same(got, value)
        case OneOf(values):
            return all(any(_same(item, value) for value in values) for item in _members(got))
        case NoneOf(values):
            # A value of another kind equals none of them by accident: that is no denial to rely on.
            alike = all(type(item) is type(value) for item in _members(got) for value in values)
            return alike and not any(_same(item, value) for item in _members(got) for value in values)
        case AtLeast(value):
            return type(got) is int and got >= value
        case AtMost(value):
            return type(got) is int and got <= value
        case _:
            assert_never(rule)


def _members(got: ClaimValue) -> tuple[str | int | bool, ...]:
    return got if isinstance(got, tuple) else (got,)


def _same(got: ClaimValue, want: str | int | bool) -> bool:  # noqa: FBT001 - a reference value may be a boolean
    """Compare in value and type: in Python ``True == 1``, in a policy it is not."""
    return type(got) is type(want) and got == want


def show(value: ClaimValue | None) -> str:
    """Return a claim as short printable text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = (", ".join(value) or "none") if isinstance(value, tuple) else str(value)
    text = text[:MAX_VALUE_CHARS]
    return text if text.isprintable() else ascii(text)[:MAX_VALUE_CHARS]  # a claim may come from a certificate (T84)


def wanted(rule: Rule | None) -> str:  # noqa: PLR0911 - one line for each kind of rule
    """Return what the rule wants, for a person."""
    match rule:
        case None:
            return ""
        case Exact(value):
            return show(value)
        case OneOf(values):
            return _listed(values)
        case NoneOf(values):
            return f"not {_listed(values)}"
        case AtLeast(value):
            return f"at least {value}"
        case AtMost(value):
            return f"at most {value}"
        case NotChecked():
            return "any value"
        case _:
            assert_never(rule)


def _listed(values: tuple[str | int | bool, ...]) -> str:
    shown = " or ".join(show(value)[:128] for value in values[:_SHOWN_VALUES])
    more = len(values) - _SHOWN_VALUES
    return f"{shown} or {more} more" if more > 0 else shown
