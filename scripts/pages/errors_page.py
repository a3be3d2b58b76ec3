"""Writes docs/reference/errors.md from the table of codes (src/cloister/codes/) and every server's table of statuses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.client.proxy.refusal import STATUS_BY_CODE as PROXY
from cloister.codes import CHAPTERS
from cloister.custodian.problems import STATUS_BY_CODE as CUSTODIAN
from cloister.enclave.problems import STATUS_BY_CODE as ENCLAVE
from cloister.verifier.problems import STATUSES as VERIFIER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.codes import Code

NAME = "errors.md"
SERVERS: Mapping[str, Mapping[str, int]] = {
    "custodian": CUSTODIAN,
    "enclave": ENCLAVE,
    "proxy": PROXY,
    "attestation service": VERIFIER,
}
_HEAD = """# Errors

Made from the source by `make reference`; `cloister explain CODE` prints the same without a network, with `--json` for programs.

Every error is one of four, by fault. On the command line the exit code says which; over HTTP the status does.

| fault | exit code | means |
|---|---|---|
| usage | 2 | the caller asked for something that makes no sense, or a file is missing |
| malformed | 3 | somebody's bytes do not parse |
| rejected | 4 | well formed, and the answer is no |
| unavailable | 5 | it could not be decided; never turned into a yes |

An error that is no rejection has a code too, in `--json` on the command line: `no_such_file`, `no_answer` and the like, else that of its fault.

A rejection carries **every** reason, not the first alone. A reason has a code, a subject, and where there is one what was got and what was wanted:
`measurement: measurement_mismatch (got 91ff…, want 81c1…)`. With `--json`, in problem documents and in `Rejected.reasons` they are members.
Programs branch on codes; a code keeps its meaning for ever, texts may change. No message holds a secret or a payload.

The `type` of a problem document (RFC 9457) is `urn:cloister:problem:CODE`: a name, not a place, so that it stays when places change.
A status is given here where a server has one for that code; whatever else a custodian or attestation service refuses is 403, and what a proxy finds wrong with an enclave 502.
"""


def page() -> str:
    """Return the page."""
    jumps = (f"[{chapter.title}](#{_slug(chapter.title)})" for chapter in CHAPTERS)
    parts = [_HEAD, f"\n{' · '.join(jumps)}\n"]
    for chapter in CHAPTERS:
        parts += [f"\n## {chapter.title}\n\n{chapter.about}\n"]
        parts += [line for code in chapter.codes for line in _section(code)]
    return "".join(parts)


def _slug(title: str) -> str:
    """Return the anchor of a heading, as the site makes it."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def _section(code: Code) -> Iterator[str]:
    yield f"\n### `{code.name}`\n\n"
    yield f"Cause: {code.cause}.\n\nFix: {code.fix}.\n\n"
    answers = [f"{table[code.name]} ({server})" for server, table in SERVERS.items() if code.name in table]
    statuses = f" HTTP: {', '.join(answers)}." if answers else ""
    yield f"Who can mend it: {code.who.value}. Exit code: {code.fault.value}.{statuses}\n\n"
    yield f"```text\n{code.example}\n```\n"
