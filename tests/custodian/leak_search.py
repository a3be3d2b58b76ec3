"""A search for secrets wherever a program may leave them: bytes, logs, exceptions, what objects print, processes."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import traceback
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cloister.errors import Rejected
from cloister.testing.leaks import spellings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Search"]

_FOLLOWED_NO_FURTHER = (types.ModuleType, type, types.FrameType, types.TracebackType, types.CodeType)


class _Keeper(logging.Handler):
    """Keeps what every record says, with what a careless formatter could say of it."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(f"{self.format(record)} {record.args!r}")


@dataclass
class Search:
    """What was seen, by where it was seen. ``keep_log`` takes every logger's records, down to DEBUG."""

    seen: dict[str, bytes] = field(default_factory=dict, repr=False)
    _keeper: _Keeper = field(default_factory=_Keeper, repr=False)
    _level: int = logging.WARNING

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self._keeper)
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self._keeper)
        root.setLevel(self._level)

    @property
    def log_lines(self) -> int:
        """Return how many records were kept."""
        return len(self._keeper.said)

    def look_at_bytes(self, where: str, data: bytes) -> None:
        """Keep what stands somewhere."""
        self.seen[f"{where} ({len(self.seen)})"] = data

    def look_at_files(self, folder: Path, *, but: Iterable[Path] = ()) -> None:
        """Keep every file below ``folder``, and its name."""
        left_out = {path.resolve() for path in but}
        for path in folder.rglob("*"):
            if path.is_file() and path.resolve() not in left_out:
                self.look_at_bytes(str(path), path.read_bytes() + os.fsencode(path))

    def look_at_error(self, error: BaseException) -> None:
        """Keep all that an error says: text, arguments, notes, hint, reasons, tracebacks of all its causes."""
        parts = ["".join(traceback.format_exception(error))]
        chain: list[BaseException | None] = [error]
        for one in chain:
            if one is not None:
                parts += [str(one), repr(one), repr(one.args), repr(getattr(one, "__notes__", ""))]
                parts += [repr(getattr(one, "hint", ""))]
                parts += [repr(one.reasons)] if isinstance(one, Rejected) else []
                chain += [known for known in (one.__cause__, one.__context__) if known not in chain]
        self.look_at_bytes(f"error {type(error).__name__}", "\n".join(parts).encode("utf-8", "backslashreplace"))

    def look_at_objects(self, what: str, *roots: object) -> set[str]:
        """Keep what each of our objects that can be reached from ``roots`` prints of itself; return of what types."""
        ours = [item for item in _reachable(roots) if type(item).__module__.startswith("cloister")]
        for item in ours:
            text = f"{item!r} {item} {item:}" if not isinstance(item, BaseException) else repr(item)
            self.look_at_bytes(f"{what} {type(item).__name__}", text.encode("utf-8", "backslashreplace"))
        return {type(item).__name__ for item in ours}

    def look_at_process(self, pid: int) -> None:
        """Keep the arguments and the environment of a process and of its children."""
        for one in (pid, *_children(pid)):
            for name in ("cmdline", "environ"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a child that has just ended
                    self.look_at_bytes(f"/proc {name}", Path(f"/proc/{one}/{name}").read_bytes())

    def found(self, secrets: dict[str, bytes]) -> set[tuple[str, str]]:
        """Return which secret stands where."""
        places = {**self.seen, "log": "\n".join(self._keeper.said).encode("utf-8", "backslashreplace")}
        return {
            (name, where)
            for name, secret in secrets.items()
            for where, data in places.items()
            if any(spelling in data for spelling in spellings(secret))
        }


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for word in (task / "children").read_text().split():
                yield int(word)
                yield from _children(int(word))


def _reachable(roots: Iterable[object]) -> list[Any]:
    """Return every object that hangs on ``roots``. Of functions what they closed over, not the module around them."""
    seen: dict[int, Any] = {}
    waiting = list(roots)
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, _FOLLOWED_NO_FURTHER):
            continue
        seen[id(item)] = item
        if isinstance(item, types.FunctionType):
            waiting += [item.__closure__, item.__defaults__, item.__kwdefaults__]
        elif not isinstance(item, types.BuiltinFunctionType):
            waiting += gc.get_referents(item)
    return list(seen.values())
