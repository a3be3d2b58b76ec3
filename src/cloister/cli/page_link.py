"""What the commands share that serve a page for one person: where it listens, and the link that lets a browser in.

The link goes to the terminal and nowhere else: to no log, no file. ``SIGUSR1`` shows another, for another browser.
"""

from __future__ import annotations

import contextlib
import json
import signal
from typing import TYPE_CHECKING

from cloister.cli.terminal import write_file

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.cli.terminal import Terminal
    from cloister.serving.door import Door
    from cloister.wire import Json

__all__ = ["links_on_signal", "tell_page"]


def tell_page(
    terminal: Terminal, address: str, door: Door, *, said: dict[str, Json], words: list[str], ready: Path | None
) -> None:
    """Say where the page is and, unless its door is open, the link that lets one browser in."""
    if ready is not None:
        write_file(ready, json.dumps({**said, "address": address}).encode(), force=True)
    link = None if door.is_open else f"{address}{door.new_link()}"
    shown: Json = {**said, "address": address, "link": link}
    last = f"open {address}/" if link is None else f"open once, within 15 minutes: {link}"
    terminal.result(shown, lambda out: out.print("\n".join([*words, last])))


@contextlib.contextmanager
def links_on_signal(loop: asyncio.AbstractEventLoop, terminal: Terminal, address: str, door: Door) -> Iterator[None]:
    """Show a new link whenever the process gets ``SIGUSR1``."""

    def show() -> None:
        terminal.out.print(f"open once, within 15 minutes: {address}{door.new_link()}")

    loop.add_signal_handler(signal.SIGUSR1, show)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
