"""A key of a KMIP server as key service (docs/reference/vaults.md): any key manager that encrypts by KMIP 1.4.

The server encrypts and decrypts with AES-GCM, the context as additional data; its key never comes here. The name says
which key; server, authority and the client's certificate come from the environment. The server's name is proven, TLS is
1.2 or newer, an answer is bounded before it is read, and one deadline stands over each question.

Not done here: making keys and giving rights to them (the key manager's own tools do). A client of our own, for three
messages: docs/adr/0028-plugins-and-kmip.md.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from cloister.custodian.vaults import kmip_messages as messages
from cloister.custodian.vaults.kmip_messages import NONCE_BYTES, TAG_BYTES, Operation
from cloister.custodian.vaults.ttlv import HEADER_BYTES, size_of
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.private_file import read_private

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.custodian.vaults.ttlv import Item

_Read = TypeVar("_Read")

__all__ = ["AUTHORITY_VARIABLE", "CERTIFICATE_VARIABLE", "KEY_VARIABLE", "SERVER_VARIABLE", "KmipKey"]

SERVER_VARIABLE: Final = "CLOISTER_CUSTODIAN_KMIP_SERVER"
AUTHORITY_VARIABLE: Final = "CLOISTER_CUSTODIAN_KMIP_CA"
CERTIFICATE_VARIABLE: Final = "CLOISTER_CUSTODIAN_KMIP_CERT"
KEY_VARIABLE: Final = "CLOISTER_CUSTODIAN_KMIP_KEY"
_NAME = re.compile(r"kmip:(?P<key>[A-Za-z0-9_][A-Za-z0-9._:/+=-]{0,127})", re.ASCII)
_SERVER = re.compile(r"(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[1-9]\d{0,4})", re.ASCII)
_MAX_PORT = 65_535
_MAX_KEY_FILE_BYTES = 64 * 1024
_DEADLINE_S = 20  # for one question and its answer, however slowly it drips
_KEY_BITS = 256
_AES = 3  # KMIP 1.4 section 9.1.3.2.13
_ALGORITHM, _LENGTH = "Cryptographic Algorithm", "Cryptographic Length"

# Result reasons: KMIP 1.4 section 9.1.3.2.29; from 0x19 on those of 2.0, which some servers give to older clients too.
_NO_SUCH_KEY = frozenset({0x01, 0x36, 0x37})
_DENIED = {
    0x03: "not authenticated", 0x0B: "not allowed in the key's state", 0x0C: "permission denied", 0x0D: "archived",
    0x29: "not allowed by the key's usage", 0x39: "not authorised", 0x43: "not allowed in the key's state",
}  # fmt: skip
_ANY_FAULT = frozenset({0, 0x07, 0x0A, 0x2A, 0x100})
"""What servers say to a tag that does not fit: cryptographic failure, or the same as to every other fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KmipKey:
    """A key in a KMIP server, and the way to that server."""

    key: str
    host: str
    port: int
    authority: str
    certificate: str
    private_key: str
    rng: Callable[[int], bytes] = field(default=os.urandom, repr=False)

    @property
    def name(self) -> str:
        """The key's unique identifier, as ``kmip:IDENTIFIER``."""
        return f"kmip:{self.key}"

    @classmethod
    def connect(cls, name: str, environment: Mapping[str, str]) -> Self:
        """Return the key that ``name`` says, in the server of the environment. Raises ``UsageError``."""
        found = _NAME.fullmatch(name)
        if found is None:
            msg = "vault: want kmip:IDENTIFIER, the key's unique identifier"
            raise UsageError(msg, hint=f"server and certificates come from {SERVER_VARIABLE} and its neighbours")
        server = _SERVER.fullmatch(environment.get(SERVER_VARIABLE, ""))
        if server is None or int(server["port"]) > _MAX_PORT:
            msg = f"{SERVER_VARIABLE}: want HOST:PORT"
            raise UsageError(msg, hint="the port of KMIP is 5696")
        places = [environment.get(name, "") for name in (AUTHORITY_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE)]
        for variable, place in zip((AUTHORITY_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE), places, strict=True):
            if not place:
                msg = f"{variable}: not set"
                raise UsageError(msg, hint="a KMIP server knows its clients by their certificates")
        authority, certificate, private_key = places
        return cls(
            key=found["key"], host=server["host"].strip("[]"), port=int(server["port"]),
            authority=authority, certificate=certificate, private_key=private_key,
        )  # fmt: skip

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return nonce, ciphertext and tag. Random nonces: far below 2**32 vaults under one key."""
        self._demand_aes()
        return self._seal(key, context)

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return what was wrapped in the same ``context``. Raises as ``KeyService``."""
        if len(wrapped) <= NONCE_BYTES + TAG_BYTES:
            raise self._not_ours()
        reason, data = self._open(wrapped, context)
        if data is not None:
            return data
        if reason in _ANY_FAULT and self._works():
            raise self._not_ours()
        raise self._refused(reason, Operation.DECRYPT)

    def _seal(self, data: bytes, context: str) -> bytes:
        nonce = self.rng(NONCE_BYTES)
        request = messages.encrypt_request(self.key, data, nonce=nonce, context=context)
        return nonce + self._ask(
            request, Operation.ENCRYPT, lambda payload: messages.sealed_of(payload, size=len(data), nonce=nonce)
        )

    def _open(self, wrapped: bytes, context: str) -> tuple[int, bytes | None]:
        """Return the reason of a failure, or the plain bytes."""
        nonce, sealed = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
        request = messages.decrypt_request(self.key, sealed, nonce=nonce, context=context)
        try:
            answer = messages.parse_answer(self._exchange(request), operation=Operation.DECRYPT, key=self.key)
            return answer.reason, None if answer.payload is None else messages.data_of(answer.payload)
        except Malformed as exc:
            raise self._nonsense() from exc

    def _works(self) -> bool:
        """Tell whether the key does its work: servers have one reason for a wrong tag and for a fault of their own."""
        probe = bytes(_KEY_BITS // 8)
        try:
            return self._open(self._seal(probe, "probe"), "probe")[1] == probe
        except CloisterError:
            return False

    def _demand_aes(self) -> None:
        """Refuse a key of another kind; a server that tells nothing of that is believed by what it encrypts."""
        request = messages.get_attributes_request(self.key, _ALGORITHM, _LENGTH)
        found = self._ask(request, Operation.GET_ATTRIBUTES, messages.attributes_of)
        if (found.get(_ALGORITHM), found.get(_LENGTH)) != (_AES, _KEY_BITS):
            msg = f"{self.name}: not an AES key of {_KEY_BITS} bits"
            raise UsageError(msg)

    def _ask(self, request: bytes, operation: Operation, read: Callable[[Item], _Read]) -> _Read:
        """Return what ``read`` finds in the payload of a success. Raises as ``KeyService``."""
        try:
            answer = messages.parse_answer(self._exchange(request), operation=operation, key=self.key)
            if answer.payload is not None:
                return read(answer.payload)
        except Malformed as exc:
            raise self._nonsense() from exc
        raise self._refused(answer.reason, operation)

    def _exchange(self, request: bytes) -> bytes:
        """Send one message over a connection of its own and return the bytes of the answer."""
        context, end = self._tls(), time.monotonic() + _DEADLINE_S
        try:
            with (
                socket.create_connection((self.host, self.port), timeout=_DEADLINE_S) as plain,
                context.wrap_socket(plain, server_hostname=self.host) as secure,
            ):
                secure.settimeout(_left(end))
                secure.sendall(request)
                header = _receive(secure, HEADER_BYTES, end)
                return header + _receive(secure, size_of(header, tag=messages.RESPONSE_MESSAGE), end)
        except (OSError, ValueError) as exc:  # a name that is none is a ValueError
            msg = f"{self.name}: {type(exc).__name__}"
            hint = f"is {SERVER_VARIABLE} right, {AUTHORITY_VARIABLE} its authority, and our certificate known to it?"
            raise Unavailable(msg, hint=hint) from exc

    def _tls(self) -> ssl.SSLContext:
        """Return whom we believe, the authority named alone, and who we are."""
        read_private(Path(self.private_key), cap=_MAX_KEY_FILE_BYTES)  # a key that others can read proves nobody
        try:
            context = ssl.create_default_context(cafile=self.authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.certificate, self.private_key, password=b"")  # asks nobody for one
        except (OSError, ValueError) as exc:
            msg = f"{self.name}: certificates or key cannot be used"
            raise UsageError(msg, hint=f"look at {AUTHORITY_VARIABLE}, {CERTIFICATE_VARIABLE}, {KEY_VARIABLE}") from exc
        return context

    def _refused(self, reason: int, operation: Operation) -> CloisterError:
        """Return our word for a failure. The server's own text is left out: it may name people, or repeat a request."""
        if reason in _NO_SUCH_KEY:
            return Rejected.because("no_such_key", self.name, hint="want its unique identifier, not its name")
        if reason in _DENIED:
            verb = operation.name.lower().replace("_", " ")
            hint = f"it must be active, and our certificate must be allowed to {verb}"
            want = "an active key that we may use"
            return Rejected.because("service_denied", self.name, got=_DENIED[reason], want=want, hint=hint)
        return Unavailable(f"{self.name}: result reason 0x{reason:02x}", hint="see the log of the server")

    def _not_ours(self) -> Rejected:
        return Rejected.because("wrong_key", self.name, hint="this key did not wrap it, or it was altered")

    def _nonsense(self) -> Unavailable:
        return Unavailable(f"{self.name}: answered something else than asked for", hint=f"is {SERVER_VARIABLE} right?")


def _left(end: float) -> float:
    """Return the seconds until the deadline. Raises ``TimeoutError``."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _receive(secure: ssl.SSLSocket, size: int, end: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        secure.settimeout(_left(end))
        part = secure.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return bytes(data)
