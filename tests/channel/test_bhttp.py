"""Binary HTTP: the RFC's examples, both framings, pieces of any size, and what a parser must refuse."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from cloister.channel.bhttp import BinaryRequest, BinaryResponse, Framing, ResponseWriter
from cloister.channel.bhttp_reader import (
    MAX_CONTENT_CHUNKS,
    MAX_LINES,
    Data,
    End,
    Informational,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
)
from cloister.errors import Malformed, UsageError
from cloister.wire import dump_varint
from mutations import mutated

KNOWN, INDETERMINATE = Framing.KNOWN_LENGTH, Framing.INDETERMINATE_LENGTH

# RFC 9292 section 5.1, figures "Known-Length" and "Indeterminate-Length Binary Encoding of Request"
RFC_REQUEST_KNOWN = bytes.fromhex(
    "00034745540568747470 73000a2f68656c6c6f2e747874406c0a757365722d6167656e7434"
    "6375726c2f372e31362e33206c69626375726c2f372e31362e33204f70656e53534c2f302e39"
    "2e376c207a6c69622f312e322e3304686f73740f7777772e6578616d706c652e636f6d0f6163"
    "636570742d6c616e67756167650665 6e2c206d690000"
)
RFC_REQUEST_INDETERMINATE = bytes.fromhex(
    "02034745540568747470 73000a2f68656c6c6f2e7478740a757365722d6167656e7434"
    "6375726c2f372e31362e33206c69626375726c2f372e31362e33204f70656e53534c2f302e39"
    "2e376c207a6c69622f312e322e3304686f73740f7777772e6578616d706c652e636f6d0f6163"
    "636570742d6c616e67756167650665 6e2c206d69" + "00" * 13
)
RFC_REQUEST = BinaryRequest(
    method="GET",
    path="/hello.txt",
    headers=(
        ("user-agent", "curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3"),
        ("host", "www.example.com"),
        ("accept-language", "en, mi"),
    ),
)
# RFC 9292 section 5.2, figure "Binary Response including Interim Responses"
RFC_RESPONSE_INDETERMINATE = bytes.fromhex(
    "0340660772756e6e696e670a22736c6565702031352200 4067046c696e6b233c2f7374796c652e6373733e3b20"
    "72656c3d7072656c6f61643b2061733d7374796c65046c696e6b243c2f7363726970742e6a733e3b2072656c3d70"
    "72656c6f61643b2061733d736372697074 00 40c8 04646174651d4d6f6e2c203237204a756c20323030392031323a"
    "32383a353320474d540673657276657206417061636865 0d6c6173742d6d6f6469666965641d5765642c20323220"
    "4a756c20323030392031393a31353a353620474d54 0465746167142233346161333837 2d642d3135363865623030"
    "22 0d6163636570742d72616e676573056279746573 0e636f6e74656e742d6c656e677468023531 0476617279"
    "0f4163636570742d456e636f64696e67 0c636f6e74656e742d747970650a746578742f706c61696e 00 33"
    "48656c6c6f20576f726c6421204d7920636f6e74656e7420696e636c75646573206120747261696c696e6720"
    "43524c462e0d0a 00 00"
)
RFC_RESPONSE = BinaryResponse(
    status=200,
    informational=(
        (102, (("running", '"sleep 15"'),)),
        (103, (("link", "</style.css>; rel=preload; as=style"), ("link", "</script.js>; rel=preload; as=script"))),
    ),
    headers=(
        ("date", "Mon, 27 Jul 2009 12:28:53 GMT"),
        ("server", "Apache"),
        ("last-modified", "Wed, 22 Jul 2009 19:15:56 GMT"),
        ("etag", '"34aa387-d-1568eb00"'),
        ("accept-ranges", "bytes"),
        ("content-length", "51"),
        ("vary", "Accept-Encoding"),
        ("content-type", "text/plain"),
    ),
    body=b"Hello World! My content includes a trailing CRLF.\r\n",
)
# RFC 9292 section 5.2, figure "Known-Length Encoding of Response"
RFC_RESPONSE_KNOWN = bytes.fromhex(
    "0140c8001d5468697320636f6e74656e7420636f6e7461696e732043524c462e0d0a0d07747261696c65720474657874"
)

REQUEST = BinaryRequest(
    method="POST",
    authority="enclave.example",
    path="/v2/models/digits/infer?trace=1",
    headers=(("content-type", "application/json"), ("content-length", "300"), ("accept", "*/*"), ("accept", "x/y")),
    body=bytes(range(256)) + bytes(44),
    trailers=(("checksum", "abc"),),
)
RESPONSE = BinaryResponse(
    status=200,
    informational=((103, (("link", "</a>"),)),),
    headers=(("cloister-units", "1"),),
    body=b"result " * 40,
    trailers=(("cloister-receipt", "r" * 900),),
)


def test_the_requests_of_rfc_9292_reproduce() -> None:
    assert BinaryRequest.parse(RFC_REQUEST_KNOWN) == RFC_REQUEST
    assert BinaryRequest.parse(RFC_REQUEST_INDETERMINATE) == RFC_REQUEST
    assert RFC_REQUEST.dump(KNOWN) == RFC_REQUEST_KNOWN
    assert RFC_REQUEST.dump(INDETERMINATE) == RFC_REQUEST_INDETERMINATE[:-10]


def test_the_responses_of_rfc_9292_reproduce() -> None:
    assert BinaryResponse.parse(RFC_RESPONSE_INDETERMINATE) == RFC_RESPONSE
    assert RFC_RESPONSE.dump(INDETERMINATE) == RFC_RESPONSE_INDETERMINATE
    parsed = BinaryResponse.parse(RFC_RESPONSE_KNOWN)
    assert (parsed.status, parsed.headers, parsed.trailers) == (200, (), (("trailer", "text"),))
    assert parsed.body == b"This content contains CRLF.\r\n"
    assert parsed.dump(KNOWN) == RFC_RESPONSE_KNOWN


@pytest.mark.parametrize("framing", list(Framing))
def test_messages_come_back_as_they_went(framing: Framing) -> None:
    assert BinaryRequest.parse(REQUEST.dump(framing)) == REQUEST
    assert BinaryResponse.parse(RESPONSE.dump(framing)) == RESPONSE


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("seed", range(8))
def test_pieces_of_any_size_give_the_same_message(framing: Framing, seed: int) -> None:
    rng = random.Random(seed)
    data = RESPONSE.dump(framing) + bytes(seed)
    reader, events, at = ResponseReader(), [], 0
    while at < len(data):
        size = 1 if seed == 0 else rng.randrange(1, 40)
        events += reader.feed(data[at : at + size])
        at += size
    events += reader.end()
    assert events[0] == Informational(status=103, headers=(("link", "</a>"),))
    assert events[1] == ResponseHead(status=200, headers=RESPONSE.headers)
    assert b"".join(event.data for event in events if isinstance(event, Data)) == RESPONSE.body
    assert events[-1] == End(trailers=RESPONSE.trailers)


@pytest.mark.parametrize("framing", list(Framing))
def test_the_end_is_told_only_when_the_stream_beneath_has_ended(framing: Framing) -> None:
    reader = ResponseReader()
    events = reader.feed(RESPONSE.dump(framing))
    assert not any(isinstance(event, End) for event in events)
    assert reader.end() == [End(trailers=RESPONSE.trailers)]
    with pytest.raises(UsageError):
        reader.feed(b"\x00")


@pytest.mark.parametrize("framing", list(Framing))
def test_a_message_cut_anywhere_but_before_a_section_is_malformed(framing: Framing) -> None:
    whole = BinaryRequest(method="POST", path="/x", headers=(("a", "b"),), body=b"body", trailers=(("c", "d"),))
    data = whole.dump(framing)
    allowed = {}
    for size in range(len(data)):
        try:
            allowed[size] = BinaryRequest.parse(data[:size])
        except Malformed:
            continue
    # RFC 9292 section 3.8: after the control data, after the headers, after the content
    assert len(allowed) == 3
    headerless, bodyless, trailerless = allowed.values()
    assert (headerless.headers, headerless.body) == ((), b"")
    assert (bodyless.headers, bodyless.body) == (whole.headers, b"")
    assert (trailerless.body, trailerless.trailers) == (b"body", ())


@pytest.mark.parametrize("framing", list(Framing))
def test_padding_is_zero_or_malformed(framing: Framing) -> None:
    data = REQUEST.dump(framing)
    assert BinaryRequest.parse(data + bytes(5000)) == REQUEST
    with pytest.raises(Malformed, match="padding"):
        BinaryRequest.parse(data + bytes(50) + b"\x01")
    with pytest.raises(Malformed, match="padding"):
        BinaryRequest.parse(data + data)


def test_integers_may_be_longer_than_they_need_be() -> None:
    short = BinaryResponse(status=200, body=b"x").dump()
    assert short == bytes.fromhex("0140c800017800")
    longer = bytes.fromhex("4001 800000c8 4000 c000000000000001 78 4000")
    assert BinaryResponse.parse(longer) == BinaryResponse(status=200, body=b"x")


def _line(name: bytes, value: bytes) -> bytes:
    return dump_varint(len(name)) + name + dump_varint(len(value)) + value


def _request_with(lines: bytes, *, body: bytes = b"", method: bytes = b"POST", path: bytes = b"/x") -> bytes:
    control = b"".join(dump_varint(len(part)) + part for part in (method, b"https", b"", path))
    return b"\x00" + control + dump_varint(len(lines)) + lines + dump_varint(len(body)) + body + b"\x00"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"", b"x"),
        (b"Host", b"x"),
        (b"a b", b"x"),
        (b"a:", b"x"),
        (b":method", b"GET"),
        (b":path", b"/other"),
        (b":protocol", b"websocket"),
        (b"a\r\nb", b"x"),
        (b"n\xc3\xa4me", b"x"),
        (b"a" * 257, b"x"),
        (b"a", b"x\r\nset-cookie: y"),
        (b"a", b"x\ny"),
        (b"a", b"x\ry"),
        (b"a", b"x\x00y"),
        (b"a", b"x\x1by"),
        (b"a", b"x\x7fy"),
        (b"a", b" x"),
        (b"a", b"x\t"),
        (b"a", b"x\r\n y"),
        (b"a", b"v" * 32769),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"x"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b"content-length", b"1"),
        (b"content-length", b"-0"),
        (b"content-length", b"00"),
        (b"content-length", b"0, 0"),
        (b"content-length", b"+0"),
        (b"content-length", b"9" * 30),
    ],
)
def test_smuggling_and_splitting_field_lines_are_malformed(name: bytes, value: bytes) -> None:
    with pytest.raises(Malformed):
        BinaryRequest.parse(_request_with(_line(name, value)))


def test_two_content_lengths_are_malformed_even_when_equal() -> None:
    with pytest.raises(Malformed, match="2 lines"):
        BinaryRequest.parse(_request_with(_line(b"content-length", b"0") * 2))


def test_a_content_length_that_is_not_true_is_malformed() -> None:
    line = _line(b"content-length", b"4")
    assert BinaryRequest.parse(_request_with(line, body=b"four")).body == b"four"
    for body in (b"", b"fou", b"fours"):
        with pytest.raises(Malformed, match="content-length"):
            BinaryRequest.parse(_request_with(line, body=body))
    assert BinaryResponse.parse(BinaryResponse(status=200, headers=(("content-length", "9"),)).dump()).body == b""
    with pytest.raises(Malformed, match="content-length"):
        BinaryResponse.parse(BinaryResponse(status=200, headers=(("content-length", "9"),), body=b"1").dump())
    with pytest.raises(Malformed, match="trailers"):
        BinaryResponse.parse(BinaryResponse(status=200, trailers=(("content-length", "0"),)).dump())


@pytest.mark.parametrize("method", [b"", b"GE T", b"CONNECT", b"G\r\nT", b"M" * 33])
def test_methods_that_are_none_are_malformed(method: bytes) -> None:
    with pytest.raises(Malformed):
        BinaryRequest.parse(_request_with(b"", method=method))


@pytest.mark.parametrize(
    "path", [b"", b"x", b"*", b"//\x00", b"/a b", b"/a#b", b"/\xff", b"/\r\nhost: x", b"https://x/", b"/" + b"a" * 8192]
)
def test_paths_that_are_none_are_malformed(path: bytes) -> None:
    with pytest.raises(Malformed):
        BinaryRequest.parse(_request_with(b"", path=path))


def test_options_may_ask_about_the_whole_server() -> None:
    assert BinaryRequest.parse(_request_with(b"", method=b"OPTIONS", path=b"*")).path == "*"


@pytest.mark.parametrize("status", [0, 99, 600, 1000, 2**60])
def test_statuses_out_of_range_are_malformed(status: int) -> None:
    with pytest.raises(Malformed):
        BinaryResponse.parse(b"\x01" + dump_varint(status) + b"\x00\x00\x00")


def test_an_informational_response_alone_is_malformed() -> None:
    with pytest.raises(Malformed):
        BinaryResponse.parse(b"\x01" + dump_varint(100) + b"\x00")


def test_endless_informational_responses_are_malformed() -> None:
    with pytest.raises(Malformed, match="informational"):
        BinaryResponse.parse(b"\x01" + (dump_varint(100) + b"\x00") * 9 + dump_varint(200))


@pytest.mark.parametrize("indicator", [1, 3, 4, 64, 2**30])
def test_a_request_has_the_framing_of_a_request(indicator: int) -> None:
    with pytest.raises(Malformed, match="framing"):
        BinaryRequest.parse(dump_varint(indicator) + REQUEST.dump()[1:])


def test_a_response_is_no_request() -> None:
    with pytest.raises(Malformed):
        BinaryRequest.parse(RESPONSE.dump())
    with pytest.raises(Malformed):
        BinaryResponse.parse(REQUEST.dump())


@pytest.mark.parametrize("framing", list(Framing))
def test_a_hundred_thousand_headers_are_malformed_at_once(framing: Framing) -> None:
    lines = _line(b"a", b"") * 100_000
    control = b"".join(dump_varint(len(part)) + part for part in (b"GET", b"https", b"", b"/"))
    head = b"\x00" + control + dump_varint(len(lines)) if framing is KNOWN else b"\x02" + control
    reader = RequestReader()
    with pytest.raises(Malformed, match="field section"):
        reader.feed(head + lines)
    with pytest.raises(Malformed, match="field section"):
        reader.feed(b"more")


def test_a_field_line_that_runs_out_of_its_section_is_malformed() -> None:
    # else the bytes after the section would be read twice by readers that trust the other length
    assert BinaryRequest.parse(_request_with(_line(b"a", b"b"))).headers == (("a", "b"),)
    short = _request_with(_line(b"a", b"b")).replace(b"\x04\x01a\x01b", b"\x03\x01a\x01b")
    with pytest.raises(Malformed, match="longer than it says"):
        BinaryRequest.parse(short)


@pytest.mark.parametrize("framing", list(Framing))
def test_a_section_has_a_bounded_number_of_lines(framing: Framing) -> None:
    most = BinaryRequest(method="GET", path="/", headers=(("a", "b"),) * MAX_LINES)
    assert BinaryRequest.parse(most.dump(framing)) == most
    with pytest.raises(Malformed, match="field section"):
        BinaryRequest.parse(
            BinaryRequest(method="GET", path="/", headers=(("a", "b"),) * (MAX_LINES + 1)).dump(framing)
        )


@pytest.mark.parametrize("size", [2**62 - 1, 2**32, 101])
def test_a_length_over_the_cap_is_refused_before_its_bytes_arrive(size: int) -> None:
    start = _request_with(b"")[:-2]
    reader = RequestReader(max_body_bytes=100)
    tracemalloc.start()
    with pytest.raises(Malformed, match="content of"):
        reader.feed(start + dump_varint(size))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_chunks_of_content_share_one_cap() -> None:
    head = b"\x02" + _request_with(b"")[1:-3] + b"\x00"
    chunk = dump_varint(60) + bytes(60)
    assert isinstance(RequestReader(max_body_bytes=120).feed(head + chunk + chunk)[0], RequestHead)
    with pytest.raises(Malformed, match="content chunk"):
        RequestReader(max_body_bytes=119).feed(head + chunk + chunk)


def test_many_tiny_chunks_make_one_event() -> None:
    events = ResponseReader().feed(b"\x03\x40\xc8\x00" + b"\x01x" * 5000)
    assert events[1:] == [Data(data=b"x" * 5000)]


def test_endless_tiny_chunks_are_malformed() -> None:
    with pytest.raises(Malformed, match="content chunks"):
        ResponseReader().feed(b"\x03\x40\xc8\x00" + b"\x01x" * (MAX_CONTENT_CHUNKS + 1))


def test_a_response_written_in_pieces_is_read_in_pieces() -> None:
    writer, reader = ResponseWriter(), ResponseReader()
    assert reader.feed(writer.head(200, (("a", "b"),))) == [ResponseHead(status=200, headers=(("a", "b"),))]
    assert reader.feed(writer.data(b"one")) == [Data(data=b"one")]
    assert writer.data(b"") == b""
    assert reader.feed(writer.data(b"two")) == [Data(data=b"two")]
    assert reader.feed(writer.end((("cloister-receipt", "r"),))) == []
    assert reader.end() == [End(trailers=(("cloister-receipt", "r"),))]
    with pytest.raises(UsageError):
        writer.data(b"late")


def test_a_writer_starts_with_the_head() -> None:
    with pytest.raises(UsageError):
        ResponseWriter().data(b"x")


@pytest.mark.parametrize(
    "message",
    [
        BinaryRequest(method="GET", path="no-slash"),
        BinaryRequest(method="CONNECT", path="/"),
        BinaryRequest(method="GET", path="/", scheme="HTTPS"),
        BinaryRequest(method="GET", path="/", authority="a b"),
        BinaryRequest(method="GET", path="/", headers=(("Host", "x"),)),
        BinaryRequest(method="GET", path="/", headers=(("a", "x\r\ny"),)),
        BinaryRequest(method="GET", path="/", trailers=(("a", "\N{EURO SIGN}"),)),
        BinaryResponse(status=100),
        BinaryResponse(status=200, informational=((200, ()),)),
    ],
)
def test_we_do_not_write_what_we_would_refuse(message: BinaryRequest | BinaryResponse) -> None:
    with pytest.raises(UsageError):
        message.dump()


def test_messages_and_their_parts_never_print_tokens_or_bodies() -> None:
    secret = b"input-of-a-patient"
    request = BinaryRequest(method="POST", path="/x", headers=(("authorization", "Bearer a-token"),), body=secret)
    response = BinaryResponse(status=200, body=secret)
    events = [*(reader := RequestReader()).feed(request.dump()), *reader.end()]
    shown = repr([request, response, events])
    assert "a-token" not in shown
    assert "patient" not in shown


def test_errors_do_not_repeat_values() -> None:
    with pytest.raises(Malformed) as caught:
        BinaryRequest.parse(_request_with(_line(b"authorization", b"Bearer secret\x00")))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("message", [REQUEST, RESPONSE], ids=["request", "response"])
def test_mutated_messages_are_malformed_or_messages(message: BinaryRequest | BinaryResponse, framing: Framing) -> None:
    good = 0
    for data in mutated(message.dump(framing)):
        try:
            type(message).parse(data, max_body_bytes=4096)
            good += 1
        except Malformed:
            continue
    assert 0 < good < 10_000


def _fed(data: bytes, rng: random.Random) -> object:
    """Return what a reader makes of ``data`` in pieces: the message, or that it is malformed."""
    reader, events, at = RequestReader(max_body_bytes=4096), [], 0
    try:
        while at < len(data):
            size = rng.choice((1, 2, 3, 50))
            events += reader.feed(data[at : at + size])
            at += size
        events += reader.end()
    except Malformed:
        return "malformed"
    body = b"".join(event.data for event in events if isinstance(event, Data))
    return events[0], body, events[-1]


def test_a_hostile_message_means_the_same_however_it_is_cut() -> None:
    rng = random.Random(5)
    for data in mutated(REQUEST.dump(INDETERMINATE), count=1000):
        assert _fed(data, rng) == _fed(data, random.Random(6))
