"""The outer resources as a Starlette application (docs/reference/enclave-api.md, "Outer resources").

What a reviewer of the trusted code must read is what this file reaches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cloister.channel.keyset import GATEWAY_PATH, KEYSET_PATH, KEYSET_TYPE, NONCE_BYTES
from cloister.enclave.metrics import METRICS_TYPE
from cloister.enclave.problems import PROBLEM_TYPE, outer_problem
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from starlette.requests import Request

    from cloister.enclave.instance import EnclaveInstance

__all__ = ["create_app"]

_NO_STORE = {"cache-control": "no-store"}


def create_app(instance: EnclaveInstance) -> Starlette:
    """Return the application of one instance."""

    async def keyset(request: Request) -> Response:
        try:
            nonce = _nonce(request)
            document = await instance.publisher.document(nonce)
        except Malformed:
            return _problem(400)
        except Unavailable as exc:
            return _problem(503, retry_after_s=exc.retry_after_s)
        except Rejected:  # the TEE said no
            return _problem(503)
        return Response(document, media_type=KEYSET_TYPE, headers=_NO_STORE)

    async def health(_: Request) -> Response:
        return JSONResponse({"live": True}, headers=_NO_STORE)

    async def ready(_: Request) -> Response:
        reasons = instance.not_ready()
        body = {
            "clock": instance.clock_source.to_json(),
            "ready": not reasons,
            "reasons": reasons,
            "state": instance.metering.snapshot().state.value,
        }
        return JSONResponse(body, status_code=503 if reasons else 200, headers=_NO_STORE)

    async def metrics(_: Request) -> Response:
        instance.measure()
        return PlainTextResponse(instance.metrics.dump(), media_type=METRICS_TYPE, headers=_NO_STORE)

    return Starlette(
        routes=[
            Route(KEYSET_PATH, keyset, methods=["GET"]),
            Route(GATEWAY_PATH, instance.gateway),
            Route("/healthz", health, methods=["GET"]),
            Route("/readyz", ready, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ]
    )


def _nonce(request: Request) -> bytes | None:
    """Return the nonce that was asked for. Raises ``Malformed`` for a bad one, two of them, or anything else."""
    asked = request.query_params.multi_items()
    if not asked:
        return None
    if len(asked) != 1 or asked[0][0] != "nonce":
        msg = "keyset: unknown parameter"
        raise Malformed(msg)
    nonce = parse_b64u(asked[0][1], what="keyset: nonce", size=NONCE_BYTES)
    if nonce == bytes(NONCE_BYTES):
        msg = "keyset: nonce of zeros names the cached form"
        raise Malformed(msg)
    return nonce


def _problem(status: int, *, retry_after_s: int | None = None) -> Response:
    headers = dict(_NO_STORE)
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    return Response(outer_problem(status), status_code=status, media_type=PROBLEM_TYPE, headers=headers)
