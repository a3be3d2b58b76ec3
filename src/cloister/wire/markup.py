"""HTML made of tags and text: text is escaped by being text, so that no claim of anybody's becomes markup."""

from __future__ import annotations

import html

from cloister.wire.fields import STEERING

__all__ = ["Html", "joined", "tag"]


class Html(str):
    """Markup that ``tag`` made. Everything else is text."""

    __slots__ = ()


def _escaped(child: str) -> str:
    """Return markup as it is, and text so that a browser shows it: marks that steer it are shown as one that cannot."""
    if isinstance(child, Html):
        return child
    return html.escape(STEERING.sub(lambda found: found[0] if found[0] == "\n" else "\N{REPLACEMENT CHARACTER}", child))


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """Return an element. ``class_`` and ``for_`` lose their underscore; other underscores are dashes."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"' for key, value in attributes.items())
    if name in {"input", "meta"}:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{''.join(map(_escaped, children))}</{name}>")


def joined(*children: str) -> Html:
    """Return elements behind each other."""
    return Html("".join(map(_escaped, children)))
