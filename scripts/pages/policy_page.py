"""Writes docs/reference/policy-claims.md from the schema of policies and the vocabulary of every TEE's claims."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING

from cloister.attest.rats import TeeKind
from cloister.attest.vocabulary import described_tees, vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.attest.vocabulary import ClaimInfo

NAME = "policy-claims.md"
_HEAD = """# Policies: schema and claims

Made from the source by `make reference`. What a policy is and how it is judged: [the format](../spec/policy.md). `cloister policy new` proposes one from
evidence, `explain` says one in words, `lint` shows which rules do not bite.
"""
_USUAL = {
    "pin": "`one_of` what was seen",
    "exact": "`exact`",
    "keep": "`exact`, where it is that",
    "minimum": "`at_least`",
    "maximum": "`at_most`",
    "skip": "`not_checked`",
    "omit": "none",
}


def page() -> str:
    """Return the page."""
    folder = resources.files("cloister.attest.vocabulary")
    schema = json.loads(folder.joinpath("policy.schema.json").read_text(encoding="utf-8"))
    text = json.dumps(schema, indent=1, ensure_ascii=False)
    parts = [_HEAD, f"\n## Schema\n\nAs `cloister policy schema` prints it, for editors.\n\n```json\n{text}\n```\n"]
    for tee in sorted(described_tees()):
        parts += [f"\n## `{tee}`\n\n| Claim | Meaning | Value | Usual rule |\n|---|---|---|---|\n"]
        parts += list(_rows(vocabulary(TeeKind(tee))))
    return "".join(parts)


def _rows(claims: Mapping[str, ClaimInfo]) -> Iterator[str]:
    for name, claim in sorted(claims.items()):
        want = (
            "" if claim.want is None else f" `{str(claim.want).lower() if claim.want in (True, False) else claim.want}`"
        )
        why = f": {claim.why}" if claim.why else ""
        yield f"| `{name}` | {_cell(claim.meaning)} | {_cell(claim.form)} | {_USUAL[claim.rule]}{want}{_cell(why)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
