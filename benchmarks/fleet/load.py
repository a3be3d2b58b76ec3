"""Load upon custodians: a thousand enclaves' lease state machines in one process, each with its own connection.

Every instance is a real ``LeaseHolder`` with a real key, which signs its requests and verifies every answer. In
the open loop each calls through the enclave's own ``CustodianLink``; in the closed loop the same holders go over a few
connections with the barest client, so that the custodian is what is measured and not the client.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from cloister.crypto.sign import SigningKey
from cloister.enclave.custodian_link import STATEMENT_TYPE, CustodianLink, pinned
from cloister.enclave.loanfile import LoanFile
from cloister.errors import CloisterError, Rejected
from cloister.lending.lease import LeaseHolder
from cloister.lending.messages import Lease
from cloister.lending.release import verify_grant
from cloister.lending.terms import instance_id
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    import ssl
    from multiprocessing.connection import Connection

    from fleet.house import House, Member

TTL_S = 60
RENEW_S = TTL_S / 3
UNITS = 5  # units one instance serves between two renewals, in one inference, reported before the renewal
_TIMEOUT = timedelta(seconds=TTL_S / 3)
_FILES = 8192  # descriptors a thousand connections and more may want


@dataclass(slots=True, kw_only=True)
class Measured:
    """What a stretch of load came to: seconds of each renewal, and what went wrong."""

    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Renewals per second."""
        return len(self.waits) / self.seconds if self.seconds else 0.0


class Instance:
    """One simulated enclave: serves a little, then renews."""

    def __init__(self, member: Member, house: House, port: int) -> None:
        """Verify the grant and hold it."""
        key = SigningKey(member.seed)
        name = instance_id(key.verify_key.raw)
        grant = verify_grant(
            member.grant, custodian=house.custodian, request_digest=member.request_digest, instance=name
        )
        self.holder = LeaseHolder(key=key, grant=grant, custodian=house.custodian)
        self.loan = LoanFile(
            loan=member.loan,
            custodian_url=f"https://localhost:{port}",
            custodian_key=house.custodian,
            ca_pem=house.ca_pem,
            token="t" * 32,
        )
        self._token = member.token

    def request(self) -> bytes:
        """Serve ``UNITS`` units where there is a lease, and return the signed request for the next."""
        now = datetime.now(UTC)
        if self.holder.snapshot().limits:
            reservation = self.holder.reserve("digits", self._token, UNITS, now)
            self.holder.settle(reservation, UNITS, bytes(32), bytes(32), now)
        return self.holder.request(now, os.urandom(16))

    def receive(self, answer: bytes) -> None:
        """Verify the answer; anything but a lease is a fault."""
        got = self.holder.receive(answer, datetime.now(UTC))
        if not isinstance(got, Lease):
            raise Rejected.because(got.reasons[0].code, "lease")


