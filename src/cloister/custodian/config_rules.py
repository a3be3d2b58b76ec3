"""What settings must not say together: nonsense, and what is insecure."""

from __future__ import annotations

import re
from typing import NoReturn

from cloister.custodian.config import MTLS_MODES, Config, Profile, is_address
from cloister.custodian.duty import AS_THE_PROFILE_SAYS, Operation
from cloister.custodian.guarded_get import Reach
from cloister.errors import Malformed, UsageError
from cloister.lending.clock_trust import CLOCK_TEES
from cloister.lending.events import DETAILS
from cloister.lending.peer_name import TRUST_DOMAIN
from cloister.lending.tlog.note import NoteKey, SignatureKind

__all__ = ["fail", "refuse_insecure", "refuse_nonsense"]

_MAX_WITNESSES = 16
_COMMITTABLE = frozenset(DETAILS) - {
    "before", "consumer", "custodian", "first", "kind", "last", "loan", "meter", "root", "seq", "size", "subject",
}  # fmt: skip
"""Details of which nothing that reads the log depends."""

_MAX_PORT = 0xFFFF
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def refuse_nonsense(config: Config) -> None:
    """Refuse values that mean nothing. Raises ``UsageError``."""
    _refuse_other_words(config)
    if not config.names or not all(is_address(name) or _NAME.fullmatch(name) for name in config.names):
        fail("names: want at least one host name or address")
    if config.url and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", config.url):
        fail("url: want https://host[:port][/path]")
    if not CLOCK_TEES.issuperset(config.clock_tees):
        fail(f"clock_tees: want some of {', '.join(sorted(CLOCK_TEES))}")
    if not all(re.fullmatch(r"[0-9a-f]{96}", item) for item in config.secure_tsc_measurements):
        fail("secure_tsc_measurements: want 48 bytes each, lower-case hex")
    if not all(_KEY.fullmatch(key) for key in config.endorsement_keys):
        fail("endorsement_keys: want public keys, base64url of 32 bytes")
    _refuse_access(config)
    _refuse_certificates(config)
    _refuse_metrics(config)
    _refuse_database(config)
    _refuse_log(config)
    if not config.name or len(config.name) > 200:  # noqa: PLR2004 - as for a borrower's name in the terms
        fail("name: want 1 to 200 characters")


def _refuse_certificates(config: Config) -> None:
    """Refuse what would leave peers without a certificate, or a listener without one of its own."""
    for name in ("mtls", "mtls_tokens"):
        value = getattr(config, name)
        if value not in MTLS_MODES:
            fail(f"{name}: {value!r}, want off, accept or require")
        if value != "off" and not config.tls:
            fail(f"{name}: {value} without tls")
    if config.trust_domain and not TRUST_DOMAIN.fullmatch(config.trust_domain):
        fail("trust_domain: want lower-case letters, digits, dots, dashes and underscores")
    longest = max(config.certificate_life_s, config.certificate_max_life_s)
    if config.authority_life_days * 86_400 < 4 * longest:
        fail("authority_life_days: want four times the longest life of a certificate at least")
    if bool(config.tls_certificate) != bool(config.tls_key):
        fail("tls_certificate and tls_key: want both or neither")
    if config.tls_ca and not config.is_outside:
        fail("tls_ca: of what? want tls_certificate or acme_directory too")
    if config.acme_directory:
        _refuse_acme(config)


def _refuse_acme(config: Config) -> None:
    """Refuse what no order could come of."""
    if not re.fullmatch(r"https://[^\s/?#@]+(/[^\s?#]*)?", config.acme_directory):
        fail("acme_directory: want https://host[:port]/path")
    if config.tls_certificate:
        fail("acme_directory: and tls_certificate; want one of them")
    if not config.tls:
        fail("acme_directory: without tls")
    if all(is_address(name) for name in config.names):
        fail("names: addresses only, and acme_directory certifies host names")
    if not re.fullmatch(r"[^\s:]*:\d{1,5}", config.acme_http) or int(config.acme_http.rpartition(":")[2]) > _MAX_PORT:
        fail("acme_http: want HOST:PORT")
    if config.acme_contact and not re.fullmatch(r"[^\s@]+@[^\s@]+", config.acme_contact):
        fail("acme_contact: want an e-mail address")


