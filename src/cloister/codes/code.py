"""What a code is: a word for one thing that can be wrong, which never changes its meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

__all__ = ["Chapter", "Code", "Fault", "Who", "plain"]

_LINK = re.compile(r"\[([^\]]*)\]\(([^)#]*)(#[^)]*)?\)")


class Fault(Enum):
    """Where a code is met; the value is the exit code of a command that ends with it, or why there is none."""

    USAGE = "2"
    MALFORMED = "3"
    REJECTED = "4"
    UNAVAILABLE = "5"
    INTERNAL = "1"
    NOTE = "none (a note in a verdict, never a refusal)"
    HEALTH = "none (a check of `/readyz` and `/healthz`)"
    ALARM = "none (an alarm; 4 with `cloister alerts --fail`)"


class Who(Enum):
    """Who can do something about it, or the first to ask."""

    CALLER = "whoever ran the command or sent the request"
    CUSTODIAN = "the custodian"
    BORROWER = "the borrower, who runs the enclave"
    CONSUMER = "the consumer"
    MAKER = "whoever made or exported the model"
    VENDOR = "the maker of the hardware or its firmware"
    NOBODY = "nobody has to do anything"
    CLOISTER = "those who maintain Cloister"


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """One code. ``cause`` and ``fix`` are Markdown with links from docs/reference/; ``example`` is what is shown.

    ``anchor`` is where the docs have it, where that is no heading of its own.
    """

    name: str
    cause: str
    fix: str
    who: Who
    example: str
    fault: Fault = Fault.REJECTED
    anchor: str = ""

    @property
    def urn(self) -> str:
        """Return the ``type`` of problem documents (RFC 9457 section 3.1.1): a name, not a place."""
        return f"urn:cloister:problem:{self.name}"

    @property
    def place(self) -> str:
        """Return where the docs have it."""
        return f"docs/reference/errors.md#{self.anchor or self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """Codes that are met in one place. ``about`` is Markdown."""

    title: str
    about: str
    codes: tuple[Code, ...]


def plain(text: str) -> str:
    """Return Markdown as a terminal shows it: a link as its words and the page."""
    return _LINK.sub(_spelled, text).replace("`", "'")


def _spelled(found: re.Match[str]) -> str:
    page = found[2].removeprefix("../")
    return f"{found[1]} (docs/{page if found[2].startswith('../') else f'reference/{page}'})" if page else found[1]
