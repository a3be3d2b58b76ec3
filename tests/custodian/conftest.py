"""A custodian with a real database, a real vault and a clock that a test can turn."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from custodian_kit import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory where there is one: real files, without waiting for a disk at each commit."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="cloister-", dir=MEMORY) as folder:
        yield Path(folder)


ON_BOTH = frozenset({"test_leases", "test_loans", "test_release"})
"""Modules whose tests run on PostgreSQL too."""
ON_BOTH_IN_DRILLS = frozenset({"test_access", "test_devices", "test_got_wrong", "test_recall"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let tests of the custodian itself run over each database."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "bench" in metafunc.fixturenames and module in ON_BOTH | ON_BOTH_IN_DRILLS:
        marks = pytest.mark.drill if module in ON_BOTH_IN_DRILLS else ()
        metafunc.parametrize("bench", ["sqlite", pytest.param("postgresql", marks=marks)], indirect=True)


@pytest.fixture
def bench(place: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Yield an open custodian with one published model and nothing lent yet."""
    postgres = request.getfixturevalue("postgres") if getattr(request, "param", "sqlite") == "postgresql" else None
    with Bench(place, postgres=postgres) as opened:
        yield opened
    if postgres is not None:
        postgres.drop(opened.service.config.database)
