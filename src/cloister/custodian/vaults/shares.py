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
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cloister.crypto.shamir import MAX_PARTS, MIN_NEED, Part, combine, split
from cloister.errors import Reason, Rejected, UsageError
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloister.wire import Json

__all__ = [
    "HOLDER",
    "MAX_SHARE_BYTES",
    "Division",
    "Share",
    "holders_of",
    "rebuild_key",
    "share_key",
    "vault_digest",
]

MAX_SHARE_BYTES: Final = 1024  # bytes of a share file
_KEY_BYTES = 32
_SPLIT_BYTES = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LABEL = b"cloister/vault-share/v1"
HOLDER = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")
"""How a holder is called: as a person is on a token."""
_PERSONS = 2
_UNNAMED, _NAMED = 1, 2  # versions of a share file: without and with its holder


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How a key is divided: any ``need`` of ``of`` shares, share x the x-th holder's. Without holders nobody is named.

    Somebody may hold several, and never enough: where holders are named, it takes two of them.
    """

    need: int
    of: int
    holders: tuple[str, ...] = ()

    def demand_sound(self) -> None:
        """Refuse what is no division, and one by which somebody alone has the key. Raises ``UsageError``."""
        if not MIN_NEED <= self.need <= self.of <= MAX_PARTS:
            msg = f"shares: need {self.need} of {self.of}, want {MIN_NEED} to {MAX_PARTS}, and no more than there are"
            raise UsageError(msg)
        if not self.holders:
            return
        if len(self.holders) != self.of:
            msg = f"shares: {len(self.holders)} holders, want {self.of}, one for each share"
            raise UsageError(msg, hint="name a holder once for each share that is theirs")
        if not all(HOLDER.fullmatch(name) for name in self.holders):
            msg = "shares: a holder's name, want a-z, 0-9 and ._@+-, at most 128"
            raise UsageError(msg)
        for name, count in Counter(self.holders).items():
            if count >= self.need:
                msg = f"shares: {name} holds {count}, want fewer than the {self.need} that open the vault"
                raise UsageError(msg)

    @classmethod
    def take(cls, fields: Fields) -> Self:
        """Take ``need``, ``of`` and ``holders`` out of a JSON object. Raises ``Malformed``; holders are wanted."""
        division = cls(
            need=fields.integer("need", floor=MIN_NEED, cap=MAX_PARTS),
            of=fields.integer("of", floor=MIN_NEED, cap=MAX_PARTS),
            holders=fields.texts("holders", cap=MAX_PARTS, item_cap=128),
        )
        if not division.holders:
            fields.fail("holders", "want one for each share")
        try:
            division.demand_sound()
        except UsageError as exc:
            fields.fail("holders", exc.message)
        return division


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One holder's file. ``split`` names the run that made it, ``vault`` the vault file it helps to open.

    ``holder``: whose it was made for, None where that was not said.
    """

    need: int
    of: int
    part: Part
    split: bytes
    vault: str
    holder: str | None = None

    @property
    def name(self) -> str:
        """What a person calls it: ``share 2 of 5``."""
        return f"share {self.part.x} of {self.of}"

    def _members(self) -> dict[str, Json]:
        named: dict[str, Json] = {} if self.holder is None else {"holder": self.holder}
        return {
            **named,
            "id": self.part.x,
            "need": self.need,
            "of": self.of,
            "part": dump_b64u(self.part.values),
            "split": dump_b64u(self.split),
            "v": _UNNAMED if self.holder is None else _NAMED,
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
        version = fields.integer("v", floor=_UNNAMED, cap=_NAMED)
        need = fields.integer("need", floor=MIN_NEED, cap=MAX_PARTS)
        of = fields.integer("of", floor=need, cap=MAX_PARTS)
        share = cls(
            need=need,
            of=of,
            part=Part(x=fields.integer("id", floor=1, cap=of), values=fields.b64u("part", size=_KEY_BYTES)),
            split=fields.b64u("split", size=_SPLIT_BYTES),
            vault=fields.match("vault", _DIGEST),
            holder=fields.match("holder", HOLDER) if version == _NAMED else None,
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
    key: bytes, division: Division, *, vault_file: bytes, rng: Callable[[int], bytes] = os.urandom
) -> tuple[Share, ...]:
    """Return shares of the key that opens ``vault_file``. Does not prove that it does. Raises ``UsageError``."""
    division.demand_sound()
    name, vault = rng(_SPLIT_BYTES), vault_digest(vault_file)
    need, of = division.need, division.of
    parts = split(key, need=need, of=of, rng=rng)
    holders: Sequence[str | None] = division.holders or (None,) * of
    return tuple(
        Share(need=need, of=of, part=part, split=name, vault=vault, holder=holder)
        for part, holder in zip(parts, holders, strict=True)
    )


def holders_of(shares: Sequence[Share], named: Sequence[str], *, wanted: bool) -> tuple[str, ...]:
    """Return who brings each share: as it says itself, else the next of ``named``; nobody where nobody need be named.

    Raises ``Rejected``: ``holders_wanted`` where one is missing, ``same_holder`` where all are of one person. Does not
    prove that who is named is there, nor that a name in a share was not written by another.
    """
    silent = [share for share in shares if share.holder is None]
    if len(named) > len(silent):
        msg = f"shares: {len(named)} holders named, but {len(silent)} shares do not say whose they are"
        raise UsageError(msg)
    if not wanted and not named and len(silent) == len(shares):
        return ()
    if len(named) < len(silent):
        hint = "say who brings each, in the order of the files: --holder NAME"
        missing = tuple(Reason(code="holders_wanted", subject=share.name) for share in silent[len(named) :])
        raise Rejected(str(missing[0]), reasons=missing, hint=hint)
    said = iter(named)
    holders = tuple(next(said) if share.holder is None else share.holder for share in shares)
    if not all(HOLDER.fullmatch(name) for name in holders):
        msg = "shares: a holder's name, want a-z, 0-9 and ._@+-, at most 128"
        raise UsageError(msg)
    if len(set(holders)) < _PERSONS:
        raise Rejected.because("same_holder", "shares", got=holders[0], want="shares of two persons at least")
    return holders


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
