"""The one connection an enclave opens: HTTPS to the custodian of its loan, and nowhere else.

The custodian's CA is pinned by the loan file, proxies and environment are ignored, redirects are not followed,
every call has an end and every answer a cap. TLS only guards the borrower's token: what matters in the answers
is signed and verified by ``boot`` and ``lending``. Where the custodian wants to see a certificate of the instance, one
is got and shown, on connections of its own; the old ones end with the calls that are on them. Certificates are asked
for on connections that show none: one that is not believed any more must not keep the next one away.

Not done here: retries (``renew``), verifying statements, getting certificates (``certificate``).
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, Self

import httpx2

from cloister.errors import Malformed, Reason, Rejected, Unavailable
from cloister.live_context import load_identity
from cloister.wire import CODE, Fields, dump_b64u, dump_json, take_reasons

if TYPE_CHECKING:
    from cloister.enclave.loanfile import LoanFile
    from cloister.lending.terms import InstanceId, LoanId

__all__ = ["STATEMENT_TYPE", "CustodianLink", "Link", "demand_answered", "pinned"]

STATEMENT_TYPE = "application/vnd.dsse.envelope.v1+json"
_KEEP_ALIVE_S = 60  # shorter than the custodian keeps it: none is used that is being closed
_CERTIFICATE_WANTED = frozenset({"certificate_wanted", "certificate_expired", "wrong_peer"})
_JSON = "application/json"
_MAX_ANSWER_BYTES = 2 << 20
_TOO_MANY_REQUESTS = 429
_SERVER_FAULT = 500
_OK = range(200, 300)
_ENDED = (httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.WriteError, ssl.SSLError)
_REFUSED = range(400, 500)


class _HungUp(Unavailable):
    """The custodian ended a connection without an answer, as it does where it does not take our certificate.

    TLS 1.3 says so behind the handshake, and often nobody is left to read why.
    """


class Certify(Protocol):
    """Gets a certificate and presents it. Raises as a call does."""

    async def __call__(self, *, within: timedelta, instead_of: int | None = None) -> None:
        """Take no longer than ``within``; do nothing if one came after number ``instead_of``."""


class Link(Protocol):
    """How an enclave reaches its custodian. Calls raise ``Unavailable`` without an answer, ``Rejected`` for a no."""

    is_online: bool
    certify: Certify | None
    """Gets a certificate and presents it, when one turns out to be wanted. None: nobody does."""
    presented: int
    """How many there were so far."""

    async def challenge(self, loan: LoanId) -> bytes:
        """Return a Challenge statement."""

    async def attest(self, loan: LoanId, statement: bytes) -> bytes:
        """Send an Attest statement; return a Grant statement."""

    async def renew(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send a LeaseRequest statement; return a Lease or Refusal statement."""

    async def renew_with(
        self, instance: InstanceId, statement: bytes, report: bytes, *, within: timedelta
    ) -> tuple[bytes | Rejected, bytes]:
        """Send a UsageReport statement and a LeaseRequest behind it; return what came of each.

        That is a UsageAck statement, or why there is none, and a Lease or Refusal statement.
        """

    async def report(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send a UsageReport statement; return a UsageAck statement."""

    async def ticket(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send a TicketRequest statement; return a Ticket or Refusal statement."""

    async def certificate(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send a CertificateRequest statement; return a Certificate statement."""

    async def present(self, pem: bytes) -> None:
        """Show this certificate, with its key, from the next connection on."""

    async def issuers(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send an IssuersRequest statement; return an IssuersAnswer statement."""

    async def close(self, instance: InstanceId, statement: bytes) -> None:
        """Send the Close statement."""


class CustodianLink:
    """Calls of an enclave to its custodian. Use as an async context manager.

    ``transport`` replaces the network, for tests and for simulators in one process.
    """

    is_online = True
    certify: Certify | None = None
    presented = 0

    def __init__(
        self, loan: LoanFile, *, timeout: timedelta, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """Prepare; nothing is opened yet. Raises ``Malformed`` for a CA that is none."""
        self._loan, self._within, self._transport = loan, timeout, transport
        self._bare = self._client = self._connect(None)
        self._leaving: set[asyncio.Task[None]] = set()
        self._borrower = {"authorization": f"Bearer {loan.token}"}

    async def __aenter__(self) -> Self:
        await self._bare.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._client.aclose()
        await self._bare.aclose()

    def _connect(self, pem: bytes | None) -> httpx2.AsyncClient:
        context = pinned(self._loan)
        if pem is not None:
            load_identity(context, pem)
        return httpx2.AsyncClient(
            base_url=self._loan.custodian_url,
            timeout=self._within.total_seconds(),
            follow_redirects=False,
            trust_env=False,
            verify=context,
            limits=httpx2.Limits(keepalive_expiry=_KEEP_ALIVE_S),
            transport=self._transport,
        )

    async def present(self, pem: bytes) -> None:
        """Show this certificate, with its key, from the next call on; calls under way end as they began."""
        before, self._client = self._client, self._connect(pem)
        self.presented += 1
        if self._transport is None and before is not self._bare:  # one that was handed in serves them all
            task = asyncio.create_task(self._leave(before))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _leave(self, client: httpx2.AsyncClient) -> None:
        """Close a client once no call can be on it any more: each has an end."""
        try:
            await asyncio.sleep(self._within.total_seconds())
        finally:
            await client.aclose()

    async def challenge(self, loan: LoanId) -> bytes:
        """Return a Challenge statement."""
        return await self._post(f"/v1/loans/{loan}/challenge", b"", self._borrower)

    async def attest(self, loan: LoanId, statement: bytes) -> bytes:
        """Send an Attest statement; return a Grant statement."""
        return await self._post(f"/v1/loans/{loan}/attest", statement, self._borrower)

    async def renew(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send a LeaseRequest statement; return a Lease or Refusal statement that came ``within`` this time."""
        return await self._post_as(f"/v1/instances/{instance}/lease", statement, {}, within=within)

    async def renew_with(
        self, instance: InstanceId, statement: bytes, report: bytes, *, within: timedelta
    ) -> tuple[bytes | Rejected, bytes]:
        """Send both in one call; return what came of the report and the answer to the request."""
        body = dump_json({"report": dump_b64u(report), "request": dump_b64u(statement)})
        path = f"/v1/instances/{instance}/renewal"
        data = await self._post_as(path, body, {"content-type": _JSON}, within=within)
        fields = Fields.parse(data, what="custodian: renewal", cap=_MAX_ANSWER_BYTES)
        answer = fields.b64u("answer")
        if "ack" in fields:
            ack = fields.b64u("ack")
            fields.end()
            return ack, answer
        reasons = take_reasons(fields, "reasons")
        fields.end()
        if not reasons:
            fields.fail("reasons", "want a reason, or an ack")
        return Rejected("; ".join(map(str, reasons)), reasons=reasons), answer

    async def report(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send a UsageReport statement; return the UsageAck statement that came ``within`` this time."""
        return await self._post_as(f"/v1/instances/{instance}/usage", statement, {}, within=within)

    async def ticket(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send a TicketRequest statement; return a Ticket or Refusal statement that came ``within`` this time."""
        return await self._post_as(f"/v1/instances/{instance}/ticket", statement, {}, within=within)

    async def certificate(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send a CertificateRequest statement; return a Certificate statement that came ``within`` this time."""
        path = f"/v1/instances/{instance}/certificate"
        return await self._post(path, statement, {}, within=min(within, self._within), client=self._bare)

    async def issuers(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Send an IssuersRequest statement; return the IssuersAnswer statement that came ``within`` this time."""
        return await self._post_as(f"/v1/instances/{instance}/issuers", statement, {}, within=within)

    async def close(self, instance: InstanceId, statement: bytes) -> None:
        """Send the Close statement."""
        await self._post_as(f"/v1/instances/{instance}/close", statement, {}, within=self._within)

    async def _post_as(self, path: str, body: bytes, headers: dict[str, str], *, within: timedelta) -> bytes:
        """Post as the instance; where its certificate is wanted and there is none, or no good one, get one and repeat.

        All of it takes no longer than one call may. Raises as ``_post``.
        """
        within, loop = min(within, self._within), asyncio.get_running_loop()
        end, shown = loop.time() + within.total_seconds(), self.presented
        try:
            return await self._post(path, body, headers, within=within)
        except Rejected as exc:
            if self.certify is None or exc.code not in _CERTIFICATE_WANTED:
                raise
        except _HungUp:
            if self.certify is None or not shown:
                raise
        await self.certify(within=timedelta(seconds=max(0, end - loop.time())), instead_of=shown)
        return await self._post(path, body, headers, within=timedelta(seconds=max(0, end - loop.time())))

    async def _post(
        self,
        path: str,
        body: bytes,
        headers: dict[str, str],
        *,
        within: timedelta | None = None,
        client: httpx2.AsyncClient | None = None,
    ) -> bytes:
        """Return the body of a 2xx answer.

        Raises ``Rejected`` with the custodian's reasons for a 4xx, ``Unavailable`` for everything that is no
        answer: no connection, a fault of the server, a redirect, an answer without end.
        """
        headers = {"content-type": STATEMENT_TYPE, **headers, "accept-encoding": "identity"}
        # The client's own timeout is for each step; this one is for all of them together.
        seconds = (within or self._within).total_seconds()
        try:
            async with (
                asyncio.timeout(seconds),
                (client or self._client).stream("POST", path, content=body, headers=headers) as answer,
            ):
                data = await _bounded(answer)
        except (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError, TimeoutError) as exc:
            msg = f"custodian: no answer ({type(exc).__name__})"
            kind = _HungUp if isinstance(exc, _ENDED) else Unavailable
            raise kind(msg, hint="is the custodian running, and is this its address?") from exc
        demand_answered(answer.status_code, data)
        return data


def pinned(loan: LoanFile) -> ssl.SSLContext:
    """Return the context that trusts the loan's CA alone. Raises ``Malformed`` for a CA that is none."""
    try:
        context = ssl.create_default_context(cadata=loan.ca_pem)
    except ssl.SSLError as exc:
        msg = "loan file: ca_pem is no certificate in PEM"
        raise Malformed(msg) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _bounded(answer: httpx2.Response) -> bytes:
    parts, size = [], 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > _MAX_ANSWER_BYTES:
            msg = f"custodian: answer longer than {_MAX_ANSWER_BYTES} bytes"
            raise Unavailable(msg)
        parts.append(part)
    return b"".join(parts)


def demand_answered(status: int, data: bytes) -> None:
    """Raise ``Rejected`` where the custodian refused, ``Unavailable`` where it could not answer."""
    if status in _REFUSED and status != _TOO_MANY_REQUESTS:
        raise _refusal(status, data)
    if status not in _OK:
        msg = f"custodian: answered {status}"
        raise Unavailable(msg)


def _refusal(status: int, data: bytes) -> Rejected:
    """Return the custodian's reasons; where the answer has none, its code or its status is the reason."""
    try:
        fields = Fields.parse(data, what="custodian: refusal")
        reasons = take_reasons(fields, "reasons") if "reasons" in fields else ()
        if not reasons and "code" in fields:
            reasons = (Reason(code=fields.match("code", CODE), subject="custodian", got=str(status)),)
    except Malformed:
        reasons = ()
    if not reasons:
        reasons = (Reason(code="refused", subject="custodian", got=f"status {status}"),)
    return Rejected("; ".join(map(str, reasons)), reasons=reasons)
