"""What the custodian does again and again goes on after errors nobody foresaw: the next turn may be good."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING

from cloister.custodian.app import create_app

if TYPE_CHECKING:
    import pytest
    from custodian_kit import Bench


def test_sweeping_goes_on_after_an_error_that_nobody_foresaw(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    turns: list[str] = []

    def broken() -> None:
        turns.append("sweep")
        raise ZeroDivisionError

    bench.service.config = dataclasses.replace(bench.service.config, sweep_interval_s=0)
    bench.service.sweep = broken  # type: ignore[method-assign]

    async def serve() -> None:
        app = create_app(bench.service)
        async with app.router.lifespan_context(app):
            async with asyncio.timeout(60):
                while len(turns) < 3:  # noqa: ASYNC110 - the loop under test sets no event
                    await asyncio.sleep(0.01)

    asyncio.run(serve())
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "sweep_failed" in line]
    assert told
    assert told[0]["error"] == "ZeroDivisionError"
