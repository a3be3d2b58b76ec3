"""``cloister ask``: a page in which a person asks a lent model, and sees who can read it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.consumer import consumer_options, whom
from cloister.cli.contract_words import contract_rows
from cloister.cli.duration import DURATION
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.client.verdict import enclave_json
from cloister.errors import UsageError
from cloister.stopping import stop_signals

if TYPE_CHECKING:
    from datetime import timedelta

    from cloister.asking.serve import Entrance
    from cloister.cli.consumer import Whom
    from cloister.serving.door import Door
    from cloister.wire import Json

__all__ = ["ask"]

DEFAULT = "127.0.0.1:8490"
_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.argument("url")
@click.option("--listen", metavar="HOST:PORT", default=DEFAULT, help=f"Where the page is [default {DEFAULT}].")
@click.option("--site", metavar="NAME", help="Let in everybody who comes by this host name, without a link.")
@click.option("--tls-certificate", type=_file, help="Certificate chain to show to browsers, in PEM.")
@click.option("--tls-key", type=_file, help="Its key, in PEM.")
@click.option("--behind-proxy", is_flag=True, help="Another server ends TLS in front: listen without, anywhere.")
@click.option("--receipts", type=click.Path(path_type=Path, file_okay=False), help="Keep every receipt in this folder.")
@click.option("--timeout", type=DURATION, help="How long the enclave may be silent [default 60s].")
@click.option("--ready-file", type=_file, help="Write the address here, as JSON, once listening; never the link.")
@consumer_options
@pass_terminal
def ask(
    terminal: Terminal,
    /,
    *,
    url: str,
    listen: str,
    site: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    receipts: Path | None,
    timeout: timedelta | None,
    ready_file: Path | None,
    **options: Any,
) -> int:
    """Verify the enclave at URL, then show a page in which a person asks it, until ended.

    A browser cannot verify an enclave, so this server does, and decrypts: it reads questions and answers, and keeps
    none on a disk. The page says who else can. The link that is printed lets in one browser, once; SIGUSR1 shows
    another.
    """
    entrance = _entrance(listen, site, tls_certificate, tls_key, behind_proxy=behind_proxy)
    page = _Page(entrance=entrance, receipts=receipts, silence=timeout, ready=ready_file)
    if site is not None:
        terminal.warn(f"everybody who reaches {site} asks at this consumer's cost, and this server reads what they ask")
    asyncio.run(_run(terminal, url, whom(terminal, **options), page))
    return 0


def _entrance(
    listen: str, site: str | None, certificate: Path | None, key: Path | None, *, behind_proxy: bool
) -> Entrance:
    """Return where browsers come in. Raises ``UsageError``, also for one person's page that others could reach."""
    from cloister.asking.serve import Entrance  # noqa: PLC0415 - of no other command
    from cloister.serving.place import is_loopback, parse_place, server_context  # noqa: PLC0415 - the web server's

    if (certificate is None) is not (key is None):
        msg = "ask: want --tls-certificate and --tls-key together"
        raise UsageError(msg)
    tls = None if certificate is None or key is None else server_context(certificate, key, server="ask")
    place = parse_place(listen, encrypted=tls is not None or behind_proxy, server="ask")
    if site is None and (behind_proxy or not is_loopback(place.host)):
        msg = "ask: a page of one person's, where others can reach it"
        raise UsageError(msg, hint="--site NAME opens it to everybody; else listen on 127.0.0.1")
    return Entrance(place=place, site=site, secure=tls is not None or behind_proxy, tls=tls)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """Where the page is, and what lies beside it."""

    entrance: Entrance
    receipts: Path | None
    silence: timedelta | None
    ready: Path | None


async def _run(terminal: Terminal, url: str, found: Whom, page: _Page) -> None:
    from cloister.asking.limits import Limits  # noqa: PLC0415 - as above
    from cloister.asking.serve import serve_ask  # noqa: PLC0415 - as above
    from cloister.cli.page_link import links_on_signal, tell_page  # noqa: PLC0415 - as above
    from cloister.client.proxy.keeping import ReceiptFolder  # noqa: PLC0415 - as above
    from cloister.client.proxy.upstream import Upstream  # noqa: PLC0415 - as above
    from cloister.client.wire import DEFAULT_TIMEOUT  # noqa: PLC0415 - as above

    limits, stop = Limits(), asyncio.Event()
    folder = None if page.receipts is None else ReceiptFolder(page.receipts)
    upstream = await Upstream.verify(
        url,
        found.trust,
        max_response_bytes=limits.max_response_bytes,
        timeout=page.silence or DEFAULT_TIMEOUT,
        **found.arguments,
    )
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(upstream)
        stack.enter_context(stop_signals(stop))
        upstream.receipts = folder

        def tell(address: str, door: Door) -> None:
            enclave = upstream.enclave
            said: dict[str, Json] = {
                "enclave": enclave_json(enclave),
                "receipts": None if folder is None else str(folder.folder),
            }
            tier = enclave.result.tier.value
            words = [f"verified: {enclave.result.tee}, tier {tier}, instance {enclave.instance[:16]}"]
            tell_page(terminal, address, door, said=said, words=words, ready=page.ready)
            if not door.is_open:
                stack.enter_context(links_on_signal(asyncio.get_running_loop(), terminal, address, door))

        await serve_ask(
            upstream,
            page.entrance,
            way=found.way,
            contract_rows=contract_rows,
            limits=limits,
            stop=stop,
            on_listening=tell,
        )
