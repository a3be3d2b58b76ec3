"""Certificates where tenants share a listener: each believes its own authority, and nobody learns who is there."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from typing import TYPE_CHECKING

import httpx
import pytest
from custodian_kit import STATEMENT
from mtls_kit import Identity, MovedClock, certified
from tenant_kit import HostBench

from cloister.custodian.serve import _Server, _uvicorn_config, bind, prepare_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from custodian_kit import Toy


@contextlib.contextmanager
def _listening(folder: Path) -> Iterator[tuple[HostBench, str, str]]:
    """Serve a host on a real socket, in a thread; yield it with its address and its authority."""
    bench = HostBench(folder, port=0, mtls="require")
    bench.close()
    bench.clock = MovedClock()  # type: ignore[assignment] # goes by itself
    bench.open_only()
    host = bench.host
    tls = prepare_tls(host.book, bench.home, host.client_authorities)
    assert tls is not None
    host.watching.append(tls.refresh)
    ca_pem = (bench.home / "tls" / "ca.pem").read_text()
    with contextlib.closing(bind(host.config)) as listener:
        url = f"https://localhost:{listener.getsockname()[1]}"
        host.url = url
        server = _Server(_uvicorn_config(host.config, host, tls), host)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            with _client(url, ca_pem) as client:
                bench.client = client  # type: ignore[assignment] # over a socket
                yield bench, url, ca_pem
        finally:
            server.should_exit = True
            thread.join()


def _client(url: str, ca_pem: str, identity: Identity | None = None) -> httpx.Client:
    context = ssl.create_default_context(cadata=ca_pem)
    if identity is not None:
        identity.load(context)
    return httpx.Client(base_url=url, verify=context, timeout=30)


def _lease(client: httpx.Client, tenant: str, toy: Toy) -> tuple[int, str]:
    path = f"/t/{tenant}/v1/instances/{toy.id}/lease"
    answer = client.post(path, content=toy.request(), headers=STATEMENT)
    return answer.status_code, "" if answer.is_success else answer.json()["code"]


@pytest.mark.timeout(300)
def test_a_certificate_of_one_tenant_opens_nothing_of_anothers_and_tells_not_who_is_there(tmp_path: Path) -> None:
    with _listening(tmp_path) as (bench, url, ca_pem):
        north, south = bench.tenant("north"), bench.tenant("south")
        ours, theirs = north.lend().boot(), south.lend().boot()
        own = certified(ours)
        assert _lease(bench.client, "north", ours) == (403, "certificate_wanted")  # type: ignore[arg-type] # a client
        with _client(url, ca_pem, own) as client:
            assert _lease(client, "north", ours) == (200, "")
            assert _lease(client, "south", theirs) == (403, "wrong_peer")
            assert _lease(client, "south", ours) == (403, "wrong_peer")
            assert _lease(client, "nobody", ours) == (403, "wrong_peer"), "a tenant that is not there is no other"
        assert _lease(bench.client, "nobody", ours) == (403, "certificate_wanted")  # type: ignore[arg-type] # a client
        with _client(url, ca_pem, certified(theirs)) as client:
            assert _lease(client, "south", theirs) == (200, ""), "believed as soon as it was made"
