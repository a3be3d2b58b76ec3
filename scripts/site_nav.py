"""A hook of mkdocs: ``folder/*`` in the navigation is every page of that folder that nothing else in it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANY = "*"


def on_config(config: Any) -> Any:
    """Put pages in the place of ``folder/*`` before mkdocs reads the navigation."""
    docs = Path(config["docs_dir"])
    config["nav"] = spread(config["nav"], docs, set(_named(config["nav"])))
    return config


def spread(nav: list[Any], docs: Path, named: set[str]) -> list[Any]:
    """Return a navigation without a ``*``."""
    found: list[Any] = []
    for item in nav:
        if isinstance(item, dict):
            found.append(
                {title: spread(part, docs, named) if isinstance(part, list) else part for title, part in item.items()}
            )
        elif item.endswith(_ANY):
            pages = sorted(path.relative_to(docs).as_posix() for path in docs.glob(item + ".md"))
            found += [page for page in pages if page not in named]
        else:
            found.append(item)
    return found


def _named(nav: list[Any]) -> Iterator[str]:
    for item in nav:
        parts = item.values() if isinstance(item, dict) else [item]
        for part in parts:
            if isinstance(part, list):
                yield from _named(part)
            else:
                yield part
