"""The channel's own vectors (tests/vectors/channel), most of them bad: for us and for other implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloister.channel.bhttp import BinaryRequest, BinaryResponse, Framing
from cloister.channel.keyset import Keyset
from cloister.channel.ohttp import GatewayKeys, KeyConfig, RequestOpener, RequestSealer, parse_key_configs
from cloister.crypto.hpke import Kem, KemPrivateKey
from cloister.errors import Malformed, Rejected
from hpke_seam import sender_with

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent.parent / "vectors" / "channel"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PARSERS: dict[str, Callable[[bytes], object]] = {
    "bhttp-request": BinaryRequest.parse,
    "bhttp-response": BinaryResponse.parse,
    "ohttp-keys": parse_key_configs,
    "keyset": Keyset.parse,
}


def _cases(*names: str) -> list[object]:
    return [pytest.param(name, case, id=f"{name}: {case['name']}") for name in names for case in FILES[name]["cases"]]


def test_most_vectors_are_bad_ones() -> None:
    for name, file in FILES.items():
        bad = [case for case in file["cases"] if case["expect"] != "ok"]
        assert 2 * len(bad) > len(file["cases"]), name
        assert len({case["name"] for case in file["cases"]}) == len(file["cases"]), name


@pytest.mark.parametrize(("name", "case"), _cases(*PARSERS))
def test_parsers_do_what_the_vector_says(name: str, case: dict[str, object]) -> None:
    data = bytes.fromhex(str(case["hex"]))
    if case["expect"] == "Malformed":
        with pytest.raises(Malformed):
            PARSERS[name](data)
        return
    value = PARSERS[name](data)
    if isinstance(value, Keyset):
        assert value.dump() == data
    if isinstance(value, (BinaryRequest, BinaryResponse)):
        assert all(type(value).parse(value.dump(framing)) == value for framing in Framing)
    if "key_ids" in case:
        assert [config.key_id for config in parse_key_configs(data)] == case["key_ids"]


def _opened(case: dict[str, object], opener: RequestOpener | object, *, step: int) -> str:
    data = bytes.fromhex(str(case["hex"]))
    try:
        parts = [part for at in range(0, len(data), step) for part in opener.feed(data[at : at + step])]  # type: ignore[attr-defined]
        whole = b"".join([*parts, opener.end()])  # type: ignore[attr-defined]
    except Rejected as exc:
        return exc.code
    assert whole.hex() == case["plaintext"]
    return "ok"


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(("name", "case"), _cases("ohttp-chunked-request"))
def test_gateways_do_what_the_vector_says(name: str, case: dict[str, object], step: int) -> None:
    config = KeyConfig.parse(bytes.fromhex(FILES[name]["key_config"]))
    assert config is not None
    keys = GatewayKeys([(config, KemPrivateKey.from_bytes(Kem.X25519, bytes.fromhex(FILES[name]["private_key"])))])
    assert _opened(case, RequestOpener(keys), step=step) == case["expect"]


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(("name", "case"), _cases("ohttp-chunked-response"))
def test_clients_do_what_the_vector_says(name: str, case: dict[str, object], step: int) -> None:
    config = KeyConfig.parse(bytes.fromhex(FILES[name]["key_config"]))
    assert config is not None
    sealer = RequestSealer(config, config.suites[0], _setup=sender_with(bytes.fromhex(FILES[name]["ephemeral"])))
    assert _opened(case, sealer.response_opener(), step=step) == case["expect"]