def _refuse_access(config: Config) -> None:
    """Refuse operations that there are not, and sessions that end before they are renewed."""
    if config.two_person != (AS_THE_PROFILE_SAYS,) and not {item.value for item in Operation}.issuperset(
        config.two_person
    ):
        fail(f"two_person: want {AS_THE_PROFILE_SAYS}, or some of {', '.join(item.value for item in Operation)}")
    if config.session_ttl_s > config.session_max_s:
        fail("session_ttl_s: more than session_max_s")


def _refuse_log(config: Config) -> None:
    if not _COMMITTABLE.issuperset(config.audit_committed):
        fail(f"audit_committed: want some of {', '.join(sorted(_COMMITTABLE))}")
    _refuse_witnesses(config.witnesses)


def _refuse_other_words(config: Config) -> None:
    """Refuse a word that is none of those a setting has."""
    if config.profile not in {profile.value for profile in Profile}:
        fail(f"profile: {config.profile!r}, want development or production")
    if config.tls_minimum not in {"1.2", "1.3"}:
        fail(f"tls_minimum: {config.tls_minimum!r}, want 1.2 or 1.3")
    if config.issuer_addresses not in {reach.value for reach in Reach}:
        fail(f"issuer_addresses: {config.issuer_addresses!r}, want public, site or loopback")


def _refuse_witnesses(witnesses: tuple[str, ...]) -> None:
    """Refuse what is no cosigner's key, and two of one name or key: a quorum counts each once."""
    try:
        keys = [NoteKey.parse(text) for text in witnesses]
    except Malformed as exc:
        fail(f"witnesses: {exc.message}", hint="'cloister audit witness' prints the key of a witness")
    if len(keys) > _MAX_WITNESSES or not all(key.kind is SignatureKind.COSIGNATURE for key in keys):
        fail(f"witnesses: want at most {_MAX_WITNESSES} keys of cosigners")
    if len({key.name for key in keys}) < len(keys) or len({key.key for key in keys}) < len(keys):
        fail("witnesses: two of one name, or of one key")


def _refuse_metrics(config: Config) -> None:
    """Refuse a token without the address that it is for."""
    if config.metrics_token_file and not config.metrics:
        fail("metrics_token_file: want metrics, the address, too")


def _refuse_database(config: Config) -> None:
    """Refuse a URL of another kind, and one with a password in it, which a setting must not hold."""
    if "://" in config.database and not config.is_shared:
        fail("database: want a file, or postgresql://user@host:port/name")
    if re.search(r"://[^/?#]*:[^/?#@]*@|[?&]password=", config.database):
        fail("database: the url holds a password", hint="put it into a password file (PGPASSFILE, mode 0600)")


def refuse_insecure(config: Config) -> None:
    """Refuse what production must not do, and plain HTTP beyond loopback in every profile."""
    if not config.tls and not config.is_loopback:
        fail("tls: false while listening beyond loopback", hint="set tls = true, or host = 127.0.0.1")
    if config.is_production and not config.tls:
        fail("tls: false is insecure and refused by profile production")
    if config.is_production and config.issuer_addresses == Reach.LOOPBACK.value:
        fail("issuer_addresses: loopback is refused by profile production")
    if config.is_production and config.url.startswith("http://"):
        fail("url: plain http is refused by profile production")


def fail(detail: str, *, hint: str | None = None) -> NoReturn:
    """Raise ``UsageError`` for a setting."""
    msg = f"config: {detail}"
    raise UsageError(msg, hint=hint or "see docs/reference/settings.md")
