"""One inference: what leaves, what comes back, what a cut or altered answer is worth."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import httpx2
import numpy as np
import pytest
from client_town import START, TOKEN, Reply, Town, scan

from cloister.channel.bhttp import BinaryResponse
from cloister.channel.keyset import OHTTP_KEY_PROBLEM
from cloister.channel.ohttp import GatewayKeys
from cloister.client import Client, TruncatedResponse
from cloister.client.plan import Pause, drive
from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.receipt import verify_commitment
from cloister.wire import dump_json


@pytest.fixture
def town() -> Town:
    return Town()


def gateway_posts(town: Town) -> int:
    return town.asked.count("POST enclave.test /.well-known/ohttp-gateway")


def test_an_answer_has_outputs_label_units_remaining_and_receipt(town: Town) -> None:
    with town.client() as client:
        answer = client.infer("digits", {"image": np.concatenate([scan(3), scan(17)])})
    assert answer.outputs["label"].tolist() == [3, 7]
    assert answer.labels == {"label": ("3", "7")}
    assert (answer.label, answer.units, answer.remaining) == ("3", 2, 8)
    assert answer.receipt.receipt.index == 1
    verify_commitment(answer.receipt.receipt.request, answer.receipt.request_salt, answer.request, what="request")


def test_t7_a_proxy_that_ends_tls_sees_neither_question_nor_answer_nor_token(town: Town) -> None:
    canary = np.frombuffer(b"CANARY-PIXELS-0123456789ABCDEFGH" * 8, dtype="<f4").reshape(1, 64)
    with town.client() as client:
        answer = client.infer("digits", canary)
    wire = bytes(town.wire)
    assert len(wire) > 4000
    for secret in (b"CANARY-PIXELS", TOKEN.encode(), b"/v2/models", b'"label"', b"authorization", answer.response):
        assert secret not in wire


def test_requests_of_similar_size_look_the_same_outside(town: Town) -> None:
    sizes = []
    with town.client() as client:
        client.model("digits")
        for index in (1, 40):
            before = len(town.wire)
            client.infer("digits", scan(index))
            sizes.append(len(town.wire) - before)
    assert sizes[0] == sizes[1]


def test_t57_a_reply_to_somebody_else_does_not_open(town: Town) -> None:
    kept: list[Reply] = []

    def keep(reply: Reply) -> Reply:
        kept.append(reply)
        return reply

    with town.client() as alice, town.client() as bob:
        bob.model("digits")
        alice.model("digits")
        town.reply_change = keep
        alice.infer("digits", scan(1))
        town.reply_change = lambda _: kept[0]
        with pytest.raises(Rejected) as caught:
            bob.infer("digits", scan(2))
    assert caught.value.code == "decryption_failed" or isinstance(caught.value, TruncatedResponse)


def test_t58_an_answer_cut_at_any_byte_is_truncated(town: Town) -> None:
    with town.client() as client:
        client.model("digits")
        whole: list[bytes] = []

        def keep(reply: Reply) -> Reply:
            whole.extend(reply.parts)  # type: ignore[arg-type] # an answer of this town is bytes
            return reply

        town.reply_change = keep
        client.infer("digits", scan(1))
        size = sum(map(len, whole))
        for cut in [*range(64), *range(64, size, 97), size - 1]:
            town.enclave.allowance = 10
            town.reply_change = lambda reply, cut=cut: replace(reply, parts=[b"".join(reply.parts)[:cut]])
            with pytest.raises(TruncatedResponse) as caught:
                client.infer("digits", scan(1))
            assert caught.value.code == "truncated"


def test_t58_a_connection_that_breaks_is_truncated_too(town: Town) -> None:
    with town.client() as client:
        client.model("digits")
        town.reply_change = lambda reply: replace(
            reply, parts=[reply.parts[0][:500], httpx2.ReadError("reset by peer")]
        )
        with pytest.raises(TruncatedResponse):
            client.infer("digits", scan(1))


def test_t58_bytes_after_the_end_are_refused(town: Town) -> None:
    with town.client() as client:
        client.model("digits")
        town.reply_change = lambda reply: replace(reply, parts=[*reply.parts, b"\x00" * 40])
        with pytest.raises(Rejected):
            client.infer("digits", scan(1))


def test_every_flipped_byte_of_an_answer_is_refused(town: Town) -> None:
    """Never a different result (T55)."""
    with town.client() as client:
        client.model("digits")
        for at in range(0, 1500, 37):
            town.enclave.allowance = 10

            def flip(reply: Reply, at: int = at) -> Reply:
                data = bytearray(reply.parts[0])
                data[at % len(data)] ^= 1
                return replace(reply, parts=[bytes(data)])

            town.reply_change = flip
            with pytest.raises(Rejected):
                client.infer("digits", scan(1))


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_success_that_is_no_encapsulated_response_is_malformed(town: Town, status: int) -> None:
    with town.client() as client:
        town.reply_change = lambda _: Reply(status=status, kind="application/json", parts=[b'{"label": 7}'])
        with pytest.raises(Malformed, match="media type"):
            client.infer("digits", scan(1))


def test_a_redirect_is_not_followed(town: Town) -> None:
    with town.client() as client:
        town.reply_change = lambda _: Reply(status=307, headers={"location": "https://mallory.test/"})
        with pytest.raises(Rejected):
            client.infer("digits", scan(1))
    assert not [asked for asked in town.asked if "mallory" in asked]


def test_after_a_restart_the_new_instance_is_verified_and_asked_once_more(town: Town) -> None:
    with town.client() as client:
        client.infer("digits", scan(1))
        first = client.enclave.instance
        town.restart()
        assert client.infer("digits", scan(2)).label == "2"
        assert client.enclave.instance != first
    assert town.asked.count("GET enclave.test /.well-known/attested-keyset") == 2


def test_a_restart_with_other_code_gets_nothing(town: Town) -> None:
    with town.client() as client:
        client.infer("digits", scan(1))
        town.restart()
        town.enclave.debug = True
        with pytest.raises(Rejected, match="debug"):
            client.infer("digits", scan(2))
        with pytest.raises(Rejected, match="debug"):
            client.infer("digits", scan(2))
        with pytest.raises(UsageError):
            _ = client.enclave


def test_an_enclave_that_never_has_its_own_keys_is_asked_twice_and_no_more(town: Town) -> None:
    with town.client() as client:
        client.model("digits")
        problem = dump_json({"type": OHTTP_KEY_PROBLEM})
        before = gateway_posts(town)

        def forget(reply: Reply) -> Reply:
            return (
                reply if "nonce" in repr(reply.kind) or "keyset" in reply.kind else Reply(status=400, parts=[problem])
            )

        town.reply_change = forget
        with pytest.raises(Rejected):
            client.infer("digits", scan(1))
    assert gateway_posts(town) - before == 2


def test_another_400_is_not_retried(town: Town) -> None:
    with town.client() as client:
        client.model("digits")
        before = gateway_posts(town)
        town.reply_change = lambda _: Reply(
            status=400, kind="application/problem+json", parts=[b'{"type":"about:blank"}']
        )
        with pytest.raises(Rejected):
            client.infer("digits", scan(1))
    assert gateway_posts(town) - before == 1


def test_rotated_keys_are_found_by_verifying_again(town: Town) -> None:
    with town.client() as client:
        client.model("digits")
        # Fresh keys never take an id of the ones before; those are dropped at once here.
        town.enclave.keys = GatewayKeys(GatewayKeys.generate(older=town.enclave.keys).published())
        assert client.infer("digits", scan(6)).label == "6"


def test_a_keyset_that_ran_out_is_verified_again_before_the_next_question(town: Town) -> None:
    with town.client() as client:
        client.infer("digits", scan(1))
        town.clock.advance(3601)
        client.infer("digits", scan(1))
    assert town.asked.count("GET enclave.test /.well-known/attested-keyset") == 2


def test_a_block_seen_at_reverification_stops_the_client(town: Town) -> None:
    with town.client() as client:
        client.infer("digits", scan(1))
        town.clock.advance(3601)
        town.state = "blocked"
        with pytest.raises(Rejected, match="instance_not_active"):
            client.infer("digits", scan(1))


@pytest.mark.parametrize(("status", "retry"), [(503, 5), (429, 2), (500, None)])
def test_a_busy_gateway_is_unavailable(town: Town, status: int, retry: int | None) -> None:
    with town.client() as client:
        headers = {} if retry is None else {"retry-after": str(retry)}
        town.reply_change = lambda _: Reply(status=status, kind="application/problem+json", headers=headers)
        with pytest.raises(Unavailable) as caught:
            client.infer("digits", scan(1))
    assert caught.value.retry_after_s == retry


def test_inner_refusals_carry_the_enclaves_reasons(town: Town) -> None:
    with town.client(token=TOKEN[::-1]) as client, pytest.raises(Rejected) as caught:
        client.infer("digits", scan(1))
    assert caught.value.code == "unauthorized"
    assert "token" in (caught.value.hint or "")


def test_inner_faults_are_unavailable(town: Town) -> None:
    with town.client() as client:
        client.model("digits")
        town.enclave.change = lambda _: BinaryResponse(status=500, body=b'{"code":"engine_failed"}')
        with pytest.raises(Unavailable, match="engine_failed"):
            client.infer("digits", scan(1))


class Topped(Town):
    """A town whose allowance is raised while the client waits."""

    def __init__(self, *, after: float) -> None:
        super().__init__()
        self.enclave.allowance = 0
        self.after = after

    def pause(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.clock.pauses.append(seconds)
        if (self.clock.now - START).total_seconds() >= self.after:
            self.enclave.allowance = 5


def waited(town: Topped, wait: timedelta) -> tuple[str | None, list[str]]:
    """Infer with ``wait``, the pauses taken by the town; return the label and the keys that were sent."""
    with town.client() as client:
        question = client._question("digits", scan(9), None, None, wait=wait)

        def take(step: object) -> object:
            if isinstance(step, Pause):
                town.pause(step.duration.total_seconds())
                return None
            return client._wire.take(step)  # type: ignore[arg-type] # a step

        answer = drive(client._infer(question), take)
    keys = [
        dict(request.headers).get("idempotency-key", "") for request in town.enclave.seen if request.method == "POST"
    ]
    return answer.label, keys


def test_waiting_asks_again_under_one_key_until_units_are_freed() -> None:
    town = Topped(after=12)
    label, keys = waited(town, timedelta(minutes=5))
    assert label == "9"
    assert len(keys) > 2
    assert len(set(keys)) == 1
    assert keys[0]
    assert town.clock.pauses == sorted(town.clock.pauses)


def test_waiting_ends_with_the_refusal() -> None:
    town = Topped(after=1e6)
    with pytest.raises(Rejected) as caught:
        waited(town, timedelta(seconds=20))
    assert caught.value.code == "allowance_exhausted"
    assert sum(town.clock.pauses) == pytest.approx(20)


def test_without_wait_an_exhausted_allowance_is_refused_at_once(town: Town) -> None:
    town.enclave.allowance = 1
    with town.client() as client:
        client.infer("digits", scan(1))
        with pytest.raises(Rejected) as caught:
            client.infer("digits", scan(1))
    assert caught.value.code == "allowance_exhausted"
    assert caught.value.hint


def without(response: BinaryResponse, name: str) -> BinaryResponse:
    return replace(response, trailers=tuple(line for line in response.trailers if line[0] != name))


@pytest.mark.parametrize("name", ["cloister-receipt", "cloister-request-salt", "cloister-response-salt"])
def test_an_answer_without_its_receipt_is_refused(town: Town, name: str) -> None:
    town.enclave.change = lambda response: without(response, name)
    with town.client() as client, pytest.raises(Rejected) as caught:
        client.infer("digits", scan(1))
    assert caught.value.code == "receipt_missing"


def test_a_receipt_for_other_bytes_is_refused(town: Town) -> None:
    town.enclave.change = lambda response: replace(response, body=response.body[:-1] + b"\x09")
    with town.client() as client, pytest.raises(Rejected) as caught:
        client.infer("digits", scan(1))
    assert caught.value.code == "commitment_mismatch"


def test_a_receipt_that_names_other_units_is_refused(town: Town) -> None:
    def cheaper(response: BinaryResponse) -> BinaryResponse:
        lines = tuple((n, "0" if n == "cloister-units" else v) for n, v in response.headers)
        return replace(response, headers=lines)

    town.enclave.change = cheaper
    with town.client() as client, pytest.raises(Rejected) as caught:
        client.infer("digits", scan(1))
    assert caught.value.code == "units_mismatch"


def test_a_receipt_by_another_key_is_refused(town: Town) -> None:
    with town.client() as client:
        client.model("digits")
        verified = client.enclave
        town.enclave.key = SigningKey.generate()
        gateway = town.reply_change
        town.reply_change = gateway
        # The gateway believes it is the old instance; its receipts are signed by a key nobody attested.
        client._session._enclave = replace(verified, keyset=replace(verified.keyset, instance=town.enclave.instance))
        with pytest.raises(Rejected) as caught:
            client.infer("digits", scan(1))
    assert caught.value.code in {"unknown_key", "signature_invalid"}


def test_a_fork_of_the_enclaves_memory_is_seen_by_its_receipts(town: Town) -> None:
    """I8: a copy that serves again at an index this consumer has a receipt for."""
    with town.client() as client:
        client.infer("digits", scan(1))
        town.enclave.index, town.enclave.head = 0, bytes(32)
        with pytest.raises(Rejected) as caught:
            client.infer("digits", scan(2))
    assert caught.value.code == "receipt_fork"


def test_a_broken_chain_is_seen_between_neighbours(town: Town) -> None:
    with town.client() as client:
        client.infer("digits", scan(1))
        town.enclave.head = b"\x07" * 32
        with pytest.raises(Rejected) as caught:
            client.infer("digits", scan(2))
    assert caught.value.code == "chain_broken"


def test_receipts_of_other_consumers_between_ours_are_fine(town: Town) -> None:
    with town.client() as alice, town.client() as bob:
        assert [client.infer("digits", scan(1)).receipt.receipt.index for client in (alice, bob, bob, alice)] == [
            1,
            2,
            3,
            4,
        ]


def test_a_model_outside_the_trust_is_not_asked(town: Town) -> None:
    with town.client() as client:
        before = gateway_posts(town)
        with pytest.raises(UsageError, match="not in the trust"):
            client.infer("letters", scan(1))
        assert gateway_posts(town) == before


def test_metadata_of_another_digest_is_refused(town: Town) -> None:
    with town.client() as client:
        town.enclave.digest = "ee" * 32
        with pytest.raises(Rejected, match="model_mismatch"):
            client.model("digits")


def test_inputs_that_cannot_fit_are_refused_before_they_leave(town: Town) -> None:
    with town.client() as client:
        client.model("digits")
        before = gateway_posts(town)
        for bad in ({"picture": scan(1)}, {"image": ["a"]}, {"image": object()}, {"image": [[1.0], [2.0, 3.0]]}):
            with pytest.raises(UsageError):
                client.infer("digits", bad)
        with pytest.raises(UsageError, match="want inputs or an image"):
            client.infer("digits")
        assert gateway_posts(town) == before


def test_two_answers_of_a_metadata_field_are_malformed(town: Town) -> None:
    town.enclave.change = lambda response: replace(response, headers=(*response.headers, ("cloister-units", "1")))
    with town.client() as client, pytest.raises(Malformed):
        client.infer("digits", scan(1))


def test_connections_are_let_go(town: Town) -> None:
    with town.client() as client:
        client.infer("digits", scan(1))
    assert town.closed >= len(town.asked)


def test_a_client_does_not_print_its_token(town: Town) -> None:
    with town.client() as client:
        question = client._question("digits", scan(1), None, None)
        assert TOKEN not in repr(question)
        assert TOKEN not in repr(client)


def test_verify_closes_its_connections_when_it_refuses(town: Town) -> None:
    town.state = "blocked"
    with pytest.raises(Rejected):
        Client.verify("https://enclave.test", town.trust(), schemes=town.schemes, transport=town, clock=town.clock)


def test_several_threads_share_one_client(town: Town) -> None:
    town.enclave.allowance = 40
    with town.client() as client, ThreadPoolExecutor(8) as threads:
        labels = list(threads.map(lambda index: client.infer("digits", scan(index % 10)).label, range(40)))
    assert labels == [str(index % 10) for index in range(40)]
    assert town.enclave.allowance == 0
