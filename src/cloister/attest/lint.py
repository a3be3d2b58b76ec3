"""Does every rule of a policy bite? Proven by mutation, not by reading (``cloister policy lint``).

For each rule a claim that satisfies it is made, then damaged in every way its type knows; the same ``appraise`` as
ever judges the damaged claims. A rule under which no damage is refused does not bite. On real evidence the bytes
themselves are damaged: what changes and is still accepted is covered by no signature and no rule.

Not done here: whether the reference values are the right ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, assert_never

from cloister.attest.appraise import appraise
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind, Verdict, VerifiedClaims
from cloister.attest.rules import AtLeast, AtMost, Exact, NoneOf, NotChecked, OneOf
from cloister.attest.vocabulary import describe_claim, vocabulary
from cloister.errors import Malformed, Rejected
from cloister.wire import MAX_INT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloister.attest.rats import ClaimValue
    from cloister.attest.rules import Rule

__all__ = ["Finding", "Severity", "lint_policy", "uncovered_bytes"]

_OTHER_HEX = "00" * 16 + "a5" * 16
_OTHER_TEXT = "something else"


class Severity(Enum):
    """How bad a finding is: an error refuses everything or guards nothing, a warning is somebody's decision."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a person should know about a policy."""

    severity: Severity
    tee: TeeKind
    claim: str
    text: str


def lint_policy(policy: Policy, required: Mapping[TeeKind, frozenset[str]]) -> tuple[Finding, ...]:
    """Return what is wrong with ``policy``. ``required`` are the claims each known TEE wants a rule for."""
    return tuple(
        finding for tee, rules in sorted(policy.tees.items()) for finding in _lint_tee(tee, rules, required.get(tee))
    )


def _lint_tee(tee: TeeKind, rules: TeePolicy, required: frozenset[str] | None) -> Iterator[Finding]:
    if required is None:
        yield Finding(severity=Severity.ERROR, tee=tee, claim="", text="no verifier of this build knows this tee")
        return
    for claim in sorted(required - set(rules.rules)):
        text = "required and without a rule: all evidence is refused"
        yield Finding(severity=Severity.ERROR, tee=tee, claim=claim, text=text)
    for claim, rule in sorted(rules.rules.items()):
        yield from _lint_rule(tee, claim, rule)
    for claim, info in sorted(vocabulary(tee).items()):
        if info.rule in {"pin", "exact"} and "*" not in claim and claim not in rules.rules and claim not in required:
            text = f"no rule, and most policies have one: {info.meaning}"
            yield Finding(severity=Severity.NOTE, tee=tee, claim=claim, text=text)


def _lint_rule(tee: TeeKind, claim: str, rule: Rule) -> Iterator[Finding]:
    if isinstance(rule, NotChecked):
        yield Finding(severity=Severity.WARNING, tee=tee, claim=claim, text=f"does not bite: not checked, {rule.why}")
        return
    known = vocabulary(tee)
    if known and not describe_claim(tee, claim).meaning and not claim.startswith("devices."):
        text = "evidence of this tee makes no such claim: all of it is refused"
        yield Finding(severity=Severity.ERROR, tee=tee, claim=claim, text=text)
        return
    honest = _witness(tee, claim, rule)
    if honest is None or _refused(tee, claim, rule, honest):
        yield Finding(
            severity=Severity.ERROR, tee=tee, claim=claim, text="nothing satisfies it: all evidence is refused"
        )
    elif not any(_refused(tee, claim, rule, value) for value in _damaged(tee, claim, rule, honest)):
        yield Finding(severity=Severity.ERROR, tee=tee, claim=claim, text="does not bite: no damaged claim is refused")


