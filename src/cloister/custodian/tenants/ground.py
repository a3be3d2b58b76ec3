"""What all tenants of a host stand on, besides nothing of one another: places, bounds, clock, verifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cloister.custodian.tenants.beside import MakeBeside, nothing_beside
from cloister.custodian.tenants.config import bounded

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from cloister.attest.endorse import Endorsements
    from cloister.attest.schemes.site import Site
    from cloister.attest.verifier import Verifier
    from cloister.custodian.config import Config
    from cloister.custodian.tenants.config import HostConfig
    from cloister.custodian.vaults.encrypted_file import Kdf

__all__ = ["Ground"]


@dataclass(slots=True, kw_only=True)
class Ground:
    """A host's home and what goes for every tenant. ``url`` is the host's, once its port is known."""

    home: Path
    listener: Config
    config: HostConfig
    clock: Callable[[], datetime]
    make_verifier: Callable[[Site], Verifier]
    endorsements: Endorsements | None = None
    ca_pem: str | None = ""
    kdf: Kdf | None = None
    beside: MakeBeside = nothing_beside
    url: str = field(default="")
    watching: list[Callable[[], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take the address that the settings say until the port is known."""
        self.url = self.url or self.listener.public_url(self.listener.port)

    @property
    def keys(self) -> Path:
        """The folder of key files that the host makes."""
        return (self.home / self.config.keys).absolute()

    def home_of(self, name: str) -> Path:
        """Return where a tenant's home is."""
        return self.home / "tenants" / name

    def url_of(self, name: str) -> str:
        """Return what stands in front of a tenant's paths, in its loan files too."""
        return f"{self.url}/t/{name}"

    def bounds(self, name: str) -> Callable[[Config], Config]:
        """Return what makes of a tenant's settings those that count."""
        return partial(bounded, listener=self.listener, host=self.config, url=self.url_of(name))
