"""An empty set satisfies every list: of what somebody has to have, an empty one is no claim at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.appraise import appraise
from cloister.attest.parts import dump_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence, TeeKind, Verdict
from cloister.attest.rules import OneOf
from cloister.testing.vendors.tokens import TokenVendor

if TYPE_CHECKING:
    from cloister.wire import Json

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def _emptied(claims: dict[str, Json], path: tuple[str, ...]) -> dict[str, Json]:
    """Return the claims with an empty array at ``path``."""
    inner = claims.get(path[0], {})
    return {**claims, path[0]: _emptied(dict(inner), path[1:]) if path[1:] and isinstance(inner, dict) else []}


@pytest.mark.parametrize(
    ("kind", "path", "claim"),
    [
        ("confidential-space", ("submods", "container", "image_signatures"), "image_signers"),
        ("confidential-space", ("submods", "confidential_space", "support_attributes"), "support_attributes"),
        ("confidential-space", ("google_service_accounts",), "service_accounts"),
        ("ita", ("policy_ids_matched",), "policies_matched"),
    ],
)
def test_an_empty_set_of_credentials_satisfies_no_list(kind: str, path: tuple[str, ...], claim: str) -> None:
    vendor = TokenVendor.generate(TeeKind(kind))
    size = vendor.kind.profile.report_data_bytes
    token = vendor.sign(_emptied(vendor.claims(bytes(range(size)), NOW), path))
    payload = dump_parts({"token": token})
    verified = vendor.scheme().verify(Evidence(tee=TeeKind(kind), payload=payload), vendor.endorsements, NOW)
    assert claim not in verified.claims
    policy = Policy(version=1, tees={TeeKind(kind): TeePolicy({claim: OneOf(("mine",))})})
    found = {check.code: check.verdict for check in appraise(verified, policy, frozenset())}
    assert found["claim_missing"] is Verdict.FAILED
