"""A borrower's page on a real socket, before a real custodian on another and a real enclave in memory."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
from browser_kit import served
from flow_house import ENCLAVE, House, brightest, open_house, row

from cloister.borrowing.books import Books
from cloister.borrowing.host import Host
from cloister.borrowing.serve import serve_borrower
from cloister.cli.borrower_page import _rows
from cloister.cli.remote import from_token
from cloister.crypto.sign import VerifyKey
from cloister.custodian.app import create_app
from cloister.errors import Unavailable
from cloister.serving.place import Place
from cloister.telemetry.exposition import prometheus_text
from cloister.wire import Fields
from page_kit import opened

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance
    from cloister.serving.door import Door


@dataclass
class BorrowerPage:
    """An open page, and the parties behind it."""

    address: str
    door: Door
    house: House
    instance: EnclaveInstance
    loop: asyncio.AbstractEventLoop
    token: str
    clients: list[httpx2.Client] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    """Who does not answer: ``custodian``, ``enclave``."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the loop of the parties."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def link(self) -> str:
        """Return a fresh link."""
        made: Future[str] = Future()
        self.loop.call_soon_threadsafe(lambda: made.set_result(self.address + self.door.new_link()))
        return made.result(10)

    def client(self) -> httpx2.Client:
        """Return somebody without a cookie."""
        made = httpx2.Client(base_url=self.address, headers={"origin": self.address}, timeout=30)
        self.clients.append(made)
        return made

    def visitor(self) -> Visit:
        """Return somebody who came in."""
        client = self.client()
        assert client.get(self.link(), follow_redirects=True).status_code == 200
        return Visit(client, self.door.prefix)

    def infer(self, times: int, *, then_s: int = 30) -> None:
        """Use some units, and have them reported so many seconds later."""
        self.run(self._infer(times, then_s))

    def later(self, seconds: float = 3) -> None:
        """Let time pass, so that what is kept is read anew."""
        self.loop.call_soon_threadsafe(self.house.clock.advance, seconds)
        self.run(asyncio.sleep(0))

    async def _infer(self, times: int, then_s: int) -> None:
        client = await self.house.client()
        async with client:
            for number in range(times):
                await client.infer("digits", row(number % 4))
        self.house.clock.advance(then_s)
        await self.instance.renewal.once()


@dataclass
class Visit:
    """A visitor without a browser."""

    client: httpx2.Client
    prefix: str

    def get(self, path: str) -> httpx2.Response:
        return self.client.get(self.prefix + path)

    def hidden(self, path: str) -> dict[str, str]:
        """Return the hidden fields of the page's forms."""
        return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', self.get(path).text))

    def post(self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> httpx2.Response:
        return self.client.post(self.prefix + path, data=fields, headers=dict(headers or {}), follow_redirects=True)

    def ask(self, units: str = "50", reason: str = "a busy week", **more: str) -> httpx2.Response:
        """Fill in the form for more."""
        return self.post("/ask", {**self.hidden("/"), "units": units, "reason": reason, **more})


class _Remote:
    """The custodian over real HTTP, unless it is away."""

    def __init__(self, address: str, token: str, away: set[str]) -> None:
        self.inner, self._away = from_token(url=address, ca_pem=None, token=token), away

    def __getattr__(self, name: str) -> Any:
        if "custodian" in self._away:
            msg = "custodian: connecterror"
            raise Unavailable(msg)
        return getattr(self.inner, name)


class _Here:
    """The enclave as its host reads it."""

    def __init__(
        self, house: House, instance: EnclaveInstance, loop: asyncio.AbstractEventLoop, away: set[str]
    ) -> None:
        self._house, self._instance, self._loop, self._away = house, instance, loop, away

    def ready(self) -> bytes:
        if "enclave" in self._away:
            msg = "enclave here: connecterror"
            raise Unavailable(msg)
        return asyncio.run_coroutine_threadsafe(self._ready(), self._loop).result(10)

    def metrics(self) -> bytes | None:
        asyncio.run_coroutine_threadsafe(self._instance.measured(), self._loop).result(10)
        return prometheus_text(self._instance.metrics).encode()

    async def _ready(self) -> bytes:
        async with httpx2.AsyncClient(transport=self._house.wires.apps[8440]) as client:
            return (await client.get(f"{ENCLAVE}/readyz")).content


def borrower_page(folder: Path, *, allowance: int = 1000, **lent: Any) -> AbstractContextManager[BorrowerPage]:
    """Open custodian, enclave and page; they end with the block."""

    async def serve(stop: asyncio.Event, told: Future[BorrowerPage]) -> None:
        async with open_house(folder, models={"digits": brightest()}) as house:
            await house.lend(allowance, **{"max_ceiling": 100, **lent})
            async with house.enclave() as instance:
                with served(create_app(house.service)) as custodian:
                    await _serve(house, instance, custodian, stop, told)

    return opened(serve)


async def _serve(
    house: House, instance: EnclaveInstance, custodian: str, stop: asyncio.Event, told: Future[BorrowerPage]
) -> None:
    loop, away = asyncio.get_running_loop(), set[str]()
    token = str(house.loan_file["token"])
    key = VerifyKey.take(Fields(dict(house.loan_file), what="loan file"), "custodian_key")
    remote: Any = _Remote(custodian, token, away)
    books = Books(remote, loan=house.loan, custodian_key=key, clock=house.clock)
    with remote.inner:
        await serve_borrower(
            books,
            Host(_Here(house, instance, loop, away)),
            Place("127.0.0.1", 0),
            clock=house.clock,
            contract_rows=_rows,
            stop=stop,
            on_listening=lambda address, door: told.set_result(
                BorrowerPage(address, door, house, instance, loop, token, away=away)
            ),
        )
