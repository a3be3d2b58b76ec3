"""Chunked Oblivious HTTP: the examples of RFC 9458 and of the draft, and what attackers do to an exchange."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from cloister.channel.bhttp import BinaryRequest, BinaryResponse
from cloister.channel.chunks import MAX_CHUNKS
from cloister.channel.ohttp import (
    CHUNK_BYTES,
    MAX_CHUNK_BYTES,
    GatewayKeys,
    KeyConfig,
    RequestOpener,
    RequestSealer,
    ResponseOpener,
    ResponseSealer,
    parse_key_configs,
    seal_request,
    strongest,
)
from cloister.channel.ohttp_response import ResponseSecret
from cloister.crypto.hpke import Aead, Kem, KemPrivateKey, Suite, setup_receiver
from cloister.errors import CloisterError, Malformed, Rejected, UsageError
from cloister.wire import dump_varint
from hpke_seam import sender_with
from mutations import mutated
from rings import no_rings

VECTORS = Path(os.environ.get("CLOISTER_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
HEADER_BYTES = 7

# RFC 9458 appendix A
RFC_PRIVATE_KEY = bytes.fromhex("3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a")
RFC_CONFIG = bytes.fromhex("01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e79815500080001000100010003")
RFC_MESSAGE = bytes.fromhex("00034745540568747470730b6578616d706c652e636f6d012f")
RFC_EPHEMERAL = bytes.fromhex("bc51d5e930bda26589890ac7032f70ad12e4ecb37abb1b65b1256c9c48999c73")
RFC_INFO = bytes.fromhex("6d6573736167652f626874747020726571756573740001002000010001")
RFC_REQUEST = bytes.fromhex(
    "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b472"
    "6374e469135906992e1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525"
)
RFC_ANSWER = bytes.fromhex("0140c8")
RFC_RESPONSE = bytes.fromhex("c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd")

# draft-ietf-ohai-chunked-ohttp-08 appendix A
DRAFT_PRIVATE_KEY = bytes.fromhex("1c190d72acdbe4dbc69e680503bb781a932c70a12c8f3754434c67d8640d8698")
DRAFT_CONFIG = bytes.fromhex(
    "010020668eb21aace159803974a4c67f08b4152d29bed10735fd08f98ccdd6fe09570800080001000100010003"
)
DRAFT_EPHEMERAL = bytes.fromhex("b26d565f3f875ed480d1abced3d665159650c99174fd0b124ac4bda0c64ae324")
DRAFT_REQUEST = bytes.fromhex(
    "010020000100018811eb457e100811c40a0aa71340a1b81d804bb986f736f2f566a7199761a032"
    "1c2ad24942d4d692563012f2980c8fef437a336b9b2fc938ef77a5834f"
    "1d2e33d8fd25577afe31bd1c79d094f76b6250ae6549b473ecd950501311"
    "001c6c1395d0ef7c1022297966307b8a7f"
)
DRAFT_NONCE = bytes.fromhex("bcce7f4cb921309ba5d62edf1769ef09")
DRAFT_RESPONSE = DRAFT_NONCE + bytes.fromhex(
    "1179bf1cc87fa0e2c02de4546945aa3d1e4812b348b5bd4c594c16b6170b07b475845d1f3200ed9d8a796617a5b27265f4d73247f639"
)


def _keys(config: bytes, private_key: bytes) -> GatewayKeys:
    parsed = KeyConfig.parse(config)
    assert parsed is not None
    return GatewayKeys([(parsed, KemPrivateKey.from_bytes(Kem.X25519, private_key))])


def test_rfc_9458_appendix_a_reproduces() -> None:
    # the non-chunked format is not ours; what it shares with ours is shown with its own labels
    (config,) = _keys(RFC_CONFIG, RFC_PRIVATE_KEY).configs
    suite = config.suites[0]
    assert config.dump() == RFC_CONFIG
    assert suite.aead is Aead.AES_128_GCM
    enc, sender = sender_with(RFC_EPHEMERAL)(suite, config.public_key, RFC_INFO)
    assert RFC_INFO[-7:] + enc + sender.seal(RFC_MESSAGE) == RFC_REQUEST
    private_key = KemPrivateKey.from_bytes(Kem.X25519, RFC_PRIVATE_KEY)
    receiver = setup_receiver(suite, private_key, enc, RFC_INFO)
    assert receiver.open(RFC_REQUEST[HEADER_BYTES + 32 :]) == RFC_MESSAGE
    secret = ResponseSecret(suite.aead, receiver, enc, _label=b"message/bhttp response")
    nonce = RFC_RESPONSE[:16]
    assert nonce + secret.sealing(nonce)(RFC_ANSWER, b"") == RFC_RESPONSE
    assert secret.opening(nonce)(RFC_RESPONSE[16:], b"") == RFC_ANSWER
    assert BinaryRequest.parse(RFC_MESSAGE).authority == "example.com"
    assert BinaryResponse.parse(RFC_ANSWER).status == 200


def test_the_example_of_the_chunked_draft_reproduces_byte_for_byte() -> None:
    keys = _keys(DRAFT_CONFIG, DRAFT_PRIVATE_KEY)
    (config,) = keys.configs
    sealer = RequestSealer(config, config.suites[0], _setup=sender_with(DRAFT_EPHEMERAL))
    first, second = RFC_MESSAGE[:12], RFC_MESSAGE[12:]
    chunks = sealer.seal if sealer.start() == DRAFT_REQUEST[: HEADER_BYTES + 32] else None
    assert chunks is not None
    sealed = chunks(first, final=False) + chunks(second, final=False) + chunks(b"", final=True)
    assert sealed == DRAFT_REQUEST[HEADER_BYTES + 32 :]
    opener = RequestOpener(keys)
    assert opener.feed(DRAFT_REQUEST) == [first, second]
    assert opener.end() == b""
    answer = opener.response_sealer(_random=lambda size: DRAFT_NONCE[:size])
    parts = [answer.start(), answer.seal(RFC_ANSWER[:1], final=False), answer.seal(RFC_ANSWER[1:], final=False)]
    assert b"".join(parts) + answer.seal(b"", final=True) == DRAFT_RESPONSE
    reader = sealer.response_opener()
    assert reader.feed(DRAFT_RESPONSE) == [RFC_ANSWER[:1], RFC_ANSWER[1:]]
    assert reader.end() == b""


def test_the_draft_example_here_is_the_one_of_its_authors() -> None:
    path = VECTORS / "ohttp" / "chunked-example.json"
    if not path.is_file():
        pytest.skip(f"no vectors of others at {path}")
    blocks = [bytes.fromhex(block["hex"]) for block in json.loads(path.read_text())["blocks"]]
    ours = (DRAFT_PRIVATE_KEY, DRAFT_CONFIG, RFC_MESSAGE, DRAFT_EPHEMERAL, DRAFT_REQUEST, RFC_ANSWER, DRAFT_RESPONSE)
    assert ours == tuple(blocks[at] for at in (0, 1, 2, 3, 6, 7, 13))


@pytest.fixture(scope="module")
def keys() -> GatewayKeys:
    return GatewayKeys.generate()


def _config(keys: GatewayKeys) -> tuple[KeyConfig, Suite]:
    return strongest(parse_key_configs(keys.dump()))


def _exchange(keys: GatewayKeys) -> tuple[RequestSealer, bytes, ResponseSealer, bytes]:
    """Return one exchange of three chunks each way: sealer, request, response sealer, response."""
    sealer = RequestSealer(*_config(keys))
    request = sealer.start() + sealer.seal(b"one", final=False) + sealer.seal(b"two", final=False)
    request += sealer.seal(b"three", final=True)
    opener = RequestOpener(keys)
    opener.feed(request)
    opener.end()
    answer = opener.response_sealer()
    response = answer.start() + answer.seal(b"un", final=False) + answer.seal(b"deux", final=False)
    return sealer, request, answer, response + answer.seal(b"trois", final=True)


def _open_request(keys: GatewayKeys, data: bytes) -> bytes:
    opener = RequestOpener(keys)
    return b"".join([*opener.feed(data), opener.end()])


def _open_response(sealer: RequestSealer, data: bytes) -> bytes:
    opener = sealer.response_opener()
    return b"".join([*opener.feed(data), opener.end()])


def _code(keys_or_sealer: GatewayKeys | RequestSealer, data: bytes) -> str:
    opens = _open_request if isinstance(keys_or_sealer, GatewayKeys) else _open_response
    with pytest.raises(Rejected) as caught:
        opens(keys_or_sealer, data)
    return caught.value.code


@pytest.mark.parametrize("kem", list(Kem))
@pytest.mark.parametrize("size", [0, 1, 1023, 1024, CHUNK_BYTES, CHUNK_BYTES + 1, 100_000])
def test_a_whole_exchange_comes_back(keys: GatewayKeys, kem: Kem, size: int) -> None:
    config, _ = strongest(keys.configs, accept={kem})
    message = BinaryRequest(method="POST", path="/x", body=os.urandom(size))
    request, opener = seal_request(config, message.dump())
    opened, answer, enc = keys.open_request(request)
    assert BinaryRequest.parse(opened) == message
    assert enc == request[HEADER_BYTES : HEADER_BYTES + kem.enc_bytes]
    response = BinaryResponse(status=200, body=os.urandom(size))
    sealed = answer.seal_message(response.dump())
    got = b"".join(piece for at in range(0, len(sealed), 777) for piece in opener.feed(sealed[at : at + 777]))
    assert BinaryResponse.parse(got + opener.end()) == response


def test_chunks_come_out_as_they_are_completed(keys: GatewayKeys) -> None:
    sealer, request, _, response = _exchange(keys)
    opener, got = RequestOpener(keys), []
    for at in range(len(request)):
        got += opener.feed(request[at : at + 1])
    assert (got, opener.end()) == ([b"one", b"two"], b"three")
    reader, got = sealer.response_opener(), []
    for at in range(len(response)):
        got += reader.feed(response[at : at + 1])
    assert (got, reader.end()) == ([b"un", b"deux"], b"trois")


def test_the_client_takes_the_strongest_suite(keys: GatewayKeys) -> None:
    config, suite = _config(keys)
    assert (config.kem, suite.aead) == (Kem.MLKEM768_X25519, Aead.AES_256_GCM)


# --- attacks -----------------------------------------------------------------------------------------


def test_t55_every_flipped_byte_of_a_request_is_an_error_never_another_request(keys: GatewayKeys) -> None:
    _, request, _, _ = _exchange(keys)
    for at in range(len(request)):
        for bit in (0x01, 0x80):
            damaged = request[:at] + bytes((request[at] ^ bit,)) + request[at + 1 :]
            with pytest.raises(Rejected):
                _open_request(keys, damaged)


def test_t55_every_flipped_byte_of_a_response_is_an_error_never_another_response(keys: GatewayKeys) -> None:
    sealer, _, _, response = _exchange(keys)
    for at in range(len(response)):
        for bit in (0x01, 0x80):
            damaged = response[:at] + bytes((response[at] ^ bit,)) + response[at + 1 :]
            with pytest.raises(Rejected):
                _open_response(sealer, damaged)


def test_t57_replies_wired_to_the_wrong_consumer_do_not_open(keys: GatewayKeys) -> None:
    first, _, _, first_response = _exchange(keys)
    second, _, _, second_response = _exchange(keys)
    assert _open_response(first, first_response) == b"undeuxtrois"
    assert _code(first, second_response) == "decryption_failed"
    assert _code(second, first_response) == "decryption_failed"


def test_t57_a_reply_of_another_request_of_the_same_consumer_does_not_open(keys: GatewayKeys) -> None:
    config, _ = _config(keys)
    sealed, openers = zip(*(seal_request(config, RFC_MESSAGE) for _ in range(2)), strict=True)
    replies = [keys.open_request(request)[1].seal_message(RFC_ANSWER) for request in sealed]
    with pytest.raises(Rejected):
        openers[0].feed(replies[1]) or openers[0].end()


def _chunks(stream: bytes, head: int) -> list[bytes]:
    """Return head and chunks of a stream whose lengths are all one byte."""
    parts, at = [stream[:head]], head
    while stream[at]:
        parts.append(stream[at : at + 1 + stream[at]])
        at += 1 + stream[at]
    return [*parts, stream[at:]]


def test_t58_a_stream_cut_at_every_chunk_is_truncated(keys: GatewayKeys) -> None:
    sealer, request, _, response = _exchange(keys)
    head = HEADER_BYTES + Kem.MLKEM768_X25519.enc_bytes
    for opens, stream, size in ((keys, request, head), (sealer, response, 32)):
        parts = _chunks(stream, size)
        assert len(parts) == 4
        for count in range(4):
            assert _code(opens, b"".join(parts[:count])) == "truncated"
        assert _code(opens, b"".join(parts[:3]) + b"\x00") == "truncated"


def test_t58_a_stream_cut_at_any_byte_never_ends_well(keys: GatewayKeys) -> None:
    sealer, request, _, response = _exchange(keys)
    for opens, stream in ((keys, request), (sealer, response)):
        codes = [_code(opens, stream[:size]) for size in range(len(stream))]
        assert set(codes) == {"truncated", "decryption_failed"}
        # only a final chunk that still has room for a seal cannot be told from a damaged one
        assert codes.count("decryption_failed") == len(b"three")


def test_t58_chunks_reordered_dropped_or_doubled_do_not_open(keys: GatewayKeys) -> None:
    sealer, request, _, response = _exchange(keys)
    head = HEADER_BYTES + Kem.MLKEM768_X25519.enc_bytes
    for opens, stream, size in ((keys, request, head), (sealer, response, 32)):
        start, one, two, final = _chunks(stream, size)
        for order in itertools.permutations((one, two)):
            if order != (one, two):
                assert _code(opens, start + b"".join(order) + final) == "decryption_failed"
        for middle in (one, two, one + one + two, one + two + two, b""):
            assert _code(opens, start + middle + final) == "decryption_failed"
        assert _code(opens, start + one + two + final + final) == "decryption_failed"
        assert _code(opens, start + one + two + final + b"\x00") == "decryption_failed"


def test_t58_a_chunk_that_is_not_final_cannot_be_passed_off_as_final(keys: GatewayKeys) -> None:
    sealer, request, _, response = _exchange(keys)
    head = HEADER_BYTES + Kem.MLKEM768_X25519.enc_bytes
    for opens, stream, size in ((keys, request, head), (sealer, response, 32)):
        start, one, two, final = _chunks(stream, size)
        assert _code(opens, start + one + b"\x00" + two[1:]) == "decryption_failed"
        continued = bytes((len(final) - 1,)) + final[1:]
        assert _code(opens, start + one + two + continued) == "decryption_failed"


def test_t58_what_was_opened_before_a_cut_is_never_called_whole(keys: GatewayKeys) -> None:
    sealer, _, _, response = _exchange(keys)
    opener = sealer.response_opener()
    assert opener.feed(response[:-10]) == [b"un", b"deux"]
    with pytest.raises(Rejected):
        opener.end()
    with pytest.raises(Rejected):
        opener.feed(response[-10:])


def test_t63_all_corruptions_of_a_request_are_one_error(keys: GatewayKeys) -> None:
    _, request, _, _ = _exchange(keys)
    config, suite = _config(keys)
    enc_at, chunk_at = HEADER_BYTES, HEADER_BYTES + suite.kem.enc_bytes
    other = GatewayKeys([(config, KemPrivateKey.generate(config.kem))])

    def flipped(at: int) -> bytes:
        return request[:at] + bytes((request[at] ^ 0x04,)) + request[at + 1 :]

    corruptions = {
        "ml-kem ciphertext": flipped(enc_at),
        "x25519 point": flipped(chunk_at - 8),
        "low-order point": request[: chunk_at - 32] + bytes(32) + request[chunk_at:],
        "first chunk": flipped(chunk_at + 5),
        "tag of the first chunk": flipped(chunk_at + 15),
        "final chunk": flipped(len(request) - 3),
        "chunk shorter than a tag": request[:chunk_at] + b"\x01x" + request[chunk_at:],
        "suite not offered": request[:3] + b"\x00\x02" + request[5:],
        "aead not offered": request[:5] + b"\xff\xff" + request[7:],
        "aead swapped": request[:5] + b"\x00\x03" + request[7:],
    }
    seen = set()
    for gateway, data in [*((keys, data) for data in corruptions.values()), (other, request)]:
        with pytest.raises(CloisterError) as caught:
            _open_request(gateway, data)
        error = caught.value
        assert isinstance(error, Rejected)
        seen.add((type(error), str(error), error.hint, error.reasons))
    assert len(seen) == 1
    assert seen.pop()[1] == "hpke: decryption_failed"


def test_t65_a_key_list_without_the_post_quantum_part_is_refused(keys: GatewayKeys) -> None:
    classical = [config for config in keys.configs if config.kem is Kem.X25519]
    with pytest.raises(Rejected) as caught:
        strongest(classical)
    assert caught.value.code == "suite_too_weak"
    with pytest.raises(Rejected):
        strongest(())
    with pytest.raises(Rejected):
        strongest(keys.configs, accept=())
    assert strongest(classical, accept={Kem.X25519})[1].kem is Kem.X25519


def test_t65_order_in_the_list_does_not_downgrade(keys: GatewayKeys) -> None:
    for configs in (keys.configs, tuple(reversed(keys.configs))):
        config, suite = strongest(configs, accept=set(Kem))
        weakest_first = KeyConfig(
            key_id=config.key_id,
            kem=config.kem,
            public_key=config.public_key,
            algorithms=tuple(reversed(config.algorithms)),
        )
        assert suite == strongest([weakest_first], accept=set(Kem))[1]
        assert (suite.kem, suite.aead) == (Kem.MLKEM768_X25519, Aead.AES_256_GCM)


def test_t65_the_suite_in_the_header_is_bound(keys: GatewayKeys) -> None:
    config, _ = _config(keys)
    weak = next(suite for suite in config.suites if suite.aead is Aead.AES_128_GCM)
    request, _ = seal_request(config, RFC_MESSAGE, suite=weak)
    assert _code(keys, request[:6] + bytes((Aead.CHACHA20_POLY1305,)) + request[7:]) == "decryption_failed"


def test_a_suite_that_was_not_offered_is_our_mistake(keys: GatewayKeys) -> None:
    config, suite = _config(keys)
    with pytest.raises(UsageError):
        RequestSealer(config, Suite(kem=Kem.X25519, kdf=suite.kdf, aead=suite.aead))


def test_sealing_to_a_key_that_is_none_is_malformed(keys: GatewayKeys) -> None:
    config, suite = _config(keys)
    bad = KeyConfig(key_id=1, kem=config.kem, public_key=bytes(len(config.public_key)), algorithms=config.algorithms)
    with pytest.raises(Malformed):
        RequestSealer(bad, suite)


def test_a_request_to_yesterdays_key_says_so() -> None:
    yesterday = GatewayKeys.generate()
    today = GatewayKeys.generate(older=yesterday)
    tomorrow = GatewayKeys.generate(older=today)
    request, opener = seal_request(_config(yesterday)[0], RFC_MESSAGE)
    message, answer, _ = today.open_request(request)
    assert message.startswith(RFC_MESSAGE)
    assert not {config.key_id for config in yesterday.configs} & {config.key_id for config in today.configs}
    # an open response survives the rotation, the key does not
    sealed = answer.seal_message(RFC_ANSWER)
    assert b"".join([*opener.feed(sealed), opener.end()]).startswith(RFC_ANSWER)
    if yesterday.configs[0].key_id not in {config.key_id for config in tomorrow.configs}:
        assert _code(tomorrow, request) == "ohttp_key"
    assert _code(GatewayKeys(today.published()), request) == "ohttp_key"


def test_a_rotation_never_reuses_an_id_that_is_still_accepted() -> None:
    config, private_key = GatewayKeys.generate([Kem.X25519]).published()[0]
    crowd = [(dataclasses.replace(config, key_id=number), private_key) for number in range(250)]
    fresh = GatewayKeys.generate(older=GatewayKeys(crowd))
    assert all(config.key_id >= 250 for config in fresh.configs)


def test_a_key_id_with_another_kem_is_an_unknown_key(keys: GatewayKeys) -> None:
    _, request, _, _ = _exchange(keys)
    assert _code(keys, request[:1] + b"\x00\x20" + request[3:]) == "ohttp_key"
    assert _code(keys, request[:1] + b"\x00\x10" + request[3:]) == "ohttp_key"


def test_a_key_id_twice_is_our_mistake(keys: GatewayKeys) -> None:
    with pytest.raises(UsageError, match="twice"):
        GatewayKeys(keys.published() + keys.published()[:1])


def test_a_chunk_length_over_the_cap_is_refused_before_its_bytes_arrive(keys: GatewayKeys) -> None:
    sealer, _, _, response = _exchange(keys)
    for size in (MAX_CHUNK_BYTES + 1, 2**30, 2**62 - 1):
        opener = sealer.response_opener()
        opener.feed(response[:32])
        tracemalloc.start()
        with pytest.raises(Rejected) as caught:
            opener.feed(dump_varint(size))
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()
        assert caught.value.code == "too_large"
        with pytest.raises(Rejected, match="too_large"):
            opener.end()


def test_a_stream_longer_than_allowed_is_refused_even_in_its_final_chunk(keys: GatewayKeys) -> None:
    sealer, request, _, response = _exchange(keys)
    opener = sealer.response_opener(max_bytes=20)
    with pytest.raises(Rejected, match="too_large"):
        opener.feed(response)
    endless = sealer.response_opener()
    endless.feed(response[:32] + b"\x00" + bytes(MAX_CHUNK_BYTES))
    with pytest.raises(Rejected, match="too_large"):
        endless.feed(b"\x00")
    with pytest.raises(Rejected, match="too_large"):
        keys.open_request(request, max_bytes=40)


def test_a_stranger_cannot_keep_the_gateway_busy_with_endless_empty_chunks(keys: GatewayKeys) -> None:
    config, suite = strongest(keys.configs)
    sealer = RequestSealer(config, suite)
    start, empty = sealer.start(), [sealer.seal(b"", final=False) for _ in range(MAX_CHUNKS + 1)]
    opener = RequestOpener(keys)
    with pytest.raises(Rejected, match="too_large"):
        opener.feed(start + b"".join(empty))
    opener = RequestOpener(keys)
    assert len(opener.feed(start + b"".join(empty[:-1]))) == MAX_CHUNKS


def test_lengths_may_be_longer_than_they_need_be(keys: GatewayKeys) -> None:
    sealer, _, _, response = _exchange(keys)
    start, one, two, final = _chunks(response, 32)
    twins = start + b"\x40" + one + b"\x80\x00\x00" + two + b"\xc0" + bytes(7) + final[1:]
    assert _open_response(sealer, twins) == b"undeuxtrois"


def test_nothing_of_a_request_is_known_before_it_is_whole(keys: GatewayKeys) -> None:
    _, request, _, _ = _exchange(keys)
    opener = RequestOpener(keys)
    opener.feed(request)
    with pytest.raises(UsageError, match="whole"):
        _ = opener.enc
    with pytest.raises(UsageError, match="whole"):
        opener.response_sealer()
    opener.end()
    assert opener.enc
    with pytest.raises(UsageError, match="after its end"):
        opener.feed(b"")


def test_sealers_go_in_order_only(keys: GatewayKeys) -> None:
    sealer = RequestSealer(*_config(keys))
    with pytest.raises(UsageError):
        sealer.seal(b"x", final=False)
    sealer.start()
    with pytest.raises(UsageError):
        sealer.start()
    sealer.seal(b"x", final=True)
    with pytest.raises(UsageError):
        sealer.seal(b"x", final=True)
    other = RequestSealer(*_config(keys))
    other.start()
    with pytest.raises(UsageError, match="chunk of"):
        other.seal(bytes(MAX_CHUNK_BYTES), final=False)


def test_padding_leaves_only_buckets_to_see(keys: GatewayKeys) -> None:
    config, _ = _config(keys)
    sizes = {len(seal_request(config, bytes(size))[0]) for size in range(0, 1025, 64)}
    assert len(sizes) == 1
    _, answer, _ = keys.open_request(seal_request(config, RFC_MESSAGE)[0])
    assert len(answer.seal_message(b"x")) == 32 + 1 + 1024 + 16


def test_mutated_requests_are_rejected(keys: GatewayKeys) -> None:
    config, _ = strongest(keys.configs, accept={Kem.X25519})
    request, _ = seal_request(config, RFC_MESSAGE)
    codes = set()
    for data in mutated(request):
        if data != request:
            codes.add(_rejection(lambda data=data: _open_request(keys, data)))
    assert codes <= {"ohttp_key", "decryption_failed", "truncated", "too_large"}
    assert len(codes) == 4


def test_mutated_responses_are_rejected(keys: GatewayKeys) -> None:
    sealer, _, _, response = _exchange(keys)
    codes = set()
    for data in mutated(response):
        if data != response:
            codes.add(_rejection(lambda data=data: _open_response(sealer, data)))
    assert codes == {"decryption_failed", "truncated", "too_large"}


def _rejection(attempt: object) -> str:
    try:
        result = attempt()  # type: ignore[operator]
    except Rejected as exc:
        return exc.code
    # a chunk length in a longer form is the same message (draft section 6: lengths are not authenticated)
    assert result == b"undeuxtrois" or result.startswith(RFC_MESSAGE)
    return "decryption_failed"


def test_a_response_opener_is_made_by_its_request_only(keys: GatewayKeys) -> None:
    sealer, _, _, response = _exchange(keys)
    assert isinstance(sealer.response_opener(), ResponseOpener)
    assert _open_response(sealer, response) == _open_response(sealer, response)


def test_keys_and_secrets_of_an_exchange_are_gone_without_the_collector(keys: GatewayKeys) -> None:
    """T26: a key that was rotated out is kept by no request that it once opened, or failed to."""
    with no_rings():
        sealer, request, _, response = _exchange(keys)
        assert _open_response(sealer, response) == b"undeuxtrois"
        del sealer, _
        opener = RequestOpener(keys)
        for data in (request[:-1] + bytes([request[-1] ^ 1]), b"more"):
            with contextlib.suppress(Rejected):
                opener.feed(data)
                opener.end()
        del opener


def test_a_failure_is_the_same_for_ever(keys: GatewayKeys) -> None:
    opener = RequestOpener(keys)
    said = []
    for data in (bytes([255]) * 80, b"", _exchange(keys)[1]):
        with pytest.raises(Rejected) as caught:
            opener.feed(data)
        said.append((str(caught.value), caught.value.reasons))
    with pytest.raises(Rejected) as caught:
        opener.end()
    assert said == [(str(caught.value), caught.value.reasons)] * 3
