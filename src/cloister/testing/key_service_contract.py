"""The contract of key services as a test: for those of the house, and for authors of plug-ins.

    def test_the_contract() -> None:
        assert broken_promises(lambda: connect("acme:a-key", os.environ)) == ()

It asks a real service about forty times. Give it one whose keys are for tests.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from typing import TYPE_CHECKING

from cloister.custodian.vaults.plugins import CODES
from cloister.errors import Rejected, Unavailable, UsageError
from cloister.testing.leaks import spellings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.custodian.vaults.key_service import KeyService

__all__ = ["broken_promises"]

_NAME = re.compile(r"[a-z0-9-]{1,32}:[!-~]{1,1024}", re.ASCII)
_MAX_WRAPPED_BYTES = 8192
_REFUSED = frozenset(f" ({code})" for code in CODES)  # some services find their key by what they wrapped
_CONTEXT = "vault/v2/00112233445566778899aabbccddeeff"
_OTHERS = (_CONTEXT[:-1], _CONTEXT[:-1] + "0", _CONTEXT + "0", _CONTEXT.upper(), _CONTEXT[::-1], "probe")


def broken_promises(
    connect: Callable[[], KeyService], *, another: Callable[[], KeyService] | None = None
) -> tuple[str, ...]:
    """Return every promise of ``KeyService`` that is not kept, as a sentence; none for a service that is sound.

    ``connect`` is called for each use: what one connection wraps, the next must open. ``another`` connects to another
    key of the same service, which must open nothing. A service that is down breaks promises too.
    """
    return tuple(_Trial(connect, another).run())


class _Trial:
    """Asks, and keeps all that was said beside the answers."""

    def __init__(self, connect: Callable[[], KeyService], another: Callable[[], KeyService] | None) -> None:
        self._connect, self._another = connect, another
        self._said: list[str] = []
        self._keys = (os.urandom(32), bytes(32), b"\xff" * 32)

    def run(self) -> Iterator[str]:
        """Yield what is broken."""
        keeper = _Keeper(self._said)
        root = logging.getLogger()
        level = root.level
        root.addHandler(keeper)
        root.setLevel(logging.DEBUG)
        try:
            yield from self._name()
            yield from self._round_trips()
        finally:
            root.setLevel(level)
            root.removeHandler(keeper)
        said = "\n".join(self._said).encode("utf-8", "backslashreplace")
        if any(spelling in said for spelling in spellings(self._keys[0])):
            yield "a key stands in a log, an error or in what the service prints"

    def _name(self) -> Iterator[str]:
        first, second = self._connect(), self._connect()
        if not _NAME.fullmatch(str(first.name)):
            yield "name is not KIND:REST in printable ascii without spaces"
        if first.name != second.name:
            yield "two connections to the same key have two names"

    def _round_trips(self) -> Iterator[str]:
        for number, key in enumerate(self._keys):
            wrapped, fault = self._outcome(lambda key=key: self._connect().wrap(key, context=_CONTEXT))  # type: ignore[misc]
            if not isinstance(wrapped, bytes) or not 0 < len(wrapped) <= _MAX_WRAPPED_BYTES:
                yield f"wrap returns no bytes, or too many{fault}"
                continue
            if number == 0 and any(spelling in wrapped for spelling in spellings(key)):
                yield "what was wrapped holds the key in clear"
            for _ in range(2):
                opened, fault = self._unwrap(wrapped, _CONTEXT)
                if opened != key:
                    yield f"unwrap does not give back what was wrapped{fault}"
            if number == 0:
                yield from self._refusals(key, wrapped)

    def _refusals(self, key: bytes, wrapped: bytes) -> Iterator[str]:
        for context in _OTHERS:
            yield from self._must_be_wrong_key(wrapped, context, "in another context")
        for number, damaged in enumerate(_damaged(wrapped)):
            opened, fault = self._unwrap(damaged, _CONTEXT)
            # Text has bits that nobody reads: that the same key comes of it is no harm.
            if fault not in _REFUSED and opened != key:
                yield f"what was altered is not refused{fault or ': it opens'} (alteration {number})"
        if self._another is not None:
            strange = self._another
            opened, fault = self._outcome(lambda: strange().unwrap(wrapped, context=_CONTEXT))
            if fault not in _REFUSED:
                yield f"another key is not refused{fault or ': it opens'}"

    def _must_be_wrong_key(self, wrapped: bytes, context: str, how: str) -> Iterator[str]:
        _, fault = self._unwrap(wrapped, context)
        if fault != " (wrong_key)":
            yield f"unwrap {how} does not refuse as wrong_key{fault or ': it opens'}"

    def _unwrap(self, wrapped: bytes, context: str) -> tuple[object, str]:
        return self._outcome(lambda: self._connect().unwrap(wrapped, context=context))

    def _outcome(self, use: Callable[[], object]) -> tuple[object, str]:
        """Return an answer, or what was raised; keep all that an error and the service print."""
        try:
            return use(), ""
        except Rejected as exc:
            self._keep(exc)
            return None, f" ({exc.code})"
        except (Unavailable, UsageError) as exc:
            self._keep(exc)
            return None, f" ({type(exc).__name__}: {exc.message})"
        except Exception as exc:  # noqa: BLE001 - the promise is that nothing else is raised
            self._keep(exc)
            return None, f" ({type(exc).__name__}, which is none of the errors of the contract)"
        finally:
            service = self._connect()
            self._said.append(f"{service!r} {service}")

    def _keep(self, error: BaseException) -> None:
        self._said.append("".join(traceback.format_exception(error)))
        chain: list[BaseException] = [error]
        for one in chain:
            self._said.append(f"{one!r} {one.args!r} {getattr(one, 'hint', '')}")
            chain += [known for known in (one.__cause__, one.__context__) if known is not None and known not in chain]


class _Keeper(logging.Handler):
    """Keeps what every record says."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.NOTSET)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self._said.append(f"{self.format(record)} {record.args!r}")


def _damaged(wrapped: bytes) -> Iterator[bytes]:
    """Yield what is no longer what was wrapped."""
    yield from (b"", b"\0", wrapped[:-1], wrapped + b"\0", wrapped[1:], bytes(len(wrapped)), wrapped * 2)
    for at in (0, len(wrapped) // 3, len(wrapped) // 2, len(wrapped) - 1):
        yield wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
