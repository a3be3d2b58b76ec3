"""The outer resources, and which of them a request is for (docs/reference/enclave-api.md, "Outer resources").

What a reviewer of the trusted code must read is what this file reaches.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from cloister.channel.keyset import GATEWAY_PATH, KEYSET_PATH, KEYSET_TYPE, NONCE_BYTES
from cloister.enclave.logs import Event
from cloister.enclave.problems import NO_STORE, plain
from cloister.enclave.web.exchange import Answer
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cloister.enclave.instance import EnclaveInstance
    from cloister.enclave.web.exchange import Body, Exchange, Head, Outcome
    from cloister.wire import Json

__all__ = ["Outer"]

_DIRECT = "/v2"
_FOR_OPERATORS = frozenset({"/healthz", "/readyz"})  # no content ever, so no certificate either
_MAX_QUERY_BYTES = 256


class Outer:
    """The application of one instance, for a web server."""

    def __init__(self, instance: EnclaveInstance) -> None:
        """Serve ``instance``."""
        self._instance = instance
        self._resources: dict[str, Callable[[Head], Awaitable[Answer]]] = {
            KEYSET_PATH: self._keyset,
            "/healthz": self._health,
            "/readyz": self._ready,
        }

    def begin(self, head: Head) -> Exchange | Answer:
        """Find the resource."""
        path = head.path
        refusal = None if path in _FOR_OPERATORS else self._instance.relays.refusal(head)
        if refusal is not None:
            return refusal
        if path == GATEWAY_PATH:
            return self._instance.gateway.begin(head)
        if path == _DIRECT or path.startswith(_DIRECT + "/"):
            return self._instance.direct.begin(head)
        resource = self._resources.get(path)
        if resource is None:
            return plain(404)
        if head.method not in {"GET", "HEAD"}:
            return plain(405)
        return _Shown(resource, head, self._instance)

    async def _keyset(self, head: Head) -> Answer:
        try:
            document = await self._instance.publisher.document(_nonce(head.query))
        except Malformed:
            return plain(400)
        except Unavailable as exc:
            return plain(503, retry_after_s=exc.retry_after_s)
        except Rejected:  # the TEE said no
            return plain(503)
        return Answer(status=200, headers=(("content-type", KEYSET_TYPE), NO_STORE), body=document)

    async def _health(self, _: Head) -> Answer:
        return _json(200, {"live": True, "status": "ok" if _well(self._instance.checks()) else "degraded"})

    async def _ready(self, _: Head) -> Answer:
        instance = self._instance
        reasons, checks = instance.not_ready(), instance.checks()
        body: Json = {
            "checks": [{"code": code, "name": name, "state": state} for name, (state, code) in checks.items()],
            "clock": instance.clock_source.to_json(),
            "ready": not reasons,
            "reasons": reasons,
            "state": instance.metering.snapshot().state.value,
            "status": "failed" if reasons else "ok" if _well(checks) else "degraded",
        }
        return _json(503 if reasons else 200, body)


def _well(checks: Mapping[str, tuple[str, str]]) -> bool:
    return all(state == "ok" for state, _ in checks.values())


class _Shown:
    """One request for something that is only shown; a body with it is refused."""

    def __init__(self, resource: Callable[[Head], Awaitable[Answer]], head: Head, instance: EnclaveInstance) -> None:
        self._resource = resource
        self._head = head
        self._instance = instance

    def fits(self, size: int) -> Answer | None:
        """Refuse any body."""
        return plain(413) if size else None

    arrived = fits

    def late(self) -> Answer:
        """Say that the body took too long."""
        return plain(408)

    async def answer(self, body: Body) -> Answer:
        """Show it."""
        del body
        try:
            return await self._resource(self._head)
        except Exception as exc:  # noqa: BLE001 - the server's edge: our bug must not tell the host anything
            self._instance.log.write(Event.INTERNAL_ERROR, error=type(exc).__name__)
            return plain(500)

    def end(self, outcome: Outcome) -> None:
        """Nothing is counted."""


def _nonce(query: str) -> bytes | None:
    """Return the nonce that was asked for. Raises ``Malformed`` for a bad one, two of them, or anything else."""
    if not query:
        return None
    asked = parse_qsl(query[:_MAX_QUERY_BYTES], keep_blank_values=True)
    if len(asked) != 1 or asked[0][0] != "nonce":
        msg = "keyset: unknown parameter"
        raise Malformed(msg)
    nonce = parse_b64u(asked[0][1], what="keyset: nonce", size=NONCE_BYTES)
    if nonce == bytes(NONCE_BYTES):
        msg = "keyset: nonce of zeros names the cached form"
        raise Malformed(msg)
    return nonce


def _json(status: int, value: Json) -> Answer:
    body = json.dumps(value, separators=(",", ":")).encode("utf-8")
    return Answer(status=status, headers=(("content-type", "application/json"), NO_STORE), body=body)
