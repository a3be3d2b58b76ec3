"""Settings of a custodian: one frozen value, every limit with its unit (docs/reference/settings.md).

Read from a TOML file and from environment variables ``CLOISTER_CUSTODIAN_<NAME>``, which win. Unknown
keys, wrong types and values out of range are refused; nothing is guessed.

Not done here: secrets. No setting holds one, so a config may be shown and logged.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

from cloister.errors import Malformed, UsageError
from cloister.lending.clock_trust import CLOCK_TEES
from cloister.lending.tlog.note import NoteKey, SignatureKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

__all__ = [
    "BUILT_AT_YEAR",
    "ENV_PREFIX",
    "MAX_BODY_BYTES",
    "NOT_SETTINGS",
    "Config",
    "Profile",
    "default_config_text",
    "load_config",
    "read_config",
    "setting_names",
]

ENV_PREFIX = "CLOISTER_CUSTODIAN_"
NOT_SETTINGS = frozenset({
    "PASSPHRASE", "PASSPHRASE_FILE", "KEY_FILE", "HOME", "TOKEN", "TOKEN_FILE", "CA",
    "VAULT", "PKCS11_MODULE", "PKCS11_PIN", "PKCS11_PIN_FILE", "TRANSIT_TOKEN_FILE", "TPM",
    "KMIP_SERVER", "KMIP_CA", "KMIP_CERT", "KMIP_KEY",
})  # fmt: skip
"""Suffixes of environment variables that the command line reads itself; they are no settings."""

MAX_BODY_BYTES = 1 << 20  # bytes of one HTTP request body
BUILT_AT_YEAR = 2026  # a clock before this year is wrong: nothing was built then
_MAX_CONFIG_BYTES = 64 * 1024
_MAX_WITNESSES = 16
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class Profile(Enum):
    """How strict a custodian is about itself: ``production`` refuses every insecure setting."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


