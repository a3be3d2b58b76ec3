"""Templates: always escaped, strict about names, with filters for times, numbers and digests."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cloister.pages import charts
from cloister.pages.moments import clock_filter, life_filter, when_filter
from cloister.wire import STEERING
from cloister.wire.markup import Html

__all__ = ["environment"]

_FOLDER = Path(__file__).parent / "templates"
_SHORT = 12  # characters of a digest that tell it from others at a glance


def environment(*folders: Path) -> Environment:
    """Return the environment over ``folders``, the first that has a name first, and the room's own templates."""
    made = Environment(
        loader=FileSystemLoader([*folders, _FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        {"clock": clock_filter, "life": life_filter, "number": number, "short": short, "when": when_filter}
    )
    made.globals["charts"] = charts
    return made


def _shown(value: object) -> object:
    """Return text so that a browser shows it: marks that steer a reader's eye are shown as one that cannot."""
    if isinstance(value, Html):
        return Markup(value)  # noqa: S704 - made of tags and escaped text (wire.markup)
    if isinstance(value, str) and not isinstance(value, Markup):
        return _unsteered(value)
    return value


def _unsteered(text: str) -> str:
    return STEERING.sub(lambda found: found[0] if found[0] in "\n\t" else "\N{REPLACEMENT CHARACTER}", text)


def number(value: int) -> str:
    """Return a number of units with its thousands apart."""
    return f"{value:,}"


def short(digest: str) -> Markup:
    """Return the first characters of a digest, with the whole one to be read and copied."""
    digest = _unsteered(digest)
    if len(digest) <= _SHORT:
        return Markup('<code class="id">{}</code>').format(digest)
    return Markup('<code class="id" title="{}">{}\N{HORIZONTAL ELLIPSIS}</code>').format(digest, digest[:_SHORT])
