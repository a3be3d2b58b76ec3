"""Key services: what an owner already runs to keep keys, wrapping the one key of the vault file (docs/spec/vault.md).

A service never sees what is in the vault: it wraps the 32 bytes that encrypt the file, and gives them back to whoever
it lets use its key. It is asked when a vault is made and whenever it is opened, not while the custodian serves.

Error contract of every service: ``Rejected`` for what it refuses (``service_denied``: who we are, or the state of its
key; ``no_such_key``; ``wrong_key``: it did not wrap this, or not in this context; ``pcr_mismatch``: the machine is in
another state than when it did), ``Unavailable`` when it cannot be reached, ``UsageError`` when it was set up wrongly.
No message carries a PIN, a credential or a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cloister.custodian.vaults.plugins import connect_foreign
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KeyService", "connect"]


class KeyService(Protocol):
    """Wraps the key of a vault file. It holds a key that we never see."""

    @property
    def name(self) -> str:
        """The service and its key, as ``init --vault`` takes it; public, and written into the vault file."""
        ...

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return ``key`` encrypted, bound to ``context`` (printable ASCII, public)."""
        ...

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return what was wrapped in the same ``context``; the caller checks its length."""
        ...


def connect(name: str, environment: Mapping[str, str], *, by_operator: bool = False) -> KeyService:
    """Return the service of this name; nothing is asked of it yet. Raises ``UsageError``.

    ``by_operator`` says that the name came by option or environment, not from a vault file: only then are plug-ins
    looked for, and the one of that kind loaded.
    """
    match name.partition(":")[0]:
        case "pkcs11":
            from cloister.custodian.vaults.pkcs11_token import Pkcs11Token  # noqa: PLC0415 - only where it is used

            return Pkcs11Token.connect(name, environment)
        case "aws-kms":
            from cloister.custodian.vaults.aws_kms import AwsKms  # noqa: PLC0415 - the same

            return AwsKms.connect(name)
        case "transit":
            from cloister.custodian.vaults.transit import Transit  # noqa: PLC0415 - the same

            return Transit.connect(name, environment)
        case "kmip":
            from cloister.custodian.vaults.kmip import KmipKey  # noqa: PLC0415 - the same

            return KmipKey.connect(name, environment)
        case "tpm":
            from cloister.custodian.vaults.tpm_state import TpmState  # noqa: PLC0415 - the same

            return TpmState.connect(name, environment)
        case _:
            if by_operator and (found := connect_foreign(name, environment)) is not None:
                return found
            # The name is not shown: somebody may have put a PIN into it.
            msg = "vault: no such key service, want pkcs11:..., aws-kms:ARN, transit:MOUNT/KEY, kmip:ID or tpm:..."
            hint = (
                "see docs/reference/vaults.md; a plug-in is loaded where --vault or CLOISTER_CUSTODIAN_VAULT names them"
            )
            raise UsageError(msg, hint=hint)
