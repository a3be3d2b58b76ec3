"""Every code that somebody can meet: its cause, its fix, who can mend it, and what it looks like.

The one table. ``cloister explain`` reads it, docs/reference/errors.md is made from it, and tests/test_docs_errors.py
holds it to the source both ways. A code keeps its meaning for ever: programs branch on it.

Not here: the statuses of HTTP, which each server has in one table of its own.
"""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING

from cloister.codes import (
    alarms,
    anywhere,
    api,
    asking,
    books,
    calling,
    certificates,
    endorsements,
    evidence,
    formats,
    health,
    leases,
    pages,
    persons,
    policy,
    proxy,
    receipts,
    sealed,
    splitting,
    sub_allowances,
    trust,
)
from cloister.codes.code import Chapter, Code, Fault, Who, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CHAPTERS", "CODES", "Chapter", "Code", "Fault", "Who", "find", "plain"]

_CLAIM = "_mismatch"

CHAPTERS: tuple[Chapter, ...] = tuple(
    room.CHAPTER
    for room in (
        anywhere,
        policy,
        evidence,
        endorsements,
        trust,
        proxy,
        asking,
        pages,
        receipts,
        sub_allowances,
        leases,
        formats,
        sealed,
        calling,
        certificates,
        api,
        persons,
        splitting,
        books,
        health,
        alarms,
    )
)
CODES: Mapping[str, Code] = MappingProxyType({code.name: code for chapter in CHAPTERS for code in chapter.codes})


def find(name: str) -> tuple[Code | None, str]:
    """Return the code of that name, or none and the name that is nearest.

    What policies compare is open, so a claim's ``CLAIM_mismatch`` is a code without a row of its own.
    """
    if name in CODES:
        return CODES[name], name
    claim = name.removesuffix(_CLAIM)
    if name.endswith(_CLAIM) and claim.isidentifier() and claim.islower():
        return _mismatch(claim), name
    return None, next(iter(difflib.get_close_matches(name, CODES, n=1)), "")


def _mismatch(claim: str) -> Code:
    return Code(
        name=f"{claim}{_CLAIM}",
        cause=f"the claim `{claim}` is not what the policy wants",
        fix="compare what was got with what was wanted; measure anew if the change was yours",
        who=Who.BORROWER,
        example=f"{claim}: {claim}{_CLAIM} (got 91ff04c2…, want 81c1b7aa…)",
        anchor="evidence-does-not-satisfy-the-policy",
    )
