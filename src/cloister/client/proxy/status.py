"""What ``GET /status`` says: whom the proxy talks to, what was checked, and what is left."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from cloister.client.proxy.refusal import Reply
from cloister.client.verdict import enclave_json
from cloister.errors import Rejected
from cloister.wire import dump_time

if TYPE_CHECKING:
    from cloister.client.proxy.upstream import Upstream
    from cloister.client.trust import VerifiedEnclave
    from cloister.errors import CloisterError
    from cloister.wire import Json

__all__ = ["status"]


async def status(upstream: Upstream) -> Reply:
    """Return the status: 200 while the enclave is verified, else 503."""
    enclave = upstream.verified
    receipts = upstream.receipts
    members: dict[str, Json] = {
        "enclave": None if enclave is None else enclave_json(enclave),
        "keys": None if enclave is None else _keys(upstream, enclave),
        "models": {} if enclave is None else await _models(upstream, enclave),
        "passed": upstream.passed,
        "receipts": {
            "folder": None if receipts is None else str(receipts.folder),
            "kept": 0 if receipts is None else receipts.kept,
            "owed": 0 if receipts is None else receipts.owed,
            "proven": upstream.proven,
        },
        "refusal": None if upstream.refusal is None else _refusal(upstream.refusal),
        "url": upstream.url,
        "verified": enclave is not None,
    }
    body = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return Reply(status=200 if enclave else 503, headers=(("content-type", "application/json"),), body=body)


def _keys(upstream: Upstream, enclave: VerifiedEnclave) -> Json:
    keyset, now = enclave.keyset, upstream.now()
    return {
        "age_s": max(0, int((now - keyset.nbf).total_seconds())),
        "expires": dump_time(keyset.exp),
        "left_s": max(0, int((keyset.exp - now).total_seconds())),
        "made": dump_time(keyset.nbf),
    }


async def _models(upstream: Upstream, enclave: VerifiedEnclave) -> dict[str, Json]:
    """Return every model with what is left for it as the enclave says now; asking costs nothing."""
    models = enclave.keyset.models
    left = await asyncio.gather(*(upstream.remaining(model.name) for model in models))
    return {
        model.name: {"digest": model.digest, "remaining": remaining, "ticketed": model.ticketed}
        for model, remaining in zip(models, left, strict=True)
    }


def _refusal(error: CloisterError) -> Json:
    reasons: list[Json] = [str(reason) for reason in error.reasons] if isinstance(error, Rejected) else []
    return {"fault": error.fault, "message": error.message, "reasons": reasons}
