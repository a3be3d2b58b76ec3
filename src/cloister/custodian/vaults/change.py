"""A note that the vault was locked anew by shares, for the log of the next start (docs/spec/share.md, "In the log").

It lies in the home, signed by the key inside the vault, named after the vault file that it was about to make: written
before that file takes its place, so that no vault file is there of which the log could not say where it came from.

Not done here: logging it (``service.start``). A vault file without a note is logged too, as one that nobody explains.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

from cloister.crypto.shamir import MAX_PARTS, MIN_NEED
from cloister.crypto.sign import Label, Statement, VerifyKey
from cloister.custodian.vaults.shares import HOLDER
from cloister.errors import CloisterError, Malformed, Unavailable
from cloister.private_file import read_private, write_private
from cloister.wire import Fields, dump_json, dump_time

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cloister.crypto.sign import SigningKey

__all__ = ["MAX_CHANGE_BYTES", "VaultChange", "read_change", "write_change"]

MAX_CHANGE_BYTES: Final = 64 * 1024  # bytes of a note, signed
_FOLDER = "vault-changes"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SPLIT = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultChange:
    """The vault file ``before`` was opened by shares of one split and locked anew: ``after``.

    ``holders``: who brought them, as the shares or the people there said; empty where nobody did.
    """

    LABEL: ClassVar = Label.VAULT_CHANGE

    custodian: VerifyKey
    before: str
    after: str
    at: datetime
    need: int
    of: int
    split: str
    holders: tuple[str, ...]

    def dump(self) -> bytes:
        """Return the payload."""
        return dump_json(
            {
                "after": self.after,
                "at": dump_time(self.at),
                "before": self.before,
                "custodian": self.custodian.dump(),
                "holders": list(self.holders),
                "need": self.need,
                "of": self.of,
                "split": self.split,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a payload. Raises ``Malformed``."""
        fields = Fields.parse(data, what="vault change", cap=MAX_CHANGE_BYTES, canonical=True)
        fields.literal("v", 1)
        need = fields.integer("need", floor=MIN_NEED, cap=MAX_PARTS)
        change = cls(
            custodian=VerifyKey.take(fields, "custodian"),
            before=fields.match("before", _DIGEST),
            after=fields.match("after", _DIGEST),
            at=fields.time("at"),
            need=need,
            of=fields.integer("of", floor=need, cap=MAX_PARTS),
            split=fields.match("split", _SPLIT),
            holders=fields.texts("holders", cap=MAX_PARTS, item_cap=128),
        )
        fields.end()
        if not all(HOLDER.fullmatch(name) for name in change.holders):
            fields.fail("holders", "want names of persons")
        if change.before == change.after:
            fields.fail("after", "want another vault file than before")
        return change


def write_change(home: Path, change: VaultChange, key: SigningKey) -> None:
    """Write the note, durably. Raises ``Unavailable``, ``UsageError``: then the vault must stay as it is."""
    folder = home / _FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        msg = f"{folder}: {exc.strerror}"
        raise Unavailable(msg) from exc
    write_private(folder / f"{change.after}.json", Statement.sign(key, VaultChange.LABEL, change.dump()).dump())


def read_change(home: Path, after: str, key: VerifyKey) -> VaultChange | None:
    """Return what is noted of how this vault file came about, None where nothing is that its own key signed.

    A note that is damaged or somebody else's explains nothing; the change is logged as one without a note.
    """
    try:
        data = read_private(home / _FOLDER / f"{after}.json", cap=MAX_CHANGE_BYTES)
        change = VaultChange.parse(Statement.parse(data, label=VaultChange.LABEL).verify([key]))
        if (change.custodian, change.after) != (key, after):
            raise Malformed("vault change: another vault file's")
    except CloisterError:
        return None
    return change
