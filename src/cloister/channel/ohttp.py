"""Chunked Oblivious HTTP (RFC 9458, draft-ietf-ohai-chunked-ohttp-08), sans-io: the door to this room.

Bytes in, bytes out: sealers give what to send, openers take what arrived in pieces of any size. Labels
and formats are exactly the drafts'. One exchange:

    client                                     gateway
    RequestSealer.start, seal ...         ->   RequestOpener.feed ..., end
    ResponseOpener.feed ..., end          <-   ResponseSealer.start, seal ...

What an opener returns is authentic and in order; that it is all of it is proven only by ``end``.
Whatever the damage, it is one error, ``decryption_failed``; the other codes (``ohttp_key``,
``truncated``, ``too_large``) tell nothing that an observer of the outer stream cannot see. How a gateway
answers each is in docs/spec/channel.md section 6.

Not done here: replays (``replay``), what the messages mean (``bhttp``), the non-chunked format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.channel.chunks import CHUNK_BYTES, DEFAULT_MAX_MESSAGE_BYTES, MAX_CHUNK_BYTES
from cloister.channel.keyconfig import POST_QUANTUM, KeyConfig, dump_key_configs, parse_key_configs, strongest
from cloister.channel.ohttp_request import GatewayKeys, RequestOpener, RequestSealer
from cloister.channel.ohttp_response import ResponseOpener, ResponseSealer
from cloister.crypto.hpke import Kem

if TYPE_CHECKING:
    from cloister.crypto.hpke import Suite

__all__ = [
    "CHUNK_BYTES",
    "DEFAULT_MAX_MESSAGE_BYTES",
    "MAX_CHUNK_BYTES",
    "POST_QUANTUM",
    "GatewayKeys",
    "KeyConfig",
    "RequestOpener",
    "RequestSealer",
    "ResponseOpener",
    "ResponseSealer",
    "dump_key_configs",
    "parse_key_configs",
    "seal_request",
    "strongest",
]


def seal_request(
    config: KeyConfig,
    message: bytes,
    *,
    suite: Suite | None = None,
    max_response_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
) -> tuple[bytes, ResponseOpener]:
    """Return the encapsulated request of a binary HTTP ``message``, padded, and the opener of its response.

    Without ``suite`` the strongest that ``config`` offers is used. Raises as ``RequestSealer``.
    """
    chosen = strongest((config,), accept=frozenset(Kem))[1] if suite is None else suite
    sealer = RequestSealer(config, chosen)
    return sealer.seal_message(message), sealer.response_opener(max_bytes=max_response_bytes)
