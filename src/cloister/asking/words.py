"""What a refusal means to whoever asked, by its code (docs/reference/enclave-api.md, "Errors")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.serving.problems import code_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Told", "told_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A refusal in words: what it is, what to do, and its code."""

    title: str
    advice: str
    code: str
    detail: str


_OUTPUT = "The contract does not show what was asked for."
_ALLOWED = "Ask whoever gave you access."
_LATER = "Try again in a moment."
_WORDS: Mapping[str, tuple[str, str]] = {
    "allowance_exhausted": ("Nothing is left to ask with", "Wait for more units, or come back later."),
    "blocked": ("This model is blocked", "Its owner has stopped it. Nothing you do changes that."),
    "budget_spent": ("Your units of this time are used up", "More come as time goes by."),
    "busy": ("Too many questions at once", "Wait for an answer, then ask again."),
    "consumer_stopped": (
        "Stopped after an alarm",
        "The contract's watch on how questions are spread stopped you here.",
    ),
    "draining": ("The enclave is closing down", _LATER),
    "engine_failed": ("The model could not answer this", "Nothing was charged. Look at what you gave it."),
    "form_foreign": ("That form was not of this page", "Load the page anew, and ask again."),
    "host_not_allowed": ("That is not this page's address", "Open the address that the terminal shows."),
    "input": ("What you gave does not fit the model", "See below what it wants."),
    "lease_expired": ("The enclave may not answer now", "It could not renew its lease with the custodian. " + _LATER),
    "link_used": ("This link was used already", "Each link lets in one browser. The terminal can show another."),
    "not_found": ("There is nothing here", "Answers are kept for a quarter of an hour."),
    "output_withheld": ("This output is not shown", _OUTPUT),
    "outside_hours": ("Not at this hour", "The contract says when questions are answered."),
    "payload_too_large": ("That is too large", "Give a smaller picture, or fewer rows or values."),
    "rate_limited": ("Too fast", "Ask again a little later."),
    "readers_changed": ("Who can read this has changed", "Nothing was sent. Look at the panel, then ask again."),
    "signed_out": ("You are not signed in", "Open the link that the terminal shows."),
    "too_large": ("That is too large", "Give a smaller picture, or fewer rows or values."),
    "too_many_requests": ("Too many questions", "Wait a minute."),
    "unauthorized": ("This page may not ask", "Its token is not one of the loan's. " + _ALLOWED),
    "unknown_model": ("There is no such model", "Choose one of those above."),
}


def told_of(error: CloisterError) -> Told:
    """Return an error in words; one that is not known by its code is told as it stands."""
    code = code_of(error)
    title, advice = _WORDS.get(code, ("", ""))
    if title:
        return Told(title=title, advice=advice, code=code, detail=error.message)
    detail = error.message if error.hint is None else f"{error.message} ({error.hint})"
    match error:
        case UsageError():
            return Told(title="That cannot be asked", advice=error.hint or "", code=code, detail=error.message)
        case Unavailable():
            return Told(
                title="No answer", advice="The enclave or its custodian is away. " + _LATER, code=code, detail=detail
            )
        case Malformed():
            return Told(title="Something is out of form", advice="What came is not taken.", code=code, detail=detail)
        case Rejected():
            return Told(title="Refused", advice=error.hint or _ALLOWED, code=code, detail=detail)
        case _:
            return Told(title="Something went wrong here", advice=_LATER, code=code, detail="")
