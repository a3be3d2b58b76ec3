"""Tenants of one process: what each has to itself, paths that never cross, and how each comes up by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tenant_kit import HostBench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def host(place: Path) -> Iterator[HostBench]:
    """Yield a host without tenants."""
    with HostBench(place) as opened:
        yield opened


def test_equal_names_in_two_tenants_are_two_things(host: HostBench) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    assert acme.init.key != zenith.init.key
    ours, theirs = acme.lend(allowance=10), zenith.lend(allowance=7)
    assert ours.made["loan_file"]["custodian_url"] == "https://localhost:8443/t/acme"
    assert ours.made["loan_file"]["ca_pem"] == theirs.made["loan_file"]["ca_pem"] == host.init.ca_pem
    ours.boot().renew()
    assert ours.balance() < 10
    assert theirs.balance() == 7
    assert len(acme.audit()) > len(zenith.audit())
    assert host.shown("acme")["totals"]["live_instances"] == 1
    assert host.shown("zenith")["totals"]["live_instances"] == 0
