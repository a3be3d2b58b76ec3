"""The whole API, asked by its own OpenAPI document: whatever fits it or nearly fits it, nothing of ours breaks.

Cases are made by schemathesis from the document as it is served, and sent to the real application over ASGI: half of
them fit the schema, half violate it in one way. Names in paths are half the time those of things that are there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from api_kit import PLENTY, House
from custodian_kit import Bench
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from cloister.custodian.problems import PROBLEM_TYPE
from cloister.custodian.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from cloister.custodian.calls import Route

BRIEF, LONG = 6, 400  # cases of each kind for each route
ROUTE_BY_NAME = {route.handler.__name__: route for route in ROUTES}


class Asked(House):
    """That custodian, with the operations that its own document describes."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        schema = schemathesis.openapi.from_dict(bench.client.get("/openapi.json").json())
        found = [result.ok() for result in schema.get_all_operations()]
        self.operations = {operation.definition.raw["operationId"]: operation for operation in found}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Yield the custodian that all of it is sent to."""
    with Bench(tmp_path_factory.mktemp("fuzz"), settings=PLENTY) as bench:
        yield Asked(bench)


def _send(house: Asked, route: Route, case: Any, *, there: bool) -> httpx.Response:
    """Send a case, as somebody who may."""
    if there:
        case.path_parameters = {
            **case.path_parameters,
            **{n: house.known.get(n, v) for n, v in case.path_parameters.items()},
        }
    request = case.as_transport_kwargs(base_url="http://testserver")
    headers = {name: value for name, value in dict(request.pop("headers", {}) or {}).items() if value is not None}
    request.pop("cookies", None)
    request.pop("auth", None)
    data = request.pop("data", None)
    if data is not None:
        request["content"] = data if isinstance(data, (bytes, str)) else json.dumps(data)
    return house.bench.client.request(
        request.pop("method"), request.pop("url"), headers={**headers, **house.headers(route)}, **request
    )


def _demand_sound(route: Route, answer: httpx.Response) -> None:
    """Refuse a failure of ours, an answer of another kind than the document says, and one that says too much."""
    assert answer.status_code < 500, (route.path, answer.status_code, answer.text[:300])
    media = answer.headers["content-type"].partition(";")[0]
    if answer.status_code < 400:
        assert media == route.answers.partition(";")[0]
        return
    assert media == PROBLEM_TYPE
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert "Traceback" not in answer.text


def _ask(house: Asked, route: Route, mode: GenerationMode, examples: int) -> None:
    operation = house.operations[route.handler.__name__]
    strategy = operation.as_strategy(generation_mode=mode)

    @seed(7)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=strategy, there=st.booleans())
    def ask(case: Any, there: bool) -> None:  # noqa: FBT001 - drawn
        _demand_sound(route, _send(house, route, case, there=there))

    ask()


NAMED = [(route, GenerationMode.POSITIVE) for route in ROUTES] + [
    (route, GenerationMode.NEGATIVE)
    for route in ROUTES
    if route.members or route.query  # others cannot be violated
]


@pytest.mark.parametrize(("route", "mode"), NAMED, ids=lambda item: getattr(item, "path", getattr(item, "value", item)))
def test_no_route_answers_a_server_error(house: Asked, route: Route, mode: GenerationMode) -> None:
    _ask(house, route, mode, BRIEF)


@pytest.mark.drill
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("route", "mode"), NAMED, ids=lambda item: getattr(item, "path", getattr(item, "value", item)))
def test_no_route_answers_a_server_error_to_many(house: Asked, route: Route, mode: GenerationMode) -> None:
    _ask(house, route, mode, LONG)


def test_every_route_is_asked(house: Asked) -> None:
    assert set(house.operations) == set(ROUTE_BY_NAME)
    assert len(ROUTE_BY_NAME) == len(ROUTES)
