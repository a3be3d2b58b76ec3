"""An attestation service's home: a folder with its settings, and what they name.

    home/  service.toml  callers  signing-keys.json  endorsements/  policies as the settings name them

Opening it puts a service together. Not done here: sockets (``serve``), and what another server's vault and verifier
take the place of (``Parts``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloister.attest.chain import parse_certificates
from cloister.attest.endorse import FirstOf
from cloister.attest.endorse.fetch import FolderEndorsements, OnlineEndorsements, https_client
from cloister.attest.endorse.sources import Sources
from cloister.attest.endorse.vouch import production_vouch
from cloister.attest.schemes.site import Site
from cloister.errors import UsageError
from cloister.private_file import write_private
from cloister.serving.bodies import MAX_WAITING_BYTES
from cloister.verifier.app import create_app
from cloister.verifier.callers import Callers
from cloister.verifier.challenges import Challenges
from cloister.verifier.keyfile import KeyFile
from cloister.verifier.limits import Limits
from cloister.verifier.metrics import VerifierMetrics
from cloister.verifier.policies import read_policies
from cloister.verifier.results import Results
from cloister.verifier.ring import KeyPlan
from cloister.verifier.service import AttestationService
from cloister.verifier.settings import MAX_TOKEN_TTL_S, PolicySettings, Settings
from cloister.verifier.settings_file import parse_settings, settings_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from starlette.applications import Starlette

    from cloister.attest.endorse import Endorsements
    from cloister.attest.verifier import Verifier
    from cloister.verifier.guest import Guest
    from cloister.verifier.keyfile import Wrapper

__all__ = ["SETTINGS_NAME", "Opened", "init_home", "key_file", "open_home", "read_home", "utc_now"]

SETTINGS_NAME = "service.toml"
_KEEP = timedelta(seconds=MAX_TOKEN_TTL_S + 300)  # a retired key outlives every token, and clocks that are behind
_MAX_PEM_BYTES = 1 << 20


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A service that can be asked, and its HTTP face."""

    settings: Settings
    service: AttestationService
    app: Starlette
    callers: Callers
    limits: Limits
    metrics: VerifierMetrics


def init_home(home: Path, *, issuer: str) -> Path:
    """Make a home with a settings file to fill in; return that. Raises ``UsageError`` where there is one."""
    text = settings_text(issuer=issuer)
    parse_settings(text)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        msg = f"{home}: {exc.strerror}"
        raise UsageError(msg) from exc
    path = home / SETTINGS_NAME
    write_private(path, text.encode(), hint="edit it; nothing is ever replaced")
    return path


def read_home(path: Path) -> tuple[Settings, Mapping[str, PolicySettings]]:
    """Return the settings in a file. Raises ``UsageError``."""
    try:
        return parse_settings(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{path}: cannot be read"
        raise UsageError(msg, hint="make one by 'cloister attest setup'") from exc


def key_file(home: Path, settings: Settings, algorithms: frozenset[str], *, wrapper: Wrapper | None = None) -> KeyFile:
    """Return the home's signing keys."""
    plan = KeyPlan(
        life=timedelta(seconds=settings.key_life_s), ahead=timedelta(seconds=settings.key_ahead_s), keep=_KEEP
    )
    return KeyFile(home / settings.keys, plan, algorithms, wrapper=wrapper)


def open_home(
    home: Path,
    *,
    make_verifier: Callable[[Site], Verifier],
    settings_path: Path | None = None,
    endorsements: Endorsements | None = None,
    wrapper: Wrapper | None = None,
    guest: Guest | None = None,
    clock: Callable[[], datetime] = utc_now,
    rng: Callable[[int], bytes] = os.urandom,
) -> Opened:
    """Put the service of a home together.

    ``make_verifier`` gets what this site trusts beside the pinned vendors; ``endorsements`` take the place of those
    that the settings name; ``wrapper`` keeps the keys; ``guest`` bounds a service that others share the process with.
    Raises ``UsageError``, ``Malformed``, ``Unavailable``.
    """
    settings, sections = read_home(settings_path or home / SETTINGS_NAME)
    if guest is not None:
        settings = guest.bounded(home, settings, sections)
    policies = read_policies(home, settings, sections)
    keys = key_file(home, settings, policies.algorithms, wrapper=wrapper)
    keys.ring(clock())  # what is wrong with the file is said at start, not to the first who asks
    service = AttestationService(
        issuer=settings.issuer,
        verifier=make_verifier(_site(home, settings)),
        endorsements=endorsements or _endorsements(home, settings),
        policies=policies,
        keys=keys,
        challenges=Challenges(ttl=timedelta(seconds=settings.nonce_ttl_s), rng=rng),
        results=Results(cap=settings.results),
        clock=clock,
        rng=rng,
    )
    limits, metrics = Limits(settings), VerifierMetrics()
    callers = Callers(home / settings.callers, is_open=settings.open)
    app = create_app(
        service,
        callers=callers,
        limits=limits,
        metrics=metrics,
        request_timeout_s=settings.request_timeout_s,
        waiting_bytes=MAX_WAITING_BYTES if guest is None else guest.waiting_bytes,
        tls=settings.issuer.startswith("https://"),
    )
    return Opened(settings=settings, service=service, app=app, callers=callers, limits=limits, metrics=metrics)


def _site(home: Path, settings: Settings) -> Site:
    return Site(
        tpm_authorities=tuple(
            item.pem for name in settings.tpm_authorities for item in parse_certificates(_file(home / name))
        ),
        arm_anchors=tuple(_file(home / name) for name in settings.arm_anchors),
        maa_hosts=settings.maa_hosts,
        audiences=settings.token_audiences,
    )


def _endorsements(home: Path, settings: Settings) -> Endorsements:
    """Return the sources that the settings name, none of which has a network unless ``endorsements_online`` says so."""
    folder = FolderEndorsements(home / settings.endorsements)
    if not settings.endorsements_online:
        return folder
    online = OnlineEndorsements(
        https_client(environment_proxies=settings.endorsement_proxies),
        vouch=production_vouch(),
        sources=Sources((*settings.jwks_hosts, *settings.maa_hosts)),
        cache=folder,
    )
    return FirstOf(online, folder)


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PEM_BYTES + 1)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if len(data) > _MAX_PEM_BYTES:
        msg = f"{path}: want at most {_MAX_PEM_BYTES} bytes"
        raise UsageError(msg)
    return data
