"""Settings of a host, beside those of its listener: how many tenants, and what each may take of the process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.custodian.config_file import read_section, settings_text
from cloister.errors import UsageError
from cloister.serving.settings import declare as _setting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloister.custodian.config import Config

__all__ = [
    "HOST_CA",
    "HOST_FILE",
    "LISTENERS",
    "HostConfig",
    "bounded",
    "default_host_text",
    "is_host",
    "read_host_config",
]

HOST_FILE = "host.toml"
HOST_CA = "host-ca.pem"
"""In a tenant's home: the authority of the certificate that its host shows."""
LISTENERS = frozenset({
    "acme_ca", "acme_contact", "acme_directory", "acme_http", "connections", "dashboard", "failures_per_minute",
    "forks_per_minute", "host", "metrics", "metrics_token_file", "mtls", "mtls_tokens", "names", "port", "profile",
    "request_timeout_s", "shutdown_grace_s", "tls", "tls_ca", "tls_certificate", "tls_key", "tls_minimum", "url",
})  # fmt: skip
"""Settings of a tenant that count for nothing: there is one listener, and strangers are treated alike everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """Every setting of a host. What bounds a tenant bounds each tenant by itself."""

    tenants: int = _setting(64, "tenants that there may be at once", floor=1, cap=1000)
    keys: str = _setting(
        "keys", "folder for key files that the host makes, relative to the home; put it on another disk"
    )
    requests: int = _setting(128, "requests that one tenant may have under way", floor=2, cap=10_000)
    requests_per_minute: int = _setting(12_000, "requests to one tenant per minute", floor=10, cap=10_000_000)
    threads: int = _setting(8, "threads that work for one tenant", floor=2, cap=64)
    streams: int = _setting(32, "event streams of one tenant", floor=1, cap=10_000)
    body_memory_mib: int = _setting(
        16, "MiB of one tenant's request bodies that have not fully arrived", floor=2, cap=1024
    )
    database_mib: int = _setting(
        0, "MiB that one tenant's database file may grow to; 0: as the disk allows", floor=0, cap=16_777_216
    )
    database_connections: int = _setting(8, "connections of one tenant to PostgreSQL", floor=2, cap=1000)
    start_together: int = _setting(4, "tenants that come up at the same time", floor=1, cap=64)
    start_wait_s: int = _setting(10, "seconds that a request waits for its tenant to come up", floor=0, cap=300)
    two_operators: bool = _setting(
        False,  # noqa: FBT003
        "the operator who confirms a removal is another than who asked for it",
    )
    phrase_ttl_s: int = _setting(
        600, "seconds that the phrase which confirms a removal is good for", floor=10, cap=86_400
    )


def is_host(home: Path) -> bool:
    """Tell whether a home is a host's."""
    return (home / HOST_FILE).exists()


def default_host_text(values: Mapping[str, str | int | bool | tuple[str, ...]]) -> str:
    """Return a settings file that sets ``values`` and shows every other setting as a comment."""
    head = "# Settings of this host, beside those in config.toml; docs/reference/tenants.md explains each."
    return settings_text(HostConfig, values, head=head, section="host")


def read_host_config(home: Path) -> HostConfig:
    """Return the settings of a host. Raises ``UsageError``."""
    path = home / HOST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{path}: cannot be read"
        raise UsageError(msg, hint="'cloister custodian host init' makes a host") from exc
    return HostConfig(**read_section(text, "host", HostConfig))  # type: ignore[arg-type]  # typed by the defaults


def bounded(config: Config, *, listener: Config, host: HostConfig, url: str) -> Config:
    """Return what counts of a tenant's settings: its own within the host's bounds, the listener's where there is one.

    What strangers may do how often is the same for all tenants: else a count would tell which there are.
    """
    most = host.database_mib or config.database_mib
    return replace(
        config,
        url=url,
        **{name: getattr(listener, name) for name in LISTENERS - {"url"}},
        event_streams=min(config.event_streams, host.streams),
        body_memory_mib=min(config.body_memory_mib, host.body_memory_mib),
        database_connections=min(config.database_connections, host.database_connections),
        database_mib=min(config.database_mib or most, most),
    )
