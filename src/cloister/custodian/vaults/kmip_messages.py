"""The messages of KMIP 1.4 that a vault needs: Encrypt, Decrypt, Get Attributes, and answers (docs/spec/vault.md).

One operation in each message, AES in Galois/Counter mode. Sections are those of the OASIS specification, version 1.4.

Not done here: sending them (``kmip``), and what a refusal means to us.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cloister.custodian.vaults.ttlv import MAX_MESSAGE_BYTES, Item, Kind, dump, parse
from cloister.errors import Malformed

__all__ = [
    "NONCE_BYTES",
    "RESPONSE_MESSAGE",
    "TAG_BYTES",
    "Answer",
    "Operation",
    "attributes_of",
    "data_of",
    "decrypt_request",
    "encrypt_request",
    "get_attributes_request",
    "parse_answer",
    "sealed_of",
]

RESPONSE_MESSAGE: Final = 0x42007B
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_MAJOR, _MINOR = 1, 4  # the first version with additional data (section 4.29)
_AES, _GCM = 3, 9  # sections 9.1.3.2.13 and 9.1.3.2.14
_SUCCESS = 0
_WHAT = "kmip answer"


class Operation(IntEnum):
    """Section 9.1.3.2.27."""

    GET_ATTRIBUTES = 0x0B
    ENCRYPT = 0x1F
    DECRYPT = 0x20


class _Tag(IntEnum):
    """Section 9.1.3.1."""

    ATTRIBUTE = 0x420008
    ATTRIBUTE_NAME = 0x42000A
    ATTRIBUTE_VALUE = 0x42000B
    BATCH_COUNT = 0x42000D
    BATCH_ITEM = 0x42000F
    BLOCK_CIPHER_MODE = 0x420011
    CRYPTOGRAPHIC_ALGORITHM = 0x420028
    CRYPTOGRAPHIC_PARAMETERS = 0x42002B
    IV_COUNTER_NONCE = 0x42003D
    MAXIMUM_RESPONSE_SIZE = 0x420050
    OPERATION = 0x42005C
    PROTOCOL_VERSION = 0x420069
    PROTOCOL_VERSION_MAJOR = 0x42006A
    PROTOCOL_VERSION_MINOR = 0x42006B
    REQUEST_HEADER = 0x420077
    REQUEST_MESSAGE = 0x420078
    REQUEST_PAYLOAD = 0x420079
    RESPONSE_HEADER = 0x42007A
    RESPONSE_PAYLOAD = 0x42007C
    RESULT_REASON = 0x42007E
    RESULT_STATUS = 0x42007F
    UNIQUE_IDENTIFIER = 0x420094
    DATA = 0x4200C2
    TAG_LENGTH = 0x4200CE
    ADDITIONAL_DATA = 0x4200FE
    AUTHENTICATION_TAG = 0x4200FF


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered: the payload of a success, or the reason of a failure. It never prints the payload."""

    payload: Item | None = field(default=None, repr=False)
    reason: int = 0


def encrypt_request(key: str, data: bytes, *, nonce: bytes, context: str) -> bytes:
    """Return the message that asks for ``data`` under ``key``, bound to ``context`` (section 4.29)."""
    return _request(Operation.ENCRYPT, _identifier(key), *_sealing(data, nonce, context))


def decrypt_request(key: str, sealed: bytes, *, nonce: bytes, context: str) -> bytes:
    """Return the message that asks for what is in ``sealed``, ciphertext and tag (section 4.30)."""
    data, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
    proof = Item(_Tag.AUTHENTICATION_TAG, Kind.BYTE_STRING, tag)
    return _request(Operation.DECRYPT, _identifier(key), *_sealing(data, nonce, context), proof)


def get_attributes_request(key: str, *names: str) -> bytes:
    """Return the message that asks for attributes of ``key`` by their names (section 4.12)."""
    wanted = (Item(_Tag.ATTRIBUTE_NAME, Kind.TEXT_STRING, name) for name in names)
    return _request(Operation.GET_ATTRIBUTES, _identifier(key), *wanted)


def _identifier(key: str) -> Item:
    return Item(_Tag.UNIQUE_IDENTIFIER, Kind.TEXT_STRING, key)


def _sealing(data: bytes, nonce: bytes, context: str) -> tuple[Item, ...]:
    """Return what both ways of AES-GCM are told, in the order of the specification."""
    parameters = (
        Item(_Tag.BLOCK_CIPHER_MODE, Kind.ENUMERATION, _GCM),
        Item(_Tag.CRYPTOGRAPHIC_ALGORITHM, Kind.ENUMERATION, _AES),
        Item(_Tag.TAG_LENGTH, Kind.INTEGER, TAG_BYTES),
    )
    return (
        Item(_Tag.CRYPTOGRAPHIC_PARAMETERS, Kind.STRUCTURE, parameters),
        Item(_Tag.DATA, Kind.BYTE_STRING, data),
        Item(_Tag.IV_COUNTER_NONCE, Kind.BYTE_STRING, nonce),
        Item(_Tag.ADDITIONAL_DATA, Kind.BYTE_STRING, context.encode("ascii")),
    )


