"""Making a host's home and opening it.

home/  what every custodian's home has, for the host's own: operators' tokens, their log, the certificate
       host.toml   keys/NAME.key   tenants/NAME/  each a whole custodian's home (``custodian.setup``)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloister.attest.verifier import Verifier
from cloister.custodian.setup import init_custodian, open_custodian, utc_now
from cloister.custodian.tenants.beside import nothing_beside
from cloister.custodian.tenants.config import HOST_FILE, default_host_text, read_host_config
from cloister.custodian.tenants.ground import Ground
from cloister.custodian.tenants.host import Host
from cloister.custodian.tenants.keeping import Keeping
from cloister.custodian.tokens import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from cloister.attest.endorse import Endorsements
    from cloister.attest.schemes.site import Site
    from cloister.custodian.setup import Initialised
    from cloister.custodian.tenants.beside import MakeBeside
    from cloister.custodian.vaults.encrypted_file import Kdf, Unlock

__all__ = ["init_host", "open_host"]


def init_host(
    home: Path,
    unlock: Unlock,
    *,
    settings: Mapping[str, str | int | bool | tuple[str, ...]] | None = None,
    bounds: Mapping[str, str | int | bool | tuple[str, ...]] | None = None,
    clock: Callable[[], datetime] = utc_now,
    rng: Callable[[int], bytes] = os.urandom,
    kdf: Kdf | None = None,
) -> Initialised:
    """Make a host without tenants in an absent or empty folder; ``admin_token`` is its first operator's.

    ``settings`` are the listener's, ``bounds`` those of ``HostConfig``. Raises as ``init_custodian``.
    """
    made = init_custodian(home, unlock, settings=settings, clock=clock, rng=rng, kdf=kdf, first=Role.OPERATOR)
    (home / "tenants").mkdir(mode=0o700)
    (home / HOST_FILE).write_text(default_host_text(bounds or {}), encoding="utf-8")
    return made


def open_host(
    home: Path,
    unlock: Unlock,
    *,
    make_verifier: Callable[[Site], Verifier],
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], datetime] = utc_now,
    endorsements: Endorsements | None = None,
    kdf: Kdf | None = None,
    beside: MakeBeside = nothing_beside,
) -> Host:
    """Open a host's own custodian and hold its lock. Tenants come up once it is served.

    ``make_verifier`` and ``endorsements`` are the tenants', as for ``open_custodian``; the environment is the
    listener's alone, no tenant's; ``kdf`` makes locks of new tenants' vaults, ``beside`` what each tenant is served
    with. Raises as ``open_custodian``.
    """
    config = read_host_config(home)
    book = open_custodian(home, unlock, make_verifier=lambda _site: Verifier([]), environment=environment, clock=clock)
    ground = Ground(
        home=home, listener=book.config, config=config, clock=clock, make_verifier=make_verifier,
        endorsements=endorsements, ca_pem=book.ca_pem, kdf=kdf, beside=beside,
    )  # fmt: skip
    return Host(ground, book, Keeping(ground, book))
