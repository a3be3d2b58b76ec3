"""The box that everything stands in, and the parts it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.wire.markup import Html, joined, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["box", "details", "facts", "loud", "short", "table"]

# Everything inherits the notebook's own colours: a theme of Jupyter need not be the one of the reader's system.
_STYLE = Html(
    "<style>"
    ".cloister{border:1px solid #8886;border-left:.4rem solid #888;padding:.4rem .8rem;margin:.3rem 0;max-width:64rem}"
    ".cloister table{border-collapse:collapse;margin:.4rem 0}"
    ".cloister th,.cloister td{border-bottom:1px solid #8884;padding:.2rem .6rem;text-align:left;vertical-align:top;"
    "overflow-wrap:anywhere;background:none;color:inherit}"
    ".cloister .loud{background:#b3261e;color:#fff;font-weight:700;padding:.3rem .6rem}"
    ".cloister .title{font-weight:700}"
    ".cloister .failed{font-weight:700}"
    ".cloister summary{cursor:pointer}"
    "</style>"
)
_SHORT = 16  # characters of a digest that tell it from others at a glance


def box(title: str, *parts: str, warning: str = "") -> Html:
    """Return one box with its title; ``warning`` stands first, loud."""
    heads = [loud(warning)] if warning else []
    return tag("div", _STYLE, *heads, tag("div", title, class_="title"), *parts, class_="cloister")


def loud(text: str) -> Html:
    """Return what nobody may overlook; it reads as a warning without its style too."""
    return tag("div", tag("strong", f"⚠ {text}"), class_="loud", role="alert")


def facts(rows: Iterable[tuple[str, str]]) -> Html:
    """Return names and values, one pair a line."""
    pairs = (tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in rows)
    return tag("table", tag("tbody", *pairs))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """Return a table with a head."""
    head = tag("tr", *(tag("th", name, scope="col") for name in heads))
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    return tag("table", tag("thead", head), tag("tbody", *body))


def details(summary: str, *parts: str) -> Html:
    """Return what is folded away until somebody wants it."""
    return tag("details", tag("summary", summary), *parts)


def short(digest: str) -> Html:
    """Return the start of a digest, all of it for whoever points at it."""
    return joined(digest) if len(digest) <= _SHORT else tag("code", f"{digest[:_SHORT]}…", title=digest)
