"""Parameters of requests, inputs and outputs: which are honoured, which refused, which change nothing.

The protocol lets a server leave out what it does not know. Here nothing is left out in silence: what would change the
answer and is not done here is refused by name, and what could not change it is named in the answer. The table is in
docs/reference/enclave-api.md, section "Parameters".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Reason
from cloister.wire import Fields
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["IGNORED", "REFUSED", "InputParameters", "OutputParameters", "RequestParameters"]

REFUSED = "parameter_refused"
"""The code of a parameter that asks for what this server does not do (422)."""

IGNORED = "cloister_ignored"
"""The parameter of an answer that names what changed nothing, with commas between."""

MAX_PARAMETERS = 64  # of one request, input or output
MAX_NAME = 128  # characters of a parameter's name
MAX_VALUE = 1024  # characters of a value
MAX_CLASSES = 10_000  # highest values of one output
MAX_TIMEOUT_US = 24 * 3600 * 10**6  # microseconds: a day

_SEQUENCE = "independent requests: models here keep no state between them"
_MEMORY = "data in the request: an enclave shares no memory with anybody"
_OF_REQUEST = {"sequence_id": _SEQUENCE, "sequence_start": _SEQUENCE, "sequence_end": _SEQUENCE}
_OF_TENSOR = {
    "shared_memory_byte_size": _MEMORY,
    "shared_memory_offset": _MEMORY,
    "shared_memory_region": _MEMORY,
}
_SAY_NOTHING: tuple[Json, ...] = (False, 0, "")  # a refused parameter that asks for nothing is no request


@hot_value
class RequestParameters:
    """Those of a whole request. ``timeout_us`` None means the server's own limits alone."""

    binary_output: bool
    timeout_us: int | None
    refused: tuple[Reason, ...]
    ignored: tuple[str, ...]

    @classmethod
    def take(cls, entry: Fields) -> RequestParameters:
        """Take them out of a request. Raises ``Malformed``."""
        parameters, own = _parameters(entry, "binary_data_output", "timeout")
        binary = own.optional("binary_data_output", own.boolean) or False
        timeout_us = own.optional("timeout", lambda name: own.integer(name, cap=MAX_TIMEOUT_US))
        return cls(
            binary_output=binary,
            timeout_us=timeout_us or None,
            refused=_refused(parameters, _OF_REQUEST, "request"),
            ignored=_ignored(parameters, _OF_REQUEST),
        )


@hot_value
class InputParameters:
    """Those of one input: how many bytes of binary data are its own, None where its data is in the JSON."""

    size: int | None
    refused: tuple[Reason, ...]
    ignored: tuple[str, ...]

    @classmethod
    def take(cls, entry: Fields, name: str) -> InputParameters:
        """Take them out of the input called ``name``. Raises ``Malformed``."""
        if "parameters" not in entry:
            return _NONE_OF_INPUT
        parameters, own = _parameters(entry, "binary_data_size")
        return cls(
            size=own.optional("binary_data_size", own.integer),
            refused=_refused(parameters, _OF_TENSOR, f"input {name}"),
            ignored=_ignored(parameters, _OF_TENSOR),
        )


@hot_value
class OutputParameters:
    """Those of one output.

    ``binary`` tells whether it goes back as binary data, None for the request's default; ``classes`` how many of its
    highest values take its place, None for the output itself.
    """

    binary: bool | None
    classes: int | None
    refused: tuple[Reason, ...]
    ignored: tuple[str, ...]

    @classmethod
    def take(cls, entry: Fields, name: str) -> OutputParameters:
        """Take them out of the output called ``name``. Raises ``Malformed``."""
        parameters, own = _parameters(entry, "binary_data", "classification")
        return cls(
            binary=own.optional("binary_data", own.boolean),
            classes=own.optional("classification", lambda name: own.integer(name, cap=MAX_CLASSES)) or None,
            refused=_refused(parameters, _OF_TENSOR, f"output {name}"),
            ignored=_ignored(parameters, _OF_TENSOR),
        )


_NONE_OF_INPUT = InputParameters(size=None, refused=(), ignored=())


def _parameters(entry: Fields, *honoured: str) -> tuple[dict[str, Json], Fields]:
    """Return the parameters that are not honoured, each of a type the protocol has, and those that are."""
    members = entry.members("parameters", cap=MAX_PARAMETERS) if "parameters" in entry else {}
    own = Fields({name: members.pop(name) for name in honoured if name in members}, what="parameters")
    for name, value in members.items():
        if len(name) > MAX_NAME:
            own.fail(name, f"a name of {len(name)} characters, want at most {MAX_NAME}")
        if not isinstance(value, str | int | float):
            own.fail(name, "want a string, a number, true or false")
        if isinstance(value, str) and len(value) > MAX_VALUE:
            own.fail(name, f"{len(value)} characters, want at most {MAX_VALUE}")
    return members, own


def _refused(parameters: dict[str, Json], known: dict[str, str], subject: str) -> tuple[Reason, ...]:
    if not parameters:
        return ()
    return tuple(
        Reason(code=REFUSED, subject=subject, got=name, want=want)
        for name, want in known.items()
        if parameters.get(name, False) not in _SAY_NOTHING
    )


def _ignored(parameters: dict[str, Json], known: dict[str, str]) -> tuple[str, ...]:
    return tuple(name for name in parameters if name not in known)