class Wire:
    """The barest client: one TLS connection that stays, one request at a time."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        """Prepare; nothing is opened yet."""
        self._port, self._context = port, context

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def renew(self, holder: LeaseHolder, statement: bytes) -> bytes:
        """Return the answer to one lease request; the usage report that is due goes with it, as an enclave does it."""
        report = holder.report()
        if report is None:
            return await self._post(f"/v1/instances/{holder.instance}/lease", statement, STATEMENT_TYPE)
        body = dump_json({"report": dump_b64u(report), "request": dump_b64u(statement)})
        answer = await self._post(f"/v1/instances/{holder.instance}/renewal", body, "application/json")
        fields = Fields.parse(answer, what="renewal")
        holder.acknowledge(fields.b64u("ack"))
        return fields.b64u("answer")

    async def _post(self, path: str, statement: bytes, media_type: str) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: {media_type}\r\nContent-Length: {len(statement)}\r\n\r\n"
        )
        self._writer.write(head.encode() + statement)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answer.partition("content-length:")[2].partition("\r\n")[0])
        body = await self._reader.readexactly(length)
        status = answer.split(" ", 2)[1]
        if status != "200":
            raise Rejected.because(f"status_{status}", "custodian")
        return body


class Fleet:
    """All instances, spread over the custodians' ports."""

    def __init__(self, house: House, ports: list[int]) -> None:
        """Make every instance."""
        self._ports = ports
        self._context = pinned(Instance(house.members[0], house, ports[0]).loan)
        self.instances = [Instance(member, house, ports[at % len(ports)]) for at, member in enumerate(house.members)]
        self._open, self._links = AsyncExitStack(), list[CustodianLink]()

    async def closed(self, connections: int, seconds: float) -> Measured:
        """Renew as fast as answers come over ``connections`` connections; each turns over its own instances.

        With ``seconds`` of zero every instance renews once.
        """
        found, begun = Measured(), time.perf_counter()
        end = begun + seconds if seconds else None
        lanes = [self._lane(at, connections, end, found) for at in range(connections)]
        await asyncio.gather(*lanes)
        found.seconds = time.perf_counter() - begun
        return found

    async def _lane(self, at: int, lanes: int, end: float | None, found: Measured) -> None:
        mine = self.instances[at::lanes]
        async with Wire(self._ports[at % len(self._ports)], self._context) as wire:
            while True:
                for instance in mine:
                    if end is not None and time.perf_counter() >= end:
                        return
                    statement = instance.request()
                    begun = time.perf_counter()
                    answer = await wire.renew(instance.holder, statement)
                    found.waits.append(time.perf_counter() - begun)
                    instance.receive(answer)
                if end is None:
                    return

    async def link(self, seconds: float, seed: int) -> Measured:
        """Open every instance's own link at its first renewal, all within so many seconds; the links stay."""
        for instance in self.instances:
            link = CustodianLink(instance.loan, timeout=_TIMEOUT)
            self._links.append(await self._open.enter_async_context(link))
        return await self.kept(seconds, seed)

    async def kept(self, seconds: float, seed: int) -> Measured:
        """Renew at the cadence of T = 60 s, every instance over its own link, for so many seconds.

        An arrival does not wait for the one before it, and a wait counts from when it was due.
        """
        rng = random.Random(seed)
        found, start = Measured(seconds=seconds), time.perf_counter() + 0.1
        await asyncio.gather(
            *(
                self._cadence(instance, link, _arrivals(start, seconds, rng), found)
                for instance, link in zip(self.instances, self._links, strict=True)
            )
        )
        return found

    async def unlink(self) -> Measured:
        """Close the links."""
        await self._open.aclose()
        return Measured()

    async def _over(self, link: CustodianLink, holder: LeaseHolder, statement: bytes) -> bytes:
        report = holder.report()
        if report is None:
            return await link.renew(holder.instance, statement, within=_TIMEOUT)
        ack, answer = await link.renew_with(holder.instance, statement, report, within=_TIMEOUT)
        if isinstance(ack, Rejected):
            raise ack
        holder.acknowledge(ack)
        return answer

    async def _cadence(self, instance: Instance, link: CustodianLink, arrivals: list[float], found: Measured) -> None:
        for due in arrivals:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                statement = instance.request()
                instance.receive(await self._over(link, instance.holder, statement))
                found.waits.append(time.perf_counter() - due)
            except CloisterError as exc:
                found.faults[exc.code if isinstance(exc, Rejected) else exc.message] += 1


def _arrivals(start: float, seconds: float, rng: random.Random) -> list[float]:
    """Return when one instance asks: first at some moment of a third of T, then every third with jitter."""
    found, due = [], start + rng.random() * RENEW_S
    while due < start + seconds:
        found.append(due)
        due += RENEW_S * (0.9 + 0.2 * rng.random())
    return found


def load_process(house: House, ports: list[int], pipe: Connection) -> None:
    """Do what comes through ``pipe``: ``(name of a method of Fleet, arguments)``; None ends."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, limit), limit))
    fleet = Fleet(house, ports)
    pipe.send("ready")
    with asyncio.Runner() as runner:
        while (order := pipe.recv()) is not None:
            name, *arguments = order
            begun = time.process_time()
            found = runner.run(getattr(fleet, name)(*arguments))
            pipe.send((found, time.process_time() - begun))
