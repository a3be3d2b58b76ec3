"""How one tenant's vault opens while its host serves: ``unlock.toml`` in its home, which says where, never what.

    key_file = "/mnt/keys/acme.key"           a key file, or
    passphrase_file = "/mnt/keys/acme.txt"    a passphrase, or
    environment_file = "/mnt/keys/acme.toml"  what the key service that the vault file names takes from its
                                              environment (docs/reference/vaults.md), for this tenant alone

A secret is read when the vault is opened and kept by nobody afterwards. Over the network an operator names files of
the host's folder for keys and no others: which module a key service loads is code. Not done here: opening the vault.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cloister.custodian.setup import vault_place
from cloister.custodian.vaults.encrypted_file import read_vault
from cloister.custodian.vaults.key_service import connect
from cloister.custodian.vaults.unlock import MAX_SECRET_BYTES, KeyFile, Passphrase
from cloister.custodian.vaults.vault_file import MAX_VAULT_BYTES, service_of
from cloister.errors import UsageError
from cloister.private_file import read_private, write_private

if TYPE_CHECKING:
    from cloister.custodian.vaults.unlock import Unlock
    from cloister.wire import Fields

__all__ = ["UNLOCK_FILE", "Unlocking"]

UNLOCK_FILE = "unlock.toml"
_PLACES = ("key_file", "passphrase_file", "environment_file")
_MADE = "key_file_made"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_SECRET = re.compile(r"(?:.*_)?(?:PASSPHRASE|PIN|TOKEN|SECRET|PASSWORD)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocking:
    """Where the secret of a vault lies, or what its key service needs to know. Holds no secret."""

    key_file: Path | None = None
    passphrase_file: Path | None = None
    environment_file: Path | None = None
    made: bool = False
    """The host made the key file for this tenant, and may destroy it with the tenant."""

    def __post_init__(self) -> None:
        """Refuse what says two things, and places that depend on where the host was started. Raises ``UsageError``."""
        named = [path for name in _PLACES if (path := getattr(self, name)) is not None]
        if len(named) > 1 or not all(path.is_absolute() for path in named):
            msg = f"unlock: want one of {', '.join(_PLACES)}, an absolute path"
            raise UsageError(msg)

    @classmethod
    def take(cls, body: Fields, keys: Path) -> Self:
        """Take it out of a JSON object that names files of ``keys``. Raises ``Malformed``, ``UsageError``."""
        found = {name: body.optional(name, lambda member: body.match(member, _FILE)) for name in _PLACES}
        key_file, passphrase_file, environment_file = (
            None if (file := found[name]) is None else keys / file for name in _PLACES
        )
        return cls(key_file=key_file, passphrase_file=passphrase_file, environment_file=environment_file)

    @classmethod
    def read(cls, home: Path) -> Self:
        """Return what a tenant's home says. Raises ``UsageError``."""
        found = _strings(home / UNLOCK_FILE)
        made = found.pop(_MADE, "no") == "yes"
        if not set(found) <= set(_PLACES):
            msg = f"{home / UNLOCK_FILE}: want {', '.join(_PLACES)}"
            raise UsageError(msg)
        return cls(**{name: Path(text) for name, text in found.items()}, made=made)

    def write(self, home: Path) -> None:
        """Write it into a tenant's home. Which key service it is, the vault file says."""
        named = {name: str(path) for name in _PLACES if (path := getattr(self, name)) is not None}
        named |= {_MADE: "yes"} if self.made else {}
        spelled = {name: text.replace("\\", "\\\\").replace('"', '\\"') for name, text in named.items()}
        write_private(home / UNLOCK_FILE, "".join(f'{name} = "{text}"\n' for name, text in spelled.items()).encode())

    def lock(self, service: str | None) -> Unlock:
        """Return what a new vault is locked with; a key file that does not exist is made. Raises ``UsageError``."""
        if service is not None:
            return connect(service, self._environment(), by_operator=True)
        if self.key_file is not None and not self.key_file.exists():
            return KeyFile.create(self.key_file)
        return self._secret()

    def unlock(self, home: Path) -> Unlock:
        """Return what opens the home's vault: the service that it names, else the secret, read now."""
        named = service_of(read_vault(vault_place(home)))
        return self._secret() if named is None else connect(named, self._environment())

    def _environment(self) -> dict[str, str]:
        if self.key_file is not None or self.passphrase_file is not None:
            msg = "vault: locked by a key service, but a key file or passphrase file is named"
            raise UsageError(msg)
        found = {} if self.environment_file is None else _strings(self.environment_file)
        for name in found:
            if not _VARIABLE.fullmatch(name) or _SECRET.fullmatch(name):
                msg = f"{self.environment_file}: {name[:64]!r} is no variable that may stand here"
                raise UsageError(
                    msg, hint="name the file that holds a secret, as in CLOISTER_CUSTODIAN_PKCS11_PIN_FILE"
                )
        return found

    def _secret(self) -> KeyFile | Passphrase:
        if self.key_file is not None:
            return KeyFile(self.key_file)
        if self.passphrase_file is not None:
            return Passphrase(read_private(self.passphrase_file, cap=MAX_SECRET_BYTES).rstrip(b"\r\n"))
        msg = "vault: no key file, no passphrase file and no key service"
        raise UsageError(msg, hint=f"say in {UNLOCK_FILE} how it opens")


def _strings(path: Path) -> dict[str, str]:
    """Return a flat TOML file of texts. Raises ``UsageError``."""
    data = read_private(path, cap=MAX_VAULT_BYTES)
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        msg = f"{path}: not toml that can be read"
        raise UsageError(msg) from exc
    if not all(isinstance(item, str) for item in document.values()):
        msg = f"{path}: want texts only"
        raise UsageError(msg)
    return document
