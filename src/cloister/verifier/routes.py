"""The API as one table: application, OpenAPI document, docs and tests read this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.devices import MAX_DEVICES
from cloister.verifier.requests import MAX_NONCE_BYTES, MIN_NONCE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = ["FORM_TYPE", "JSON_TYPE", "ROUTES", "TOKEN_TYPE", "Route"]

JSON_TYPE = "application/json"
TOKEN_TYPE = "application/eat+jwt"  # noqa: S105 - RFC 9782 section 4
FORM_TYPE = "application/x-www-form-urlencoded"
HTML_TYPE = "text/html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the API. ``name`` is also the handler's; ``known`` where an API token is asked for."""

    method: str
    path: str
    name: str
    summary: str
    known: bool = False
    takes: str = ""
    body: Mapping[str, Json] | None = None
    answers: tuple[str, ...] = (JSON_TYPE,)
    answer: Mapping[str, Json] | None = None


def _b64u(doc: str, *, least: int = 0, most: int | None = None) -> Json:
    bounds: dict[str, Json] = {"minLength": -(-least * 4 // 3)} if least else {}
    bounds |= {"maxLength": -(-most * 4 // 3)} if most else {}
    return {"description": doc, "pattern": "^[A-Za-z0-9_-]*$", "type": "string", **bounds}


def _object(properties: Mapping[str, Json], *, required: tuple[str, ...]) -> Mapping[str, Json]:
    return {"additionalProperties": False, "properties": properties, "required": list(required), "type": "object"}


def _words(doc: str, *words: str) -> Json:
    return {"description": doc, "enum": list(words), "type": "string"}


def _text(doc: str, *, most: int) -> Json:
    return {"description": doc, "maxLength": most, "minLength": 1, "type": "string"}


_EVIDENCE = _object(
    {
        "payload": _b64u("the evidence as attesters of Cloister make it, base64url, at most 524288 bytes"),
        "tee": _text("kind of evidence: `snp`, `tdx`, `nitro`, ...", most=32),
    },
    required=("payload", "tee"),
)
_ID: Json = {
    "description": "id of a policy of the service",
    "pattern": "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$",
    "type": "string",
}
_POLICY: Json = {"description": "a policy of your own (docs/spec/policy.md): then no audience", "type": "object"}
_ASKED: dict[str, Json] = {
    "audience": _text("whom the token is for: one that the policy lists", most=512),
    "binding": _words(
        "what the report data holds: a hash of nonce, data and devices, or the nonce", "service", "carried"
    ),
    "data": _b64u("what else the attester bound, at most 16384 bytes"),
    "detail": _words("how much the token says; `brief` where there is an audience, else `full`", "full", "brief"),
    "devices": {
        "description": "evidence of the devices, in the order in which it was bound",
        "items": _EVIDENCE,
        "maxItems": MAX_DEVICES,
        "type": "array",
    },
    "evidence": _EVIDENCE,
    "refusal": _words("what a refusal is answered with; `problem` by default", "problem", "token"),
}
_RESULT = _object(
    {
        "expires_at": {"format": "date-time", "type": "string"},
        "id": {"description": "`jti` of the token; `results/ID` explains it while the token lives", "type": "string"},
        "status": _words("tier of the result", "affirming", "warning", "contraindicated", "none"),
        "token": {"description": "the result as a signed token", "type": "string"},
    },
    required=("expires_at", "id", "status", "token"),
)

ROUTES = (
    Route(method="GET", path="/", name="front", summary="A form for people.", answers=(HTML_TYPE,)),
    Route(
        method="POST", path="/explain", name="explain", summary="Explain a token, evidence or a result to a person.",
        takes=FORM_TYPE, answers=(HTML_TYPE,),
        body=_object({"text": {"description": "what to explain", "type": "string"}}, required=("text",)),
    ),
    Route(
        method="GET", path="/results/{id}", name="result", summary="Explain a result to a person.", answers=(HTML_TYPE,)
    ),
    Route(method="GET", path="/healthz", name="healthz", summary="The process answers."),
    Route(method="GET", path="/readyz", name="readyz", summary="It can sign and has a policy."),
    Route(method="GET", path="/openapi.json", name="openapi", summary="This document."),
    Route(
        method="GET", path="/.well-known/openid-configuration", name="discovery",
        summary="Metadata for who federates on this issuer.",
    ),
    Route(
        method="GET", path="/.well-known/jwks.json", name="jwks", summary="Public keys: old, current and next.",
        answers=("application/jwk-set+json",),
    ),
    Route(
        method="POST", path="/v1/challenge", name="challenge", summary="A nonce that is good once.", known=True,
        answer=_object(
            {"expires_at": {"format": "date-time", "type": "string"}, "nonce": _b64u("32 bytes", least=32, most=32)},
            required=("expires_at", "nonce"),
        ),
    ),
    Route(
        method="POST", path="/v1/attest", name="attest", known=True, takes=JSON_TYPE, answers=(JSON_TYPE, TOKEN_TYPE),
        summary="Verify evidence over a challenge; the result is a token (passport model).", answer=_RESULT,
        body=_object(
            {**_ASKED, "nonce": _b64u("the challenge, 32 bytes", least=32, most=32), "policy": _ID},
            required=("evidence", "nonce"),
        ),
    ),
    Route(
        method="POST", path="/v1/verify", name="verify", known=True, takes=JSON_TYPE, answers=(JSON_TYPE, TOKEN_TYPE),
        summary="Verify evidence over a nonce of the caller's own (background-check model).", answer=_RESULT,
        body=_object(
            {
                **_ASKED,
                "nonce": _b64u("the caller's nonce", least=MIN_NONCE_BYTES, most=MAX_NONCE_BYTES),
                "policy": {"oneOf": [_ID, _POLICY]},
            },
            required=("evidence", "nonce"),
        ),
    ),
)  # fmt: skip
"""Every route there is."""
