"""R19 and T7: unique strings in every secret, then a search through all that was written or sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from flow_house import asynchronous, brightest, open_house, row
from PIL import Image

from cloister.errors import Rejected
from cloister.telemetry.exposition import openmetrics_text

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
