"""The service's own policies, by id: what is accepted, for whom results may be, how they are signed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.policy import MAX_POLICY_BYTES, Policy
from cloister.attest.rats import TrustTier
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloister.attest.rats import AttestationResult
    from cloister.verifier.settings import PolicySettings, Settings

__all__ = ["NamedPolicy", "Policies", "read_policies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPolicy:
    """One policy under its id. A Relying Party's own has none, and no audience: nobody else answers for it."""

    id: str
    policy: Policy
    audiences: tuple[str, ...]
    accepts_warning: bool
    algorithm: str
    ttl: timedelta

    def demand_audience(self, audience: str) -> None:
        """Prove that results under this policy may be for ``audience``. Raises ``Rejected``."""
        if audience not in self.audiences:
            want = ", ".join(self.audiences)[:256] or "none under this policy"
            raise Rejected.because("audience_not_allowed", "audience", got=audience[:256], want=want)

    def demand_tier(self, result: AttestationResult) -> None:
        """Prove that a result is good enough to be somebody's identity. Raises ``Rejected`` (``tier_too_low``)."""
        if result.tier is not TrustTier.AFFIRMING and not self.accepts_warning:
            raise Rejected.because(
                "tier_too_low",
                "trust tier",
                got=result.tier.value,
                want=TrustTier.AFFIRMING.value,
                hint="ask without an audience to see what was not checked",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Every policy by id, and the one for who names none."""

    by_id: Mapping[str, NamedPolicy]
    default: str
    algorithm: str
    ttl: timedelta

    @property
    def algorithms(self) -> frozenset[str]:
        """The algorithms that some token may be signed by."""
        return frozenset({self.algorithm, *(item.algorithm for item in self.by_id.values())})

    def named(self, policy_id: str | None) -> NamedPolicy:
        """Return the policy of an id, or the default. Raises ``Rejected`` (``policy_unknown``)."""
        found = self.by_id.get(self.default if policy_id is None else policy_id)
        if found is None:
            got = "none named, and there is no default" if policy_id is None else policy_id[:64]
            raise Rejected.because("policy_unknown", "policy", got=got)
        return found

    def own(self, policy: Policy) -> NamedPolicy:
        """Return a Relying Party's own policy: for its eyes alone."""
        return NamedPolicy(
            id="", policy=policy, audiences=(), accepts_warning=False, algorithm=self.algorithm, ttl=self.ttl
        )


def read_policies(home: Path, settings: Settings, sections: Mapping[str, PolicySettings]) -> Policies:
    """Read the policies that the settings name. Raises ``UsageError``, ``Malformed``."""
    found = {
        name: NamedPolicy(
            id=name,
            policy=_read(home / section.file),
            audiences=section.audiences,
            accepts_warning=section.least_tier == TrustTier.WARNING.value,
            algorithm=section.algorithm or settings.algorithm,
            ttl=timedelta(seconds=section.token_ttl_s or settings.token_ttl_s),
        )
        for name, section in sections.items()
    }
    ttl = timedelta(seconds=settings.token_ttl_s)
    return Policies(by_id=found, default=settings.default_policy, algorithm=settings.algorithm, ttl=ttl)


def _read(path: Path) -> Policy:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
    except OSError as exc:
        msg = f"policy {path}: {exc.strerror}"
        raise UsageError(msg) from exc
    return Policy.parse_toml(data) if path.suffix == ".toml" else Policy.parse(data)
