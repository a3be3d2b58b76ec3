"""What several rooms' tests share: one run of the demo, and that no process outlives them."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import authorities
import leash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo_run import DemoRun
    from postgres_kit import PostgresServer

leash.watch()
authorities.keep_out()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background so, children would inherit it, and tests that interrupt would wait.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """Return the one run of ``cloister demo --keep`` that all workers of this test run share."""
    from demo_run import shared_run  # noqa: PLC0415 - imports the whole client

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    return shared_run(base / "demo")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Yield a PostgreSQL server of this worker's own, or skip."""
    from postgres_kit import start_postgres  # noqa: PLC0415 - only where it is wanted

    # A short path, for a socket's has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="cloister-pg-"))
    folder.chmod(0o755)
    try:
        server = start_postgres(folder)
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
