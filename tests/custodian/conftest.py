"""A custodian with a real database, a real vault and a clock that a test can turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from custodian_kit import CHEAP, Bench
from kmip_kit import start_kmip
from memory import in_memory
from softhsm_kit import start_softhsm

from cloister.custodian.vaults.vault_file import Kdf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kmip_kit import KmipServer
    from softhsm_kit import SoftHsm


@pytest.fixture(autouse=True)
def cheap_vaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let vaults be made that open cheaply where nothing is said of costs, as their files then tell every reader."""
    costs = {"memory_kib": CHEAP.memory_kib, "passes": CHEAP.passes, "lanes": CHEAP.lanes}
    monkeypatch.setattr(Kdf.__init__, "__kwdefaults__", costs)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory where there is one: real files, without waiting for a disk at each commit."""
    with in_memory(tmp_path) as folder:
        yield folder


ON_BOTH = frozenset({"test_forgetting", "test_leases", "test_log_places", "test_release", "test_spending"})
"""Modules whose tests run on PostgreSQL too."""
ON_BOTH_IN_DRILLS = frozenset(
    {"test_access", "test_loans", "test_devices", "test_got_wrong", "test_recall", "test_rotation", "test_issuers"}
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let tests of the custodian itself run over each database."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "bench" in metafunc.fixturenames and module in ON_BOTH | ON_BOTH_IN_DRILLS:
        marks = pytest.mark.drill if module in ON_BOTH_IN_DRILLS else ()
        metafunc.parametrize("bench", ["sqlite", pytest.param("postgresql", marks=marks)], indirect=True)


@pytest.fixture(scope="session")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """Yield the tokens of this process, or skip: their module reads its settings once."""
    yield from start_softhsm(tmp_path_factory.mktemp("hsm"))


@pytest.fixture(scope="session")
def kmip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KmipServer]:
    """Yield a KMIP server that is not ours: it takes seconds to start."""
    yield from start_kmip(tmp_path_factory.mktemp("kmip"))


@pytest.fixture
def bench(place: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Yield an open custodian with one published model and nothing lent yet."""
    postgres = request.getfixturevalue("postgres") if getattr(request, "param", "sqlite") == "postgresql" else None
    with Bench(place, postgres=postgres) as opened:
        yield opened
    if postgres is not None:
        postgres.drop(opened.service.config.database)
