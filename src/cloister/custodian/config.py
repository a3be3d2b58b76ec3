"""Settings of a custodian: one frozen value, every limit with its unit (docs/reference/settings.md).

No setting holds a secret, so a config may be shown and logged.

Not done here: reading it (``config_file``), and what does not go together (``config_rules``).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields
from enum import Enum

from cloister.serving.settings import declare as _setting

__all__ = [
    "BUILT_AT_YEAR",
    "ENV_PREFIX",
    "MAX_BODY_BYTES",
    "MTLS_MODES",
    "NOT_SETTINGS",
    "Config",
    "Profile",
    "is_address",
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
MTLS_MODES = ("off", "accept", "require")
BUILT_AT_YEAR = 2026  # a clock before this year is wrong: nothing was built then


class Profile(Enum):
    """How strict a custodian is about itself: ``production`` refuses every insecure setting."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


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
    tls_certificate: str = _setting(
        "", "PEM file with a server certificate of another authority and those above it; empty: the custodian's own"
    )
    tls_key: str = _setting("", "PEM file with its key, mode 0600")
    tls_ca: str = _setting(
        "", "PEM file with the authority of `tls_certificate` for loan files; empty: the borrower's system knows it"
    )
    acme_directory: str = _setting(
        "",
        "URL of an ACME authority's directory, to get server certificates from; to set it agrees to its terms",
    )
    acme_contact: str = _setting("", "e-mail address that the authority may write to")
    acme_http: str = _setting(":80", "`HOST:PORT` where its http-01 challenges are answered, while an order runs")
    acme_ca: str = _setting("", "PEM file with the authority of its own server; empty: the system knows it")
    mtls: str = _setting(
        "off", "certificates of attested instances: `off`, `accept`, or `require` them where they call"
    )
    mtls_tokens: str = _setting(
        "off", "certificates beside tokens: `off`, `accept`, or `require` one of the token's own"
    )
    trust_domain: str = _setting("", "domain of the names in certificates; empty: made from the custodian's key")
    certificate_life_s: int = _setting(3600, "seconds an instance's certificate lives", floor=60, cap=86_400)
    certificate_max_life_s: int = _setting(
        43_200, "seconds that a certificate asked for with a token lives at most", floor=60, cap=604_800
    )
    authority_life_days: int = _setting(
        30, "days an authority for these certificates lives; a successor comes halfway", floor=1, cap=3650
    )
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
    body_memory_mib: int = _setting(
        64, "MiB of request bodies that have not fully arrived, over all requests", floor=2, cap=65_536
    )
    database_mib: int = _setting(
        0, "MiB that a database file may grow to; 0: as the disk allows", floor=0, cap=16_777_216
    )
    database_connections: int = _setting(16, "connections to a PostgreSQL database at once", floor=2, cap=1000)
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
    issuer_addresses: str = _setting(
        "public",
        "where issuers' keys may be fetched: `public` addresses, `site` private ones too, `loopback` this machine too",
    )
    issuer_ca: str = _setting("", "PEM file with further authorities of issuers' web servers, relative to the home")
    witnesses: tuple[str, ...] = _setting(
        (), "keys of witnesses whose cosignatures are kept and served (`name+hash+key`), at most 16"
    )
    witness_window_s: int = _setting(
        60,
        "seconds that one checkpoint is offered to witnesses, so that they meet at one size; 0: always the newest",
        cap=3600,
    )
    audit_committed: tuple[str, ...] = _setting(
        ("borrower", "reason"), "details that audit entries commit to instead of showing them"
    )
    audit_security_days: int = _setting(2192, "days audit entries about security are kept; 0: for ever", cap=36_500)
    audit_billing_days: int = _setting(3653, "days audit entries about units are kept; 0: for ever", cap=36_500)
    audit_access_days: int = _setting(2192, "days audit entries about access are kept; 0: for ever", cap=36_500)
    audit_operational_days: int = _setting(400, "days audit entries about operation are kept; 0: for ever", cap=36_500)
    release_retention_days: int = _setting(
        365, "days that evidence and endorsements of a key release are kept for recall", floor=1, cap=3650
    )
    kek_retention_days: int = _setting(
        30, "days that a retired key-encryption key is kept before it is destroyed", floor=0, cap=3650
    )
    two_person: tuple[str, ...] = _setting(
        ("profile",),
        "operations that a second person has to approve: `policy`, `unblock`, `person`, `rotation`, `erasure`, "
        "`issuer`, `key_export`, `key_recovery`; `profile`: none in development, all but `issuer` in production once "
        "two admins are named",
    )
    proposal_ttl_s: int = _setting(86_400, "seconds a proposal waits for a second person", floor=60, cap=2_592_000)
    permit_ttl_s: int = _setting(3600, "seconds a permit to split the vault is good for", floor=60, cap=86_400)
    session_ttl_s: int = _setting(900, "seconds a session is good for before it is renewed", floor=60, cap=43_200)
    session_max_s: int = _setting(43_200, "seconds a session can be renewed for in all", floor=60, cap=43_200)
    dpop_nonce: bool = _setting(
        False,  # noqa: FBT003
        "proofs of possession want a nonce of this process; over a shared database they always do",
    )
    unsigned_contracts: bool = _setting(
        False,  # noqa: FBT003
        "profile `production` lends to borrowers who sign no contract too; other profiles always do",
    )
    attest_service: bool = _setting(
        False,  # noqa: FBT003
        "serve an attestation service below `/attest`, by `attest.toml` in the home",
    )
    dashboard: bool = _setting(True, "serve the custodian's pages below `/ui`")  # noqa: FBT003
    metrics: str = _setting("", "address of their own at which metrics are shown, `HOST:PORT`; empty: nowhere")
    metrics_token_file: str = _setting(
        "", "file with the token that a scraper shows, relative to the home; demanded beyond loopback"
    )
    metrics_loans: bool = _setting(False, "show what each loan has left, under its id")  # noqa: FBT003
    traces: str = _setting("", "base URL of an OpenTelemetry collector that spans are sent to; empty: nowhere")
    traces_percent: int = _setting(100, "of a hundred traces so many are sent", floor=1, cap=100)
    disk_floor_mib: int = _setting(64, "MiB free on the custodian's disks below which it says so", cap=1_048_576)
    alarm_window_s: int = _setting(
        600,
        "seconds that what happened counts for an alarm: attestations refused, instances lost",
        floor=10,
        cap=86_400,
    )
    alarm_attestations: int = _setting(
        5, "refused attestations within that time that are an alarm", floor=1, cap=100_000
    )
    allowance_low_percent: int = _setting(
        10, "share of what a loan in use was granted, below which what it has left is an alarm", floor=0, cap=100
    )
    key_age_days: int = _setting(90, "age of the key-encryption key that is an alarm; 0: none", floor=0, cap=3650)
    certificate_days: int = _setting(
        21, "days before the end of a certificate or of the endorsements that are an alarm", floor=0, cap=365
    )
    witness_late_s: int = _setting(3600, "seconds a witness may take to cosign what is logged", floor=10, cap=2_592_000)
    stop_on_recall: bool = _setting(
        False,  # noqa: FBT003
        "a recall blocks the instances that fall, where it does not say otherwise",
    )

    @property
    def is_production(self) -> bool:
        """Tell whether insecure settings are refused."""
        return self.profile == Profile.PRODUCTION.value

    @property
    def is_outside(self) -> bool:
        """Tell whether the server's certificate is of another authority than the custodian's own."""
        return bool(self.tls_certificate or self.acme_directory)

    @property
    def is_shared(self) -> bool:
        """Tell whether other custodians may run over the same database."""
        return self.database.startswith(("postgresql://", "postgres://"))

    @property
    def is_loopback(self) -> bool:
        """Tell whether the custodian listens where only this machine reaches it."""
        return self.host == "localhost" or (is_address(self.host) and ipaddress.ip_address(self.host).is_loopback)

    def public_url(self, port: int) -> str:
        """Return the base URL borrowers use, with the port the server really has."""
        if self.url:
            return self.url.rstrip("/")
        name = f"[{self.names[0]}]" if ":" in self.names[0] else self.names[0]
        return f"{'https' if self.tls else 'http'}://{name}:{port}"


def setting_names() -> tuple[str, ...]:
    """Return the names of all settings, in order."""
    return tuple(item.name for item in fields(Config))


def is_address(text: str) -> bool:
    """Tell whether a name is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
