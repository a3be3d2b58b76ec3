"""A policy proposed from evidence that is as it should be (``cloister policy new``).

Not done here: deciding that it is; a person reads the proposal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rules import AtLeast, AtMost, Exact, NotChecked, OneOf
from cloister.attest.vocabulary import describe_claim
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.attest.rats import ClaimValue, TeeKind, VerifiedClaims
    from cloister.attest.rules import Rule

__all__ = ["propose"]


def propose(verified: VerifiedClaims, required: frozenset[str], *, version: int) -> Policy:
    """Return a policy that accepts claims like ``verified``: a rule for all that matters, the vocabulary says how.

    Evidence that is not as it should be (debug, too old) gives a policy that refuses it. Raises ``UsageError`` where a
    required claim is not made, or no claim is one to have a rule for: such evidence is no example.
    """
    missing = sorted(required - set(verified.claims))
    if missing:
        msg = f"policy: this evidence makes no claim {missing[0]}, and a rule for it is required"
        raise UsageError(msg)
    rules: dict[str, Rule] = {}
    for name, value in sorted(verified.claims.items()):
        rule = _rule(verified.tee, name, value, must=name in required)
        if rule is not None:
            rules[name] = rule
        elif name in required:
            rules[name] = NotChecked("proposed without an opinion: decide")
    if not rules:
        msg = f"policy: evidence of {verified.tee} makes no claim that a policy has a rule for"
        raise UsageError(msg)
    return Policy(version=version, tees={verified.tee: TeePolicy(rules)})


def _rule(tee: TeeKind, name: str, value: ClaimValue, *, must: bool) -> Rule | None:  # noqa: PLR0911 - one line for each use
    info = describe_claim(tee, name, value)
    match info.rule:
        case "pin":
            return _pinned(value)
        case "exact" if info.want is not None:
            return Exact(info.want)
        case "keep" if info.want is not None and type(value) is type(info.want) and value == info.want:
            return Exact(info.want)
        case "minimum" if type(value) is int:
            least = info.want if type(info.want) is int else value
            return AtLeast(least) if least or must else None  # nothing is below zero: no rule
        case "maximum" if type(value) is int:
            return AtMost(info.want if type(info.want) is int else value)
        case "skip":
            return NotChecked(info.why)
        case _:
            return None


def _pinned(value: ClaimValue) -> Rule | None:
    """Return the rule that wants what was seen; None where it is no reference value: empty, too long, below zero."""
    if isinstance(value, bool):
        return Exact(value)
    try:
        return OneOf(value if isinstance(value, tuple) else (value,))
    except UsageError:
        return None
