"""The transit engine of HashiCorp Vault or OpenBao as key service (docs/reference/vaults.md).

The name says mount and key; address, authority, namespace and token come from the environment, by the names that
their own programs use. The context is the associated data of an AEAD key. No redirect is followed, no proxy is taken
from the environment, and an answer is bounded while it is read.

Not done here: logging in and renewing tokens (their agent does), and asking whether the key may be exported.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import httpx2

from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.journal import Secret
from cloister.private_file import read_private
from cloister.wire import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = ["TOKEN_FILE_VARIABLE", "Transit"]

TOKEN_FILE_VARIABLE: Final = "CLOISTER_CUSTODIAN_TRANSIT_TOKEN_FILE"  # noqa: S105 - the name of a variable
_PREFIXES = ("VAULT", "BAO")  # of variables: HashiCorp's programs read the first, OpenBao's both
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}"
_NAME = re.compile(rf"transit:(?P<mount>{_SEGMENT}(?:/{_SEGMENT}){{0,7}})/(?P<key>{_SEGMENT})", re.ASCII)
_CIPHERTEXT = re.compile(r"vault:v\d{1,9}:[A-Za-z0-9+/]{1,8000}={0,2}", re.ASCII)
_HEADER = re.compile(r"[!-~]{1,4096}", re.ASCII)
_MAX_TOKEN_BYTES = 4096
_MAX_ANSWER_BYTES = 64 * 1024
_TIMEOUT_S = 5  # without a byte
_DEADLINE_S = 20  # for a whole answer, however slowly it drips
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:.]{2,45}", re.ASCII)
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_FAILED = (httpx2.HTTPError, httpx2.InvalidURL)
_FORBIDDEN = frozenset({401, 403})
_NOT_OURS = ("invalid ciphertext", "message authentication failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transit:
    """A key of a transit engine. It never prints the token."""

    mount: str
    key: str
    address: str
    token: Secret[str]
    namespace: str = ""
    authority: str = ""

    @property
    def name(self) -> str:
        """Mount and key, as ``transit:MOUNT/KEY``."""
        return f"transit:{self.mount}/{self.key}"

    @classmethod
    def connect(cls, name: str, environment: Mapping[str, str]) -> Self:
        """Return the key that ``name`` says, at the address of the environment. Raises ``UsageError``."""
        found = _NAME.fullmatch(name)
        if found is None:
            msg = "vault: want transit:MOUNT/KEY"
            raise UsageError(msg, hint="address and token come from VAULT_ADDR and " + TOKEN_FILE_VARIABLE)
        address, namespace = _variable(environment, "ADDR"), _variable(environment, "NAMESPACE")
        _demand_address(address)
        if namespace and not _HEADER.fullmatch(namespace):
            msg = "VAULT_NAMESPACE: want printable ascii"
            raise UsageError(msg)
        return cls(
            mount=found["mount"], key=found["key"], address=address.rstrip("/"), token=_token(environment),
            namespace=namespace, authority=_variable(environment, "CACERT"),
        )  # fmt: skip

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return the ciphertext, ``vault:vN:...``. Raises as ``KeyService``."""
        answer = self._ask(
            "encrypt", "ciphertext", {"plaintext": _text(key), "associated_data": _text(context.encode())}
        )
        if not _CIPHERTEXT.fullmatch(answer):
            raise self._nonsense()
        return answer.encode()

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return what was wrapped in the same ``context``. Raises as ``KeyService``."""
        ciphertext = wrapped.decode("ascii", "replace")
        if not _CIPHERTEXT.fullmatch(ciphertext):
            raise self._not_ours()
        asked = {"ciphertext": ciphertext, "associated_data": _text(context.encode())}
        try:
            return base64.b64decode(self._ask("decrypt", "plaintext", asked), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise self._nonsense() from exc

    def _ask(self, verb: str, member: str, body: dict[str, str]) -> str:
        """Return ``member`` of what the engine answers."""
        status, answer = self._post(f"{self.address}/v1/{self.mount}/{verb}/{self.key}", body)
        if status != httpx2.codes.OK:
            raise self._refused(status, answer, verb)
        data = answer.get("data") if isinstance(answer, dict) else None
        value = data.get(member) if isinstance(data, dict) else None
        if not isinstance(value, str):
            raise self._nonsense()
        return value

    def _post(self, url: str, body: dict[str, str]) -> tuple[int, Json]:
        """Return status and document; what is no document is None."""
        headers = {"x-vault-token": self.token.reveal(), "x-vault-request": "true", "accept-encoding": "identity"}
        if self.namespace:
            headers["x-vault-namespace"] = self.namespace
        # The library counts silence alone: a server that drips would keep us for ever.
        asked: Future[tuple[int, Json]] = Future()
        threading.Thread(target=_ask, args=(asked, url, headers, body, _context(self.authority)), daemon=True).start()
        try:
            return asked.result(timeout=_DEADLINE_S)
        except (TimeoutError, *_FAILED) as exc:
            msg = f"{self.name}: {type(exc).__name__}"
            raise Unavailable(msg, hint="is VAULT_ADDR right, and VAULT_CACERT its authority?") from exc

    def _refused(self, status: int, answer: Json, verb: str) -> CloisterError:
        """Return our word for an answer that is an error. Its own text is read, not shown: it may name people."""
        errors = answer.get("errors") if isinstance(answer, dict) else None
        said = " ".join(str(item) for item in errors) if isinstance(errors, list) else ""
        if status in _FORBIDDEN:
            hint = (
                f"the token's policy must allow update on {self.mount}/{verb}/{self.key}, and it must not have expired"
            )
            want = "a token that is allowed"
            return Rejected.because("service_denied", self.name, got=f"status {status}", want=want, hint=hint)
        if status == httpx2.codes.NOT_FOUND or "key not found" in said:
            return Rejected.because("no_such_key", self.name, hint="is it the right mount and namespace?")
        if verb == "decrypt" and any(words in said for words in _NOT_OURS):
            return self._not_ours()
        hint = "is it sealed?" if status == httpx2.codes.SERVICE_UNAVAILABLE else "try again"
        return Unavailable(f"{self.name}: status {status}", hint=hint)

    def _not_ours(self) -> Rejected:
        return Rejected.because("wrong_key", self.name, hint="this key did not wrap it, or it was altered")

    def _nonsense(self) -> Unavailable:
        return Unavailable(f"{self.name}: answered something else than asked for", hint="is VAULT_ADDR right?")


def _ask(
    asked: Future[tuple[int, Json]], url: str, headers: dict[str, str], body: dict[str, str], context: ssl.SSLContext
) -> None:
    """Answer with status and document, or with why there are none."""
    try:
        with (
            httpx2.Client(follow_redirects=False, timeout=_TIMEOUT_S, trust_env=False, verify=context) as client,
            client.stream("POST", url, headers=headers, content=json.dumps(body).encode()) as response,
        ):
            asked.set_result((response.status_code, _bounded(response)))
    except BaseException as exc:  # noqa: BLE001 - raised in the caller's thread, whatever it is
        asked.set_exception(exc)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bounded(response: httpx2.Response) -> Json:
    """Return the document of an answer, None where it is too long or none."""
    data = bytearray()
    for part in response.iter_raw():
        data += part
        if len(data) > _MAX_ANSWER_BYTES:
            return None
    try:
        return parse_json(bytes(data), what="answer", cap=_MAX_ANSWER_BYTES)
    except Malformed:
        return None


def _context(authority: str) -> ssl.SSLContext:
    """Return whom we believe: the authority named, else the system's."""
    try:
        return ssl.create_default_context(cafile=authority or None)
    except (OSError, ValueError) as exc:
        msg = f"VAULT_CACERT: {authority}: no certificates there"
        raise UsageError(msg) from exc


