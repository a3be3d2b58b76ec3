"""What a stranger is told below a tenant's prefix, whether the tenant is there or not.

Names of tenants may be secrets of theirs, so an unknown tenant, a suspended one, and one whose tokens are not ours
answer alike: by the same code. Requests for tenants that are not there are answered by ``nobody``, a custodian like
any other, over a database like any other, in which there is nothing. And what would tell who a tenant is, its keys and
its log, is for holders of its tokens, unless it was made discoverable.

Not done here: how long an answer takes where a tenant's database is another machine.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.attest.verifier import Verifier
from cloister.custodian.routes import ROUTES
from cloister.custodian.setup import init_custodian, open_custodian
from cloister.custodian.tokens import Role
from cloister.custodian.vaults.encrypted_file import Kdf, Passphrase

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from cloister.custodian.calls import Route
    from cloister.custodian.config import Config
    from cloister.custodian.service import CustodianService

__all__ = ["OPEN", "forget_nobody", "make_nobody", "routes_for"]

_MEMBERS = frozenset(Role) - {Role.OPERATOR}
_QUICK = Kdf(memory_kib=64, passes=1, lanes=1)  # guards keys that open nothing, for as long as the host runs
_SECRET_BYTES = 32
_FOLDER = "nobody"

OPEN = frozenset({("GET", "/healthz"), ("GET", "/openapi.json"), ("POST", "/v1/forks")})
"""Public routes that say nothing of whose they are. Those of an instance are beside them: its id is no guess."""


def routes_for(*, discoverable: bool) -> tuple[Route, ...]:
    """Return the API of one tenant: a public route that is not known to say nothing needs one of its tokens."""
    return ROUTES if discoverable else tuple(_closed(route) for route in ROUTES)


def _closed(route: Route) -> Route:
    says_nothing = (route.method, route.path) in OPEN or route.path.startswith("/v1/instances/{instance}/")
    return route if route.roles is not None or says_nothing else replace(route, roles=_MEMBERS)


def make_nobody(home: Path, bounds: Callable[[Config], Config], clock: Callable[[], datetime]) -> CustodianService:
    """Return a fresh custodian for tenants that are not there, in a folder of its own in the host's ``home``."""
    place = home / _FOLDER / os.urandom(8).hex()
    unlock = Passphrase(os.urandom(_SECRET_BYTES))
    init_custodian(place, unlock, clock=clock, kdf=_QUICK)  # the first token is thrown away: nobody has one
    return open_custodian(place, unlock, make_verifier=lambda _site: Verifier([]), bounds=bounds, clock=clock)


def forget_nobody(home: Path, keep: Path | None = None) -> None:
    """Delete what earlier ones left."""
    for place in (home / _FOLDER).glob("*"):
        if place != keep:
            shutil.rmtree(place, ignore_errors=True)
