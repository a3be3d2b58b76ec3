"""``cloister enclave top``: what an enclave tells on its own host, live."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click
import httpx2

from cloister.cli.answers import Answer, whole
from cloister.cli.consoles.asking import Source, run
from cloister.cli.consoles.doc import Doc
from cloister.cli.consoles.enclave_view import EnclaveView, Inside
from cloister.cli.consoles.scrape import parse_look
from cloister.cli.consoles.screen import glyphs_of
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.client.trust_file import is_loopback, parse_origin
from cloister.errors import Malformed, Unavailable, UsageError
from cloister.telemetry.listener import read_metrics_token
from cloister.wire import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from cloister.cli.consoles.feed import Standing
    from cloister.cli.consoles.screen import View, Wake

__all__ = ["top"]

_file = click.Path(path_type=Path, dir_okay=False)
_DEFAULT_URL = "http://127.0.0.1:8440"
_TIMEOUT_S = 10.0
_OK, _UNREADY = 200, 503


@click.command(cls=Verb)
@click.option(
    "--ready-file", type=_file, help="The file that 'enclave serve --ready-file' wrote: it says both addresses."
)
@click.option("--url", help=f"Where the enclave is [default {_DEFAULT_URL}].")
@click.option("--metrics", metavar="HOST:PORT", help="Where it shows its metrics; or their URL.")
@click.option("--metrics-token-file", type=_file, help="File with the token a scraper shows (mode 0600).")
@click.option("--ca", type=_file, help="PEM file of the enclave's TLS authority.")
@click.option("--once", is_flag=True, help="Print one frame and end.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@pass_terminal
def top(
    terminal: Terminal,
    /,
    *,
    ready_file: Path | None,
    url: str | None,
    metrics: str | None,
    metrics_token_file: Path | None,
    ca: Path | None,
    once: bool,
    interval: float,
) -> None:
    """Show an enclave live, for the borrower on its host: lease, models, speed, queue, refusals.

    Asks for what the enclave shows to anybody there: /readyz and its metrics. Needs no token of the custodian's.
    """
    told = {} if ready_file is None else _told(ready_file)
    place = parse_origin(url or told.get("url") or _DEFAULT_URL)
    metrics = metrics or told.get("metrics")
    if metrics is not None and "://" not in metrics:
        metrics = f"http://{metrics}/metrics"
    token = None if metrics_token_file is None else read_metrics_token(metrics_token_file)
    glyphs, every = glyphs_of(terminal), timedelta(seconds=interval)
    source = Source(connect=lambda: _Host(place, metrics, token=token, ca=ca), ask=_Host.ask, interval=every)

    def view(standing: Callable[[], Standing[Inside]], wake: Wake | None) -> View:
        return EnclaveView(standing, where=place, glyphs=glyphs, interval=every, keys=wake is not None)

    run(terminal, source, view, once=once)


class _Host:
    """Connections to one enclave's outer resources. On loopback no certificate is looked at: it is told nothing."""

    def __init__(self, url: str, metrics: str | None, *, token: str | None, ca: Path | None) -> None:
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as exc:
            msg = f"{ca}: no certificate in pem"
            raise UsageError(msg) from exc
        if ca is None and is_loopback(url):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._url, self._metrics = url, metrics
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._client = httpx2.Client(verify=context, timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._client.close()

    def ask(self) -> Inside:
        """Return what the enclave tells now. Raises ``Unavailable`` and ``Malformed``."""
        ready = self._get(f"{self._url}/readyz", {})
        if ready.status not in {_OK, _UNREADY}:
            msg = f"enclave {self._url}: /readyz answered {ready.status}"
            raise Malformed(msg, hint="is this an enclave?")
        doc, now = Doc(parse_json(ready.content, what="enclave's answer")), datetime.now(UTC)
        checks = [(one.text("name"), one.text("state"), one.text("code")) for one in doc.docs("checks")]
        look = None if self._metrics is None else parse_look(self._page(self._metrics), at=now)
        return Inside(at=now, state=doc.text("state"), checks=tuple(checks), look=look)

    def _page(self, url: str) -> bytes:
        page = self._get(url, self._headers)
        if page.status != _OK:
            msg = f"metrics {url}: answered {page.status}"
            raise UsageError(msg, hint="pass --metrics-token-file" if page.status == 401 else None)  # noqa: PLR2004
        return page.content

    def _get(self, url: str, headers: dict[str, str]) -> Answer:
        try:
            with self._client.stream("GET", url, headers={**headers, "accept-encoding": "identity"}) as answer:
                return whole(answer)
        except httpx2.InvalidURL as exc:
            msg = f"{url[:80]!r}: no address"
            raise UsageError(msg) from exc
        except httpx2.HTTPError as exc:
            msg = f"enclave {url}: {type(exc).__name__.lower()}"
            raise Unavailable(msg, hint="is it running? see 'cloister enclave serve'") from exc


def _told(path: Path) -> dict[str, str]:
    """Return the addresses in a ready file. Raises ``UsageError``."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        msg = f"{path}: no ready file"
        raise UsageError(msg, hint="'cloister enclave serve --ready-file' writes it once it serves") from exc
    found = value if isinstance(value, dict) else {}
    return {name: found[name] for name in ("url", "metrics") if isinstance(found.get(name), str)}
