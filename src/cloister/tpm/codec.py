"""TPM commands and answers as bytes (TPM 2.0 Part 1 section 18, Part 3 section 4).

Authorisations are empty passwords and policies (docs/adr/0008); ``salted`` adds HMAC and encryption for secrets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING

from cloister.errors import Rejected, Unavailable
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PASSWORD", "Code", "Handle", "Session", "dump_command", "parse_response", "take_protected"]


class Code(IntEnum):
    """TPM_CC (Part 2 section 6.5.2)."""

    EVICT_CONTROL = 0x120
    NV_UNDEFINE_SPACE = 0x122
    NV_DEFINE_SPACE = 0x12A
    CREATE_PRIMARY = 0x131
    NV_WRITE = 0x137
    PCR_RESET = 0x13D
    STARTUP = 0x144
    ACTIVATE_CREDENTIAL = 0x147
    NV_READ = 0x14E
    POLICY_SECRET = 0x151
    CREATE = 0x153
    LOAD = 0x157
    QUOTE = 0x158
    UNSEAL = 0x15E
    FLUSH_CONTEXT = 0x165
    NV_READ_PUBLIC = 0x169
    READ_PUBLIC = 0x173
    START_AUTH_SESSION = 0x176
    GET_CAPABILITY = 0x17A
    GET_RANDOM = 0x17B
    PCR_READ = 0x17E
    POLICY_PCR = 0x17F
    PCR_EXTEND = 0x182
    POLICY_GET_DIGEST = 0x189


class Handle(IntEnum):
    """TPM_RH: the hierarchies and reserved handles (Part 2 section 7.4)."""

    OWNER = 0x40000001
    NULL = 0x40000007
    PW = 0x40000009
    ENDORSEMENT = 0x4000000B


@dataclass(frozen=True, slots=True)
class Session:
    """One authorisation: a session, or the password session with an empty password. ``more`` are further attributes.

    Nonce and HMAC are empty but in salted sessions.
    """

    handle: int
    nonce: bytes = b""
    more: int = 0
    hmac: bytes = field(default=b"", repr=False)

    @property
    def attributes(self) -> int:
        """TPMA_SESSION (Part 2 section 8.4). Sessions are flushed by hand, also after a failure."""
        return _CONTINUE | self.more

    def signed(self, mac: bytes) -> Session:
        """Return the same with an HMAC."""
        return replace(self, hmac=mac)

    def dump(self) -> bytes:
        """Return TPMS_AUTH_COMMAND (Part 2 section 10.13.2)."""
        tail = len(self.hmac).to_bytes(2, "big") + self.hmac
        return (
            self.handle.to_bytes(4, "big")
            + len(self.nonce).to_bytes(2, "big") + self.nonce
            + bytes((self.attributes,)) + tail
        )  # fmt: skip


_CONTINUE = 0x01  # continueSession
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002  # TPM_ST, Part 2 section 6.9
PASSWORD = Session(Handle.PW)

_RC_FORMAT_1 = 0x080
_PASSING = frozenset({0x901, 0x902, 0x903, 0x904, 0x905, 0x908, 0x909, 0x90A, 0x920, 0x921, 0x922, 0x923})
"""Warnings that pass by themselves: memory, handles, self-test, rate of writing, lockout (Part 2 section 6.6.3)."""
_NAMES = {
    0x100: "initialize",
    0x101: "failure mode",
    0x120: "disabled",
    0x128: "pcr changed",
    0x143: "command code",
    0x902: "out of object memory",
    0x903: "out of session memory",
    0x907: "locality",
    0x910: "reference to an object that is not loaded",
    0x921: "lockout",
    0x922: "retry",
    0x923: "nv unavailable",
}
_NAMES_FORMAT_1 = {
    0x04: "value",
    0x05: "hierarchy",
    0x0B: "handle",
    0x0E: "authorisation failed",
    0x15: "size",
    0x1D: "policy failed",
    0x1F: "integrity",
    0x22: "bad authorisation",
}


def dump_command(
    code: Code, *, handles: Sequence[int] = (), sessions: Sequence[Session] = (), body: bytes = b""
) -> bytes:
    """Return a command: header, handles, authorisations, parameters."""
    area = b"".join(handle.to_bytes(4, "big") for handle in handles)
    if sessions:
        auth = b"".join(session.dump() for session in sessions)
        area += len(auth).to_bytes(4, "big") + auth
    tag = _SESSIONS if sessions else _NO_SESSIONS
    size = 10 + len(area) + len(body)
    return tag.to_bytes(2, "big") + size.to_bytes(4, "big") + code.to_bytes(4, "big") + area + body


def parse_response(data: bytes, code: Code, *, handle: bool = False) -> tuple[int, Reader]:
    """Return the handle (zero unless asked for) and a reader over the parameters of an answer.

    Raises ``Rejected`` (``tpm_refused``, with the TPM's code) when the TPM says no, ``Unavailable`` when
    it could not, ``Malformed``.
    """
    tag, reader = _granted(data, code)
    given = reader.u32() if handle else 0
    if tag == _NO_SESSIONS:
        return given, reader
    if tag != _SESSIONS:
        reader.fail(f"tag {tag:#06x}")
    size = reader.u32()
    return given, Reader(
        reader.take(size), what=f"tpm response to {code.name}"
    )  # what follows are empty session answers


def take_protected(data: bytes, code: Code) -> tuple[bytes, Session]:
    """Return the parameters of an answer and the one session that protects them. Raises as ``parse_response``."""
    tag, reader = _granted(data, code)
    if tag != _SESSIONS:
        reader.fail(f"tag {tag:#06x}: without a session")
    body = reader.take(reader.u32())
    nonce, attributes = reader.prefixed(2, cap=64), reader.u8()
    session = Session(0, nonce=nonce, more=attributes, hmac=reader.prefixed(2, cap=64))
    reader.end()
    if not attributes & _CONTINUE:
        reader.fail("a session that has ended")
    return body, session


def _granted(data: bytes, code: Code) -> tuple[int, Reader]:
    """Return the tag of an answer that is no refusal, and the rest."""
    reader = Reader(data, what=f"tpm response to {code.name}")
    tag = reader.u16()
    if reader.u32() != len(data):
        reader.fail(f"{len(data)} bytes, and another length in the header")
    result = reader.u32()
    if result:
        raise _failure(code, result)
    return tag, reader


def _failure(code: Code, result: int) -> Rejected | Unavailable:
    name = _NAMES_FORMAT_1.get(result & 0x3F) if result & _RC_FORMAT_1 else _NAMES.get(result)
    shown = f"{result:#05x}" + (f" ({name})" if name else "")
    if result in _PASSING:
        return Unavailable(f"tpm: {code.name.lower()}: {shown}", retry_after_s=1)
    return Rejected.because("tpm_refused", f"tpm command {code.name.lower()}", got=shown)
