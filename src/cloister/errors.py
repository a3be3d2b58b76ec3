"""The four faults of the house, and nothing else.

Every error a caller can meet is one of these, told apart by whose fault it is. Each server has one table
to HTTP statuses (``problems.py``), the command line one to exit codes (``cli/exits.py``). What each code of
a rejection means is in ``codes/``.

    CloisterError
    +-- UsageError   our caller asked for something that makes no sense
    +-- Malformed    their bytes do not parse
    +-- Rejected     well formed, and we say no; carries every reason
    +-- Unavailable  we could not decide; never turned into a yes

Messages carry no secret and no payload: they may be logged, shown and sent to the other party.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["CloisterError", "Malformed", "Reason", "Rejected", "Unavailable", "UsageError"]


class CloisterError(Exception):
    """Base of every error that Cloister raises on purpose.

    ``hint`` says what to do next; the command line prints it below the message. ``code`` is for a program and for
    ``cloister explain``, empty where the fault alone says enough.
    """

    def __init__(self, message: str, *, hint: str | None = None, code: str = "") -> None:
        """Keep ``message`` (lower case: subject, what we got, what we want), and the optional ``hint`` and ``code``."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self._code = code

    @property
    def code(self) -> str:
        """The code, empty where it has none of its own."""
        return self._code

    @property
    def fault(self) -> str:
        """Whose fault it is, in one word (``usageerror``, ``malformed``, ...), whatever the class calls itself."""
        faults = (UsageError, Malformed, Rejected, Unavailable)
        return next((kind for kind in faults if isinstance(self, kind)), CloisterError).__name__.lower()

    @property
    def logged(self) -> str:
        """What a log says of it: the code of a rejection, else the fault."""
        return self.code if isinstance(self, Rejected) else self.fault

    def again(self) -> Self:
        """Return an equal error without a traceback, for one that is kept to be raised once more.

        A traceback keeps everything that the functions it went through had at hand, keys too.
        """
        fresh = type(self).__new__(type(self), *self.args)
        fresh.__dict__.update(self.__dict__)
        return fresh


class UsageError(CloisterError):
    """Our caller's fault: a bad argument, a missing file, a setting out of range."""


class Malformed(CloisterError):
    """Their bytes do not parse. The only error a parser raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that was not as it had to be.

    ``code`` is from a closed vocabulary (``nonce_mismatch``, ``allowance_exhausted``, ...), ``subject``
    names the thing, ``got`` and ``want`` are short printable values (hex for bytes), empty where
    there is nothing to compare.
    """

    code: str
    subject: str
    got: str = ""
    want: str = ""

    def __str__(self) -> str:
        """Return ``subject: code (got ..., want ...)``."""
        if not self.got and not self.want:
            return f"{self.subject}: {self.code}"
        return f"{self.subject}: {self.code} (got {self.got or 'nothing'}, want {self.want or 'nothing'})"


class Rejected(CloisterError):
    """Well formed, and we say no. ``reasons`` holds every reason, not only the first."""

    def __init__(
        self, message: str, *, reasons: tuple[Reason, ...], hint: str | None = None, retry_after_s: int | None = None
    ) -> None:
        """Keep ``reasons``; an empty tuple is a bug of ours, for a refusal must say why.

        ``retry_after_s`` are the seconds after which it may be a yes, where waiting alone can make it one.
        """
        if not reasons:
            msg = "a rejection names at least one reason"
            raise UsageError(msg)
        super().__init__(message, hint=hint)
        self.reasons = reasons
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> str:
        """The code of the first reason: the one a program may branch on."""
        return self.reasons[0].code

    @classmethod
    def because(cls, code: str, subject: str, *, got: str = "", want: str = "", hint: str | None = None) -> Rejected:
        """Return a rejection with a single reason."""
        reason = Reason(code=code, subject=subject, got=got, want=want)
        return cls(str(reason), reasons=(reason,), hint=hint)


class Unavailable(CloisterError):
    """We could not decide: a peer, a disk or a collateral source did not answer. Never a yes."""

    def __init__(
        self, message: str, *, retry_after_s: int | None = None, hint: str | None = None, code: str = ""
    ) -> None:
        """Keep ``retry_after_s``, the seconds after which trying again makes sense."""
        super().__init__(message, hint=hint, code=code)
        self.retry_after_s = retry_after_s
