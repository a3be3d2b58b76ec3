"""Certificates of cloud attestation keys as they are handed around: with a root beside them, at times another's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cloister.attest.dossier import azure_akcert, judge
from cloister.attest.roots import vendor_certificate
from cloister.testing.vendors.azure import SyntheticAzure
from cloister.testing.vendors.gce import certificate
from cloister.testing.vendors.vtpm import rsa_key

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AZURE = SyntheticAzure()
FILES = {"nv_blob": certificate(rsa_key(0), AZURE.issue()).der, "intermediate": AZURE.intermediate.pem}
AZURES, GOOGLES = (vendor_certificate(name).pem for name in ("azure-vtpm-root-2023", "gce-ek-ak-root"))


def refused(*roots: bytes) -> list[str]:
    """Return what was refused of roots that came along, whatever becomes of the chain: its own is nobody's."""
    files = {**FILES, "root": b"".join(roots)} if roots else FILES
    reasons = judge(azure_akcert.open_case(files, {}), NOW).reasons
    assert {reason.code for reason in reasons} == {"untrusted_root"}
    return [reason.subject for reason in reasons if reason.subject == "root"]


@pytest.mark.parametrize("roots", [(), (AZURES,), (GOOGLES, AZURES)], ids=["none", "its own", "its own among others"])
def test_the_root_of_the_cloud_that_certified_a_key_may_come_along(roots: tuple[bytes, ...]) -> None:
    assert refused(*roots) == []


def test_the_root_of_another_cloud_is_no_root_of_this_certificate() -> None:
    assert refused(GOOGLES) == ["root"]
    assert refused(AZURE.root.pem) == ["root"]
