"""Key services of others: packages that bring a kind of their own by an entry point (docs/reference/key-services.md).

A package names a function in the group ``cloister.key_services``, under the kind that stands before the colon; it gets
the whole name and the environment and returns a ``KeyService``. Nothing is imported until the operator names the kind:
a vault file alone, which somebody may have put in its place, loads no code. Kinds of the house cannot be taken.

A plug-in runs in the custodian's process with all its rights: it is trusted code. What is done here keeps its mistakes
apart, not its malice: answers are looked at, and what it raises outside of the contract becomes ``Unavailable``.

Not done here: time limits. A plug-in that hangs holds up the start.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final

from cloister.errors import Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.custodian.vaults.key_service import KeyService

__all__ = ["CODES", "GROUP", "ForeignService", "connect_foreign"]

GROUP: Final = "cloister.key_services"
CODES: Final = frozenset({"no_such_key", "pcr_mismatch", "service_denied", "wrong_key"})
_NAME = re.compile(r"(?P<kind>[a-z0-9][a-z0-9-]{0,31}):[!-~]{1,1024}", re.ASCII)  # what a vault file can hold
_MAX_ANSWER_BYTES = 8192  # what a vault file can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignService:
    """A plug-in's key service, held to the contract of ``KeyService``. It prints its name, never what is inside."""

    name: str
    inner: KeyService = field(repr=False)

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return what the plug-in made of ``key``. Raises as ``KeyService``."""
        return self._held_to_contract(lambda: self.inner.wrap(key, context=context))

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return what the plug-in gives back. Raises as ``KeyService``."""
        return self._held_to_contract(lambda: self.inner.unwrap(wrapped, context=context))

    def _held_to_contract(self, use: Callable[[], object]) -> bytes:
        answer, fault = _outcome(use)
        if fault:
            msg = f"{self.name}: the plug-in raised {fault}"
            raise Unavailable(msg, hint="this is a mistake of the plug-in's: tell its author")
        if not isinstance(answer, bytes) or len(answer) > _MAX_ANSWER_BYTES:
            msg = f"{self.name}: the plug-in answered with something else than at most {_MAX_ANSWER_BYTES} bytes"
            raise Unavailable(msg)
        return answer


def _outcome(use: Callable[[], object]) -> tuple[object, str]:
    """Return an answer, or the kind of an error that no plug-in may raise: the error itself may hold a key."""
    try:
        return use(), ""
    except Rejected as exc:
        if exc.code in CODES:
            raise
        return None, "a refusal for a reason of its own"
    except (Unavailable, UsageError):
        raise
    except Exception as exc:  # noqa: BLE001 - the edge to code of others, which raises what it likes
        return None, type(exc).__name__[:64]


def connect_foreign(name: str, environment: Mapping[str, str]) -> KeyService | None:
    """Return the service that an installed plug-in makes of ``name``; None where none has that kind.

    This runs the plug-in's code. Raises ``UsageError`` as it does, and where two have the kind or it cannot be used.
    """
    found = _NAME.fullmatch(name)
    points = list(entry_points(group=GROUP, name=found["kind"])) if found else []
    if found is None or not points:
        return None
    if len(points) > 1:
        msg = f"vault: {len(points)} plug-ins of kind {found['kind']}"
        raise UsageError(msg, hint=f"uninstall all but one: {', '.join(sorted(map(_maker, points)))}")
    return _made(points[0], name, environment)


def _made(point: EntryPoint, name: str, environment: Mapping[str, str]) -> ForeignService:
    service, fault = _outcome(lambda: point.load()(name, environment))
    if fault:
        msg = f"vault: the plug-in of {_maker(point)} raised {fault}"
        raise UsageError(msg, hint=f"see what python -c 'import {point.module}' says")
    if _outcome(lambda: service.name) != (name, ""):  # type: ignore[attr-defined]  # whatever came is asked
        msg = f"vault: the plug-in of {_maker(point)} connects to another key than it was asked for"
        raise UsageError(msg)
    return ForeignService(name=name, inner=service)  # type: ignore[arg-type]  # held to the Protocol at each use


def _maker(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