def _variable(environment: Mapping[str, str], name: str) -> str:
    return next((value for prefix in _PREFIXES if (value := environment.get(f"{prefix}_{name}", ""))), "")


def _demand_address(address: str) -> None:
    """Refuse to send a key in clear to another machine, and addresses with more than a host in them."""
    try:
        parts = urlsplit(address)
        port_is_sound = parts.port != 0
    except ValueError as exc:
        msg = "VAULT_ADDR: not an address"
        raise UsageError(msg) from exc
    plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
    more = parts.path.rstrip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if not _HOST.fullmatch(parts.hostname or "") or more or not port_is_sound or not (parts.scheme == "https" or plain):
        msg = "VAULT_ADDR: want https://HOST:PORT"  # not shown: somebody may have put a password into it
        raise UsageError(msg)


def _token(environment: Mapping[str, str]) -> Secret[str]:
    named = environment.get(TOKEN_FILE_VARIABLE)
    token = _variable(environment, "TOKEN")
    if named:
        token = read_private(Path(named), cap=_MAX_TOKEN_BYTES).decode("ascii", "replace").removesuffix("\n")
    if not _HEADER.fullmatch(token):
        msg = "vault: no token for the transit engine"
        raise UsageError(msg, hint=f"put it into a file of mode 0600 and name that in {TOKEN_FILE_VARIABLE}")
    return Secret(token)
