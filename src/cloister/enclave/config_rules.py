"""Which settings of an enclave go together (docs/reference/enclave-settings.md)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from cloister.enclave.modes import ListenerCertificate, Profile, Relays, Tls
from cloister.errors import UsageError
from cloister.stores import ModelUrl

if TYPE_CHECKING:
    from cloister.enclave.config import EnclaveConfig

__all__ = ["demand_sane"]


def demand_sane(config: EnclaveConfig) -> None:
    """Raise ``UsageError`` for settings that contradict each other, or that the profile refuses."""
    _demand_tls(config)
    _demand_models(config)
    exposed = config.tls is Tls.OFF and not config.behind_proxy and not _is_loopback(config.host)
    if config.profile is Profile.PRODUCTION and exposed:
        msg = f"listen: {config.host} without tls"
        raise UsageError(msg, hint="set tls = 'generated' or 'files', or behind_proxy = true where a proxy ends tls")


def _demand_tls(config: EnclaveConfig) -> None:
    files = (config.tls_certificate, config.tls_key)
    if (config.tls is Tls.FILES) != all(files) or (config.tls is not Tls.FILES and any(files)):
        msg = "tls: want tls = 'files' together with tls_certificate and tls_key"
        raise UsageError(msg)
    if config.client_certificates and config.tls is not Tls.GENERATED:
        msg = "client_certificates: want tls = 'generated', which ends in the enclave"
        raise UsageError(msg)
    issued = config.listener_certificate is ListenerCertificate.ISSUED
    if issued and (config.tls is not Tls.GENERATED or config.airgapped):
        msg = "listener_certificate: 'issued' wants tls = 'generated', and a connection to the custodian"
        raise UsageError(msg)
    if config.relays is not Relays.OFF and not issued:
        msg = "relays: want listener_certificate = 'issued', with which the authorities of relays come"
        raise UsageError(msg)


def _demand_models(config: EnclaveConfig) -> None:
    if config.airgapped and config.media is None:
        msg = "airgapped: want media, the folder in which files come and go"
        raise UsageError(msg)
    if not config.models:
        msg = "models: none, want the folder or url of at least one sealed model"
        raise UsageError(msg)
    urls = [place for place in config.models if isinstance(place, ModelUrl)]
    if config.airgapped and urls:
        msg = "airgapped: want folders of sealed models, for no connection is opened"
        raise UsageError(msg)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
