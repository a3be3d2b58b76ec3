"""One file per TEE, behind the Scheme protocol, and the table of those a production build has.

Vendors with one published root are in the table with that root pinned (``attest/roots``). Where trust is a site's own
decision (who enrols TPMs, which device keys, whose verification service), a kind is in the table only if the site named
somebody (``site``): there is no default.

A scheme's file is imported when its kind is asked for: a consumer that trusts one TEE loads one verifier. The simulated
TEE and the synthetic vendors are not here and cannot be: they live in the test kit and are handed in by whoever wants
them (docs/adr/0005).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.schemes.site import NO_SITE, Site
from cloister.attest.schemes.table import MAKERS, required_of_site_kinds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cloister.attest.rats import TeeKind
    from cloister.attest.verifier import Scheme

__all__ = ["KINDS", "NO_SITE", "Site", "production_schemes", "required_claims"]

KINDS = frozenset(MAKERS)
"""Every kind of evidence that this build can verify."""


def production_schemes(site: Site = NO_SITE, kinds: Collection[TeeKind] = KINDS) -> tuple[Scheme, ...]:
    """Return the schemes of ``kinds`` that ``site`` makes possible; others are refused as ``unsupported_tee``."""
    made = (MAKERS[kind](site) for kind in sorted(KINDS & set(kinds)))
    return tuple(scheme for scheme in made if scheme is not None)


def required_claims() -> Mapping[TeeKind, frozenset[str]]:
    """Return the claims that each kind's policy must have a rule for."""
    return {**required_of_site_kinds(), **{scheme.tee: scheme.required for scheme in production_schemes()}}
