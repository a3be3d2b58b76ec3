"""The OpenAPI 3.1 document, made from the route table: it cannot say what the table does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister import __version__
from cloister.serving.problems import PROBLEM_TYPE
from cloister.verifier.routes import ROUTES

if TYPE_CHECKING:
    from cloister.verifier.routes import Route
    from cloister.wire import Json

__all__ = ["openapi_document"]

_PROBLEM: Json = {
    "properties": {
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "hint": {"type": "string"},
        "reasons": {
            "items": {
                "properties": {name: {"type": "string"} for name in ("code", "got", "subject", "want")},
                "required": ["code", "got", "subject", "want"],
                "type": "object",
            },
            "type": "array",
        },
        "status": {"type": "integer"},
        "title": {"type": "string"},
        "type": {"type": "string"},
    },
    "required": ["code", "detail", "status", "title", "type"],
    "type": "object",
}


def openapi_document(issuer: str, *, is_open: bool) -> Json:
    """Return the document of the service at ``issuer``."""
    paths: dict[str, dict[str, Json]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, is_open=is_open)
    return {
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {"token": {"scheme": "bearer", "type": "http"}},
        },
        "info": {"title": "Cloister attestation service", "version": __version__},
        "openapi": "3.1.0",
        "paths": paths,
        "servers": [{"url": issuer}],
    }


def _operation(route: Route, *, is_open: bool) -> Json:
    content: dict[str, Json] = {
        kind: {"schema": route.answer} if route.answer and kind == route.answers[0] else {} for kind in route.answers
    }
    problem: Json = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    token: list[Json] = [{"token": []}]
    operation: dict[str, Json] = {
        "operationId": route.name,
        "parameters": [
            {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{([a-z]+)\}", route.path)
        ],
        "responses": {
            "200": {"content": content, "description": route.summary},
            "default": {"content": problem, "description": "A problem document (RFC 9457)."},
        },
        "security": [*token, *([{}] if is_open else [])] if route.known else [],
        "summary": route.summary,
    }
    if route.takes:
        operation["requestBody"] = {"content": {route.takes: {"schema": route.body}}, "required": True}
    return operation
