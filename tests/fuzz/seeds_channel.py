"""Fuzzing targets of the channel and of the enclave's web server: all that a stranger's bytes reach first.

The keys are those of the vectors, so that what is kept of one run opens in the next.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from test_web_mutations import CHUNKS, HEADS, asked, conversation
from wire_tap import through

from cloister.channel.bhttp import BinaryRequest, BinaryResponse
from cloister.channel.keyset import EvidenceDocument, Keyset
from cloister.channel.ohttp import GatewayKeys, KeyConfig, RequestOpener, RequestSealer, parse_key_configs
from cloister.crypto.hpke import Kem, KemPrivateKey
from cloister.enclave.oip import parse_request
from cloister.enclave.web.chunked import ChunkedBody
from cloister.enclave.web.http1 import Http1Connection
from cloister.enclave.web.http1_head import parse_head
from cloister.enclave.web.http2 import Http2Connection
from hpke_seam import sender_with

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.channel.ohttp import ResponseOpener

__all__ = ["TARGETS"]

_VECTORS = Path(__file__).parents[1] / "vectors" / "channel"
_JSON_CAP = 1 << 16


def _file(name: str) -> dict[str, object]:
    return json.loads((_VECTORS / f"{name}.json").read_text())


def _good(name: str) -> Callable[[], list[bytes]]:
    """Return the good cases of a file of vectors."""

    def seeds() -> list[bytes]:
        return [bytes.fromhex(case["hex"]) for case in _file(name)["cases"] if case["expect"] == "ok"]

    return seeds


def _config(name: str) -> KeyConfig:
    config = KeyConfig.parse(bytes.fromhex(_file(name)["key_config"]))
    assert config is not None
    return config


def _opened(opener: RequestOpener | ResponseOpener, data: bytes) -> None:
    for at in range(0, len(data), 100):
        opener.feed(data[at : at + 100])
    opener.end()


def _request(data: bytes) -> None:
    private = KemPrivateKey.from_bytes(Kem.X25519, bytes.fromhex(_file("ohttp-chunked-request")["private_key"]))
    _opened(RequestOpener(GatewayKeys([(_config("ohttp-chunked-request"), private)])), data)


def _response(data: bytes) -> None:
    config, ephemeral = _config("ohttp-chunked-response"), bytes.fromhex(_file("ohttp-chunked-response")["ephemeral"])
    _opened(RequestSealer(config, config.suites[0], _setup=sender_with(ephemeral)).response_opener(), data)


def _documents() -> list[bytes]:
    keyset = _good("keyset")()[0]
    document = EvidenceDocument(
        nonce=bytes(32), tee="simulated", evidence=b"evidence", keyset=keyset, devices=b"", collateral={"crl": b"x"}
    )
    return [document.dump()]


def _chunks(data: bytes) -> None:
    body = ChunkedBody()
    for at in range(0, len(data), 7):
        if not body.done:
            body.feed(data[at : at + 7])


def _connection(kind: type[Http1Connection | Http2Connection]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        half = len(data) // 2
        asyncio.run(asyncio.wait_for(through(kind, (data[:half], data[half:]), room=50_000), 60))

    return run


def _inferences() -> list[bytes]:
    x = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
    return [json.dumps({"id": "1", "inputs": [x | {"data": [1, 2, 3]}], "outputs": [{"name": "y"}]}).encode()]


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "channel-bhttp-request": (BinaryRequest.parse, _good("bhttp-request")),
    "channel-bhttp-response": (BinaryResponse.parse, _good("bhttp-response")),
    "channel-evidence-document": (EvidenceDocument.parse, _documents),
    "channel-keys": (parse_key_configs, _good("ohttp-keys")),
    "channel-keyset": (Keyset.parse, _good("keyset")),
    "channel-request": (_request, _good("ohttp-chunked-request")),
    "channel-response": (_response, _good("ohttp-chunked-response")),
    "web-chunks": (_chunks, lambda: [CHUNKS]),
    "web-head": (lambda data: parse_head(data, pinned=True), lambda: list(HEADS)),
    "web-http1": (_connection(Http1Connection), lambda: [HEADS[0] + b"0123456789" + HEADS[2] + CHUNKS + HEADS[1]]),
    "web-http2": (_connection(Http2Connection), lambda: [conversation(), asked(count=3, reset=True)]),
    "web-inference": (lambda data: parse_request(data, header_bytes=None, json_cap=_JSON_CAP), _inferences),
}
