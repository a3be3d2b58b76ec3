"""The proxy: what it lets in, what it passes on, what it gives back."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from client_town import TOKEN, Reply, Town
from proxy_kit import INFER, LOCAL, label, open_door, question, upstream_of

from cloister.client.proxy.keeping import ReceiptFolder
from cloister.client.receipts import VerifiedReceipt
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.channel.bhttp import BinaryResponse


@pytest.fixture
def town() -> Town:
    return Town()


@asynchronous
async def test_a_program_asks_and_its_own_credentials_stay_outside(town: Town) -> None:
    async with open_door(await upstream_of(town)) as door:
        answer = await door.infer(7, cookie="a=b", **{"user-agent": "canary", "x-canary": "c", "idempotency-key": "k"})
        assert label(answer) == 7
        assert (answer.headers["cloister-units"], answer.headers["cloister-remaining"]) == ("1", "9")
        assert answer.headers["cloister-receipt"] == f"{town.enclave.instance}/1"
        assert answer.headers["cache-control"] == "no-store"
    seen = dict(town.enclave.seen[-1].headers)
    assert set(seen) == {"accept", "authorization", "date", "idempotency-key", "inference-header-content-length"}
    assert (seen["authorization"], seen["idempotency-key"]) == (f"Bearer {TOKEN}", "k")
    assert LOCAL.encode() not in town.wire
    assert question(7)[1] not in town.wire


WRONG_TOKENS: list[dict[str, str]] = [
    {},
    {"authorization": ""},
    {"authorization": "Bearer"},
    {"authorization": f"Bearer {LOCAL}x"},
    {"authorization": f"Bearer {LOCAL[:-1]}"},
    {"authorization": LOCAL},
    {"authorization": f"Bearer {TOKEN}"},
    {"authorization": "Basic " + base64.b64encode(f"{LOCAL}:".encode()).decode()},
    {"authorization": "Basic !!!!"},
    {"authorization": "Basic " + base64.b64encode(LOCAL.encode()).decode()},
    {"x-authorization": f"Bearer {LOCAL}"},
]


@pytest.mark.parametrize("headers", WRONG_TOKENS, ids=range(len(WRONG_TOKENS)))
@asynchronous
async def test_another_user_of_this_machine_without_the_token_gets_nothing(town: Town, headers: dict[str, str]) -> None:
    async with open_door(await upstream_of(town)) as door, httpx2.AsyncClient(base_url=door.address) as stranger:
        for path in ("/status", "/v2", INFER):
            answer = await stranger.get(path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "local_token")
            assert LOCAL not in answer.text
        for path in ("/v2/health/live", "/v2/models/digits/ready"):
            answer = await stranger.get(path, headers=headers)
            assert (answer.status_code, answer.content) == (401, b"")
    assert town.enclave.seen == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Basic"])
@asynchronous
async def test_the_token_is_carried_as_bearer_or_as_the_password_of_basic(town: Town, scheme: str) -> None:
    carried = base64.b64encode(f"anybody:{LOCAL}".encode()).decode() if scheme == "Basic" else LOCAL
    async with open_door(await upstream_of(town)) as door, httpx2.AsyncClient(base_url=door.address) as program:
        answer = await program.get("/v2/models/digits", headers={"authorization": f"{scheme} {carried}"})
        assert answer.json()["name"] == "digits"


async def raw(port: int, text: bytes) -> tuple[int, bytes]:
    """Send bytes as they are and return status and all that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return int(answer.split(b" ", 2)[1]) if answer else 0, answer


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"host: evil.example\r\n", 403),
        (b"host: 127.0.0.1.evil.example:8470\r\n", 403),
        (b"host: evil.example:8470#127.0.0.1\r\n", 403),
        (b"host: 10.0.0.1\r\n", 403),
        (b"host: 0.0.0.0\r\n", 403),
        (b"host:\r\n", 403),
        (b"host: localhost\r\n", 200),
        (b"host: LOCALHOST:1\r\n", 200),
        (b"host: 127.0.0.1:65535\r\n", 200),
        (b"host: [::1]:8470\r\n", 200),
        (b"host: localhost\r\nhost: evil.example\r\n", 400),
    ],
)
@asynchronous
async def test_a_name_that_was_made_to_point_here_is_refused_with_the_right_token_too(
    town: Town, host: bytes, status: int
) -> None:
    async with open_door(await upstream_of(town)) as door:
        head = b"GET /status HTTP/1.1\r\nconnection: close\r\nauthorization: Bearer %b\r\n%b\r\n"
        got, answer = await raw(door.port, head % (LOCAL.encode(), host))
        assert got == status, answer
        assert b"access-control" not in answer.lower()


