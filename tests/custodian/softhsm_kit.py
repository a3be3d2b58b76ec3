"""SoftHSM2, a token in software behind a real PKCS #11 module: made once for a process, skipped where not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloister.custodian.vaults.pkcs11_token import MODULE_VARIABLE, PIN_FILE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PIN", "SoftHsm", "start_softhsm"]

PIN = "pin-of-tests-471108"
_PLACES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so")
_TOKENS = ("cloister", "a second; token")


@dataclass(frozen=True)
class SoftHsm:
    """Two tokens. The first has ``vault`` and ``other``, keys as they must be, and several that must not be used."""

    module: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return what a custodian is given."""
        return {MODULE_VARIABLE: self.module, PIN_FILE_VARIABLE: str(self.folder / "pin")}


def start_softhsm(folder: Path) -> Iterator[SoftHsm]:
    """Make the tokens. The module reads its settings once for a process, so this is for a whole run."""
    module = next((place for place in _PLACES if Path(place).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM2 is not installed (apt-get install softhsm2)")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        for token in _TOKENS:
            words = ["softhsm2-util", "--init-token", "--free", "--label", token, "--pin", PIN, "--so-pin", "08154711"]
            subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - our own words
        descriptor = os.open(folder / "pin", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, PIN.encode() + b"\n")
        os.close(descriptor)
        _make_keys(module)
        yield SoftHsm(module, folder)


def _make_keys(module: str) -> None:
    import pkcs11  # noqa: PLC0415 - reads SOFTHSM2_CONF when it loads the module

    kept = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
    loose = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: True}
    bare = {pkcs11.Attribute.SENSITIVE: False, pkcs11.Attribute.EXTRACTABLE: False}
    library = pkcs11.lib(module)
    aes = pkcs11.KeyType.AES
    with library.get_token(token_label=_TOKENS[0]).open(user_pin=PIN, rw=True) as session:
        for label in ("vault", "other", "twice", "twice"):
            session.generate_key(aes, 256, label=label, store=True, template=kept)
        session.generate_key(aes, 256, label="loose", store=True, template=loose)
        session.generate_key(aes, 256, label="bare", store=True, template=bare)
        session.generate_key(aes, 128, label="short", store=True, template=kept)
    with library.get_token(token_label=_TOKENS[1]).open(user_pin=PIN, rw=True) as session:
        session.generate_key(aes, 256, label="vault", store=True, template=kept)
