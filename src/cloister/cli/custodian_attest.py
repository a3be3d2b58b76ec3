"""An attestation service inside a custodian: the same application, below a path of the custodian's own server.

It verifies by what the custodian trusts, with the custodian's endorsements and clock, and its signing keys are wrapped
by the custodian's vault. Custodian and service know nothing of each other: here they are put together, for a custodian
alone and for each tenant of a host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from starlette.types import ASGIApp

    from cloister.custodian.service import CustodianService
    from cloister.custodian.tenants.beside import Beside
    from cloister.custodian.tenants.config import HostConfig
    from cloister.verifier.callers import Callers
    from cloister.verifier.guest import Guest
    from cloister.verifier.home import Opened

__all__ = ["ATTEST_PATH", "SETTINGS_IN_CUSTODIAN", "attestation_mount", "tenant_attestation"]

ATTEST_PATH = "/attest"
SETTINGS_IN_CUSTODIAN = "attest.toml"
_NO_CALLERS = "no-callers"  # no file: looked at where there is no service, so that this is no sign of it


def attestation_mount(service: CustodianService, home: Path) -> Mapping[str, ASGIApp]:
    """Return the application by its path, nothing where the setting is off. Raises as ``open_home`` does."""
    if not service.config.attest_service:
        return {}
    opened = _open(service, home, None)
    if urlsplit(opened.settings.issuer).path != ATTEST_PATH:
        msg = f"{home / SETTINGS_IN_CUSTODIAN}: issuer: want the custodian's url and {ATTEST_PATH} behind it"
        raise UsageError(msg)
    service.metrics.join(opened.metrics)
    return {ATTEST_PATH: opened.app}


def tenant_attestation(service: CustodianService, host: HostConfig) -> Beside | None:
    """Return a tenant's service, None where there is none and that is no secret. Raises as ``open_home`` does."""
    from cloister.custodian.tenants.beside import Beside  # noqa: PLC0415 - brings the web application along
    from cloister.verifier.callers import Callers  # noqa: PLC0415 - only where it is asked for
    from cloister.verifier.guest import Guest  # noqa: PLC0415 - the same

    if service.config.attest_service:
        guest = Guest(
            issuer=service.url + ATTEST_PATH,
            hidden=service.discreet,
            verifications=host.threads,
            request_timeout_s=service.config.request_timeout_s,
            waiting_bytes=service.config.body_memory_mib << 20,
        )
        opened = _open(service, service.home, guest)
        service.metrics.join(opened.metrics)
        return Beside(path=ATTEST_PATH, app=opened.app, knows=_knows(opened.callers), close=opened.limits.close)
    if service.discreet:
        nobody = Callers(service.home / _NO_CALLERS, is_open=False)
        return Beside(path=ATTEST_PATH, app=None, knows=_knows(nobody), close=lambda: None)
    return None


def _open(service: CustodianService, home: Path, guest: Guest | None) -> Opened:
    from cloister.verifier.home import open_home  # noqa: PLC0415 - only where it is asked for

    context = service.context
    return open_home(
        home,
        settings_path=home / SETTINGS_IN_CUSTODIAN,
        make_verifier=lambda _site: context.verifier,
        endorsements=context.endorsements,
        wrapper=context.vault,
        guest=guest,
        clock=context.now,
        rng=context.rng,
    )


def _knows(callers: Callers) -> Callable[[str | None], bool]:
    def knows(authorization: str | None) -> bool:
        try:
            callers.known(authorization, "")
        except CloisterError:
            return False
        return True

    return knows
