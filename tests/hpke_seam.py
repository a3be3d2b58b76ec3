"""Deterministic HPKE senders, for the examples of RFCs and drafts: the ephemeral key is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cloister.crypto import hpke, kem

if TYPE_CHECKING:
    from collections.abc import Callable


def sender_with(ephemeral: bytes) -> Callable[[hpke.Suite, bytes, bytes], tuple[bytes, hpke.SenderContext]]:
    """Return a ``setup_sender`` that uses the X25519 private key ``ephemeral``."""

    def setup(suite: hpke.Suite, public_key: bytes, info: bytes) -> tuple[bytes, hpke.SenderContext]:
        key = X25519PrivateKey.from_private_bytes(ephemeral)
        enc, shared_secret = kem._encapsulate(suite.kem, public_key, ephemeral=key)
        return enc, hpke.SenderContext(hpke._Schedule(suite, shared_secret, info))

    return setup
