"""Who can read: nothing better than what was verified, whatever the TEE."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from client_town import Town

from cloister.asking.readers import Panel, Reads, who_can_read
from cloister.attest.rats import Check, TeeKind, TrustTier, Verdict
from cloister.attest.schemes import KINDS

if TYPE_CHECKING:
    from cloister.client.trust import VerifiedEnclave

DEVICES = {"nras", "nvidia-gpu", "nvidia-switch"}  # never the machine itself
MEASURED = {"gce-vtpm", "tpm"}


@pytest.fixture(scope="module")
def enclave() -> VerifiedEnclave:
    return Town().client().enclave


def panel(enclave: VerifiedEnclave, tee: str, tier: TrustTier = TrustTier.AFFIRMING, **options: bool) -> Panel:
    """Return the panel of an enclave of another kind."""
    found = replace(enclave, result=replace(enclave.result, tee=TeeKind(tee), tier=tier))
    chosen = {"is_open": False, "pinned": False, **options}
    return who_can_read(found, place="127.0.0.1:8490", contract=None, **chosen)


def operator(found: Panel) -> Reads:
    """Return whether whoever runs the machine can read."""
    return next(reader.reads for reader in found.readers if "runs the machine" in reader.who)


def test_a_simulated_tee_is_said_first_and_loudly(enclave: VerifiedEnclave) -> None:
    found = panel(enclave, "simulated", TrustTier.WARNING)
    assert "whoever runs it can read everything" in found.loud
    assert operator(found) is Reads.YES


@pytest.mark.parametrize("tee", sorted(KINDS - DEVICES))
def test_no_kind_that_is_known_is_called_better_than_it_is(enclave: VerifiedEnclave, tee: str) -> None:
    found = panel(enclave, tee)
    assert operator(found) is (Reads.COULD if tee in MEASURED else Reads.NO)
    assert bool(found.loud) is (tee in MEASURED)
    warned = panel(enclave, tee, TrustTier.WARNING)
    assert operator(warned) is Reads.COULD
    assert warned.loud


@pytest.mark.parametrize("tee", ["", "next-year", *sorted(DEVICES)])
def test_a_kind_that_is_not_known_hides_nothing(enclave: VerifiedEnclave, tee: str) -> None:
    found = panel(enclave, tee)
    assert operator(found) is Reads.YES
    assert found.loud


def test_the_page_s_own_server_is_always_named(enclave: VerifiedEnclave) -> None:
    for is_open in (False, True):
        found = panel(enclave, "snp", is_open=is_open)
        server = next(reader for reader in found.readers if "127.0.0.1:8490" in reader.who)
        assert server.reads is Reads.YES
        assert server.meant is not is_open


def test_what_was_not_compared_is_listed_with_its_reason(enclave: VerifiedEnclave) -> None:
    check = Check(code="chip_mismatch", subject="chip", verdict=Verdict.NOT_CHECKED, note="a fleet")
    found = replace(enclave, checks=(*enclave.checks, check))
    assert ("chip", "a fleet") in panel(found, "snp").unchecked


def test_the_way_in_is_said_as_it_is(enclave: VerifiedEnclave) -> None:
    sealed, pinned = panel(enclave, "snp"), panel(enclave, "snp", pinned=True)
    assert any("padded" in line for line in sealed.learned)
    assert not any("padded" in line for line in pinned.learned)
    assert any("TLS 1.3" in reader.why for reader in pinned.readers)


def test_the_digest_changes_with_the_words_and_with_nothing_else(enclave: VerifiedEnclave) -> None:
    found = panel(enclave, "snp")
    assert found.digest == panel(enclave, "snp").digest
    assert found.digest != panel(enclave, "tdx").digest
    assert found.digest != panel(enclave, "snp", pinned=True).digest
