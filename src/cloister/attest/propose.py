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

    Raises ``UsageError`` where a required claim is not made: such evidence is no example.
    """
    missing = sorted(required - set(verified.claims))
    if missing:
        msg = f"policy: this evidence makes no claim {missing[0]}, and a rule for it is required"
        raise UsageError(msg)
    rules = {name: _rule(verified.tee, name, value) for name, value in sorted(verified.claims.items())}
    kept = {name: rule for name, rule in rules.items() if rule is not None}
    kept |= {name: NotChecked("proposed without an opinion: decide") for name in sorted(required) if name not in kept}
    return Policy(version=version, tees={verified.tee: TeePolicy(kept)})


def _pinned(value: ClaimValue) -> Rule | None:
    if isinstance(value, bool):
        return Exact(value)
    values = value if isinstance(value, tuple) else (value,)
    return OneOf(values) if values and "" not in values else None  # no advisory applies: nothing to list


def _rule(tee: TeeKind, name: str, value: ClaimValue) -> Rule | None:
    info = describe_claim(tee, name, value)
    match info.rule:
        case "pin":
            return _pinned(value)
        case "exact" if info.want is not None:
            return Exact(info.want)
        case "minimum" if type(value) is int:
            return AtLeast(info.want if type(info.want) is int else value)
        case "maximum" if type(value) is int:
            return AtMost(info.want if type(info.want) is int else value)
        case "skip":
            return NotChecked(info.why)
        case _:
            return None
