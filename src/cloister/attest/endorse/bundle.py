"""Endorsements in one signed file, to be carried to where there is no network (docs/spec/endorsement-bundle.md).

    bundle = "CLOISTER-ENDORSEMENTS" 00 | version 01 | signed u8 | u32 length, head | objects, one after the other

``head`` is a statement over the index, or the bare index of a draft that nobody has signed yet. The index names every
object with digest, size, source and window; objects follow in its order, so that the same content has the same bytes.

Whoever signs a bundle says that it is of today, and can keep a newer revocation list back until the bundle expires; it
cannot make anybody trust anything: what is inside is signed by vendors, and every scheme proves that again. But for
keys of token services: nobody signs those, so whoever signs the bundle says whom to believe.

Not done here: remembering the last version that was accepted (the custodian does), reading files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.endorse import MAX_ENDORSEMENT_BYTES, demand_count, missing
from cloister.attest.endorse.names import MAX_NAME_CHARS, Name, parse_name
from cloister.attest.endorse.window import Window, window_of
from cloister.crypto.sign import MAX_STATEMENT_BYTES, Label, Statement
from cloister.errors import Malformed, Rejected, UsageError
from cloister.wire import MAX_JSON_BYTES, Fields, Json, Reader, dump_json, dump_time, lp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.crypto.sign import KeyId, SigningKey, VerifyKey

__all__ = [
    "MAX_BUNDLE_BYTES",
    "MAX_BUNDLE_LIFE",
    "MAX_ENTRIES",
    "Accepted",
    "Bundle",
    "BundleFile",
    "Entry",
    "VerifiedBundle",
    "verify_bundle",
]

MAX_BUNDLE_BYTES = 16 << 20
MAX_ENTRIES = 1024
MAX_BUNDLE_LIFE = timedelta(days=90)  # how long somebody may vouch that a bundle is of today
_MAX_SOURCE_CHARS = 300
_MAGIC = b"CLOISTER-ENDORSEMENTS\x00"
_VERSION = 1
_DRAFT, _SIGNED = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object: what it is, where it came from (a URL or a file, for people), from when to when it is used."""

    name: Name
    data: bytes
    source: str
    window: Window

    def __post_init__(self) -> None:
        """Refuse what no reader would accept. Raises ``UsageError``, ``Malformed``."""
        if not 0 < len(self.data) <= MAX_ENDORSEMENT_BYTES:
            msg = f"endorsement {self.name.text}: {len(self.data)} bytes, want 1 to {MAX_ENDORSEMENT_BYTES}"
            raise UsageError(msg)
        if len(self.source) > _MAX_SOURCE_CHARS or not self.source.isprintable():
            msg = f"endorsement {self.name.text}: source out of form, want up to {_MAX_SOURCE_CHARS} characters"
            raise UsageError(msg)
        if not self.window.within(window_of(self.name, self.data)):
            msg = f"endorsement {self.name.text}: window is wider than the object's own"
            raise UsageError(msg)

    def to_json(self) -> dict[str, Json]:
        """Return the entry of the index."""
        return {
            "name": self.name.text,
            "not_after": dump_time(self.window.not_after),
            "not_before": dump_time(self.window.not_before),
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "size": len(self.data),
            "source": self.source,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a bundle holds. ``version`` only ever grows; ``window`` is its own, inside which each entry has another."""

    version: int
    window: Window
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        """Refuse what no reader would accept. Raises ``UsageError``."""
        names = [entry.name.text for entry in self.entries]
        if not 0 < len(names) <= MAX_ENTRIES or names != sorted(set(names)):
            msg = f"bundle: {len(names)} entries, want 1 to {MAX_ENTRIES}, each name once, in order"
            raise UsageError(msg)
        if not timedelta(0) < self.window.not_after - self.window.not_before <= MAX_BUNDLE_LIFE:
            msg = f"bundle: window of {self.window.not_after - self.window.not_before}, want up to {MAX_BUNDLE_LIFE}"
            raise UsageError(msg)

    def dump_index(self) -> bytes:
        """Return the canonical index: what is signed."""
        return dump_json(
            {
                "entries": [entry.to_json() for entry in self.entries],
                "not_after": dump_time(self.window.not_after),
                "not_before": dump_time(self.window.not_before),
                "v": 1,
                "version": self.version,
            }
        )

    def dump(self) -> bytes:
        """Return the draft: a bundle that nobody has signed, and that nobody accepts."""
        return self._file(_DRAFT, self.dump_index())

    def sign(self, key: SigningKey) -> bytes:
        """Return the signed bundle."""
        return self._file(_SIGNED, Statement.sign(key, Label.ENDORSEMENTS, self.dump_index()).dump())

    def _file(self, state: int, head: bytes) -> bytes:
        data = _MAGIC + bytes((_VERSION, state)) + lp(head) + b"".join(entry.data for entry in self.entries)
        if len(data) > MAX_BUNDLE_BYTES:
            msg = f"bundle: {len(data)} bytes, want at most {MAX_BUNDLE_BYTES}"
            raise UsageError(msg)
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """A file that has the form of a bundle: its statement, None for a draft, and its objects. Nothing is proven."""

    statement: Statement | None
    index: bytes
    objects: bytes

    @classmethod
    def parse(cls, data: bytes) -> BundleFile:
        """Parse the outside. Raises ``Malformed``; ``Rejected`` (``wrong_statement``) for another kind of statement."""
        reader = Reader(data, what="bundle")
        if len(data) > MAX_BUNDLE_BYTES:
            reader.fail(f"{len(data)} bytes, want at most {MAX_BUNDLE_BYTES}")
        reader.expect(_MAGIC)
        version, state = reader.u8(), reader.u8()
        if version != _VERSION or state not in {_DRAFT, _SIGNED}:
            reader.fail(f"version {version}, state {state}, want version {_VERSION}, state 0 or 1")
        head = reader.prefixed(4, cap=MAX_STATEMENT_BYTES)
        objects = reader.rest()
        if state == _DRAFT:
            return cls(statement=None, index=head, objects=objects)
        statement = Statement.parse(head, label=Label.ENDORSEMENTS)
        return cls(statement=statement, index=statement.payload, objects=objects)

    def read(self) -> Bundle:
        """Return what the file holds, whoever wrote it: every digest, size and window fits. Raises ``Malformed``."""
        fields = Fields.parse(self.index, what="bundle", cap=MAX_JSON_BYTES, canonical=True)
        fields.literal("v", 1)
        version = fields.integer("version", floor=1)
        window = _take_window(fields)
        items = fields.items("entries", cap=MAX_ENTRIES)
        fields.end()
        reader = Reader(self.objects, what="bundle: objects")
        entries = tuple(_take_entry(Fields(item, what="bundle: entry"), reader) for item in items)
        reader.end()
        try:
            return Bundle(version=version, window=window, entries=entries)
        except UsageError as exc:  # the values refuse themselves; here their author is the other party
            raise Malformed(exc.message) from exc


def _take_window(fields: Fields) -> Window:
    return Window(fields.time("not_before"), fields.time("not_after"))


def _take_entry(fields: Fields, reader: Reader) -> Entry:
    name = parse_name(fields.text("name", cap=MAX_NAME_CHARS))
    digest = fields.hex("sha256", size=32)
    data = reader.take(fields.integer("size", floor=1, cap=MAX_ENDORSEMENT_BYTES))
    source = fields.text("source", cap=_MAX_SOURCE_CHARS)
    window = _take_window(fields)
    fields.end()
    if hashlib.sha256(data).digest() != digest:
        fields.fail("sha256", f"not the digest of {name.text}")
    try:
        return Entry(name=name, data=data, source=source, window=window)
    except UsageError as exc:
        raise Malformed(exc.message) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The last bundle that was accepted, so that no older one follows it."""

    version: int
    sha256: bytes


class VerifiedBundle:
    """A bundle that a pinned key signed and that is of today. Made by ``verify_bundle`` only."""

    def __init__(self, bundle: Bundle, *, accepted: Accepted, key_id: KeyId) -> None:
        """Keep what was verified."""
        self.bundle, self.accepted, self.key_id = bundle, accepted, key_id
        self._entries: Mapping[str, Entry] = {entry.name.text: entry for entry in bundle.entries}

    def fetch(
        self, names: Sequence[str], now: datetime, certificates: Sequence[Certificate] = ()
    ) -> Mapping[str, bytes]:
        """Return the objects by name. Raises ``Unavailable`` for one that is not there, or not in its window."""
        del certificates
        demand_count(names)
        return {name: self._one(name, now) for name in names}

    def _one(self, name: str, now: datetime) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise missing(name, f"not in the bundle of version {self.bundle.version}")
        for what, window in (("the bundle", self.bundle.window), ("it", entry.window)):
            if now not in window:
                span = f"{dump_time(window.not_before)} to {dump_time(window.not_after)}"
                raise missing(name, f"{what} is good from {span}, and now is {dump_time(now)}")
        return entry.data


def verify_bundle(data: bytes, keys: Iterable[VerifyKey], now: datetime, *, last: Accepted | None) -> VerifiedBundle:
    """Return the bundle once a pinned key is proven to have signed it for ``now``, and none newer was accepted before.

    Does not prove who signed what is inside: that is the schemes' work. ``last`` is None where no bundle was ever
    accepted. Raises ``Malformed``; ``Rejected`` with ``bundle_unsigned``, ``wrong_statement``, ``unknown_key``,
    ``signature_invalid``, ``bundle_not_yet_valid``, ``bundle_expired`` or ``bundle_version_old``.
    """
    # 1. The outside, and a signature by a pinned key.
    file = BundleFile.parse(data)
    if file.statement is None:
        raise Rejected.because("bundle_unsigned", "bundle", got="a draft", hint="run cloister attest bundle sign")
    file.statement.verify(keys)
    # 2. Only now what it says: every digest, size and window.
    bundle = file.read()
    # 3. For today.
    window = bundle.window
    if now < window.not_before:
        raise Rejected.because("bundle_not_yet_valid", "bundle", got=str(now), want=f"from {window.not_before}")
    if now > window.not_after:
        raise Rejected.because("bundle_expired", "bundle", got=str(now), want=f"until {window.not_after}")
    # 4. Versions only grow (T15): the same bundle again is no older one, another of the same version is.
    accepted = Accepted(version=bundle.version, sha256=hashlib.sha256(data).digest())
    if last is not None and accepted != last and accepted.version <= last.version:
        raise Rejected.because("bundle_version_old", "bundle", got=str(accepted.version), want=f"over {last.version}")
    return VerifiedBundle(bundle, accepted=accepted, key_id=file.statement.key_id)
