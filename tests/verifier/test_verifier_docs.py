"""The pages say what the service does: every route, setting and status, and no other."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest
from verifier_kit import SIMULATED, Clock, desk

import vendor_kit
from cloister.verifier.openapi import openapi_document
from cloister.verifier.problems import STATUSES
from cloister.verifier.routes import ROUTES
from cloister.verifier.settings import PolicySettings, Settings
from cloister.verifier.settings_file import parse_settings, settings_text
from cloister.wire import dump_b64u

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "attestation-service.md").read_text(encoding="utf-8")


def test_every_route_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| `([A-Z]+) (/\S*)` \| ([^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert {(method, path): said.strip() for method, path, _, said in rows} == {
        (route.method, route.path): route.summary for route in ROUTES
    }
    assert {path for _, path, who, _ in rows if who == "callers"} == {route.path for route in ROUTES if route.known}


def test_every_setting_is_documented_with_its_default_its_range_and_its_words() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| `([^|]*)` \| ([^|]*) \| (.*) \|$", PAGE, re.MULTILINE)
    documented = [(name, default, limits.strip(), meaning) for name, default, limits, meaning in rows]
    assert documented == [row for kind in (Settings, PolicySettings) for row in map(_row, fields(kind))]


def _row(item: object) -> tuple[str, str, str, str]:
    default, data = item.default, item.metadata  # type: ignore[attr-defined]  # a field of a dataclass
    number = isinstance(default, int) and not isinstance(default, bool)
    spelled = json.dumps(list(default) if isinstance(default, tuple) else default)
    return item.name, spelled, f"{data['floor']} to {data['cap']}" if number else "", data["doc"]  # type: ignore[attr-defined]


def test_every_status_is_documented() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", PAGE, re.MULTILINE)
    documented = {code: int(status) for status, codes in rows for code in re.findall(r"`([a-z_]+)`", codes)}
    own = {code: documented.pop(code) for code in ("malformed", "unavailable")}
    assert documented == dict(STATUSES)
    assert own == {"malformed": 400, "unavailable": 503}


def test_the_settings_that_the_page_and_setup_show_are_taken() -> None:
    shown = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    settings, policies = parse_settings(shown[1])
    assert settings.default_policy in policies
    settings, policies = parse_settings(settings_text(issuer="https://attest.example"))
    assert settings == Settings(issuer="https://attest.example")
    assert policies == {}


def test_the_api_document_is_one_and_describes_what_is_sent(tmp_path: Path) -> None:
    with desk(tmp_path, clock=Clock(stands_at=vendor_kit.NOW)) as found:
        document = found.get("/openapi.json").json()
        assert document["openapi"] == "3.1.0"
        assert document["servers"] == [{"url": found.url}]
        assert {(method.upper(), path) for path, item in document["paths"].items() for method in item} == {
            (route.method, route.path) for route in ROUTES
        }
        for path in ("attest", "verify"):
            operation = document["paths"][f"/v1/{path}"]["post"]
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            body = found.asked(**({"nonce": b"a nonce of ours"} if path == "verify" else {}))
            jsonschema.Draft202012Validator(schema).validate(body)
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({**body, "unknown": 1}, schema)
            answer = found.post(f"/v1/{path}", body).json()
            jsonschema.validate(answer, operation["responses"]["200"]["content"]["application/json"]["schema"])
        problem = found.post("/v1/verify", {"nonce": dump_b64u(bytes(8))}).json()
        jsonschema.validate(problem, document["components"]["schemas"]["Problem"])


def test_an_open_service_says_that_no_token_is_wanted() -> None:
    for is_open in (True, False):
        document = openapi_document("https://attest.example", is_open=is_open)
        assert isinstance(document, dict)
        operation = document["paths"]["/v1/attest"]["post"]
        assert operation["security"] == [{"token": []}, {}] if is_open else [{"token": []}]
        assert document["paths"]["/.well-known/jwks.json"]["get"]["security"] == []
    assert SIMULATED
