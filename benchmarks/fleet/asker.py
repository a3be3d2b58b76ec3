"""A consumer of one enclave that keeps its requests: each is sealed before a clock starts, answers opened after it."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import numpy as np

from cloister.channel.bhttp import BinaryRequest, BinaryResponse
from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, GATEWAY_PATH, KEYSET_PATH, EvidenceDocument, Keyset
from cloister.channel.ohttp import seal_request
from cloister.channel.replay import dump_http_date
from cloister.enclave.oip import HEADER_LENGTH

_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One kind of request: a name, the shape of its input, and whether it goes as JSON."""

    name: str
    shape: tuple[int, ...]
    as_json: bool = False

    def body(self) -> tuple[bytes, dict[str, str]]:
        """Return an inference request and its headers."""
        array = np.random.default_rng(1).random(self.shape, dtype=np.float32)
        entry: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(self.shape)}
        if self.as_json:
            return json.dumps({"inputs": [entry | {"data": array.reshape(-1).tolist()}]}).encode(), {}
        entry["parameters"] = {"binary_data_size": array.nbytes}
        head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
        return head + array.tobytes(), {HEADER_LENGTH: str(len(head))}


def name_of(work: Work) -> str:
    """Return the name of the model that takes this work."""
    return f"rows-of-{work.shape[1]}"


class Asker:
    """Asks one server, encrypted, one request after the other."""

    def __init__(self, port: int) -> None:
        """Fetch the keyset."""
        self._port = port
        document = httpx2.get(f"http://127.0.0.1:{port}{KEYSET_PATH}", trust_env=False).content
        self._config = Keyset.parse(EvidenceDocument.parse(document).keyset).configs[0]

    def sealed(self, work: Work, count: int) -> list[tuple[bytes, Any]]:
        """Return encrypted requests, each sealed anew, with the openers of their answers."""
        body, extra = work.body()
        made = []
        for _ in range(count):
            request = BinaryRequest(
                method="POST",
                authority="enclave",
                path=f"/v2/models/{name_of(work)}/infer",
                headers=(("date", dump_http_date(datetime.now(UTC))), *extra.items()),
                body=body,
            )
            made.append(seal_request(self._config, request.dump()))
        return made

    def send(self, requests: list[tuple[bytes, Any]]) -> list[float]:
        """Send one after the other on one connection; return the seconds of each, answers opened outside them."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        took = []
        for body, opener in requests:
            begun = time.perf_counter()
            connection.request("POST", GATEWAY_PATH, body, {"content-type": CHUNKED_REQUEST_TYPE})
            answer = connection.getresponse()
            data = answer.read()
            took.append(time.perf_counter() - begun)
            if answer.status != _OK:
                raise SystemExit(f"{GATEWAY_PATH}: {answer.status} {data[:200]!r}")
            inner = BinaryResponse.parse(b"".join([*opener.feed(data), opener.end()]))
            if inner.status != _OK:
                raise SystemExit(f"inner {inner.status} {inner.body[:200]!r}")
        connection.close()
        return took
