"""Write the vectors of KMIP messages: our three requests, and answers of servers, most of them wrong in one way.

Run by hand after a change of format: ``python tests/vectors/vault/generate_kmip.py``. Made from docs/spec/vault.md and
the OASIS specification (KMIP 1.4 section 9), without Cloister's code, so that this is a second reading of both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STRUCTURE, INTEGER, ENUMERATION, BOOLEAN, TEXT, BYTES, DATE_TIME = 1, 2, 5, 6, 7, 8, 9
KEY, CONTEXT, DATA, NONCE, TAG = "a-key", "vault/v2/00", bytes(range(32)), bytes(12), bytes(range(100, 116))
ENCRYPT, DECRYPT, GET_ATTRIBUTES = 0x1F, 0x20, 0x0B
NAMES = {ENCRYPT: "ENCRYPT", DECRYPT: "DECRYPT", GET_ATTRIBUTES: "GET_ATTRIBUTES"}
SEALED = {"sealed": (DATA + TAG).hex()}
FOUND = {"Cryptographic Algorithm": 3, "Cryptographic Length": 256}
MALFORMED = "Malformed"


def item(tag: int, kind: int, value: bytes) -> bytes:
    """Return one item; tags without the ``42`` that all begin with."""
    return bytes([0x42]) + tag.to_bytes(2, "big") + bytes([kind]) + len(value).to_bytes(4, "big") + value + fill(value)


def fill(value: bytes) -> bytes:
    """Return the zeros up to the next eight bytes."""
    return bytes(-len(value) % 8)


def structure(tag: int, *items: bytes) -> bytes:
    """Return a structure."""
    return item(tag, STRUCTURE, b"".join(items))


def integer(tag: int, value: int) -> bytes:
    """Return an integer."""
    return item(tag, INTEGER, value.to_bytes(4, "big", signed=True))


def enumeration(tag: int, value: int) -> bytes:
    """Return an enumeration."""
    return item(tag, ENUMERATION, value.to_bytes(4, "big"))


def text(tag: int, value: str) -> bytes:
    """Return a text string."""
    return item(tag, TEXT, value.encode())


def octets(tag: int, value: bytes) -> bytes:
    """Return a byte string."""
    return item(tag, BYTES, value)


def version(major: int = 1, minor: int = 4) -> bytes:
    """Return a protocol version."""
    return structure(0x69, integer(0x6A, major), integer(0x6B, minor))


def request(operation: int, *payload: bytes) -> bytes:
    """Return a request message."""
    header = structure(0x77, version(), integer(0x50, 65536), integer(0x0D, 1))
    asked = structure(0x79, text(0x94, KEY), *payload)
    return structure(0x78, header, structure(0x0F, enumeration(0x5C, operation), asked))


def header(told: bytes | None = None, *more: bytes, count: int = 1) -> bytes:
    """Return a response header."""
    stamp = item(0x92, DATE_TIME, (1_764_400_000).to_bytes(8, "big"))
    return structure(0x7A, version() if told is None else told, stamp, *more, integer(0x0D, count))


def success(operation: int, *payload: bytes, key: str | None = KEY, more: tuple[bytes, ...] = ()) -> bytes:
    """Return the batch item of a success."""
    named = () if key is None else (text(0x94, key),)
    return structure(
        0x0F, enumeration(0x5C, operation), enumeration(0x7F, 0), *more, structure(0x7C, *named, *payload)
    )  # fmt: skip


def failure(*items: bytes, operation: int | None = DECRYPT, status: int = 1) -> bytes:
    """Return the batch item of a failure."""
    named = () if operation is None else (enumeration(0x5C, operation),)
    return structure(0x0F, *named, enumeration(0x7F, status), *items)


def answer(*items: bytes) -> bytes:
    """Return a response message."""
    return structure(0x7B, *items)


def attribute(name: str, value: bytes) -> bytes:
    """Return an attribute; ``value`` is an item with the tag of one."""
    return structure(0x08, text(0x0A, name), value)


PLAIN, PROOF, USED = octets(0xC2, DATA), octets(0xFF, TAG), octets(0x3D, NONCE)
ATTRIBUTES = (
    attribute("Cryptographic Algorithm", enumeration(0x0B, 3)),
    attribute("Cryptographic Length", integer(0x0B, 256)),
)
GOOD = answer(header(), success(DECRYPT, PLAIN))


def requests() -> dict[str, str]:
    """Return what we ask."""
    how = structure(0x2B, enumeration(0x11, 9), enumeration(0x28, 3), integer(0xCE, 16))
    bound = (USED, octets(0xFE, CONTEXT.encode()))
    return {
        "decrypt": request(DECRYPT, how, PLAIN, *bound, PROOF).hex(),
        "encrypt": request(ENCRYPT, how, PLAIN, *bound).hex(),
        "get_attributes": request(GET_ATTRIBUTES, *(text(0x0A, name) for name in FOUND)).hex(),
    }


def good() -> dict[str, tuple[int, bytes, Any]]:
    """Return answers that say something."""
    reasons = {
        "item not found": 1, "not authenticated": 3, "permission denied": 12, "cryptographic failure": 10,
        "general failure": 0x100, "a reason nobody knows": 0x7FFFFFFF,
    }  # fmt: skip
    failures = {
        f"failed: {name}": (
            DECRYPT, answer(header(), failure(enumeration(0x7E, reason), text(0x7D, "a text"))), {"reason": reason},
        )
        for name, reason in reasons.items()
    }  # fmt: skip
    contact = attribute("Contact Information", text(0x0B, "x"))
    batch_id = octets(0x93, b"1")
    oldest = answer(header(version(1, 0)), failure(enumeration(0x7E, 3), operation=None))
    both = answer(header(), failure(enumeration(0x7E, 10), structure(0x7C, text(0x94, KEY), PLAIN)))
    asked = answer(header(None, text(0x105, "c")), success(ENCRYPT, PLAIN, PROOF, more=(batch_id,)))
    return {
        "encrypted": (ENCRYPT, answer(header(), success(ENCRYPT, PLAIN, PROOF)), SEALED),
        "encrypted, the nonce repeated": (ENCRYPT, answer(header(), success(ENCRYPT, PLAIN, USED, PROOF)), SEALED),
        "encrypted, with items that nobody asked for": (ENCRYPT, asked, SEALED),
        "decrypted": (DECRYPT, GOOD, {"data": DATA.hex()}),
        "attributes": (GET_ATTRIBUTES, answer(header(), success(GET_ATTRIBUTES, *ATTRIBUTES)), {"attributes": FOUND}),
        "attributes, one of them a text": (
            GET_ATTRIBUTES, answer(header(), success(GET_ATTRIBUTES, *ATTRIBUTES, contact)),
            {"attributes": {**FOUND, "Contact Information": None}},
        ),
        "no attributes": (GET_ATTRIBUTES, answer(header(), success(GET_ATTRIBUTES)), {"attributes": {}}),
        **failures,
        "failed, in the first version and of no operation": (DECRYPT, oldest, {"reason": 3}),
        "failed, without a reason": (DECRYPT, answer(header(), failure()), {"reason": 0}),
        "pending": (DECRYPT, answer(header(), failure(status=2)), {"reason": 0}),
        "failed, and the payload of a success beside it": (DECRYPT, both, {"reason": 10}),
    }  # fmt: skip


def misshapen() -> dict[str, bytes]:
    """Return what is no item, or no message, at all."""
    deep = answer()
    for _ in range(10):
        deep = answer(deep)
    return {
        "empty": b"",
        "cut in the header": GOOD[:7],
        "cut by eight bytes": GOOD[:-8],
        "eight bytes more": GOOD + bytes(8),
        "one byte more": GOOD + b"\0",
        "a request": structure(0x78, header(), success(DECRYPT, PLAIN)),
        "a text in the place of the message": text(0x7B, "x"),
        "filled up with ones": GOOD.replace(b"a-key\0\0\0", b"a-key\0\0\1"),
        "a text that is no utf-8": GOOD.replace(b"a-key", b"a\xffkey"),
        "an integer of three bytes": GOOD.replace(integer(0x6A, 1), bytes.fromhex("42006a02000000030000000100000000")),
        "an item of type 0": GOOD.replace(bytes.fromhex("42006a02"), bytes.fromhex("42006a00")),
        "an item of type 11": GOOD.replace(bytes.fromhex("42006a02"), bytes.fromhex("42006a0b")),
        "a boolean that is two": answer(header(None, item(0x07, BOOLEAN, bytes(7) + b"\2")), success(DECRYPT, PLAIN)),
        "a length beyond the end": GOOD[:4] + b"\x7f\xff\xff\xff" + GOOD[8:],
        "a length of four gigabytes inside": GOOD.replace(
            bytes.fromhex("4200c20800000020"), bytes.fromhex("4200c208ffffffff")
        ),
        "ten structures deep": deep,
        "two thousand empty items": answer(*[structure(0x08)] * 2000),
    }


def wrong_decrypted() -> dict[str, bytes]:
    """Return sound items that are no answer to Decrypt."""
    one = success(DECRYPT, PLAIN)
    return {
        "no header": answer(one),
        "two headers": answer(header(), header(), one),
        "no answer": answer(header()),
        "two answers": answer(header(), one, one),
        "a count of two": answer(header(count=2), one),
        "a count of minus one": answer(header(count=-1), one),
        "version 1.3": answer(header(version(1, 3)), one),
        "version 2.0": answer(header(version(2, 0)), one),
        "no version": answer(structure(0x7A, integer(0x0D, 1)), one),
        "the answer to another operation": answer(header(), success(ENCRYPT, PLAIN, PROOF)),
        "a success of no operation": answer(
            header(), structure(0x0F, enumeration(0x7F, 0), structure(0x7C, text(0x94, KEY), PLAIN))
        ),
        "a success without a payload": answer(header(), failure(status=0)),
        "two payloads": answer(header(), success(DECRYPT, PLAIN, more=(structure(0x7C, text(0x94, KEY), PLAIN),))),
        "two statuses": answer(header(), success(DECRYPT, PLAIN, more=(enumeration(0x7F, 1),))),
        "a status that is an integer": answer(
            header(),
            structure(0x0F, enumeration(0x5C, DECRYPT), integer(0x7F, 0), structure(0x7C, text(0x94, KEY), PLAIN)),
        ),
        "of another key": answer(header(), success(DECRYPT, PLAIN, key="b-key")),
        "of no key": answer(header(), success(DECRYPT, PLAIN, key=None)),
        "no data": answer(header(), success(DECRYPT)),
        "data twice": answer(header(), success(DECRYPT, PLAIN, PLAIN)),
        "data that is text": answer(header(), success(DECRYPT, text(0xC2, "a" * 32))),
        "data that is a structure": answer(header(), success(DECRYPT, structure(0xC2, PLAIN))),
    }


def wrong_others() -> dict[str, tuple[int, bytes]]:
    """Return sound items that are no answer to Encrypt or Get Attributes."""
    encrypted = {
        "no tag": (PLAIN,),
        "a tag of twelve bytes": (PLAIN, octets(0xFF, TAG[:12])),
        "a tag of no bytes": (PLAIN, octets(0xFF, b"")),
        "another nonce than asked for": (PLAIN, octets(0x3D, b"1" * 12), PROOF),
        "fewer bytes than were to be encrypted": (octets(0xC2, DATA[:31]), PROOF),
        "tag at the end of the data, as some do": (octets(0xC2, DATA + TAG),),
    }
    told = {
        "an attribute twice": (ATTRIBUTES[0], ATTRIBUTES[0]),
        "an attribute without a value": (structure(0x08, text(0x0A, "x")),),
    }
    return {name: (ENCRYPT, answer(header(), success(ENCRYPT, *items))) for name, items in encrypted.items()} | {
        name: (GET_ATTRIBUTES, answer(header(), success(GET_ATTRIBUTES, *items))) for name, items in told.items()
    }


def main() -> None:
    """Write the file."""
    bad = {name: (DECRYPT, data) for name, data in {**wrong_decrypted(), **misshapen()}.items()} | wrong_others()
    every = good() | {name: (operation, data, MALFORMED) for name, (operation, data) in bad.items()}
    document = {
        "key": KEY, "context": CONTEXT, "data": DATA.hex(), "nonce": NONCE.hex(), "tag": TAG.hex(),
        "requests": requests(),
        "cases": [
            {"name": name, "operation": NAMES[operation], "hex": data.hex(), "expect": expect}
            for name, (operation, data, expect) in every.items()
        ],
    }  # fmt: skip
    (Path(__file__).parent / "kmip.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
