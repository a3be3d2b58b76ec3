"""The whole API of the service, asked by its own OpenAPI document: whatever fits or nearly fits, nothing breaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from starlette.testclient import TestClient
from verifier_kit import SIMULATED, Clock, opened, write_home

import vendor_kit
from cloister.serving.problems import PROBLEM_TYPE
from cloister.verifier.routes import ROUTES
from cloister.wire import dump_b64u, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from cloister.verifier.routes import Route

BRIEF, LONG = 12, 400  # cases of each kind for each route
PLENTY = "\n".join(f"{name} = 1000000" for name in ("requests_per_minute", "challenges_per_minute", "pages_per_minute"))


class Asked:
    """A service over ASGI, and the operations that its own document describes."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        found = [result.ok() for result in schema.get_all_operations()]
        self.operations = {operation.definition.raw["operationId"]: operation for operation in found}

    def nonce(self) -> str:
        nonce = self.client.post("/v1/challenge").json()["nonce"]
        assert len(parse_b64u(nonce, what="nonce")) == 32
        return str(nonce)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    home, sides = tmp_path_factory.mktemp("home"), {SIMULATED: vendor_kit.side(SIMULATED)}
    write_home(home, sides, issuer="http://127.0.0.1:1", service=f"{PLENTY}\nall_per_minute = 1000000")
    client = TestClient(opened(home, sides, Clock()).app, raise_server_exceptions=False)
    with client:
        yield Asked(client)


def _send(asked: Asked, case: Any, *, good: bool) -> httpx.Response:
    """Send a case; half of the time with a nonce and a policy that are there, so that it gets further."""
    if good and isinstance(case.body, dict):
        case.body = {**case.body, "policy": SIMULATED, "nonce": asked.nonce()}
        evidence = case.body.get("evidence")
        if isinstance(evidence, dict):
            case.body["evidence"] = {**evidence, "payload": dump_b64u(b"CLOISTER-SIM\x00\x01"), "tee": SIMULATED}
    request = case.as_transport_kwargs(base_url="http://testserver")
    headers = {name: value for name, value in dict(request.pop("headers", {}) or {}).items() if value is not None}
    for name in ("cookies", "auth"):
        request.pop(name, None)
    data = request.pop("data", None)
    if data is not None:
        request["content"] = data if isinstance(data, (bytes, str)) else json.dumps(data)
    return asked.client.request(request.pop("method"), request.pop("url"), headers=headers, **request)


def _demand_sound(route: Route, answer: httpx.Response) -> None:
    assert answer.status_code < 500, (route.path, answer.status_code, answer.text[:300])
    media = answer.headers["content-type"].partition(";")[0]
    assert media in {*route.answers, PROBLEM_TYPE}
    assert "Traceback" not in answer.text
    if media == PROBLEM_TYPE:
        assert answer.json()["status"] == answer.status_code


def _ask(asked: Asked, route: Route, mode: GenerationMode, examples: int) -> None:
    @seed(7)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=asked.operations[route.name].as_strategy(generation_mode=mode), good=st.booleans())
    def ask(case: Any, good: bool) -> None:  # noqa: FBT001 - drawn
        _demand_sound(route, _send(asked, case, good=good))

    ask()


NAMED = [(route, GenerationMode.POSITIVE) for route in ROUTES]
NAMED += [(route, GenerationMode.NEGATIVE) for route in ROUTES if route.body]  # others cannot be violated


@pytest.mark.parametrize(("route", "mode"), NAMED, ids=lambda item: getattr(item, "path", getattr(item, "value", item)))
def test_no_route_answers_a_server_error(asked: Asked, route: Route, mode: GenerationMode) -> None:
    _ask(asked, route, mode, BRIEF)


@pytest.mark.drill
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("route", "mode"), NAMED, ids=lambda item: getattr(item, "path", getattr(item, "value", item)))
def test_no_route_answers_a_server_error_to_many(asked: Asked, route: Route, mode: GenerationMode) -> None:
    _ask(asked, route, mode, LONG)


def test_every_route_is_asked(asked: Asked) -> None:
    assert set(asked.operations) == {route.name for route in ROUTES}