def _request(operation: Operation, *payload: Item) -> bytes:
    version = (
        Item(_Tag.PROTOCOL_VERSION_MAJOR, Kind.INTEGER, _MAJOR),
        Item(_Tag.PROTOCOL_VERSION_MINOR, Kind.INTEGER, _MINOR),
    )
    header = (
        Item(_Tag.PROTOCOL_VERSION, Kind.STRUCTURE, version),
        Item(_Tag.MAXIMUM_RESPONSE_SIZE, Kind.INTEGER, MAX_MESSAGE_BYTES),
        Item(_Tag.BATCH_COUNT, Kind.INTEGER, 1),
    )
    batch = (
        Item(_Tag.OPERATION, Kind.ENUMERATION, operation),
        Item(_Tag.REQUEST_PAYLOAD, Kind.STRUCTURE, payload),
    )
    message = (Item(_Tag.REQUEST_HEADER, Kind.STRUCTURE, header), Item(_Tag.BATCH_ITEM, Kind.STRUCTURE, batch))
    return dump(Item(_Tag.REQUEST_MESSAGE, Kind.STRUCTURE, message))


def parse_answer(data: bytes, *, operation: Operation, key: str) -> Answer:
    """Return what a server answered to one operation with ``key``. Raises ``Malformed`` and nothing else.

    A success must be of version 1.4, of this operation and this key. Of a failure the status counts, for servers that
    did not read our message answer in their first version and name no operation. Items that we have no use for are
    passed over.
    """
    message = parse(data)
    if message.tag != RESPONSE_MESSAGE:
        msg = f"{_WHAT}: item {message.tag:06x}, want {RESPONSE_MESSAGE:06x}"
        raise Malformed(msg)
    header, batch = message.take(_Tag.RESPONSE_HEADER), message.take(_Tag.BATCH_ITEM)
    version = header.take(_Tag.PROTOCOL_VERSION)
    numbers = (
        version.take(_Tag.PROTOCOL_VERSION_MAJOR).number(Kind.INTEGER),
        version.take(_Tag.PROTOCOL_VERSION_MINOR).number(Kind.INTEGER),
    )
    if header.take(_Tag.BATCH_COUNT).number(Kind.INTEGER) != 1:
        msg = f"{_WHAT}: several answers, want one"
        raise Malformed(msg)
    if batch.take(_Tag.RESULT_STATUS).number(Kind.ENUMERATION) != _SUCCESS:
        reason = batch.find(_Tag.RESULT_REASON)
        return Answer(reason=0 if reason is None else reason.number(Kind.ENUMERATION))
    payload = batch.take(_Tag.RESPONSE_PAYLOAD)
    answered = batch.take(_Tag.OPERATION).number(Kind.ENUMERATION)
    same_key = payload.take(_Tag.UNIQUE_IDENTIFIER).text() == key
    if numbers != (_MAJOR, _MINOR) or answered != operation or not same_key:
        msg = f"{_WHAT}: of another version, operation or key than asked for"
        raise Malformed(msg)
    return Answer(payload=payload)


def sealed_of(payload: Item, *, size: int, nonce: bytes) -> bytes:
    """Return ciphertext and tag of an answer to Encrypt over ``size`` bytes. Raises ``Malformed``."""
    data, tag = payload.take(_Tag.DATA).raw(), payload.take(_Tag.AUTHENTICATION_TAG).raw()
    used = payload.find(_Tag.IV_COUNTER_NONCE)
    if len(data) != size or len(tag) != TAG_BYTES or (used is not None and used.raw() != nonce):
        msg = f"{_WHAT}: another size or nonce than asked for"
        raise Malformed(msg)
    return data + tag


def data_of(payload: Item) -> bytes:
    """Return the plain bytes of an answer to Decrypt. Raises ``Malformed``."""
    return payload.take(_Tag.DATA).raw()


def attributes_of(payload: Item) -> dict[str, int | None]:
    """Return the attributes of an answer that are numbers, by name; None for others. Raises ``Malformed``."""
    found: dict[str, int | None] = {}
    for item in payload.all(_Tag.ATTRIBUTE):
        name, value = item.take(_Tag.ATTRIBUTE_NAME).text(), item.take(_Tag.ATTRIBUTE_VALUE).value
        if name in found:
            msg = f"{_WHAT}: an attribute twice"
            raise Malformed(msg)
        found[name] = value if isinstance(value, int) else None
    return found