def _witness(tee: TeeKind, claim: str, rule: Exact | OneOf | NoneOf | AtLeast | AtMost) -> ClaimValue | None:
    """Return a claim that satisfies ``rule`` and that evidence of this TEE may make; None where there is none."""
    info = describe_claim(tee, claim)
    possible: tuple[ClaimValue, ...]
    match rule:
        case Exact(value):
            possible = (value,)
        case OneOf(values):
            possible = values
        case NoneOf():
            possible = tuple(item for item in _values(info.values, info.type) if not _refused(tee, claim, rule, item))
        case AtLeast(value) | AtMost(value):
            possible = (value,)
        case _:
            assert_never(rule)
    if info.values:
        possible = tuple(item for item in possible if item in info.values)
    return next((item for item in possible if _is_of(item, info.type) or not info.meaning), None)


def _values(closed: tuple[str, ...], kind: str) -> tuple[ClaimValue, ...]:
    return closed or ((0, 1, MAX_INT) if kind == "integer" else (_OTHER_TEXT, _OTHER_HEX))


def _is_of(value: ClaimValue, kind: str) -> bool:
    """Tell whether a claim of this type could have the value."""
    if kind == "hex":
        return isinstance(value, str) and len(value) % 2 == 0 and set(value) <= set("0123456789abcdef")
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return type(value) is int
    return isinstance(value, (str, tuple))


def _damaged(tee: TeeKind, claim: str, rule: Rule, honest: ClaimValue) -> Iterator[ClaimValue]:
    """Yield values that the claim of other evidence could have."""
    info = describe_claim(tee, claim)
    listed = rule.values if isinstance(rule, NoneOf) else ()
    yield from listed
    if isinstance(honest, bool):
        yield not honest
    elif isinstance(honest, int):
        yield from (value for value in (honest - 1, honest + 1, 0, MAX_INT) if 0 <= value <= MAX_INT)
    elif info.values:
        yield from info.values
    elif isinstance(honest, str) and _is_of(honest, "hex") and honest:
        yield f"{int(honest[:2], 16) ^ 0x80:02x}{honest[2:]}"
        yield f"{honest[:-2]}{int(honest[-2:], 16) ^ 1:02x}"
        yield "00" * (len(honest) // 2)
    else:
        yield _OTHER_TEXT
    if info.type == "words":
        yield from ((value,) for value in (*listed, *info.values, _OTHER_TEXT) if isinstance(value, str))


def _refused(tee: TeeKind, claim: str, rule: Rule, value: ClaimValue) -> bool:
    """Tell whether appraisal refuses evidence whose claim is ``value``."""
    claims = VerifiedClaims(tee=tee, claims={claim: value}, report_data=b"", checks=())
    policy = Policy(version=1, tees={tee: TeePolicy({claim: rule})})
    return any(check.verdict is Verdict.FAILED for check in appraise(claims, policy, frozenset()))


def uncovered_bytes(
    data: bytes, accepts: Callable[[bytes], bool], *, most: int, progress: Callable[[int, int], None]
) -> tuple[int, int, tuple[tuple[int, int], ...]]:
    """Damage evidence byte by byte; return (offsets tried, offsets accepted, ranges accepted), ends exclusive.

    ``accepts`` judges a damaged copy and may raise ``Malformed`` or ``Rejected``. At most ``most`` offsets are tried,
    evenly spread.
    """
    step = max(1, -(-len(data) // most))
    accepted: list[int] = []
    offsets = range(0, len(data), step)
    for done, offset in enumerate(offsets):
        damaged = data[:offset] + bytes((data[offset] ^ 0x41,)) + data[offset + 1 :]
        try:
            if accepts(damaged):
                accepted.append(offset)
        except (Malformed, Rejected):
            pass
        progress(done + 1, len(offsets))
    return len(offsets), len(accepted), _ranges(accepted, step)


def _ranges(offsets: list[int], step: int) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for offset in offsets:
        if ranges and ranges[-1][1] >= offset:
            ranges[-1] = (ranges[-1][0], offset + step)
        else:
            ranges.append((offset, offset + step))
    return tuple(ranges)
