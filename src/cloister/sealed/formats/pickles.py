"""Pickles, recognised by what they are: a stream of opcodes that runs code when it is loaded.

Nothing is loaded or run here. The stream is walked opcode by opcode, as a loader reads it (CPython,
``Lib/pickletools.py``), with no more than the depth of its stack. A file is a pickle when a loader would call
something out of the stream, whatever comes after; when it says so itself (protocol 2 and later) and comes to an end;
or when it is still going after ``_MAX_STEPS``. Pickles of protocol 0 and 1 that call nothing are not told apart from
text: they hold plain values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cloister.errors import Malformed
from cloister.sealed.formats.window import BLOCK_BYTES, Window

if TYPE_CHECKING:
    from cloister.sealed.formats.window import ModelFile

__all__ = ["is_pickle"]

_MAX_STEPS = 1 << 16  # opcodes, a run of the same one counted once
_MAX_NAME_BYTES = 1024  # a longer one counts as a name
_STOP, _MARK, _POP, _PROTO = 0x2E, 0x28, 0x30, 0x80
_NEWEST = 5  # protocol


class _Opcode(NamedTuple):
    """What an opcode needs on the stack, how it changes it, and what stands behind it in the stream."""

    needs: int = 0
    change: int = 0
    to_mark: bool = False  # takes all down to the last mark first
    fixed: int = 0  # bytes of its argument
    counted: int = 0  # bytes of the length in front of its argument
    lines: int = 0


_PUSH = _Opcode(change=1)
_OPCODES = {
    **dict.fromkeys(b"N\x88\x89])}\x8f\x97", _PUSH),
    **dict.fromkeys(b"ILSVFgP", _Opcode(change=1, lines=1)),
    **dict.fromkeys(b"Kh\x82", _Opcode(change=1, fixed=1)),
    **dict.fromkeys(b"M\x83", _Opcode(change=1, fixed=2)),
    **dict.fromkeys(b"Jj\x84", _Opcode(change=1, fixed=4)),
    **dict.fromkeys(b"UC\x8c\x8a", _Opcode(change=1, counted=1)),
    **dict.fromkeys(b"TBX\x8b", _Opcode(change=1, counted=4)),
    **dict.fromkeys(b"\x8e\x96\x8d", _Opcode(change=1, counted=8)),
    **dict.fromkeys(b"aRb\x81\x93\x86", _Opcode(needs=2, change=-1)),
    **dict.fromkeys(b"s\x87\x92", _Opcode(needs=3, change=-2)),
    **dict.fromkeys(b"\x85Q\x98\x94", _Opcode(needs=1)),
    **dict.fromkeys(b"eu\x90", _Opcode(needs=1, to_mark=True)),
    **dict.fromkeys(b"ltdo\x91", _Opcode(change=1, to_mark=True)),
    ord("G"): _Opcode(change=1, fixed=8),
    ord("2"): _Opcode(needs=1, change=1),
    ord("1"): _Opcode(to_mark=True),
    ord("p"): _Opcode(needs=1, lines=1),
    ord("q"): _Opcode(needs=1, fixed=1),
    ord("r"): _Opcode(needs=1, fixed=4),
    ord("c"): _Opcode(change=1, lines=2),
    ord("i"): _Opcode(change=1, to_mark=True, lines=2),
    0x95: _Opcode(fixed=8),
    _PROTO: _Opcode(fixed=1),
    _MARK: _Opcode(),
    _POP: _Opcode(),
}
_NAMES = frozenset(b"c\x93i")  # bring in something from outside of the stream
_CALLS = frozenset(b"Rb\x81\x92oi")
_BARE = frozenset(code for code, opcode in _OPCODES.items() if opcode == _PUSH)


def is_pickle(file: ModelFile, *, whole: bool = True) -> bool:
    """Tell whether loading the file as a pickle would run code, or the file says that it is one.

    Where only its beginning is at hand it need not come to an end: pass ``whole=False``.
    """
    walk = _Walk(Window(file, what="pickle"))
    try:
        return walk.is_pickle()
    except Malformed:  # it ends in the middle, before anything was called
        return not whole and (walk.says_so or walk.named)


@dataclass(slots=True)
class _Walk:
    window: Window
    depth: int = 0  # items above the last mark
    marks: list[int] = field(default_factory=list)  # items below each mark
    named: bool = False
    says_so: bool = False

    def is_pickle(self) -> bool:
        for step in range(_MAX_STEPS):
            code = self.window.uint(1)
            if code == _STOP:
                return self.says_so and self.depth > 0
            opcode = _OPCODES.get(code)
            if opcode is None or not self._stack(code, opcode) or not self._argument(code, opcode):
                return False
            self.says_so = self.says_so or (step == 0 and code == _PROTO)
            self.named = self.named or code in _NAMES
            if self.named and code in _CALLS:
                return True
            if code in _BARE:
                self._run(code)
        return True

    def _stack(self, code: int, opcode: _Opcode) -> bool:
        """Follow the stack; return False where a loader would find too little on it."""
        if code == _MARK:
            self.marks.append(self.depth)
            self.depth = 0
            return True
        if opcode.to_mark or (code == _POP and self.depth == 0):
            if not self.marks or (code == ord("o") and self.depth == 0):
                return False
            self.depth = self.marks.pop()
        elif code == _POP:
            self.depth -= 1
        if self.depth < opcode.needs:
            return False
        self.depth += opcode.change
        return True

    def _argument(self, code: int, opcode: _Opcode) -> bool:
        if code == _PROTO:
            return self.window.uint(1) <= _NEWEST
        self.window.skip(opcode.fixed)
        if opcode.counted:
            self.window.skip(self.window.uint(opcode.counted))
        return all(self._line(name=code in _NAMES) for _ in range(opcode.lines))

    def _line(self, *, name: bool) -> bool:
        """Go over one line; return False where it has to be a name and nothing could be called that."""
        beginning = b""
        while True:
            self.window.demand(1)
            block, at = self.window.block(1)
            end = block.find(b"\n", at)
            beginning += block[at : end if end >= 0 else None][: _MAX_NAME_BYTES - len(beginning)]
            self.window.skip(end + 1 - at if end >= 0 else len(block) - at)
            if end >= 0:
                return not name or _is_name(beginning)

    def _run(self, code: int) -> None:
        """Go over repeats of an opcode that only pushes: tensors of one value are files full of them."""
        same = bytes([code])
        while self.window.left:
            block, at = self.window.block(1)
            rest = block[at : at + BLOCK_BYTES]
            repeats = len(rest) - len(rest.lstrip(same))
            self.window.skip(repeats)
            self.depth += repeats
            if repeats < len(rest):
                return


def _is_name(line: bytes) -> bool:
    try:
        return len(line) >= _MAX_NAME_BYTES or line.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False
