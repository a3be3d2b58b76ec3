"""Evidence is made by a stranger: what it makes a custodian ask is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest

from cloister.attest.endorse import FirstOf, Given, fetch
from cloister.attest.endorse.names import nvidia_rim
from cloister.errors import Unavailable
from endorse_kit import NOW, RIM, VendorServices, online

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Silent(httpx2.BaseTransport):
    """A network on which nothing answers, and that keeps who was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.host)
        msg = "nothing there"
        raise httpx2.ConnectTimeout(msg)


def ask(names: Sequence[str], network: Silent, place: Path) -> None:
    with VendorServices() as services:
        client = fetch.https_client(transport=network)
        source = FirstOf(online(services, place, client=client), Given({}))
        for name in names:
            with pytest.raises(Unavailable, match=name):
                source.fetch((name,), NOW)


def test_many_made_up_names_of_a_silent_host_take_no_longer_than_one(tmp_path: Path) -> None:
    network = Silent()
    ask([nvidia_rim(f"made-up-{number}") for number in range(50)], network, tmp_path)
    assert network.asked == [RIM] * fetch._TRIES
    ask(["amd/milan/crl"], network, tmp_path)
    assert len(network.asked) == 2 * fetch._TRIES, "another host is asked all the same"
