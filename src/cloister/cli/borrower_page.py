"""``cloister borrower page``: a page on which a borrower sees its loan and its enclave, and asks for more."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.contract_words import contract_rows
from cloister.cli.remote import from_loan_file
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.enclave.loanfile import read_loan_file
from cloister.errors import Malformed, Unavailable, UsageError
from cloister.stopping import stop_signals

if TYPE_CHECKING:
    from cloister.borrowing.books import Custodian
    from cloister.borrowing.host import Operator
    from cloister.enclave.loanfile import LoanFile
    from cloister.lending.contract import Contract
    from cloister.serving.door import Door
    from cloister.serving.place import Place

__all__ = ["page"]

DEFAULT = "127.0.0.1:8460"
_MAX_BYTES = 4 << 20
_TIMEOUT_S = 5.0
_READY = frozenset({200, 503})
_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.option("--loan-file", type=_file, required=True, help="The loan file the custodian gave you.")
@click.option("--listen", metavar="HOST:PORT", default=DEFAULT, help=f"Address of this machine [default {DEFAULT}].")
@click.option("--enclave", metavar="URL", help="Where the enclave on this machine serves: its health is shown too.")
@click.option("--metrics", metavar="URL", help="Where its metrics are, if at an address of their own: load and models.")
@click.option("--ready-file", type=_file, help="Write the address here, as JSON, once listening; never the link.")
@pass_terminal
def page(
    terminal: Terminal,
    /,
    *,
    loan_file: Path,
    listen: str,
    enclave: str | None,
    metrics: str | None,
    ready_file: Path | None,
) -> int:
    """Show a page about the loan: what is left, who uses it, how the enclave stands, and a form for more.

    On this machine alone. The token in the loan file stays in this server. The link that is printed lets in one
    browser, once; SIGUSR1 shows another.
    """
    from cloister.serving.place import is_loopback, parse_place  # noqa: PLC0415 - brings the web server along

    place = parse_place(listen, encrypted=True, server="borrower page")  # who may come is decided below
    if not is_loopback(place.host):
        msg = "borrower page: listening beyond this machine"
        raise UsageError(msg, hint="listen on 127.0.0.1, and come by ssh -L from elsewhere")
    if metrics is not None and enclave is None:
        msg = "borrower page: --metrics goes with --enclave"
        raise UsageError(msg)
    operator = None if enclave is None else _OnThisHost(enclave, metrics)
    connection, _ = from_loan_file(loan_file)
    with connection as remote:
        asyncio.run(_run(terminal, remote, read_loan_file(loan_file), operator, place, ready_file))
    return 0


async def _run(  # noqa: PLR0917 - each is one thing
    terminal: Terminal, remote: Custodian, loan: LoanFile, operator: Operator | None, place: Place, ready: Path | None
) -> None:
    from cloister.borrowing.books import Books  # noqa: PLC0415 - of no other command
    from cloister.borrowing.host import Host  # noqa: PLC0415 - the same
    from cloister.borrowing.serve import serve_borrower  # noqa: PLC0415 - the same
    from cloister.cli.page_link import links_on_signal, tell_page  # noqa: PLC0415 - the same

    stop = asyncio.Event()
    books = Books(remote, loan=loan.loan, custodian_key=loan.custodian_key, clock=_now)
    await books.read()  # a loan that cannot be read is said now, and on no page
    with contextlib.ExitStack() as stack:
        stack.enter_context(stop_signals(stop))

        def tell(address: str, door: Door) -> None:
            tell_page(terminal, address, door, said={"loan": loan.loan}, words=[f"loan {loan.loan}"], ready=ready)
            stack.enter_context(links_on_signal(asyncio.get_running_loop(), terminal, address, door))

        await serve_borrower(
            books, Host(operator), place, clock=_now, contract_rows=_rows, stop=stop, on_listening=tell
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _rows(found: Contract) -> list[tuple[str, str]]:
    listed = found.terms.consumers
    return contract_rows(found, None if listed is None else tuple(consumer.id for consumer in listed))


class _OnThisHost:
    """Reads what the enclave shows on this host, in the clear or under whatever certificate it has made itself."""

    def __init__(self, enclave: str, metrics: str | None) -> None:
        """Read at these addresses. Raises ``UsageError`` for those of another machine."""
        from cloister.client.trust_file import is_loopback, parse_origin  # noqa: PLC0415 - of this alone

        self._enclave = parse_origin(enclave)
        self._metrics = None if metrics is None else parse_origin(metrics.removesuffix("/metrics"))
        for url in (self._enclave, self._metrics):
            if url is not None and not is_loopback(url):
                msg = f"borrower page: {url}: want an address of this machine"
                raise UsageError(msg)

    def ready(self) -> bytes:
        """Return the body of ``/readyz``. Raises ``Unavailable``."""
        return self._get(f"{self._enclave}/readyz", _READY)

    def metrics(self) -> bytes | None:
        """Return the text of ``/metrics``. Raises ``Unavailable``."""
        return None if self._metrics is None else self._get(f"{self._metrics}/metrics", frozenset({200}))

    def _get(self, url: str, statuses: frozenset[int]) -> bytes:
        import httpx2  # noqa: PLC0415 - of this alone

        data = bytearray()
        try:
            # Nothing is proven here, whatever the certificate: this machine's administrator answers.
            with (
                httpx2.Client(timeout=_TIMEOUT_S, trust_env=False, verify=False) as client,
                client.stream("GET", url) as answer,
            ):
                if answer.status_code not in statuses:
                    msg = f"enclave here: {url}: status {answer.status_code}"
                    raise Unavailable(msg)
                for part in answer.iter_bytes():
                    data += part
                    if len(data) > _MAX_BYTES:
                        msg = f"enclave here: {url}: more than {_MAX_BYTES} bytes"
                        raise Malformed(msg)
        except httpx2.HTTPError as exc:
            msg = f"enclave here: {url}: {type(exc).__name__.lower()}"
            raise Unavailable(msg, hint="is it running? see 'cloister enclave serve'") from exc
        return bytes(data)
