"""``cloister proxy``: a door on this machine for programs that speak the inference protocol."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.consumer import Whom, consumer_options, whom
from cloister.cli.duration import DURATION
from cloister.cli.metrics_options import metrics_options, metrics_place
from cloister.cli.terminal import Terminal, Verb, pass_terminal, write_file
from cloister.client.verdict import enclave_json
from cloister.errors import UsageError
from cloister.heap import settle_heap
from cloister.journal import Secret

if TYPE_CHECKING:
    from datetime import timedelta

    from rich.console import Console

    from cloister.client.proxy.address import Address
    from cloister.client.proxy.upstream import Upstream
    from cloister.telemetry.listener import MetricsPlace
    from cloister.wire import Json

__all__ = ["proxy"]

DEFAULT = "127.0.0.1:8470"
_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.argument("url")
@click.option("--listen", metavar="HOST:PORT", help="Address of this machine alone [default 127.0.0.1:8470].")
@click.option("--unix-socket", type=_file, help="Listen on this socket instead, of mode 0600; it needs no local token.")
@click.option(
    "--local-token-file",
    type=_file,
    help="File with the token that programs show; made where it is not [default ~/.local/state/cloister/proxy.token].",
)
@click.option("--grpc", metavar="HOST:PORT", help="Serve gRPC too, at this address of this machine alone.")
@click.option("--grpc-socket", type=_file, help="Serve gRPC too, on this socket of mode 0600, without a local token.")
@click.option("--receipts", type=click.Path(path_type=Path, file_okay=False), help="Keep every receipt in this folder.")
@click.option("--timeout", type=DURATION, help="How long the enclave may be silent [default 60s].")
@click.option("--ready-file", type=_file, help="Write addresses and files here, as JSON, once listening.")
@metrics_options
@consumer_options
@pass_terminal
def proxy(
    terminal: Terminal,
    /,
    *,
    url: str,
    listen: str | None,
    unix_socket: Path | None,
    local_token_file: Path | None,
    grpc: str | None,
    grpc_socket: Path | None,
    receipts: Path | None,
    timeout: timedelta | None,
    ready_file: Path | None,
    metrics: str | None,
    metrics_token_file: Path | None,
    **options: Any,
) -> int:
    """Verify the enclave at URL, then pass on to it what programs of this machine ask, encrypted, until ended.

    It does not start unverified, and passes nothing on while it is not verified. Answers come back once their
    receipts are proven. The consumer's token stays here; programs show a token of this machine's own.
    """
    import uvloop  # noqa: PLC0415 - of no other command of a consumer's

    from cloister.client.proxy.address import parse_address  # noqa: PLC0415 - of no other command
    from cloister.client.proxy.token import default_token_file, open_token  # noqa: PLC0415 - the same

    where = _place(listen, unix_socket, "--listen or --unix-socket") or parse_address(DEFAULT)
    calls = _place(grpc, grpc_socket, "--grpc or --grpc-socket")
    if calls is not None:
        from cloister.client.proxy.serve import demand_grpc  # noqa: PLC0415 - the same

        demand_grpc()
    token_path = None
    if not isinstance(where, Path) or (calls is not None and not isinstance(calls, Path)):
        token_path = local_token_file or default_token_file(os.environ)
    token = None if token_path is None else Secret(open_token(token_path))
    shown = metrics_place(metrics, metrics_token_file)
    place = _Place(
        where=where, grpc=calls, token_path=token_path, token=token, receipts=receipts, ready=ready_file, metrics=shown
    )
    uvloop.run(_run(terminal, url, whom(terminal, **options), place, timeout))
    return 0


def _place(address: str | None, path: Path | None, names: str) -> Address | Path | None:
    """Return where to listen, None where nothing is said. Raises ``UsageError`` for both."""
    from cloister.client.proxy.address import parse_address  # noqa: PLC0415 - as above

    if address is not None and path is not None:
        msg = f"proxy: want {names}, not both"
        raise UsageError(msg)
    return path.absolute() if path is not None else (None if address is None else parse_address(address))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where programs come in, and what lies beside it."""

    where: Address | Path
    grpc: Address | Path | None
    token_path: Path | None
    token: Secret[str] | None
    receipts: Path | None
    ready: Path | None
    metrics: MetricsPlace | None


async def _run(terminal: Terminal, url: str, found: Whom, place: _Place, silence: timedelta | None) -> None:
    from cloister.client.proxy.keeping import ReceiptFolder  # noqa: PLC0415 - as above
    from cloister.client.proxy.limits import Limits  # noqa: PLC0415 - as above
    from cloister.client.proxy.serve import serve_proxy  # noqa: PLC0415 - as above
    from cloister.client.proxy.upstream import Upstream  # noqa: PLC0415 - as above
    from cloister.client.wire import DEFAULT_TIMEOUT  # noqa: PLC0415 - as above

    limits = Limits()
    folder = None if place.receipts is None else ReceiptFolder(place.receipts)
    upstream = await Upstream.verify(
        url,
        found.trust,
        max_response_bytes=limits.max_response_bytes,
        timeout=silence or DEFAULT_TIMEOUT,
        **found.arguments,
    )
    async with upstream:
        upstream.receipts = folder
        await serve_proxy(
            upstream,
            place.where,
            grpc=place.grpc,
            token=None if place.token is None else place.token.reveal(),
            limits=limits,
            metrics=place.metrics,
            on_listening=lambda address, target: _tell(terminal, upstream, place, address, target),
        )


def _tell(terminal: Terminal, upstream: Upstream, place: _Place, address: str, target: str | None) -> None:
    """Say where it listens and what a program needs; never the token itself."""
    settle_heap()
    token_file = None if place.token_path is None else str(place.token_path)
    said: dict[str, Json] = {
        "address": address,
        "enclave": enclave_json(upstream.enclave),
        "grpc": target,
        "receipts": None if place.receipts is None else str(place.receipts),
        "token_file": token_file,
    }
    if place.ready is not None:
        write_file(place.ready, json.dumps(said).encode(), force=True)

    def draw(out: Console) -> None:
        enclave = upstream.enclave
        out.print(f"verified: {enclave.result.tee}, tier {enclave.result.tier.value}, instance {enclave.instance[:16]}")
        out.print(f"listening on {address}")
        if target is not None:
            out.print(f"grpc on {target}")
        if token_file is not None:
            out.print(f"local token: {token_file}")
        if place.receipts is not None:
            out.print(f"receipts: {place.receipts}")

    terminal.result(said, draw)
