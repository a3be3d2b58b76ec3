"""Endorsements (RFC 9334 section 4.1): what vendors sign about their hardware, and where it comes from.

    names     what is asked for                         pure
    window    from when to when an object may be used   pure
    vouch     who signed an object                      pure
    bundle    many objects in one signed file           pure
    sources   which vendor's service has an object      pure
    fetch     folder, network, cache                    the one impure file of attest

An endorsement is never trusted for where it came from: the scheme that asked for it checks its signatures again, up
to a pinned root. What a source decides is only whether there is an answer, and that it is of today.

Not done here: saying which endorsements some evidence needs (``Verifier.needs``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cloister.attest.endorse.names import MAX_NAME_CHARS
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate

__all__ = ["MAX_ENDORSEMENT_BYTES", "MAX_NAMES", "Endorsements", "FirstOf", "Given", "demand_count", "missing"]

MAX_ENDORSEMENT_BYTES = 2 << 20  # bytes of one object; the largest of today, a revocation list, has 1 MiB
MAX_NAMES = 256  # names in one fetch: twenty-four devices with two manifests and four OCSP answers each


class Endorsements(Protocol):
    """Where endorsements come from.

    Contract: ``fetch`` returns every name asked for, or raises ``Unavailable`` that names one and why it is not to be
    had; nothing else, whatever a service or a file says. It returns no object outside its window at ``now``.
    """

    def fetch(
        self, names: Sequence[str], now: datetime, certificates: Sequence[Certificate] = ()
    ) -> Mapping[str, bytes]:
        """Return the objects by name. ``certificates`` came with the evidence: OCSP asks about one by its issuer."""
        ...


class Given:
    """Endorsements that somebody hands over, at any time: for tests, and for files that a person names.

    Their windows are the business of the scheme that uses them.
    """

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        """Keep the objects; none at all is the source of who wants none."""
        self._objects = dict(objects)

    def fetch(
        self, names: Sequence[str], now: datetime, certificates: Sequence[Certificate] = ()
    ) -> Mapping[str, bytes]:
        """Return the objects by name. Raises ``Unavailable`` for one that was not given."""
        del now, certificates
        for name in names:
            if name not in self._objects:
                raise missing(name, "nobody gave it")
        return {name: self._objects[name] for name in names}


class FirstOf:
    """The first of several sources that has a name, asked in order."""

    def __init__(self, *sources: Endorsements) -> None:
        """Keep the sources in the order in which they are asked."""
        self._sources = sources

    def fetch(
        self, names: Sequence[str], now: datetime, certificates: Sequence[Certificate] = ()
    ) -> Mapping[str, bytes]:
        """Return the objects by name. Raises ``Unavailable`` with what every source said of a name that none has."""
        demand_count(names)
        return {name: self._one(name, now, certificates) for name in names}

    def _one(self, name: str, now: datetime, certificates: Sequence[Certificate]) -> bytes:
        told: list[str] = []
        for source in self._sources:
            try:
                return source.fetch((name,), now, certificates)[name]
            except Unavailable as exc:
                told.append(exc.message.removeprefix(_subject(name)))
        raise missing(name, "; ".join(told) or "there is no source of endorsements")


def missing(name: str, why: str) -> Unavailable:
    """Return the error of an endorsement that is not to be had."""
    return Unavailable(_subject(name) + why.removeprefix(_subject(name)), hint="see docs/reference/endorsements.md")


def _subject(name: str) -> str:
    return f"endorsement {name[:MAX_NAME_CHARS]}: "


def demand_count(names: Sequence[str]) -> None:
    """Refuse to be asked for more names than any evidence has. Raises ``Unavailable``."""
    if len(names) > MAX_NAMES:
        msg = f"endorsements: {len(names)} names, want at most {MAX_NAMES}"
        raise Unavailable(msg)
