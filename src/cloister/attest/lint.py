"""Does every rule of a policy bite? Proven by mutation, not by reading (``cloister policy lint``).

For each rule claims are made as evidence of this TEE could make them: those the rule names, those values damaged, and
every one of a closed set. The same ``appraise`` as ever judges them. A rule that refuses none of them guards nothing,
one that accepts none refuses everything. On real evidence the bytes themselves are damaged: what changes and is still
accepted is covered by no signature and no rule.

Not done here: whether the reference values are the right ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, assert_never

from cloister.attest.appraise import appraise
from cloister.attest.composite import DEVICE_KINDS
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind, Verdict, VerifiedClaims
from cloister.attest.rules import AtLeast, AtMost, Exact, NoneOf, NotChecked, OneOf
from cloister.attest.vocabulary import describe_claim, vocabulary
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.wire import MAX_INT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from cloister.attest.rats import ClaimValue
    from cloister.attest.rules import Rule
    from cloister.attest.vocabulary import ClaimInfo

__all__ = ["Finding", "Severity", "lint_policy", "uncovered_bytes"]

_OTHER_TEXT = "something else"
_OTHER_HEX_BYTES = 32
_SHOWN_CHARS = 64


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
    found = tuple(
        Finding(severity=severity, tee=tee, claim=claim, text=text)
        for tee, rules in sorted(policy.tees.items())
        for severity, claim, text in _lint_tee(tee, rules.rules, required.get(tee))
    )
    return found if set(policy.tees) - DEVICE_KINDS else (_no_cpu(min(policy.tees)), *found)


def _no_cpu(tee: TeeKind) -> Finding:
    text = "devices and no cpu: whoever owns such a device satisfies the policy, whatever code asks it"
    return Finding(severity=Severity.WARNING, tee=tee, claim="", text=text)


def _lint_tee(
    tee: TeeKind, rules: Mapping[str, Rule], required: frozenset[str] | None
) -> Iterator[tuple[Severity, str, str]]:
    if required is None:
        yield Severity.ERROR, "", "no verifier of this build knows this tee"
        return
    for claim in sorted(required - set(rules)):
        yield Severity.ERROR, claim, "required and without a rule: all evidence is refused"
    for claim, rule in sorted(rules.items()):
        for severity, text in _lint_rule(tee, claim, rule, required):
            yield severity, claim, text
    for claim, info in sorted(vocabulary(tee).items()):
        if info.rule in {"pin", "exact"} and "*" not in claim and claim not in rules and claim not in required:
            yield Severity.NOTE, claim, f"no rule, and most policies have one: {info.meaning}"


def _lint_rule(tee: TeeKind, claim: str, rule: Rule, required: Collection[str]) -> Iterator[tuple[Severity, str]]:
    if isinstance(rule, NotChecked):
        yield Severity.WARNING, f"does not bite: not checked, {rule.why}"
        return
    named = _named(rule)
    info = describe_claim(tee, claim, named[0])
    if vocabulary(tee) and not info.meaning:
        yield Severity.ERROR, "evidence of this tee makes no such claim: all of it is refused"
        return
    refusals = _verdicts(_refused(tee, claim, rule, value) for value in _possible(info, named))
    if False not in refusals:
        yield Severity.ERROR, f"nothing satisfies it: all evidence is refused (want {info.form})"
    elif True not in refusals and len(info.values) != 1:  # a claim of one value is made or not: the rule demands it
        # Of a security version that must have a rule and is zero everywhere, 0 is the honest bound.
        bound = claim in required and rule == AtLeast(0)
        yield Severity.WARNING if bound else Severity.ERROR, "does not bite: no claim is refused"
    elif isinstance(rule, (OneOf, NoneOf)):
        severity = Severity.ERROR if isinstance(rule, NoneOf) else Severity.WARNING
        for value in rule.values:
            if not info.may_be(value):
                yield severity, f"{str(value)[:_SHOWN_CHARS]} does not bite: no evidence says it (want {info.form})"


def _verdicts(refused: Iterator[bool]) -> set[bool]:
    """Return which verdicts there are. A rule that bites and lets in is proven by one claim of each kind."""
    found: set[bool] = set()
    for verdict in refused:
        found.add(verdict)
        if len(found) == len((True, False)):
            break
    return found


def _named(rule: Exact | OneOf | NoneOf | AtLeast | AtMost) -> tuple[str | int | bool, ...]:
    match rule:
        case OneOf(values) | NoneOf(values):
            return values
        case Exact(value) | AtLeast(value) | AtMost(value):
            return (value,)
        case _:
            assert_never(rule)


def _possible(info: ClaimInfo, named: tuple[str | int | bool, ...]) -> Iterator[ClaimValue]:
    """Yield claims that evidence may make: any other, those a rule names, and those next to them.

    Not in this order: a good rule shows itself at the second or third already, and each costs a look at all of it.
    """
    members = info.values or (item for item in _near(info, named) if info.may_be(item))
    if info.type == "words":
        yield ()
        yield from ((str(item),) for item in members)
    else:
        yield from members


def _near(info: ClaimInfo, named: tuple[str | int | bool, ...]) -> Iterator[str | int | bool]:
    match info.type:
        case "boolean":
            yield from (True, False)
        case "integer":
            yield from (MAX_INT, 0)
        case _:
            yield _OTHER_TEXT
            yield from (byte * size for size in info.bytes or (_OTHER_HEX_BYTES,) for byte in ("00", "a5"))
    yield named[0]
    known = {item for item in named if type(item) is int}
    yield from (item + 1 for item in known if item + 1 not in known)
    yield from (flipped for item in named if isinstance(item, str) for flipped in _flipped(item))
    yield from named[1:]


def _flipped(value: str) -> Iterator[str]:
    """Yield ``value`` with its first and its last digit changed, where it is hexadecimal."""
    if value and set(value) <= set("0123456789abcdef"):
        yield f"{int(value[0], 16) ^ 8:x}{value[1:]}"
        yield f"{value[:-1]}{int(value[-1], 16) ^ 1:x}"


def _refused(tee: TeeKind, claim: str, rule: Rule, value: ClaimValue) -> bool:
    """Tell whether appraisal refuses evidence whose claim is ``value``."""
    claims = VerifiedClaims(tee=tee, claims={claim: value}, report_data=b"", checks=())
    policy = Policy(version=1, tees={tee: TeePolicy({claim: rule})})
    return any(check.verdict is Verdict.FAILED for check in appraise(claims, policy, frozenset()))


def uncovered_bytes(
    data: bytes, accepts: Callable[[bytes], bool], *, most: int, progress: Callable[[int, int], None]
) -> tuple[int, int, tuple[tuple[int, int], ...]]:
    """Damage evidence byte by byte; return (offsets tried, offsets accepted, ranges accepted), ends exclusive.

    ``accepts`` judges a damaged copy; ``Malformed``, ``Rejected`` and ``Unavailable`` are no yes. At most ``most``
    offsets are tried, evenly spread; a range reaches to the next offset that was tried.
    """
    step = max(1, -(-len(data) // most))
    accepted: list[int] = []
    offsets = range(0, len(data), step)
    for done, offset in enumerate(offsets):
        damaged = data[:offset] + bytes((data[offset] ^ 0x41,)) + data[offset + 1 :]
        try:
            if accepts(damaged):
                accepted.append(offset)
        except (Malformed, Rejected, Unavailable):  # a damaged name may want another endorsement
            pass
        progress(done + 1, len(offsets))
    return len(offsets), len(accepted), _ranges(accepted, step, len(data))


def _ranges(offsets: list[int], step: int, size: int) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for offset in offsets:
        end = min(offset + step, size)
        if ranges and ranges[-1][1] >= offset:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((offset, end))
    return tuple(ranges)
