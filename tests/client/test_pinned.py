"""Pinned TLS from the consumer's side: attacks on the connection, its key, and the answers."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from client_town import DIGEST, TOKEN, Town, scan
from pinned_town import Key, PinnedTown

from cloister.channel.bhttp import BinaryRequest, BinaryResponse
from cloister.channel.bhttp_reader import Data, ResponseHead
from cloister.channel.keyset import KEYSET_PATH, OHTTP_KEY_PROBLEM
from cloister.client import Client, TruncatedResponse, pinned_tls
from cloister.client.direct import DirectExchange
from cloister.client.pinned_tls import UnlistedKey
from cloister.client.proxy.upstream import Upstream
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PINNED_CLIENTS = "cloister.client.pinned_clients"


@pytest.fixture
def town(tmp_path: Path) -> Iterator[PinnedTown]:
    with PinnedTown(tmp_path) as made:
        yield made


@pytest.fixture
def hybrid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a group that every TLS library knows stand for the post-quantum one."""
    monkeypatch.setattr(pinned_tls, "HYBRID_GROUP", "prime256v1")


def requests_heard(town: PinnedTown) -> list[bytes]:
    """Return the connections on which more than evidence was asked for."""
    return [heard for heard in town.heard if heard and not heard.startswith(b"GET " + KEYSET_PATH.encode())]


def test_an_answer_over_pinned_tls_is_proven_as_any_other(town: PinnedTown) -> None:
    with town.client() as client:
        for brightest in (7, 3, 4):
            answer = client.infer("digits", scan(brightest))
            assert answer.label == str(brightest)
            assert answer.receipt.receipt.model == DIGEST
        assert answer.remaining == 7
    assert town.sealed == 0
    assert [request.method for request in town.direct] == ["GET", "POST", "POST", "POST"]
    assert len(requests_heard(town)) == 1, "one connection carries all"
    assert all(dict(request.headers)["authorization"] == f"Bearer {TOKEN}" for request in town.direct)
    keys = {dict(request.headers).get("idempotency-key") for request in town.direct[1:]}
    assert len(keys) == 3
    assert None not in keys


def test_asyncio_takes_the_same_way(town: PinnedTown) -> None:
    async def ask() -> list[str | None]:
        async with await town.async_client() as client:
            answers = await asyncio.gather(*(client.infer("digits", scan(number)) for number in range(5)))
            return [answer.label for answer in answers]

    assert asyncio.run(ask()) == ["0", "1", "2", "3", "4"]
    assert town.sealed == 0


