"""``cloister relay``: an Oblivious HTTP relay, so that a gateway does not learn who asks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from cloister.cli.metrics_options import metrics_options, metrics_place
from cloister.cli.terminal import Terminal, Verb, pass_terminal, write_file
from cloister.errors import UsageError
from cloister.heap import settle_heap
from cloister.stopping import stop_signals

__all__ = ["relay"]

DEFAULT = "127.0.0.1:8480"
_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.option("--gateway", metavar="URL", required=True, help="Address of the one enclave to relay to. Required.")
@click.option("--listen", metavar="HOST:PORT", default=DEFAULT, help=f"Where clients come in [default {DEFAULT}].")
@click.option("--tls-certificate", type=_file, help="Certificate chain to show to clients, in PEM.")
@click.option("--tls-key", type=_file, help="Its key, in PEM.")
@click.option("--behind-proxy", is_flag=True, help="Another server ends TLS in front: listen without, anywhere.")
@click.option(
    "--gateway-ca", type=_file, help="Authorities of the gateway's certificate, in PEM [default the system's]."
)
@click.option(
    "--gateway-peer",
    "peers",
    metavar="SPIFFE-ID",
    multiple=True,
    help="Who the gateway must be by a certificate below --gateway-ca, such as spiffe://DOMAIN/enclave; repeatable.",
)
@click.option("--gateway-certificate", type=_file, help="Certificate of our own to show to the gateway, in PEM.")
@click.option("--gateway-key", type=_file, help="Its key, in PEM and mode 0600 [default in the same file].")
@click.option(
    "--custodian", metavar="URL", help="Renew --gateway-certificate by showing it there, halfway through its life."
)
@click.option("--custodian-ca", type=_file, help="Authority of the custodian's server, in PEM [default the system's].")
@click.option("--ready-file", type=_file, help="Write the address here, as JSON, once listening.")
@metrics_options
@pass_terminal
def relay(
    terminal: Terminal,
    /,
    *,
    gateway: str,
    listen: str,
    tls_certificate: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    gateway_ca: Path | None,
    peers: tuple[str, ...],
    gateway_certificate: Path | None,
    gateway_key: Path | None,
    custodian: str | None,
    custodian_ca: Path | None,
    ready_file: Path | None,
    metrics: str | None,
    metrics_token_file: Path | None,
) -> int:
    """Pass encapsulated requests on to one enclave, without a trace of who sent them, until ended.

    The enclave then sees the relay's address alone, and the relay sees ciphertext alone. That hides consumers only from
    a borrower who does not run the relay too.
    """
    from cloister.relay.gateway import gateway_tls_of, parse_gateway, renewal_of  # noqa: PLC0415 - of no other command
    from cloister.relay.limits import Limits  # noqa: PLC0415 - the same
    from cloister.relay.serve import serve_relay  # noqa: PLC0415 - the same
    from cloister.serving.place import parse_place, server_context  # noqa: PLC0415 - brings the web server along

    if (tls_certificate is None) is not (tls_key is None):
        msg = "relay: want --tls-certificate and --tls-key together"
        raise UsageError(msg)
    tls = (
        None if tls_certificate is None or tls_key is None else server_context(tls_certificate, tls_key, server="relay")
    )
    place = parse_place(listen, encrypted=tls is not None or behind_proxy, server="relay")
    shown = metrics_place(metrics, metrics_token_file)
    origin = parse_gateway(gateway)
    gateway_tls = gateway_tls_of(
        origin, peers, authorities=gateway_ca, certificate=gateway_certificate, key=gateway_key
    )

    renewal = renewal_of(
        custodian, ca=custodian_ca, certificate=gateway_certificate, key=gateway_key, authorities=gateway_ca
    )

    def tell(address: str) -> None:
        settle_heap()
        said = {"address": address, "gateway": origin}
        if ready_file is not None:
            write_file(ready_file, json.dumps(said).encode(), force=True)
        terminal.result(said, lambda out: out.print(f"listening on {address}\nrelaying to {origin}"))

    async def run() -> None:
        stop = asyncio.Event()
        with stop_signals(stop):
            await serve_relay(
                origin, place,
                limits=Limits(), tls=tls, gateway_tls=gateway_tls, stop=stop, on_listening=tell, metrics=shown,
                renewal=renewal,
            )  # fmt: skip

    asyncio.run(run())
    return 0
