"""What a command does where the custodian wants a second person first (docs/spec/proposal.md).

It says so and ends with an exit code of its own, for nothing has been done yet; with ``--wait`` it waits for the second
person's word and goes on as if it had been answered at once.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.remote import segment
from cloister.cli.terminal import EXIT_PENDING
from cloister.errors import Malformed, Reason, Rejected
from cloister.wire import Json, dump_json, lp, parse_b64u

if TYPE_CHECKING:
    from cloister.cli.remote import Remote
    from cloister.cli.terminal import Terminal

__all__ = ["demand_digest", "is_pending", "settled", "wait_option"]

_LABEL = b"cloister/proposal/v1"
_LOOK_EVERY_S = 2.0
_ENDS = {
    "denied": "proposal_denied",
    "expired": "proposal_expired",
    "refused": "proposal_stale",
    "withdrawn": "proposal_withdrawn",
}

wait_option = click.option(
    "--wait", is_flag=True, help="Where a second person has to approve, wait for it; else exit with 6."
)


def is_pending(shown: Any) -> bool:
    """Tell whether an answer is a proposal that waits, not what was asked for."""
    return "proposal" in shown and shown.get("state") == "open"


def settled(terminal: Terminal, remote: Remote, shown: Any, *, wait: bool) -> Any:
    """Return what was asked for: as answered, or once a second person has approved it.

    Raises ``Rejected`` where it came to another end; ends the command with ``EXIT_PENDING`` where nobody waits.
    """
    if not is_pending(shown):
        return shown
    identity = shown["proposal"]
    words = f"not done yet: {identity} waits for a second person until {shown['expires_at']}"
    if not wait:
        terminal.result(dict(shown), lambda out: out.print(words))
        terminal.say(f"they approve it with 'cloister custodian approve {identity}'; then this is done", style="dim")
        raise click.exceptions.Exit(EXIT_PENDING)
    terminal.say(words, style="dim")
    while is_pending(shown):
        time.sleep(_LOOK_EVERY_S)
        shown = remote.get(f"/v1/proposals/{segment(identity)}")
    if shown["state"] != "executed":
        raise _ended(shown)
    terminal.say(f"approved by {shown['decided_by']}", style="dim")
    return shown["result"]


def _ended(shown: Any) -> Rejected:
    """Return the refusal that the end of a proposal is."""
    listed = shown.get("reasons") or []
    found = tuple(
        Reason(code=item["code"], subject=item["subject"], got=item["got"], want=item["want"]) for item in listed
    )
    by = f"{shown['decided_by']}: {shown['reason']}" if shown["reason"] else str(shown["decided_by"])
    state = shown["state"] if shown["state"] in _ENDS else "refused"
    first = Reason(code=_ENDS[state], subject=str(shown["proposal"]), got=by)
    reasons = found or (first,)
    return Rejected(f"not done: {reasons[0]}", reasons=reasons)


def demand_digest(shown: Any, custodian: bytes) -> bytes:
    """Return the digest of a proposal, computed anew from all that it shows: what is approved is what was seen.

    Raises ``Rejected`` (``proposal_changed``) where the custodian says another one.
    """
    request, basis = (dump_json(_plain(shown[name])) for name in ("request", "basis"))
    body = parse_b64u(str(shown["body"]), what="proposal: body")
    parts = (_LABEL, custodian, str(shown["proposal"]).encode(), str(shown["operation"]).encode(), request, body, basis)
    digest = hashlib.sha256(lp(*parts))
    if digest.hexdigest() != shown["digest"]:
        raise Rejected.because("proposal_changed", "proposal", got=str(shown["digest"])[:64], want=digest.hexdigest())
    return digest.digest()


def _plain(value: Any) -> Json:
    if not isinstance(value, dict):
        msg = "proposal: want an object"
        raise Malformed(msg)
    return dict(value)
