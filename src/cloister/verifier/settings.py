"""Settings of an attestation service, every limit with its unit (docs/reference/attestation-service.md).

No setting holds a secret, so they may be shown and logged. Not done here: reading them (``settings_file``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.errors import UsageError
from cloister.serving.place import is_loopback
from cloister.serving.settings import declare

if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["ALGORITHMS", "MAX_TOKEN_TTL_S", "PolicySettings", "Settings", "fail"]

ALGORITHMS = ("ES256", "RS256")
"""How tokens are signed: what systems of workload identity take (EdDSA is read by few of them)."""
MAX_TOKEN_TTL_S = 3600  # seconds the longest token lives
_HINT = "see docs/reference/attestation-service.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the section ``[service]``. Times are seconds, sizes bytes, rates per minute."""

    issuer: str = declare("", "public URL of this service, `iss` of its tokens; required, https beyond this machine")
    listen: str = declare("127.0.0.1:8490", "address and port to listen on; port 0 lets the system choose")
    tls_certificate: str = declare("", "PEM file with the certificate chain, relative to the home")
    tls_key: str = declare("", "PEM file with its key, relative to the home")
    behind_proxy: bool = declare(False, "another server ends TLS in front: listen without, anywhere")  # noqa: FBT003
    open: bool = declare(False, "answer callers without an API token")  # noqa: FBT003
    callers: str = declare("callers", "file of the API tokens' digests, relative to the home; may be absent")
    default_policy: str = declare("", "id of the policy for requests that name none; empty: they are refused")
    algorithm: str = declare("ES256", "how tokens are signed where a policy does not say: `ES256` or `RS256`")
    token_ttl_s: int = declare(300, "seconds a token lives where a policy does not say", floor=30, cap=MAX_TOKEN_TTL_S)
    nonce_ttl_s: int = declare(60, "seconds a challenge is good for", floor=1, cap=600)
    keys: str = declare("signing-keys.json", "file of the signing keys, relative to the home")
    key_life_s: int = declare(7_776_000, "seconds a key signs before the next does", floor=86_400, cap=31_536_000)
    key_ahead_s: int = declare(
        86_400,
        "seconds the next key is published before it signs: longer than readers keep keys",
        floor=600,
        cap=604_800,
    )
    requests_per_minute: int = declare(60, "verifications per minute and caller", floor=1, cap=1_000_000)
    challenges_per_minute: int = declare(120, "challenges per minute and caller", floor=1, cap=1_000_000)
    pages_per_minute: int = declare(60, "explanations per minute and address", floor=1, cap=1_000_000)
    all_per_minute: int = declare(6_000, "verifications per minute, of all callers together", floor=1, cap=10_000_000)
    verifications: int = declare(4, "verifications at once", floor=1, cap=256)
    waiting: int = declare(64, "verifications that may wait for a place; the next are told 429", floor=0, cap=10_000)
    results: int = declare(256, "results kept for the page, until their tokens end; 0 keeps none", floor=0, cap=100_000)
    connections: int = declare(512, "connections open at once", floor=1, cap=100_000)
    request_timeout_s: int = declare(30, "seconds a client may take to send one request", floor=1, cap=3600)
    endorsements: str = declare("endorsements", "folder with vendors' endorsements, and for what services answered")
    endorsements_online: bool = declare(
        False,  # noqa: FBT003
        "ask vendors' services for endorsements; `false` opens no connection to anybody",
    )
    endorsement_proxies: bool = declare(False, "take a proxy from the environment when asking them")  # noqa: FBT003
    jwks_hosts: tuple[str, ...] = declare((), "token services whose keys are asked for")
    tpm_authorities: tuple[str, ...] = declare((), "PEM files of who enrols TPMs, relative to the home")
    arm_anchors: tuple[str, ...] = declare((), "JSON files with device keys for Arm PSA and CCA tokens")
    maa_hosts: tuple[str, ...] = declare((), "Azure Attestation providers whose tokens count")
    token_audiences: tuple[str, ...] = declare((), "audiences that Confidential Space tokens may be to")

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        demand_issuer(self.issuer)
        if self.algorithm not in ALGORITHMS:
            fail(f"algorithm: want {' or '.join(ALGORITHMS)}")
        if bool(self.tls_certificate) != bool(self.tls_key):
            fail("tls_certificate and tls_key: want both, or neither")
        if self.key_life_s < 2 * self.key_ahead_s:
            fail("key_life_s: want at least twice key_ahead_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Every setting of a section ``[policies.ID]``."""

    file: str = declare("", "the appraisal policy, JSON or TOML by its name, relative to the home; required")
    audiences: tuple[str, ...] = declare((), "audiences that tokens under this policy may be to")
    least_tier: str = declare(
        "affirming", "`affirming` or `warning`: the least tier whose tokens get an audience and a subject"
    )
    algorithm: str = declare("", "how its tokens are signed: `ES256` or `RS256`; empty: as the service says")
    token_ttl_s: int = declare(0, "seconds its tokens live; 0: as the service says", floor=0, cap=MAX_TOKEN_TTL_S)

    def __post_init__(self) -> None:
        """Refuse what no policy can be."""
        if not self.file:
            fail("policies: file: missing")
        if self.algorithm not in {"", *ALGORITHMS}:
            fail(f"policies: algorithm: want {' or '.join(ALGORITHMS)}")
        if self.least_tier not in {"affirming", "warning"}:
            fail("policies: least_tier: want affirming or warning")


def demand_issuer(url: str) -> None:
    """Refuse a URL that no reader could take for an issuer's (OpenID Connect Discovery 1.0 section 3)."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        fail("issuer: not a url")
    plain = parts.scheme == "http" and is_loopback(host)
    if not host or "@" in parts.netloc or not (parts.scheme == "https" or plain):
        fail("issuer: want https://HOST[:PORT][/PATH]")
    if parts.query or parts.fragment or url.endswith("/") or not url.isascii() or not url.isprintable() or " " in url:
        fail("issuer: want no query, no fragment, no slash at the end, and ascii only")


def fail(detail: str, *, hint: str = _HINT) -> NoReturn:
    """Raise ``UsageError`` for a setting."""
    msg = f"attestation service: {detail}"
    raise UsageError(msg, hint=hint)
