"""Where an event names a person, and the keyed hash that stands in its place (docs/spec/audit-log.md, section 8).

A pseudonym is HMAC-SHA256 of the name under a key of that person's own. With the key anybody can prove whose it is;
once the key is destroyed nobody can, not even by guessing names (GDPR article 4(5), 17).

Not done here: keeping keys. Not hidden: that two entries name the same person.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.lending.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.lending.events import DetailValue, Event

__all__ = ["KEY_BYTES", "PSEUDONYM", "persons_in", "pseudonym_of", "veiled", "veiled_scope"]

KEY_BYTES = 32
PSEUDONYM = re.compile(r"p:[0-9a-f]{32}")
_LABEL = b"cloister/audit/pseudonym/v1\x00"
_HALF = 16  # bytes of the hash that are kept: 128 bits
_CONSUMER = "consumer"
_ADDRESS = "ip:"
_IDENTITY = re.compile(r"idn-[0-9a-f]{32}")  # a hash without a key over issuer and subject: it can be guessed
_ROLE = re.compile(r"([a-z]{1,32}:)(?=.)")


def pseudonym_of(person: str, key: bytes) -> str:
    """Return what entries call ``person``."""
    return "p:" + hmac.digest(key, _LABEL + person.encode(), hashlib.sha256)[:_HALF].hex()


def persons_in(event: Event) -> frozenset[str]:
    """Return every person that ``event`` names in the clear."""
    return frozenset(person for _, _, person in _places(event))


def veiled(event: Event, pseudonyms: Mapping[str, str]) -> Event:
    """Return ``event`` with every person in it under its pseudonym."""
    details: dict[str, DetailValue] = dict(event.details)
    names = {"actor": event.actor, "subject": event.subject}
    for place, prefix, person in _places(event):
        if place in names:
            names[place] = prefix + pseudonyms[person]
        else:
            details[place.removeprefix("details.")] = prefix + pseudonyms[person]
    return replace(event, actor=names["actor"], subject=names["subject"], details=details)


def veiled_scope(person: str, pseudonym: str) -> tuple[str, ...]:
    """Return the words by which an entry may name a person, in the clear or not."""
    return (person, pseudonym, f"{_CONSUMER}:{person}", f"{_CONSUMER}:{pseudonym}", f"{_ADDRESS}{pseudonym}")


def _places(event: Event) -> Iterator[tuple[str, str, str]]:
    """Yield where a person is named, what stands before the name and stays, and the name."""
    about_a_consumer = event.details.get("kind") == _CONSUMER
    for place, name in (("actor", event.actor), ("subject", event.subject)):
        if place == "subject" and about_a_consumer and event.kind in _ABOUT:
            yield from _unless_veiled(place, "", name)
        elif name.startswith(_ADDRESS):
            yield from _unless_veiled(place, _ADDRESS, name.removeprefix(_ADDRESS))
        else:
            role = _ROLE.match(name)
            prefix = role.group(1) if role else ""
            if "@" not in name and not _IDENTITY.fullmatch(name.removeprefix(prefix)):
                continue
            yield from _unless_veiled(place, prefix, name.removeprefix(prefix))
    for detail in ("consumer", "meter", "subject"):
        value = event.details.get(detail)
        if not isinstance(value, str):
            continue
        if detail == "meter" and value.startswith(f"{_CONSUMER}:"):
            yield from _unless_veiled("details.meter", f"{_CONSUMER}:", value.removeprefix(f"{_CONSUMER}:"))
        elif detail == "consumer" or (detail == "subject" and about_a_consumer):
            yield from _unless_veiled(f"details.{detail}", "", value)


_ABOUT = frozenset({EventKind.BLOCKED, EventKind.UNBLOCKED})
"""Events whose subject is what their ``kind`` says."""


def _unless_veiled(place: str, prefix: str, name: str) -> Iterator[tuple[str, str, str]]:
    if name and not PSEUDONYM.fullmatch(name):
        yield place, prefix, name
