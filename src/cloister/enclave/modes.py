"""The settings of an enclave that are a choice of few words (docs/reference/enclave-settings.md)."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ListenerCertificate", "Mtls", "Profile", "Relays", "Tls"]


class Profile(StrEnum):
    """How strict to be with settings: production refuses what is fit for a desk only."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Tls(StrEnum):
    """Outer TLS. What keeps bodies secret is the encryption inside; this is armour around it."""

    OFF = "off"
    GENERATED = "generated"
    FILES = "files"


class Mtls(StrEnum):
    """When to have a certificate for the connection to the custodian: once it is wanted there, or from the start."""

    WANTED = "wanted"
    ALWAYS = "always"


class ListenerCertificate(StrEnum):
    """What the listener shows with its generated key: what it signed itself, or the custodian's where there is one."""

    OWN = "own"
    ISSUED = "issued"


class Relays(StrEnum):
    """Whether hosts that bring what consumers ask show a certificate: not asked, looked at, or wanted."""

    OFF = "off"
    ACCEPT = "accept"
    REQUIRE = "require"
