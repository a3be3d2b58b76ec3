"""Key configurations of a gateway: ``application/ohttp-keys`` (RFC 9458 section 3).

A client takes the strongest configuration it finds and never less than it was told to accept; the
bytes it chooses from are inside attested evidence, so there is nothing to negotiate. Configurations
of KEMs this code does not know are skipped, as a newer gateway may offer them; everything else that is
not exact makes the whole collection ``Malformed`` (section 3.2).

Not done here: whether the bytes are the attested ones (``client``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.crypto.hpke import Aead, Kdf, Kem, Suite
from cloister.errors import Malformed, Rejected
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["POST_QUANTUM", "KeyConfig", "dump_key_configs", "parse_key_configs", "strongest"]

MAX_COLLECTION_BYTES = 32 * 1024  # bytes of one application/ohttp-keys
MAX_CONFIGS = 16  # configurations in one collection
MAX_ALGORITHMS_BYTES = 256  # bytes of the symmetric algorithms of one configuration

POST_QUANTUM = frozenset({Kem.MLKEM768_X25519})
"""The KEMs that a consumer accepts unless it says otherwise."""

_KEM_ORDER = (Kem.MLKEM768_X25519, Kem.X25519)  # strongest first
_AEAD_ORDER = (Aead.AES_256_GCM, Aead.CHACHA20_POLY1305, Aead.AES_128_GCM)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyConfig:
    """One public key of a gateway and the symmetric algorithms it takes with it."""

    key_id: int
    kem: Kem
    public_key: bytes
    algorithms: tuple[tuple[Kdf, Aead], ...]

    @property
    def suites(self) -> tuple[Suite, ...]:
        """The suites this configuration offers, in its own order."""
        return tuple(Suite(kem=self.kem, kdf=kdf, aead=aead) for kdf, aead in self.algorithms)

    def dump(self) -> bytes:
        """Return the encoding of RFC 9458 section 3.1."""
        algorithms = b"".join(kdf.to_bytes(2, "big") + aead.to_bytes(2, "big") for kdf, aead in self.algorithms)
        return (
            self.key_id.to_bytes(1, "big")
            + self.kem.to_bytes(2, "big")
            + self.public_key
            + len(algorithms).to_bytes(2, "big")
            + algorithms
        )

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Return one configuration, None where this code knows its KEM or all its algorithms not.

        Does not prove that the key is a good one: encapsulating to it does. Raises ``Malformed``.
        """
        reader = Reader(data, what="ohttp key config")
        key_id = reader.u8()
        kem_id = reader.u16()
        if kem_id not in set(Kem):
            return None
        kem = Kem(kem_id)
        public_key = reader.take(kem.public_key_bytes)
        algorithms = Reader(reader.prefixed(2, cap=MAX_ALGORITHMS_BYTES), what="ohttp key config algorithms")
        reader.end()
        if not algorithms.left:
            algorithms.fail("none, want at least one")
        known: list[tuple[Kdf, Aead]] = []
        while algorithms.left:
            kdf, aead = algorithms.u16(), algorithms.u16()
            if kdf in set(Kdf) and aead in set(Aead):
                known.append((Kdf(kdf), Aead(aead)))
        return cls(key_id=key_id, kem=kem, public_key=public_key, algorithms=tuple(known)) if known else None


def dump_key_configs(configs: Iterable[KeyConfig]) -> bytes:
    """Return an ``application/ohttp-keys`` collection (RFC 9458 section 3.2)."""
    encodings = [config.dump() for config in configs]
    return b"".join(len(encoding).to_bytes(2, "big") + encoding for encoding in encodings)


def parse_key_configs(data: bytes) -> tuple[KeyConfig, ...]:
    """Return the configurations of a collection that this code knows. Raises ``Malformed``."""
    reader = Reader(data, what="ohttp keys")
    if not 0 < reader.left <= MAX_COLLECTION_BYTES:
        reader.fail(f"{reader.left} bytes, want 1 to {MAX_COLLECTION_BYTES}")
    configs: list[KeyConfig] = []
    seen = 0
    while reader.left:
        seen += 1
        if seen > MAX_CONFIGS:
            reader.fail(f"more than {MAX_CONFIGS} configurations")
        config = KeyConfig.parse(reader.prefixed(2, cap=MAX_COLLECTION_BYTES))
        if config is not None:
            configs.append(config)
    if len({config.key_id for config in configs}) != len(configs):
        msg = "ohttp keys: a key id twice"
        raise Malformed(msg)
    return tuple(configs)


def strongest(configs: Iterable[KeyConfig], *, accept: Collection[Kem] = POST_QUANTUM) -> tuple[KeyConfig, Suite]:
    """Return the configuration and suite to use: the best KEM in ``accept``, then the best AEAD.

    Raises ``Rejected`` (``suite_too_weak``) where no configuration is acceptable: a collection whose
    post-quantum part is gone is refused, never used as it is.
    """
    offered = [(config, suite) for config in configs for suite in config.suites if config.kem in accept]
    if not offered:
        want = " or ".join(sorted(kem.name for kem in accept)) or "a kem the policy accepts"
        raise Rejected.because("suite_too_weak", "ohttp keys", want=want)
    return min(offered, key=lambda pair: (_KEM_ORDER.index(pair[1].kem), _AEAD_ORDER.index(pair[1].aead)))
