"""The OpenAPI 3.1 document, made from the route table: it cannot say what the table does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister import __version__
from cloister.custodian.calls import JSON_TYPE, STATEMENT_TYPE, Body
from cloister.custodian.problems import PROBLEM_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.custodian.calls import Member, Route
    from cloister.wire import Json

__all__ = ["openapi_document"]

_TYPES: dict[str, Json] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "minimum": 0, "maximum": 2**53 - 1},
    "string": {"type": "string"},
    "object": {"type": "object"},
    "names": {"type": "array", "items": {"type": "string"}},
    "names or object": {"type": ["array", "object"], "items": {"type": "string"}},
    "array": {"type": "array", "items": {"type": "object"}},
    "array or null": {"type": ["array", "null"], "items": {"type": "object"}},
}


def openapi_document(routes: Iterable[Route]) -> Json:
    """Return the document for ``routes``."""
    paths: dict[str, dict[str, Json]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "components": {"securitySchemes": {"token": {"scheme": "bearer", "type": "http"}}},
        "info": {"title": "Cloister custodian", "version": __version__},
        "openapi": "3.1.0",
        "paths": paths,
    }


def _operation(route: Route) -> Json:
    operation: dict[str, Json] = {
        "operationId": route.handler.__name__,
        "parameters": [*_path_parameters(route.path), *_query(route), *_headers(route)],
        "responses": {
            "2XX": {"content": {route.answers: {}}, "description": route.summary},
            "default": {"content": {PROBLEM_TYPE: {}}, "description": "A problem document (RFC 9457)."},
        },
        "security": [] if route.roles is None else [{"token": sorted(role.value for role in route.roles)}],
        "summary": route.summary,
    }
    if route.again is not None:
        operation["description"] = route.again.value
    if route.body is Body.JSON:
        operation["requestBody"] = {"content": {JSON_TYPE: {"schema": _schema(route.members)}}, "required": True}
    if route.body is Body.TEXT:
        operation["requestBody"] = {"content": {"text/plain": {}}, "required": True}
    if route.body is Body.STATEMENT:
        operation["requestBody"] = {"content": {STATEMENT_TYPE: {}}, "required": True}
    return operation


def _path_parameters(path: str) -> list[Json]:
    names = re.findall(r"\{([a-z]+)\}", path)
    return [{"in": "path", "name": name, "required": True, "schema": {"type": "string"}} for name in names]


def _query(route: Route) -> list[Json]:
    return [
        {
            "description": member.doc,
            "in": "query",
            "name": member.name,
            "required": member.required,
            "schema": _TYPES[member.type],
        }
        for member in route.query
    ]


def _headers(route: Route) -> list[Json]:
    if not route.once:
        return []
    return [{"in": "header", "name": "Idempotency-Key", "required": False, "schema": {"type": "string"}}]


def _schema(members: tuple[Member, ...]) -> Json:
    properties: dict[str, Json] = {}
    for member in members:
        kind = _TYPES[member.type]
        properties[member.name] = {**(kind if isinstance(kind, dict) else {}), "description": member.doc}
    required = [member.name for member in members if member.required]
    return {"additionalProperties": False, "properties": properties, "required": required, "type": "object"}
