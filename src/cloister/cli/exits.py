"""How an error ends a command: its exit code, its codes, and how it is told to a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.wire import reason_json

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_PENDING",
    "EXIT_REJECTED",
    "EXIT_UNAVAILABLE",
    "EXIT_USAGE",
    "OF_FAULTS",
    "OF_SYSTEM",
    "SAY_NO_MORE",
    "codes",
    "error_json",
    "exit_code",
]

EXIT_USAGE = 2
EXIT_MALFORMED = 3
EXIT_REJECTED = 4
EXIT_UNAVAILABLE = 5
EXIT_PENDING = 6
EXIT_INTERRUPTED = 130
OF_FAULTS = ((UsageError, "usage"), (Malformed, "malformed"), (Unavailable, "unavailable"))
OF_SYSTEM = (
    (UsageError, FileNotFoundError, "no_such_file"),
    (UsageError, FileExistsError, "file_exists"),
    (UsageError, OSError, "file_unreadable"),
    (Unavailable, OSError, "unwritable"),
)
"""What an error is called that says no code, where the system said no first."""
SAY_NO_MORE = {"option_wrong", *(code for _, code in OF_FAULTS)}
"""Codes that explain nothing which the message does not say."""
_MAX_NAMED = 4  # codes in one line


def exit_code(error: CloisterError) -> int:
    """Return the exit code of an error: the one table from fault to status on the command line."""
    match error:
        case UsageError():
            return EXIT_USAGE
        case Malformed():
            return EXIT_MALFORMED
        case Rejected():
            return EXIT_REJECTED
        case Unavailable():
            return EXIT_UNAVAILABLE
        case _:
            return 1


def codes(error: CloisterError) -> list[str]:
    """Return the codes of an error, each once: those of its reasons, its own, or that of its fault."""
    if isinstance(error, Rejected):
        return list(dict.fromkeys(reason.code for reason in error.reasons))[:_MAX_NAMED]
    why = error.__cause__
    system = (code for kind, said, code in OF_SYSTEM if isinstance(error, kind) and isinstance(why, said))
    fault = (code for kind, code in OF_FAULTS if isinstance(error, kind))
    return [error.code or next(system, next(fault, "internal"))]


def error_json(error: CloisterError) -> Json:
    """Return an error as ``--json`` prints it."""
    document: dict[str, Json] = {
        "code": codes(error)[0],
        "fault": error.fault,
        "message": error.message,
        "exit_code": exit_code(error),
    }
    if error.hint:
        document["hint"] = error.hint
    if isinstance(error, Rejected):
        document["reasons"] = [reason_json(item) for item in error.reasons]
    return document
