"""R19 and T7: unique strings in every secret, then a search through all that was written or sent."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from flow_house import brightest, open_house, row
from PIL import Image

from cloister.cli.demo.search import Needle, find
from cloister.errors import Rejected
from cloister.journal import EventLog, libraries_to
from cloister.lending.exports import FORMATS
from cloister.lending.tlog.tiles import dump_bundle
from cloister.telemetry.exposition import openmetrics_text
from cloister.wire import dump_json
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from flow_house import House

INPUT = np.frombuffer(b"CANARY-INPUT-9f3a1c7e55aa00ff" + bytes(3), dtype="<f4").reshape(2, 4)
NAME = "patient-0417-canary-file-name"
WEIGHTS = "canary-weights-name-5d1e"


def looked_at(house: House, metrics: str) -> dict[str, bytes]:
    """Return everything that was stored, logged or sent, by name."""
    places = {f"wire {port}": bytes(seen) for port, seen in house.wires.seen.items()}
    places["enclave log"] = house.log.getvalue().encode()
    places["metrics"] = metrics.encode()
    for path in house.folder.rglob("*"):
        plain = path.parent.name.endswith("-plain") or path.name in {"loan.json", NAME + ".png"}
        if path.is_file() and not plain:
            places[str(path.relative_to(house.folder))] = path.read_bytes()
    return places


@asynchronous
async def test_no_secret_is_found_anywhere(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"digits": brightest(WEIGHTS)}) as house:
        await house.lend(10)
        Image.new("L", (4, 4), 200).save(tmp_path / f"{NAME}.png")
        errors = []
        async with house.enclave() as serving, await house.client() as client:
            assert client.enclave.keyset.models
            answer = await client.infer("digits", {WEIGHTS: INPUT})
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", np.concatenate([INPUT] * 40))
            errors.append(repr(caught.value) + caught.value.message)
            serving.measure()
            metrics = openmetrics_text(serving.metrics)
        places = looked_at(house, metrics + "".join(errors))
        assert {"wire 8440", "wire 8443", "home/custodian.db", "home/vault.json"} <= set(places)
        secrets = {
            "input": b"CANARY-INPUT",
            "file name": NAME.encode(),
            "weights": WEIGHTS.encode(),
            "consumer's token": house.tokens["clinic"].encode(),
            "answer": answer.response,
        }
        found = [(what, place) for what, secret in secrets.items() for place, data in places.items() if secret in data]
        assert found == []


@asynchronous
async def test_tokens_are_stored_as_hashes_only(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(10)
        async with house.enclave(), await house.client() as client:
            await client.infer("digits", row(1))
        for name in ("custodian.db", "custodian.db-wal", "checkpoint.json"):
            path = tmp_path / "home" / name
            data = path.read_bytes() if path.exists() else b""
            assert house.loan_file["token"].encode() not in data
            assert house.tokens["clinic"].encode() not in data


REASON = "patient-0417-canary-reason"
CONSUMER = "ward-canary-77"
CHATTY = ("uvicorn.error", "uvicorn.access", "httpx2", "httpcore2", "sqlalchemy.engine", "starlette", "asyncio", "acme")


def chatter(secrets: dict[str, bytes]) -> None:
    """Let libraries log, warn of and raise everything that they could know."""
    for name in CHATTY:
        for secret in secrets.values():
            text = secret.decode("latin-1")
            logging.getLogger(name).debug("request %s", text)
            logging.getLogger(name).warning("%s", text, extra={"body": text}, stack_info=True)
            try:
                raise RuntimeError(text)  # noqa: TRY301 - for its traceback
            except RuntimeError:
                logging.getLogger(name).exception("while handling %r", secret)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for secret in secrets.values():
            logging.getLogger("py.warnings").warning("%s", secret)
            sys.excepthook(ValueError, ValueError(secret), None)
            sys.unraisablehook(SimpleNamespace(exc_type=KeyError, exc_value=KeyError(secret), object=secret))


def every_sink(lines: list[bytes]) -> dict[str, bytes]:
    """Return the audit log in every format and as bundles."""
    sinks = {name: b"\n".join(made.dump(line) for line in lines) for name, made in FORMATS.items()}
    return {f"export {name}": data for name, data in sinks.items()} | {"bundle": dump_bundle(lines)}


@asynchronous
async def test_no_secret_and_no_person_is_in_any_sink_of_logs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """R19 with all log sinks: both journals, libraries at their loudest, uncaught exceptions, audit log and exports."""
    said = io.StringIO()
    async with open_house(tmp_path, models={"digits": brightest(WEIGHTS)}) as house:
        with libraries_to(EventLog(house.clock.wall, said)):
            logging.getLogger().handlers[0].setLevel(logging.NOTSET)
            logging.getLogger().setLevel(logging.DEBUG)
            await house.lend(10, consumers=[CONSUMER])
            async with house.enclave(), await house.client(CONSUMER) as client:
                answer = await client.infer("digits", {WEIGHTS: INPUT})
                with pytest.raises(Rejected):
                    await client.infer("digits", np.concatenate([INPUT] * 40))
            block = {"kind": "consumer", "subject": CONSUMER, "loan": house.loan, "reason": REASON}
            await house.post("/v1/blocks", block)
            await house.admin.get("/v1/loans", headers={"authorization": "Bearer clst_" + NAME})
            secrets = {
                "input": INPUT.tobytes(),
                "file name": NAME.encode(),
                "weights": WEIGHTS.encode(),
                "consumer's token": house.tokens[CONSUMER].encode(),
                "borrower's token": house.loan_file["token"].encode(),
                "answer": answer.response,
                "reason": REASON.encode(),
                "consumer": CONSUMER.encode(),
            }
            chatter(secrets)
            logging.getLogger().setLevel(logging.WARNING)
        lines = [dump_json(entry) for entry in (await house.get("/v1/audit?limit=1000"))["entries"]]
        sinks = every_sink(lines) | {
            "enclave": house.log.getvalue().encode(), "libraries": said.getvalue().encode(),
            "streams": "".join(capfd.readouterr()).encode(),
        }  # fmt: skip
    assert len(said.getvalue().splitlines()) > 5 * len(CHATTY)
    assert b"blocked" in sinks["bundle"]
    needles = [Needle(name=name, value=value) for name, value in secrets.items()]
    assert find(needles, list(sinks.items())) == []
    planted = find(needles, [("planted", b"\x00".join(secrets.values()))])
    assert len(planted) == len(needles)