@asynchronous
async def test_pages_of_other_origins_are_not_invited(town: Town) -> None:
    async with open_door(await upstream_of(town)) as door:
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        answer = await door.program.request("OPTIONS", INFER, headers=asked)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]
        for method in ("PUT", "DELETE", "PATCH", "HEAD", "TRACE"):
            assert (await door.program.request(method, INFER)).status_code == 405
        for path in ("/", "/metrics", "/v3", "/v2x", "/.well-known/ohttp-gateway", "/status/"):
            assert (await door.program.get(path)).status_code == 404
    assert town.enclave.seen == []


@asynchronous
async def test_the_status_says_what_was_checked_and_what_is_left(town: Town) -> None:
    async with open_door(await upstream_of(town)) as door:
        label(await door.infer())
        town.clock.advance(90)
        said = (await door.program.get("/status")).json()
    assert (said["verified"], said["url"], said["refusal"]) == (True, "https://enclave.test", None)
    assert said["enclave"]["instance"] == town.enclave.instance
    assert {check["verdict"] for check in said["enclave"]["checks"]} >= {"passed", "not_checked"}
    assert said["keys"]["age_s"] == 90
    assert said["keys"]["left_s"] == 3600 - 90
    assert said["models"]["digits"] == {"digest": town.enclave.digest, "remaining": 9, "ticketed": False}
    assert said["receipts"] == {"folder": None, "kept": 0, "owed": 0, "proven": 1}
    assert TOKEN not in json.dumps(said)
    assert LOCAL not in json.dumps(said)


@asynchronous
async def test_a_restarted_enclave_is_verified_again_by_one_of_all_who_ask(town: Town) -> None:
    async with open_door(await upstream_of(town)) as door:
        town.enclave.allowance = 100
        label(await door.infer())
        town.restart()
        town.asked.clear()
        answers = await asyncio.gather(*(door.infer(5) for _ in range(20)))
        assert [label(answer) for answer in answers] == [5] * 20
        assert sum("attested-keyset" in asked for asked in town.asked) == 1
        assert (await door.program.get("/status")).json()["enclave"]["instance"] == town.enclave.instance


@asynchronous
async def test_nothing_is_passed_on_while_the_enclave_does_not_satisfy_the_trust(town: Town) -> None:
    async with open_door(await upstream_of(town)) as door:
        town.restart()
        town.enclave.debug = True
        seen = len(town.enclave.seen)
        for _ in range(2):
            answer = await door.infer()
            assert (answer.status_code, answer.json()["from"]) == (502, "proxy")
            assert "debug_enabled" in answer.text
        assert len(town.enclave.seen) == seen
        said = await door.program.get("/status")
        assert (said.status_code, said.json()["verified"], said.json()["models"]) == (503, False, {})
        assert "debug_enabled" in str(said.json()["refusal"])
        town.enclave.debug = False
        assert label(await door.infer(4)) == 4


@asynchronous
async def test_keys_are_verified_anew_before_they_run_out_and_stand_while_nobody_can_say(town: Town) -> None:
    upstream = await upstream_of(town)
    try:
        first = upstream.enclave
        town.clock.advance(60)
        await upstream.refresh_if_due()
        assert upstream.enclave is first
        town.clock.advance(3000)
        town.reply_change = lambda _: Reply(status=503, kind="text/plain", parts=[b""])
        await upstream.refresh_if_due()
        assert upstream.verified is first
        assert upstream.refusal is not None
        town.reply_change = lambda reply: reply
        await upstream.refresh_if_due()
        assert upstream.verified is not first
        assert upstream.refusal is None
        town.clock.advance(3601)
        assert upstream.verified is None
    finally:
        await upstream.close()


def cut(reply: Reply) -> Reply:
    return Reply(status=reply.status, kind=reply.kind, parts=[reply.parts[0][:-40]]) if len(reply.parts[0]) else reply


@asynchronous
async def test_an_answer_that_was_cut_is_asked_for_once_more_and_costs_once(town: Town) -> None:
    async with open_door(await upstream_of(town)) as door:
        changes = [cut]
        town.reply_change = lambda reply: changes.pop()(reply) if changes else reply
        assert label(await door.infer(6)) == 6
        assert town.enclave.allowance == 9
        town.reply_change = cut
        answer = await door.infer(6)
        assert (answer.status_code, answer.json()["code"]) == (502, "truncated")


def without_receipt(response: BinaryResponse) -> BinaryResponse:
    return type(response)(status=response.status, headers=response.headers, body=response.body)


