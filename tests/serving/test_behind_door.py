"""Pages behind a door: what nobody foresaw is a page without its words, and is told to whoever reads the journal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from cloister.serving.behind_door import behind_door
from cloister.serving.door import Door

if TYPE_CHECKING:
    import pytest
    from starlette.requests import Request
    from starlette.responses import Response

    from cloister.errors import CloisterError


async def answered(_request: Request) -> Response:
    return PlainTextResponse("here")


async def broken(_request: Request) -> Response:
    msg = "the patient's name"
    raise KeyError(msg)


def refused(error: CloisterError, _request: Request | None = None) -> Response:
    return PlainTextResponse(error.message, status_code=500)


def test_a_bug_is_written_down_by_its_class_and_shown_without_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    door = Door(clock=lambda: datetime(2026, 11, 30, tzinfo=UTC), rng=bytes, hosts=("testserver",), open_to_all=True)
    works = (("GET", "/", answered), ("GET", "/broken", broken))
    client = TestClient(behind_door(works, assets=PlainTextResponse(""), door=door, secure=False, refused=refused))
    assert client.get(f"{door.prefix}/").text == "here"
    assert capsys.readouterr().err == ""
    answer = client.get(f"{door.prefix}/broken")
    assert (answer.status_code, answer.text) == (500, "internal error (KeyError)")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["route"], line["error"]) == ("internal_error", "broken", "KeyError")
    assert line.keys() == {"at", "event", "route", "error"}