def test_the_transports_take_the_same_way(town: PinnedTown) -> None:
    with (
        town.client() as client,
        httpx2.Client(transport=client.transport(), base_url=client.url) as http,
    ):
        answer = http.get("/v2/models/digits", headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.json()["name"] == "digits"
        refused = http.get("/v2/models/digits")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert town.sealed == 0


def test_a_kept_connection_that_has_ended_costs_nobody_an_answer(town: PinnedTown) -> None:
    town.vanishes = True
    with town.client() as client:
        for number in range(4):
            assert client.infer("digits", scan(number)).label == str(number)
    assert ask(town, "async") == "7"
    posts = [dict(request.headers)["idempotency-key"] for request in town.direct if request.method == "POST"]
    assert len(set(posts)) == 5


# --- another key


def test_t7_a_man_in_the_middle_is_sent_no_byte_of_a_request(town: PinnedTown) -> None:
    """The evidence is passed on as it is, by somebody whose key it does not list."""
    thief = Key.make()
    town.keys = lambda _: thief
    with pytest.raises(Rejected) as refused:
        town.client()
    assert refused.value.code == "not_pinned"
    assert not requests_heard(town)
    with town.client(way="auto") as client:
        assert client.infer("digits", scan(7)).label == "7"
    assert not town.direct, "who ends TLS sees encapsulated requests"
    assert all(TOKEN.encode() not in heard for heard in town.heard)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_t7_a_man_in_the_middle_who_comes_after_the_evidence_is_sent_no_byte_of_a_request(
    town: PinnedTown, kind: str
) -> None:
    thief = Key.make()
    town.keys = lambda number: town.own if number == 0 else thief
    with pytest.raises(UnlistedKey) as refused:
        ask(town, kind)
    assert refused.value.code == "tls_key_mismatch"
    assert town.heard[1:] == [b"", b""], "tried again once, after evidence over the connection that is there"


def ask(town: PinnedTown, kind: str, **options: Any) -> str | None:
    """Verify and ask once, by blocking or by awaiting."""
    if kind == "sync":
        with town.client(**options) as client:
            return client.infer("digits", scan(7)).label

    async def awaiting() -> str | None:
        async with await town.async_client(**options) as client:
            return (await client.infer("digits", scan(7))).label

    return asyncio.run(awaiting())


def test_t7_every_connection_of_a_pool_is_held_against_the_keys(town: PinnedTown) -> None:
    """The first connections are the enclave's; later ones somebody else's."""
    town.hangs_up = True
    thief, stolen = Key.make(), []
    with town.client() as client:
        assert client.infer("digits", scan(7)).label == "7"
        town.keys = lambda number: stolen.append(number) or thief
        with pytest.raises(Rejected):
            client.infer("digits", scan(1))
    assert stolen
    assert all(not town.heard[number] or town.heard[number].startswith(b"GET /.well-known/") for number in stolen)


def test_an_enclave_that_was_restarted_is_verified_anew_and_asked_once_more(town: PinnedTown) -> None:
    town.hangs_up = True
    with town.client() as client:
        before = client.enclave
        town.own = Key.make()
        town.town.restart()
        assert client.infer("digits", scan(7)).label == "7"
        assert client.enclave.instance != before.instance
    assert town.sealed == 0


def test_t7_two_servers_that_take_turns_are_refused_after_one_verification(town: PinnedTown) -> None:
    thief = Key.make()
    town.hangs_up = True
    town.keys = lambda number: (town.own, thief)[number % 2]
    with town.client() as client, pytest.raises(UnlistedKey) as refused:
        client.infer("digits", scan(7))
    assert refused.value.code == "tls_key_mismatch"
    assert len(town.heard) == 4
    assert not requests_heard(town)


@pytest.mark.usefixtures("hybrid")
def test_t7_a_key_of_the_operators_files_is_not_pinned(town: PinnedTown) -> None:
    town.listed = ()
    with pytest.raises(Rejected, match="not_pinned"):
        town.client()
    assert ask(town, "sync", way="auto") == "7"
    assert not town.direct


@pytest.mark.usefixtures("hybrid")
def test_t65_older_tls_is_not_taken(town: PinnedTown) -> None:
    town.newest = ssl.TLSVersion.TLSv1_2
    with pytest.raises(Rejected, match="not_pinned"):
        town.client()
    assert ask(town, "sync", way="auto") == "7"
    assert not town.direct


def test_t65_tls_that_gets_older_after_the_evidence_is_not_taken(town: PinnedTown) -> None:
    with town.client() as client:
        town.newest = ssl.TLSVersion.TLSv1_2
        with pytest.raises(Unavailable):
            client.infer("digits", scan(7))
    assert not requests_heard(town)


# --- which way


@pytest.mark.usefixtures("hybrid")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_auto_takes_pinned_tls_where_its_key_exchange_can_be_held_to(town: PinnedTown, kind: str) -> None:
    assert ask(town, kind, way="auto") == "7"
    assert town.sealed == 0


def test_t28_auto_encapsulates_where_tls_cannot_be_held_to_the_post_quantum_exchange(
    town: PinnedTown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned_tls, "HYBRID_GROUP", "no such group")
    assert ask(town, "sync", way="auto") == "7"
    assert not town.direct


def test_t28_auto_encapsulates_where_the_enclave_has_no_such_key_exchange(
    town: PinnedTown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned_tls, "HYBRID_GROUP", "brainpoolP256r1")  # nobody offers it for TLS 1.3
    assert ask(town, "sync", way="auto") == "7"
    assert not town.direct
    assert town.sealed == 2


@pytest.mark.usefixtures("hybrid")
def test_no_request_asks_the_tls_library_what_it_knows(town: PinnedTown) -> None:
    with town.client(way="auto") as client:
        client.infer("digits", scan(7))
        before = pinned_tls._knows.cache_info().misses
        for number in range(3):
            client.infer("digits", scan(number))
        assert pinned_tls._knows.cache_info().misses == before
    assert town.sealed == 0


def test_ohttp_stays_ohttp(town: PinnedTown) -> None:
    assert ask(town, "sync", way="ohttp") == "7"
    assert not town.direct


def test_in_memory_there_is_no_key_to_pin() -> None:
    town = Town()
    options = {"token": TOKEN, "schemes": town.schemes, "transport": town, "clock": town.clock}
    with pytest.raises(Rejected, match="not_pinned"):
        Client.verify("https://enclave.test", town.trust(), way="pinned", **options)
    with pytest.raises(UsageError, match="want auto, pinned, ohttp"):
        Client.verify("https://enclave.test", town.trust(), way="plain", **options)


# --- answers


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_t58_a_cut_answer_is_no_answer(town: PinnedTown, kind: str) -> None:
    town.cut = 1
    with pytest.raises(TruncatedResponse):
        ask(town, kind)


def test_t58_a_cut_answer_breaks_while_it_is_read_through_a_transport(town: PinnedTown) -> None:
    with (
        town.client() as client,
        httpx2.Client(transport=client.transport(), base_url=client.url) as http,
    ):
        town.cut = 1
        with pytest.raises(TruncatedResponse):
            http.get("/v2/models/digits", headers={"authorization": f"Bearer {TOKEN}"})


@pytest.mark.parametrize("name", ["cloister-receipt", "cloister-request-salt", "cloister-response-salt"])
def test_an_answer_without_its_proof_is_refused(town: PinnedTown, name: str) -> None:
    town.change = lambda response: replace(
        response, trailers=tuple(line for line in response.trailers if line[0] != name)
    )
    with town.client() as client, pytest.raises(Rejected) as refused:
        client.infer("digits", scan(7))
    assert refused.value.code == "receipt_missing"


def test_an_answer_with_two_receipts_is_refused(town: PinnedTown) -> None:
    town.change = lambda response: replace(response, trailers=(*response.trailers, *response.trailers[:1]))
    with town.client() as client, pytest.raises(Malformed, match="twice"):
        client.infer("digits", scan(7))


def test_another_content_than_the_receipts_is_refused(town: PinnedTown) -> None:
    town.change = lambda response: (
        replace(response, body=response.body[:-1] + b"\x01") if response.trailers else response
    )
    with town.client() as client, pytest.raises(Rejected) as refused:
        client.infer("digits", scan(7))
    assert refused.value.code == "commitment_mismatch"


def key_gone(_: BinaryResponse) -> BinaryResponse:
    """Say that the models were replaced since."""
    return BinaryResponse(status=400, body=dump_json({"type": OHTTP_KEY_PROBLEM}))


def test_a_model_that_was_replaced_is_verified_anew_once(town: PinnedTown) -> None:
    answers = [key_gone]
    town.change = lambda response: answers.pop()(response) if answers and response.trailers else response
    with town.client() as client:
        assert client.infer("digits", scan(7)).label == "7"
    first, second = (request for request in town.direct if request.method == "POST")
    assert dict(first.headers)["idempotency-key"] == dict(second.headers)["idempotency-key"]


def test_an_enclave_that_says_it_again_and_again_is_not_asked_for_ever(town: PinnedTown) -> None:
    town.change = key_gone
    with town.client() as client, pytest.raises(Rejected, match="status 400"):
        client.infer("digits", scan(7))
    assert len(town.direct) == 2


@pytest.mark.parametrize("body", [b"", b"{", dump_json({"code": "input", "detail": "no"}), b"x" * 200_000])
def test_another_refusal_by_400_is_read_to_its_end(town: PinnedTown, body: bytes) -> None:
    town.change = lambda response: BinaryResponse(status=400, body=body) if response.trailers else response
    with town.client() as client, pytest.raises(Rejected) as refused:
        client.infer("digits", scan(7))
    assert refused.value.code == ("input" if b"input" in body else "refused")
    assert len(town.direct) == 2


def test_t82_a_longer_answer_than_is_wished_is_refused_by_its_head(town: PinnedTown) -> None:
    town.change = lambda response: replace(response, body=b"x" * 9000)
    with town.client(max_response_bytes=8999) as client, pytest.raises(Rejected) as refused:
        client.model("digits")
    assert refused.value.code == "too_large"


class Told:
    """The head of an answer."""

    def __init__(self, *lines: tuple[str, str], status: int = 200) -> None:
        self.status, self.lines, self.headers = status, lines, dict(lines)


@pytest.mark.parametrize(
    "values", [(), ("1", "1"), ("-1",), ("+1",), ("1_0",), ("0x1",), ("",), ("1" * 17,), ("\u0661",)]
)
def test_t58_an_answer_without_one_plain_length_is_refused(values: tuple[str, ...]) -> None:
    told = Told(*(("content-length", value) for value in values))
    with pytest.raises(Malformed, match="content-length"):
        DirectExchange(None, told, method="GET")  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_that_has_no_content_has_no_length(method: str, status: int) -> None:
    exchange = DirectExchange(None, Told(status=status), method=method)  # type: ignore[arg-type]
    pieces, end = exchange.end()
    assert [type(piece) for piece in pieces] == [ResponseHead]
    assert end.trailers == ()
    with pytest.raises(UsageError):
        exchange.end()


def test_more_content_than_was_said_is_refused() -> None:
    exchange = DirectExchange(None, Told(("content-length", "3")), method="GET")  # type: ignore[arg-type]
    assert [piece for piece in exchange.feed(b"ab") if isinstance(piece, Data)] == [Data(data=b"ab")]
    with pytest.raises(Malformed, match="longer"):
        exchange.feed(b"cd")


def test_what_belongs_to_the_connection_is_nobodys_header(town: PinnedTown) -> None:
    with (
        town.client() as client,
        httpx2.Client(transport=client.transport(), base_url=client.url) as http,
    ):
        answer = http.request("GET", "/v2/models/digits", headers={"te": "trailers", "accept-encoding": "gzip"})
        assert "content-length" not in answer.headers
    sent = BinaryRequest(method="GET", path="/", headers=town.direct[-1].headers)
    assert [value for name, value in sent.headers if name == "accept-encoding"] == ["identity"]
    assert "te" not in dict(sent.headers)


# --- a certificate of our own


def put(file: Path, data: bytes) -> None:
    """Replace a file as who renews it does: at once."""
    fresh = file.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_bytes(data)
    fresh.replace(file)


@pytest.mark.parametrize("kind", ["client", "proxy"])
def test_a_renewed_certificate_is_shown_from_the_next_request_on(
    town: PinnedTown, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Key.make("first"), Key.make("second")
    town.clients, file = (first, second), tmp_path / "own.pem"
    mine = [ssl.PEM_cert_to_DER_cert(key.certificate) for key in town.clients]
    # Each twice: a connection that is there is used again.
    steps = [(first.pem, mine[:1]), (second.pem, mine), (b"half of it", mine), (None, mine), (second.pem[:-9], mine)]
    put(file, first.pem)

    def changed(data: bytes | None) -> None:
        file.unlink() if data is None else put(file, data)

    def blocking() -> None:
        with town.client(certificate_file=file) as client:
            for data, shown in steps:
                changed(data)
                assert [client.infer("digits", scan(7)).label for _ in range(2)] == ["7", "7"]
                assert list(dict.fromkeys(town.shown)) == shown

    async def passing() -> None:
        async with await Upstream.verify(**town.arguments(certificate_file=file)) as proxy:
            for data, shown in steps:
                changed(data)
                assert [(await proxy.infer("digits", scan(7))).label for _ in range(2)] == ["7", "7"]
                assert list(dict.fromkeys(town.shown)) == shown

    blocking() if kind == "client" else asyncio.run(passing())
    assert [record.name for record in caplog.records if record.name.startswith("cloister")] == [PINNED_CLIENTS] * 3


def test_a_certificate_that_is_no_use_from_the_start_is_refused(town: PinnedTown, tmp_path: Path) -> None:
    file = tmp_path / "own.pem"
    put(file, b"no certificate")
    with pytest.raises(UsageError, match="no certificate chain"), town.client(certificate_file=file) as client:
        client.infer("digits", scan(7))
    assert not town.direct