def _setting(default: object, doc: str, *, floor: int = 0, cap: int = 0) -> Any:
    """Declare one setting: its default, what it means, its range."""
    return field(default=default, metadata={"doc": doc, "floor": floor, "cap": cap})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting of a custodian. Times are seconds, sizes bytes, rates per minute."""

    name: str = _setting("custodian", "name that borrowers and consumers are shown")
    profile: str = _setting("development", "`development`, or `production`: insecure settings refused")
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8443, "port to listen on; 0 lets the system choose", floor=0, cap=65535)
    url: str = _setting("", "public base URL written into loan files; empty: built from the first name and the port")
    names: tuple[str, ...] = _setting(("localhost", "127.0.0.1"), "host names and addresses in the server certificate")
    tls: bool = _setting(True, "serve TLS; `false` is insecure and only for loopback")  # noqa: FBT003
    tls_minimum: str = _setting("1.3", "lowest TLS version: `1.3` or `1.2`")
    database: str = _setting(
        "custodian.db", "database file, relative to the home, or `postgresql://USER@HOST/NAME` for several custodians"
    )
    checkpoint: str = _setting(
        "checkpoint.json", "signed log checkpoint, relative to the home; put it on a second disk"
    )
    nonce_ttl_s: int = _setting(60, "seconds a challenge is good for", floor=1, cap=600)
    nonces_per_loan: int = _setting(64, "open challenges one loan may hold", floor=1, cap=10_000)
    challenges_per_minute: int = _setting(60, "challenges per minute and loan", floor=1, cap=100_000)
    forks_per_minute: int = _setting(10, "submissions of fork evidence per minute and address", floor=1, cap=100_000)
    failures_per_minute: int = _setting(60, "failed logins per minute and address", floor=1, cap=100_000)
    evidence_max_age_s: int = _setting(
        86_400, "seconds after which an instance must attest anew", floor=60, cap=31_536_000
    )
    lease_ttl_s: int = _setting(60, "T: seconds a lease lives, for loans that name none", floor=1, cap=3600)
    max_ceiling: int = _setting(
        1000,
        "N: most units an instance may hold unserved; loans that name none get at most a tenth of their allowance",
        floor=1,
        cap=1_000_000,
    )
    clock_tees: tuple[str, ...] = _setting(
        ("simulated", "snp", "tdx"),
        "TEEs whose clock counts as outside the host's control; instances of others hold fewer units",
    )
    secure_tsc_measurements: tuple[str, ...] = _setting(
        (), "launch measurements (hex) of SEV-SNP guests with SecureTSC: their clock counts"
    )
    max_instances: int = _setting(4, "instances that may live at once, for loans that name none", floor=1, cap=1000)
    idempotency_ttl_s: int = _setting(86_400, "seconds an Idempotency-Key is remembered", floor=60, cap=31_536_000)
    sweep_interval_s: int = _setting(5, "seconds between two sweeps for dead instances", floor=1, cap=3600)
    event_streams: int = _setting(32, "event streams open at once", floor=1, cap=10_000)
    connections: int = _setting(
        2048,
        "connections open at once; the one that has been idle the longest makes room for a new one",
        floor=1,
        cap=100_000,
    )
    request_timeout_s: int = _setting(30, "seconds a client may take to send one request", floor=1, cap=3600)
    shutdown_grace_s: int = _setting(5, "seconds running requests may take after a stop signal", floor=0, cap=3600)
    ek_roots: tuple[str, ...] = _setting((), "PEM files with TPM vendors' endorsement roots, relative to the home")
    pinned_eks: tuple[str, ...] = _setting((), "endorsement keys accepted by hand: SHA-256 of the public key, hex")
    tpm_authorities: tuple[str, ...] = _setting(
        (), "PEM files with further authorities whose TPM identities are accepted"
    )

    arm_anchors: tuple[str, ...] = _setting(
        (), "JSON files with device keys for Arm PSA and CCA tokens, relative to the home; none: those are refused"
    )
    maa_hosts: tuple[str, ...] = _setting(
        (),
        "Azure Attestation providers whose tokens count; asked for their keys where `endorsements_online`",
    )
    token_audiences: tuple[str, ...] = _setting(
        (), "audiences that Confidential Space tokens may be to; none: those are refused"
    )
    endorsement_bundle: str = _setting(
        "endorsements.bundle", "signed bundle of vendors' endorsements, relative to the home; may be absent"
    )
    endorsement_keys: tuple[str, ...] = _setting(
        (), "public keys (base64url) whose endorsement bundles are accepted beside the custodian's own"
    )
    endorsements_online: bool = _setting(
        False,  # noqa: FBT003
        "ask vendors' services for endorsements; `false` opens no connection to anybody",
    )
    endorsement_proxies: bool = _setting(False, "take a proxy from the environment when asking them")  # noqa: FBT003
    endorsement_cache: str = _setting("endorsements", "folder for what they answered, relative to the home")
    jwks_hosts: tuple[str, ...] = _setting(
        (), "token services whose keys are asked for: `HOST`, or `HOST/PATH` where the keys lie elsewhere"
    )
    witnesses: tuple[str, ...] = _setting(
        (), "keys of witnesses whose cosignatures are kept and served (`name+hash+key`), at most 16"
    )
    witness_window_s: int = _setting(
        60,
        "seconds that one checkpoint is offered to witnesses, so that they meet at one size; 0: always the newest",
        cap=3600,
    )
    release_retention_days: int = _setting(
        365, "days that evidence and endorsements of a key release are kept for recall", floor=1, cap=3650
    )
    kek_retention_days: int = _setting(
        30, "days that a retired key-encryption key is kept before it is destroyed", floor=0, cap=3650
    )
    unsigned_contracts: bool = _setting(
        False,  # noqa: FBT003
        "profile `production` lends to borrowers who sign no contract too; other profiles always do",
    )
    stop_on_recall: bool = _setting(
        False,  # noqa: FBT003
        "a recall blocks the instances that fall, where it does not say otherwise",
    )

    @property
    def is_production(self) -> bool:
        """Tell whether insecure settings are refused."""
        return self.profile == Profile.PRODUCTION.value

    @property
    def is_shared(self) -> bool:
        """Tell whether other custodians may run over the same database."""
        return self.database.startswith(("postgresql://", "postgres://"))

    @property
    def is_loopback(self) -> bool:
        """Tell whether the custodian listens where only this machine reaches it."""
        return self.host == "localhost" or (_is_address(self.host) and ipaddress.ip_address(self.host).is_loopback)

    def public_url(self, port: int) -> str:
        """Return the base URL borrowers use, with the port the server really has."""
        if self.url:
            return self.url.rstrip("/")
        name = f"[{self.names[0]}]" if ":" in self.names[0] else self.names[0]
        return f"{'https' if self.tls else 'http'}://{name}:{port}"


def setting_names() -> tuple[str, ...]:
    """Return the names of all settings, in order."""
    return tuple(item.name for item in fields(Config))


def read_config(home: Path, *, environment: Mapping[str, str], now: datetime) -> Config:
    """Return the settings of a home. Raises ``UsageError``."""
    path = home / "config.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{path}: cannot be read"
        raise UsageError(msg, hint="run cloister custodian init first") from exc
    return load_config(text, environment=environment, now=now)


def load_config(text: str, *, environment: Mapping[str, str], now: datetime) -> Config:
    """Return the settings of a TOML document, overridden by environment variables.

    Raises ``UsageError`` for syntax, unknown keys, wrong types, values out of range, insecure values
    in the production profile, and a clock that stands before this program was written.
    """
    values = _from_toml(text) | _from_environment(environment)
    config = Config(**values)  # type: ignore[arg-type]  # each value was typed by its setting's default
    _refuse_nonsense(config)
    _refuse_insecure(config)
    if now.year < BUILT_AT_YEAR:
        msg = f"clock: the year is {now.year}, want at least {BUILT_AT_YEAR}"
        raise UsageError(msg, hint="set the clock; leases and certificates depend on it")
    return config


def default_config_text(values: Mapping[str, str | int | bool | tuple[str, ...]]) -> str:
    """Return a config file that sets ``values`` and shows every other setting as a comment."""
    lines = ["# Settings of this custodian; docs/reference/settings.md explains each.", "[custodian]"]
    for item in fields(Config):
        mark = "" if item.name in values else "# "
        lines.append(f"{mark}{item.name} = {_toml(values.get(item.name, item.default))}  # {item.metadata['doc']}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value) if isinstance(value, int) else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _from_toml(text: str) -> dict[str, object]:
    if len(text) > _MAX_CONFIG_BYTES:
        msg = f"config: {len(text)} characters, want at most {_MAX_CONFIG_BYTES}"
        raise UsageError(msg)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # tomllib lets a number of too many digits and deep nesting through
        msg = f"config: {exc}" if isinstance(exc, tomllib.TOMLDecodeError) else "config: not toml that can be read"
        raise UsageError(msg, hint="see docs/reference/settings.md") from exc
    for key in document:
        if key != "custodian":
            _fail(f"line {_line(text, key)}: unknown section or key {key!r}, want [custodian]")
    section = document.get("custodian", {})
    if not isinstance(section, dict):
        _fail("custodian: want a section")
    known = {item.name: item for item in fields(Config)}
    values: dict[str, object] = {}
    for key, value in section.items():
        if key not in known:
            _fail(f"line {_line(text, key)}: unknown setting {key!r}")
        values[key] = _typed(key, value)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    defaults = {item.name: item.default for item in fields(Config)}
    values: dict[str, object] = {}
    for variable, text in environment.items():
        suffix = variable.removeprefix(ENV_PREFIX)
        if suffix == variable or suffix in NOT_SETTINGS:
            continue
        name = suffix.lower()
        if name not in defaults or suffix != name.upper():
            _fail(f"environment: {variable} is no setting")
        values[name] = _typed(name, _untext(name, text, defaults[name]))
    return values


def _untext(name: str, text: str, default: object) -> object:
    """Return the value that ``text`` spells for a setting with this default."""
    if isinstance(default, bool):
        if text not in {"true", "false"}:
            _fail(f"{name}: want true or false")
        return text == "true"
    if isinstance(default, int):
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
            _fail(f"{name}: want an integer")
        return int(text)
    if isinstance(default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _typed(name: str, value: object) -> object:
    """Return ``value`` if it has the type and range of setting ``name``."""
    setting = next(item for item in fields(Config) if item.name == name)
    default, floor, cap = setting.default, setting.metadata["floor"], setting.metadata["cap"]
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            _fail(f"{name}: want an array of strings")
        return tuple(value)
    if type(value) is not type(default):
        _fail(f"{name}: want {_KIND[type(default)]}")
    if isinstance(value, int) and not isinstance(value, bool) and not floor <= value <= cap:
        _fail(f"{name}: {value} is outside {floor}..{cap}")
    if isinstance(value, str) and not value.isprintable():
        _fail(f"{name}: control character")
    return value


_KIND = {str: "a string", int: "an integer", bool: "true or false"}


def _refuse_nonsense(config: Config) -> None:
    if config.profile not in {profile.value for profile in Profile}:
        _fail(f"profile: {config.profile!r}, want development or production")
    if config.tls_minimum not in {"1.2", "1.3"}:
        _fail(f"tls_minimum: {config.tls_minimum!r}, want 1.2 or 1.3")
    if not config.names or not all(_is_address(name) or _NAME.fullmatch(name) for name in config.names):
        _fail("names: want at least one host name or address")
    if config.url and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", config.url):
        _fail("url: want https://host[:port][/path]")
    if not CLOCK_TEES.issuperset(config.clock_tees):
        _fail(f"clock_tees: want some of {', '.join(sorted(CLOCK_TEES))}")
    if not all(re.fullmatch(r"[0-9a-f]{96}", item) for item in config.secure_tsc_measurements):
        _fail("secure_tsc_measurements: want 48 bytes each, lower-case hex")
    if not all(_KEY.fullmatch(key) for key in config.endorsement_keys):
        _fail("endorsement_keys: want public keys, base64url of 32 bytes")
    _refuse_database(config)
    _refuse_witnesses(config.witnesses)
    if not config.name or len(config.name) > 200:  # noqa: PLR2004 - as for a borrower's name in the terms
        _fail("name: want 1 to 200 characters")


def _refuse_witnesses(witnesses: tuple[str, ...]) -> None:
    """Refuse what is no cosigner's key, and two of one name or key: a quorum counts each once."""
    try:
        keys = [NoteKey.parse(text) for text in witnesses]
    except Malformed as exc:
        _fail(f"witnesses: {exc.message}", hint="'cloister audit witness' prints the key of a witness")
    if len(keys) > _MAX_WITNESSES or not all(key.kind is SignatureKind.COSIGNATURE for key in keys):
        _fail(f"witnesses: want at most {_MAX_WITNESSES} keys of cosigners")
    if len({key.name for key in keys}) < len(keys) or len({key.key for key in keys}) < len(keys):
        _fail("witnesses: two of one name, or of one key")


