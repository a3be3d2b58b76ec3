"""Write the channel's vectors. Run once per change of the format: ``python tests/vectors/channel/generate.py``.

Keys, ephemeral keys and nonces are fixed, so that the files do not change unless the format does. The
suite of the encapsulated ones is X25519, HKDF-SHA256, AES-128-GCM: the one whose sealing can be
repeated with the library's primitives.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent))

from cloister.channel.bhttp import BinaryRequest, BinaryResponse, Framing  # noqa: E402
from cloister.channel.keyset import NO_NONCE, EngineInfo, EvidenceDocument, Keyset, KeysetModel  # noqa: E402
from cloister.channel.ohttp import GatewayKeys, KeyConfig, RequestOpener, RequestSealer  # noqa: E402
from cloister.crypto.hpke import Aead, Kdf, Kem, KemPrivateKey  # noqa: E402
from cloister.crypto.sign import SigningKey  # noqa: E402
from hpke_seam import sender_with  # noqa: E402 - the seam of the tests

PRIVATE_KEY = bytes(range(32))
EPHEMERAL = bytes(range(32, 64))
OTHER_EPHEMERAL = bytes(range(64, 96))
RESPONSE_NONCE = bytes(range(16))
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)

OK, MALFORMED = "ok", "Malformed"


def case(name: str, data: bytes, expect: str = MALFORMED, **more: object) -> dict[str, object]:
    return {"name": name, "hex": data.hex(), "expect": expect, **more}


def write(name: str, about: str, cases: list[dict[str, object]], **more: object) -> None:
    text = json.dumps({"about": about, **more, "cases": cases}, indent=1) + "\n"
    (HERE / f"{name}.json").write_text(text)


def line(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + bytes((len(value),)) + value


def request(lines: bytes = b"", *, body: bytes = b"", method: bytes = b"GET", path: bytes = b"/") -> bytes:
    control = b"".join(bytes((len(part),)) + part for part in (method, b"https", b"", path))
    return b"\x00" + control + bytes((len(lines),)) + lines + bytes((len(body),)) + body + b"\x00"


def bhttp_requests() -> list[dict[str, object]]:
    message = BinaryRequest(
        method="POST", authority="e", path="/v2", headers=(("date", "x"),), body=b"body", trailers=(("t", "1"),)
    )
    known, indeterminate = message.dump(), message.dump(Framing.INDETERMINATE_LENGTH)
    return [
        case("known length", known, OK),
        case("indeterminate length", indeterminate, OK),
        case("padded", known + bytes(7), OK),
        case("cut after the control data", request()[:-3], OK),
        case("cut after the header section", request()[:-2], OK),
        case("framing indicator in two bytes", b"\x40\x00" + known[1:], OK),
        case("empty", b""),
        case("a response", b"\x01\x40\xc8\x00\x00\x00"),
        case("framing indicator 4", b"\x04" + known[1:]),
        case("cut in the control data", known[:9]),
        case("cut in a header name", request(line(b"name", b"v"))[: len(request())]),
        case("cut in the content", known[:-6]),
        case("cut before the end of chunked content", indeterminate[:-6]),
        case("padding that is not zero", known + b"\x00\x01"),
        case("two messages", known + known),
        case("header section longer than the message", request()[:-3] + b"\x3f"),
        case("field line longer than its section", request(line(b"a", b"b")).replace(b"\x04\x01a", b"\x03\x01a")),
        case("field name empty", request(line(b"", b"v"))),
        case("field name in upper case", request(line(b"Host", b"v"))),
        case("field name with a space", request(line(b"a b", b"v"))),
        case("pseudo-field", request(line(b":path", b"/b"))),
        case("field value with CR LF", request(line(b"a", b"v\r\nb: c"))),
        case("field value with NUL", request(line(b"a", b"v\x00"))),
        case("field value folded", request(line(b"a", b"v\r\n w"))),
        case("field value with a space in front", request(line(b"a", b" v"))),
        case("transfer-encoding", request(line(b"transfer-encoding", b"chunked"))),
        case("transfer-encoding and content-length", request(line(b"transfer-encoding", b"x") + line(b"te", b"y"))),
        case("connection", request(line(b"connection", b"close"))),
        case("content-length twice", request(line(b"content-length", b"0") * 2)),
        case("content-length too large", request(line(b"content-length", b"1"))),
        case("content-length too small", request(line(b"content-length", b"1"), body=b"ab")),
        case("content-length a list", request(line(b"content-length", b"0, 0"))),
        case("method empty", request(method=b"")),
        case("method CONNECT", request(method=b"CONNECT")),
        case("method with a space", request(method=b"GE T")),
        case("path empty", request(path=b"")),
        case("path without a slash", request(path=b"v2")),
        case("path with a fragment", request(path=b"/v2#x")),
        case("path with CR LF", request(path=b"/\r\nhost: x")),
        case("content of 2**62-1 bytes", request()[:-2] + b"\xff" * 8),
        case("field line of 2**62-1 bytes", b"\x02" + request()[1:-3] + b"\xff" * 8),
    ]


def bhttp_responses() -> list[dict[str, object]]:
    message = BinaryResponse(
        status=200, informational=((103, ()),), headers=(("a", "b"),), body=b"body", trailers=(("t", "1"),)
    )
    known, indeterminate = message.dump(), message.dump(Framing.INDETERMINATE_LENGTH)
    return [
        case("known length", known, OK),
        case("indeterminate length", indeterminate, OK),
        case("status only", b"\x01\x40\xc8", OK),
        case("padded", indeterminate + bytes(9), OK),
        case("empty", b""),
        case("a request", request()),
        case("no status", b"\x01"),
        case("status 0", b"\x01\x00\x00\x00\x00"),
        case("status 99", b"\x01\x40\x63\x00\x00\x00"),
        case("status 600", b"\x01\x42\x58\x00\x00\x00"),
        case("informational only", b"\x01\x40\x67\x00"),
        case("nine informational responses", b"\x01" + b"\x40\x67\x00" * 9 + b"\x40\xc8\x00\x00\x00"),
        case("cut in the status", b"\x01\x40"),
        case("cut in the trailers", indeterminate[:-2]),
        case("content-length in the trailers", b"\x01\x40\xc8\x00\x00\x11" + line(b"content-length", b"0")),
        case("content-length not true", b"\x01\x40\xc8\x11" + line(b"content-length", b"2") + b"\x01x\x00"),
        case("padding that is not zero", known + b"\x01"),
        case("content chunk of 2**30 bytes", b"\x03\x40\xc8\x00\xc0\x00\x00\x00\x40\x00\x00\x00"),
    ]


def key_config() -> KeyConfig:
    public_key = KemPrivateKey.from_bytes(Kem.X25519, PRIVATE_KEY).public_bytes()
    algorithms = ((Kdf.HKDF_SHA256, Aead.AES_128_GCM), (Kdf.HKDF_SHA256, Aead.CHACHA20_POLY1305))
    return KeyConfig(key_id=9, kem=Kem.X25519, public_key=public_key, algorithms=algorithms)


def key_collections() -> list[dict[str, object]]:
    one = key_config().dump()
    entry = len(one).to_bytes(2, "big") + one
    other = entry[:2] + b"\x0a" + entry[3:]
    strange = b"\x00\x49\x01\x00\x10\x04" + bytes(64) + b"\x00\x04\x00\x01\x00\x01"
    return [
        case("one configuration", entry, OK, key_ids=[9]),
        case("two configurations", entry + other, OK, key_ids=[9, 10]),
        case("an unknown kem is skipped", strange[:1] + b"\x4a" + strange[2:] + entry, OK, key_ids=[9]),
        case("only an unknown kem", strange[:1] + b"\x4a" + strange[2:], OK, key_ids=[]),
        case("empty", b""),
        case("no length in front", one),
        case("cut", entry[:-1]),
        case("byte after the end", entry + b"\x00"),
        case("byte inside after the algorithms", b"\x00" + bytes((len(one) + 1,)) + one + b"\x00"),
        case("key id twice", entry + entry),
        case("no algorithms", b"\x00\x25" + one[:35] + b"\x00\x00"),
        case("half an algorithm", b"\x00\x27" + one[:35] + b"\x00\x02\x00\x01"),
        case("algorithms longer than the configuration", entry[:37] + b"\x00\x0c" + entry[39:]),
        case("hybrid kem with a classical key", entry[:3] + b"\x64\x7a" + entry[5:]),
        case("seventeen configurations", b"".join(entry[:2] + bytes((n,)) + entry[3:] for n in range(17))),
    ]


class Exchange:
    """One exchange of three chunks each way, with everything fixed."""

    def __init__(self, ephemeral: bytes = EPHEMERAL) -> None:
        config = key_config()
        private_key = KemPrivateKey.from_bytes(Kem.X25519, PRIVATE_KEY)
        self.sealer = RequestSealer(config, config.suites[0], _setup=sender_with(ephemeral))
        seal = self.sealer.seal
        self.request = [self.sealer.start(), seal(b"one", final=False), seal(b"two", final=False)]
        self.request.append(seal(b"three", final=True))
        opener = RequestOpener(GatewayKeys([(config, private_key)]))
        opener.feed(b"".join(self.request))
        opener.end()
        answer = opener.response_sealer(_random=lambda size: RESPONSE_NONCE[:size])
        self.response = [answer.start(), answer.seal(b"un", final=False), answer.seal(b"deux", final=False)]
        self.response.append(answer.seal(b"trois", final=True))


def streams(parts: list[bytes], other: list[bytes], plain: str) -> list[dict[str, object]]:
    """Return what may happen to a stream of a head and three chunks, either way."""
    head, one, two, final = parts
    failed, truncated = "decryption_failed", "truncated"

    def flipped(data: bytes, at: int) -> bytes:
        return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]

    whole = b"".join(parts)
    return [
        case("whole", whole, OK, plaintext=plain),
        case("lengths in their longest form", head + b"\xc0" + bytes(6) + one + two + final, OK, plaintext=plain),
        case("empty", b"", truncated),
        case("cut in the head", head[:-1], truncated),
        case("head only", head, truncated),
        case("one chunk", head + one, truncated),
        case("no final chunk", head + one + two, truncated),
        case("final chunk announced only", head + one + two + b"\x00", truncated),
        case("final chunk shorter than a tag", head + one + two + final[:16], truncated),
        case("cut in the final chunk", whole[:-1], failed),
        case("bytes after the final chunk", whole + b"\x00", failed),
        case("chunks swapped", head + two + one + final, failed),
        case("chunk doubled", head + one + one + two + final, failed),
        case("chunk dropped", head + two + final, failed),
        case("last chunk dropped", head + one + final, failed),
        case("final chunk alone", head + final, failed),
        case("chunk made final", head + one + b"\x00" + two[1:], failed),
        case("final chunk made another", head + one + two + bytes((len(final) - 1,)) + final[1:], failed),
        case("chunk of another stream", head + other[1] + two + final, failed),
        case("final chunk of another stream", head + one + two + other[3], failed),
        case("first chunk damaged", head + flipped(one, 1) + two + final, failed),
        case("tag of the first chunk damaged", head + flipped(one, len(one) - 1) + two + final, failed),
        case("final chunk damaged", head + one + two + flipped(final, 3), failed),
        case("chunk shorter than a tag", head + b"\x01x" + final, failed),
        case("chunk of 2**62-1 bytes", head + b"\xff" * 8, "too_large"),
        case("chunk of a byte more than allowed", head + b"\x80\x10\x00\x11", "too_large"),
        case("byte of the head damaged", flipped(head, len(head) - 2) + one + two + final, failed),
    ]


def requests() -> list[dict[str, object]]:
    exchange = Exchange()
    tail = b"".join(exchange.request[1:])
    head = exchange.request[0]
    return [
        *streams(exchange.request, Exchange(OTHER_EPHEMERAL).request, b"onetwothree".hex()),
        case("key id unknown", b"\x08" + head[1:] + tail, "ohttp_key"),
        case("key id with another kem", head[:1] + b"\x64\x7a" + head[3:] + tail, "ohttp_key"),
        case("kdf not offered", head[:4] + b"\x02" + head[5:] + tail, "decryption_failed"),
        case("aead not offered", head[:6] + b"\x02" + head[7:] + tail, "decryption_failed"),
        case("aead swapped for another that is offered", head[:6] + b"\x03" + head[7:] + tail, "decryption_failed"),
        case("encapsulated key of low order", head[:7] + bytes(32) + tail, "decryption_failed"),
    ]


def keysets() -> list[dict[str, object]]:
    keyset = Keyset(
        instance="aa" * 32,
        service="digits",
        nbf=NOW,
        exp=NOW + timedelta(hours=1),
        ohttp_keys=len(key_config().dump()).to_bytes(2, "big") + key_config().dump(),
        receipt_keys=(SigningKey(bytes(32)).verify_key,),
        models=(KeysetModel(name="digits", digest="bb" * 32, loan_digest="cc" * 32),),
        engine=EngineInfo(kind="onnx", digest="dd" * 32),
        policy_digest="ee" * 32,
        custodian=SigningKey(bytes([1]) * 32).verify_key,
        loan="loan-abcdefghij234567",
    )
    good = keyset.dump()
    document = EvidenceDocument(
        nonce=NO_NONCE, tee="simulated", evidence=b"e", keyset=good, devices=b"", collateral={"crl": b"c"}
    )

    def changed(old: bytes, new: bytes) -> bytes:
        if old not in good:
            raise ValueError(old)
        return good.replace(old, new, 1)

    return [
        case("keyset", good, OK),
        case("space after a comma", changed(b",", b", ")),
        case("members in another order", b'{"v":1,' + good[1:].replace(b',"v":1}', b"}")),
        case("member twice", changed(b'"v":1', b'"v":1,"v":1')),
        case("unknown member", changed(b'"v":1', b'"v":1,"w":1')),
        case("version 2", changed(b'"v":1', b'"v":2')),
        case("version true", changed(b'"v":1', b'"v":true')),
        case("another purpose", changed(b'"inference"', b'"release"')),
        case("no end", changed(b'"exp":"2026-11-21T13:00:00Z"', b'"exp":"2026-11-21T12:00:00Z"')),
        case("time with an offset", changed(b"13:00:00Z", b"13:00:00+00:00")),
        case("digest in upper case", changed(b"aa" * 32, b"AA" * 32)),
        case("model without a loan", changed(b'"loan_digest":"' + b"cc" * 32 + b'",', b"")),
        case("ticketed model", changed(b'"name":"digits"', b'"name":"digits","ticketed":true'), OK),
        case("model not ticketed, said aloud", changed(b'"name":"digits"', b'"name":"digits","ticketed":false')),
        case("ticketed null", changed(b'"name":"digits"', b'"name":"digits","ticketed":null')),
        case("ticketed a number", changed(b'"name":"digits"', b'"name":"digits","ticketed":1')),
        case("ticketed outside of a model", changed(b'"tls_spki_sha256":[]', b'"ticketed":true,"tls_spki_sha256":[]')),
        case("no receipt key", changed(keyset.receipt_keys[0].dump().encode(), b"").replace(b'[""]', b"[]")),
        case("ohttp keys cut", changed(b'"ohttp_keys":"AC', b'"ohttp_keys":"AD')),
        case("byte order mark", b"\xef\xbb\xbf" + good),
        case("an evidence document", document.dump()),
        case("cut", good[:-1]),
        case("empty", b""),
    ]


def main() -> None:
    write("bhttp-request", "binary HTTP requests (RFC 9292)", bhttp_requests())
    write("bhttp-response", "binary HTTP responses (RFC 9292)", bhttp_responses())
    write("ohttp-keys", "application/ohttp-keys (RFC 9458 section 3)", key_collections())
    write(
        "ohttp-chunked-request",
        "encapsulated requests to this gateway; expect is ok or the code of a rejection",
        requests(),
        private_key=PRIVATE_KEY.hex(),
        key_config=key_config().dump().hex(),
    )
    exchange = Exchange()
    write(
        "ohttp-chunked-response",
        "encapsulated responses to the one request that this ephemeral key made; expect as for requests",
        streams(exchange.response, Exchange(OTHER_EPHEMERAL).response, b"undeuxtrois".hex()),
        key_config=key_config().dump().hex(),
        ephemeral=EPHEMERAL.hex(),
    )
    write("keyset", "keysets; a good one comes back as the same bytes", keysets())


if __name__ == "__main__":
    main()
