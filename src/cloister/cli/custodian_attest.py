"""An attestation service inside a custodian: the same application, below a path of the custodian's own server.

It verifies by what the custodian trusts, with the custodian's endorsements and clock, and its signing keys are wrapped
by the custodian's vault. Custodian and service know nothing of each other: here they are put together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.types import ASGIApp

    from cloister.custodian.service import CustodianService

__all__ = ["ATTEST_PATH", "attestation_mount"]

ATTEST_PATH = "/attest"
_SETTINGS = "attest.toml"


def attestation_mount(service: CustodianService, home: Path) -> Mapping[str, ASGIApp]:
    """Return the application by its path, nothing where the setting is off. Raises as ``open_home`` does."""
    if not service.config.attest_service:
        return {}
    from cloister.verifier.home import open_home  # noqa: PLC0415 - only where it is asked for

    context = service.context
    opened = open_home(
        home,
        settings_path=home / _SETTINGS,
        make_verifier=lambda _site: context.verifier,
        endorsements=context.endorsements,
        wrapper=context.vault,
        clock=context.now,
        rng=context.rng,
    )
    if urlsplit(opened.settings.issuer).path != ATTEST_PATH:
        msg = f"{home / _SETTINGS}: issuer: want the custodian's url and {ATTEST_PATH} behind it"
        raise UsageError(msg)
    return {ATTEST_PATH: opened.app}
