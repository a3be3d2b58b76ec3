"""Recovery by shares: any ``need`` of ``of`` files give the key of one vault file (docs/spec/share.md).

What is shared is the key that encrypts the vault file, not the passphrase and not what is inside: a share is worth
nothing without the file, a passphrase stays its owner's, and a vault that was locked anew makes old shares worthless
(docs/adr/0017-shares.md).

Not done here: reading and writing files (the command line does), and handing shares to people.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cloister.crypto.shamir import MAX_PARTS, MIN_NEED, Part, combine, split
from cloister.errors import Reason, Rejected, UsageError
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloister.wire import Json

__all__ = ["MAX_SHARE_BYTES", "Share", "rebuild_key", "share_key", "vault_digest"]

MAX_SHARE_BYTES: Final = 1024  # bytes of a share file
_KEY_BYTES = 32
_SPLIT_BYTES = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LABEL = b"cloister/vault-share/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One holder's file. ``split`` names the run that made it, ``vault`` the vault file it helps to open."""

    need: int
    of: int
    part: Part
    split: bytes
    vault: str

    @property
    def name(self) -> str:
        """What a person calls it: ``share 2 of 5``."""
        return f"share {self.part.x} of {self.of}"

    def _members(self) -> dict[str, Json]:
        return {
            "id": self.part.x,
            "need": self.need,
            "of": self.of,
            "part": dump_b64u(self.part.values),
            "split": dump_b64u(self.split),
            "v": 1,
            "vault": self.vault,
        }

    def dump(self) -> bytes:
        """Return the file, its checksum with it."""
        members = self._members()
        return dump_json({**members, "checksum": _checksum(members)})

    @classmethod
    def parse(cls, data: bytes, *, what: str = "share") -> Self:
        """Return a share that is whole. Raises ``Malformed``. The checksum finds accidents, not forgers."""
        fields = Fields.parse(data, what=what, cap=MAX_SHARE_BYTES, canonical=True)
        fields.literal("v", 1)
        need = fields.integer("need", floor=MIN_NEED, cap=MAX_PARTS)
        of = fields.integer("of", floor=need, cap=MAX_PARTS)
        share = cls(
            need=need,
            of=of,
            part=Part(x=fields.integer("id", floor=1, cap=of), values=fields.b64u("part", size=_KEY_BYTES)),
            split=fields.b64u("split", size=_SPLIT_BYTES),
            vault=fields.match("vault", _DIGEST),
        )
        if fields.match("checksum", _DIGEST) != _checksum(share._members()):
            fields.fail("checksum", "differs from the content; the share was damaged")
        fields.end()
        return share


def _checksum(members: dict[str, Json]) -> str:
    return hashlib.sha256(_LABEL + dump_json(members)).hexdigest()


def vault_digest(vault_file: bytes) -> str:
    """Return the name that shares have for these bytes of a vault file."""
    return hashlib.sha256(vault_file).hexdigest()


def share_key(
    key: bytes, *, vault_file: bytes, need: int, of: int, rng: Callable[[int], bytes] = os.urandom
) -> tuple[Share, ...]:
    """Return ``of`` shares of the key that opens ``vault_file``. Does not prove that it does."""
    name, vault = rng(_SPLIT_BYTES), vault_digest(vault_file)
    parts = split(key, need=need, of=of, rng=rng)
    return tuple(Share(need=need, of=of, part=part, split=name, vault=vault) for part in parts)


def rebuild_key(shares: Sequence[Share], *, vault_file: bytes) -> bytes:
    """Return the key that these shares give for ``vault_file``; opening the file with it is what proves it.

    Raises ``Rejected`` (``wrong_share``) naming every share that is another vault's, another split's or there twice;
    where more than needed are given and they contradict one another, without a name: nobody can tell which one lies.
    ``UsageError`` for too few.
    """
    if not shares:
        msg = "shares: none given"
        raise UsageError(msg)
    _refuse_strangers(shares, vault_digest(vault_file))
    need = shares[0].need
    if len(shares) < need:
        msg = f"shares: {len(shares)} given, want {need}"
        raise UsageError(msg, hint="ask more of their holders")
    return combine([share.part for share in shares], need=need)


def _refuse_strangers(shares: Sequence[Share], vault: str) -> None:
    """Demand shares of this vault file, all of one split, each once."""
    reasons: list[Reason] = []
    first, seen = next((share for share in shares if share.vault == vault), shares[0]), set[int]()
    for share in shares:
        if share.vault != vault:
            reasons.append(_wrong(share, got=f"vault file {share.vault[:16]}", want=f"vault file {vault[:16]}"))
        elif (share.split, share.need, share.of) != (first.split, first.need, first.of):
            reasons.append(_wrong(share, got=f"split {share.split.hex()}", want=f"split {first.split.hex()}"))
        elif share.part.x in seen:
            reasons.append(_wrong(share, got="given twice", want="each share once"))
        else:
            seen.add(share.part.x)
    if reasons:
        hint = "shares open the vault file they were made from; after it is locked anew, split it again"
        raise Rejected(str(reasons[0]), reasons=tuple(reasons), hint=hint)


def _wrong(share: Share, *, got: str, want: str) -> Reason:
    return Reason(code="wrong_share", subject=share.name, got=got, want=want)