def another_answer(response: BinaryResponse) -> BinaryResponse:
    body = response.body[:-8] + bytes(8)
    return type(response)(status=200, headers=response.headers, body=body, trailers=response.trailers)


@pytest.mark.parametrize(
    ("change", "code"), [(without_receipt, "receipt_missing"), (another_answer, "commitment_mismatch")]
)
@asynchronous
async def test_an_answer_whose_receipt_does_not_hold_is_not_given(town: Town, change: Any, code: str) -> None:
    town.enclave.change = change
    async with open_door(await upstream_of(town)) as door:
        answer = await door.infer(9)
        assert (answer.status_code, answer.json()["code"], answer.json()["from"]) == (502, code, "proxy")


@asynchronous
async def test_the_enclaves_own_refusals_go_through_as_they_are(town: Town) -> None:
    async with open_door(await upstream_of(town)) as door:
        town.enclave.allowance = 0
        answer = await door.infer()
        assert (answer.status_code, answer.json()["code"]) == (402, "allowance_exhausted")
        assert "from" not in answer.json()
        other = await door.program.get("/v2/models/other")
        assert (other.status_code, other.json()["code"], other.json()["from"]) == (400, "usage", "proxy")
        assert "error" in other.json()


@asynchronous
async def test_receipts_are_kept_and_an_answer_given_again_has_the_one_it_had(town: Town, tmp_path: Path) -> None:
    upstream = await upstream_of(town)
    upstream.receipts = ReceiptFolder(tmp_path / "receipts")
    async with open_door(upstream) as door:
        first = await door.infer(2, **{"idempotency-key": "k"})
        again = await door.infer(2, **{"idempotency-key": "k"})
        assert first.content == again.content
        label(await door.infer(3))
        files = sorted((tmp_path / "receipts").iterdir())
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
        kept = [VerifiedReceipt.parse(path.read_bytes().strip()) for path in files]
        assert [receipt.receipt.index for receipt in kept] == [1, 2]
        kept[0].demand_content(request=question(2)[1], response=first.content)
        assert (await door.program.get("/status")).json()["receipts"]["kept"] == 3


@asynchronous
async def test_nothing_more_is_asked_while_a_receipt_could_not_be_kept(town: Town, tmp_path: Path) -> None:
    upstream = await upstream_of(town)
    upstream.receipts = ReceiptFolder(tmp_path / "receipts")
    async with open_door(upstream) as door:
        (tmp_path / "receipts").rmdir()
        for _ in range(3):
            answer = await door.infer(2)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert "could not be kept" in answer.json()["error"]
        assert len(town.enclave.seen) == 1
        assert (await door.program.get("/status")).json()["receipts"]["owed"] == 1
        (tmp_path / "receipts").mkdir()
        label(await door.infer(2))
        assert len(list((tmp_path / "receipts").iterdir())) == 2


def only(folder: Path) -> Path:
    """Return the one file of a folder."""
    (path,) = folder.iterdir()
    return path


@asynchronous
async def test_another_receipt_in_the_place_of_ours_is_left_there(town: Town, tmp_path: Path) -> None:
    upstream = await upstream_of(town)
    upstream.receipts = ReceiptFolder(tmp_path)
    async with open_door(upstream) as door:
        label(await door.infer(2))
        path = only(tmp_path)
        data = path.read_bytes()
        town.enclave.index = 0  # a copy of the enclave's memory gives the same place again
        answer = await door.infer(3)
        assert (answer.status_code, answer.json()["code"]) == (502, "receipt_fork")
        assert path.read_bytes() == data


@asynchronous
async def test_neither_bodies_nor_tokens_are_written_anywhere(
    town: Town, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with open_door(await upstream_of(town)) as door:
        known = b"host: localhost\r\nconnection: close\r\nauthorization: Bearer %b\r\n" % LOCAL.encode()
        asked = b"POST %b HTTP/1.1\r\n%bcontent-length: 11\r\ncontent-type: canary-2b7d\r\n\r\ncanary-2b7d"
        assert (await raw(door.port, asked % (b"/v2/models/canary-2b7d/infer", known)))[0] == 400
        town.enclave.answer = lambda _: 1 / 0  # type: ignore[assignment, method-assign, return-value]
        assert (await raw(door.port, asked % (INFER.encode(), known)))[0] == 500
        assert (await raw(door.port, b"GET /canary-2b7d HTTP/1.1\r\ncanary-2b7d\r\n\r\n"))[0] == 400
    said = "".join(capfd.readouterr()) + caplog.text
    for secret in ("canary-2b7d", LOCAL, TOKEN):
        assert secret not in said