def _refuse_database(config: Config) -> None:
    """Refuse a URL of another kind, and one with a password in it, which a setting must not hold."""
    if "://" in config.database and not config.is_shared:
        _fail("database: want a file, or postgresql://user@host:port/name")
    if re.search(r"://[^/?#]*:[^/?#@]*@|[?&]password=", config.database):
        _fail("database: the url holds a password", hint="put it into a password file (PGPASSFILE, mode 0600)")


def _refuse_insecure(config: Config) -> None:
    """Refuse what production must not do, and plain HTTP beyond loopback in every profile."""
    if not config.tls and not config.is_loopback:
        _fail("tls: false while listening beyond loopback", hint="set tls = true, or host = 127.0.0.1")
    if config.is_production and not config.tls:
        _fail("tls: false is insecure and refused by profile production")
    if config.is_production and config.url.startswith("http://"):
        _fail("url: plain http is refused by profile production")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _line(text: str, key: str) -> int:
    """Return the first line that names ``key``, for the reader of an error."""
    pattern = re.compile(rf"^\s*\[?\s*[\"']?{re.escape(key)}\b")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def _fail(detail: str, *, hint: str | None = None) -> NoReturn:
    msg = f"config: {detail}"
    raise UsageError(msg, hint=hint or "see docs/reference/settings.md")
