"""A hardware security module, or any token with a PKCS #11 module, as key service (docs/reference/vaults.md).

The token's key is AES-256 and must be one that cannot leave it; wrapping is AES-GCM (CKM_AES_GCM) with the context as
additional data. The key is named by a URI of RFC 7512 with the attributes ``token`` and ``object`` alone: the module,
which is code, and the PIN come from the environment, never from the vault file or an argument.

Not done here: making tokens and keys. One login for each use, never a second try: tokens count wrong PINs.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote

from cloister.errors import Rejected, Unavailable, UsageError
from cloister.journal import Secret
from cloister.private_file import read_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["MODULE_VARIABLE", "PIN_FILE_VARIABLE", "PIN_VARIABLE", "Pkcs11Token"]

MODULE_VARIABLE = "CLOISTER_CUSTODIAN_PKCS11_MODULE"
PIN_VARIABLE = "CLOISTER_CUSTODIAN_PKCS11_PIN"
PIN_FILE_VARIABLE = "CLOISTER_CUSTODIAN_PKCS11_PIN_FILE"
_MAX_PIN_BYTES = 256
_MAX_LABEL = 32  # characters of a token's label (PKCS #11 v3.1 section 3.2, CK_TOKEN_INFO); keys get the same
_NONCE_BYTES = 12
_TAG_BITS = 128
_KEY_BITS = 256

_DENIED = {
    "PinExpired": "PIN expired",
    "PinIncorrect": "wrong PIN",
    "PinInvalid": "wrong PIN",
    "PinLenRange": "wrong PIN",
    "PinLocked": "PIN locked",
    "UserPinNotInitialized": "no PIN set on the token",
}
_ANY_FAULT = frozenset({"FunctionFailed", "GeneralError"})
_NOT_OURS = {
    "DataInvalid", "DataLenRange", "EncryptedDataInvalid", "EncryptedDataLenRange", "FunctionFailed", "GeneralError",
}  # fmt: skip
"""What modules say to a tag that does not fit; the standard's word is EncryptedDataInvalid, SoftHSM's GeneralError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs11Token:
    """A key in a token. It never prints the PIN."""

    token: str
    key: str
    module: str
    pin: Secret[str]
    rng: Callable[[int], bytes] = field(default=os.urandom, repr=False)

    @property
    def name(self) -> str:
        """The URI of the key (RFC 7512)."""
        return f"pkcs11:token={quote(self.token, safe='')};object={quote(self.key, safe='')}"

    @classmethod
    def connect(cls, name: str, environment: Mapping[str, str]) -> Self:
        """Return the token that ``name`` says, with module and PIN of the environment. Raises ``UsageError``."""
        token, key = _parse_uri(name)
        module = environment.get(MODULE_VARIABLE, "")
        if not Path(module).is_absolute() or not Path(module).is_file():
            msg = f"{MODULE_VARIABLE}: {module or 'not set'}, want the absolute path of a PKCS #11 module"
            raise UsageError(msg, hint="SoftHSM's is /usr/lib/softhsm/libsofthsm2.so")
        return cls(token=token, key=key, module=module, pin=_pin(environment))

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return nonce, ciphertext and tag. Random nonces: far below 2**32 vaults under one key."""
        nonce = self.rng(_NONCE_BYTES)
        with self._opened() as (pkcs11, handle):
            return nonce + bytes(handle.encrypt(key, **_gcm(pkcs11, nonce, context)))

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return what was wrapped in the same ``context``. Raises as ``KeyService``."""
        nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        if len(sealed) <= _TAG_BITS // 8:
            raise self._not_ours()
        with self._opened() as (pkcs11, handle):
            try:
                return bytes(handle.decrypt(sealed, **_gcm(pkcs11, nonce, context)))
            except pkcs11.PKCS11Error as exc:
                kind = type(exc).__name__
                if kind not in _NOT_OURS or (kind in _ANY_FAULT and not self._works(pkcs11, handle)):
                    raise
                raise self._not_ours() from exc

    def _works(self, pkcs11: Any, handle: Any) -> bool:
        """Tell whether the key does its work: some modules have one error for a wrong tag and for a broken device."""
        probe, nonce = bytes(_KEY_BITS // 8), self.rng(_NONCE_BYTES)
        try:
            sealed = bytes(handle.encrypt(probe, **_gcm(pkcs11, nonce, "probe")))
            return bytes(handle.decrypt(sealed, **_gcm(pkcs11, nonce, "probe"))) == probe
        except pkcs11.PKCS11Error:
            return False

    def _not_ours(self) -> Rejected:
        return Rejected.because("wrong_key", self.name, hint="this key did not wrap it, or it was altered")

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Log in, find the key, log out again; yield library and key. Turns the module's errors into ours."""
        try:
            import pkcs11  # noqa: PLC0415 - an extra
        except ImportError as exc:
            msg = "vault: pkcs11 needs the package python-pkcs11"
            raise UsageError(msg, hint="pip install 'cloister[pkcs11]'") from exc
        module = _load(pkcs11, self.module)
        try:
            with module.get_token(token_label=self.token).open(user_pin=self.pin.reveal()) as session:
                yield pkcs11, self._key(pkcs11, session)
        except pkcs11.PKCS11Error as exc:
            raise self._told(exc) from exc

    def _key(self, pkcs11: Any, session: Any) -> Any:
        """Return the one secret key of this label. The search is read to its end, for a session takes one at a time."""
        attribute = pkcs11.Attribute
        wanted = {attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY, attribute.LABEL: self.key}
        found = list(session.get_objects(wanted))
        if not found:
            hint = "pkcs11-tool --login --list-objects shows what is there"
            raise Rejected.because("no_such_key", self.name, hint=hint)
        if len(found) > 1:
            msg = f"{self.name}: {len(found)} keys of that label in the token, want one"
            raise UsageError(msg)
        self._demand_kept(pkcs11, found[0])
        return found[0]

    def _demand_kept(self, pkcs11: Any, handle: Any) -> None:
        """Refuse a key that could leave the token: wrapping with it would be worth no more than a key file."""
        attribute = pkcs11.Attribute
        if handle.key_type is not pkcs11.KeyType.AES or handle.key_length != _KEY_BITS:
            msg = f"{self.name}: not an AES key of {_KEY_BITS} bits"
            raise UsageError(msg)
        if handle[attribute.EXTRACTABLE] or not handle[attribute.SENSITIVE]:
            msg = f"{self.name}: can leave the token, want sensitive and not extractable"
            raise UsageError(msg, hint="make the key inside the token: docs/reference/vaults.md")

    def _told(self, exc: Exception) -> Rejected | Unavailable | UsageError:
        """Return our word for an error of the module."""
        kind = type(exc).__name__
        if kind in _DENIED:
            hint = f"look at {PIN_FILE_VARIABLE}; tokens lock themselves after a few wrong PINs"
            return Rejected.because(
                "service_denied", self.name, got=_DENIED[kind], want="the PIN of the token's user", hint=hint
            )
        if kind == "MultipleTokensReturned":
            return UsageError(f"{self.name}: several tokens of that label", hint="give each a label of its own")
        if kind == "NoSuchToken":
            hint = "is it plugged in? pkcs11-tool --list-token-slots shows what the module sees"
            return Unavailable(f"{self.name}: no such token", hint=hint)
        return Unavailable(f"{self.name}: {kind}", hint="see what pkcs11-tool says to the same module and token")


def _gcm(pkcs11: Any, nonce: bytes, context: str) -> dict[str, Any]:
    parameters = pkcs11.GCMParams(nonce, context.encode("ascii"), _TAG_BITS)
    return {"mechanism": pkcs11.Mechanism.AES_GCM, "mechanism_param": parameters}


def _load(pkcs11: Any, module: str) -> Any:
    try:
        return pkcs11.lib(module)
    except pkcs11.PKCS11Error as exc:
        msg = f"{MODULE_VARIABLE}: {module}: cannot be loaded as a PKCS #11 module"
        raise UsageError(msg) from exc


def _parse_uri(name: str) -> tuple[str, str]:
    """Return token and object of a URI with these two attributes alone. Never shows the URI: it may hold a PIN."""
    path = name.removeprefix("pkcs11:")
    pairs = [part.partition("=") for part in path.split(";")]
    values = {key: unquote(value) for key, _, value in pairs}
    labels = (values.get("token", ""), values.get("object", ""))
    sound = all(0 < len(label) <= _MAX_LABEL and label.isprintable() for label in labels)
    if len(pairs) != len(labels) or "?" in path or not sound:
        msg = "vault: want pkcs11:token=TOKEN;object=KEY, each once and nothing else"
        raise UsageError(msg, hint=f"module and PIN come from {MODULE_VARIABLE} and {PIN_FILE_VARIABLE}")
    return labels


def _pin(environment: Mapping[str, str]) -> Secret[str]:
    named = environment.get(PIN_FILE_VARIABLE)
    data = read_private(Path(named), cap=_MAX_PIN_BYTES) if named else environment.get(PIN_VARIABLE, "").encode()
    try:
        pin = data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        pin = None  # the error stays here: it holds the PIN
    if pin is None:
        msg = f"{PIN_FILE_VARIABLE}: not text"
        raise UsageError(msg)
    if not pin:
        msg = "vault: no PIN for the token"
        raise UsageError(msg, hint=f"put it into a file of mode 0600 and name that in {PIN_FILE_VARIABLE}")
    return Secret(pin)
