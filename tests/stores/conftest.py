"""One S3 of this worker's own, as moto plays it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bucket_kit import S3, new_bucket
from moto_kit import start_moto
from registry_kit import HTPASSWD, start_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moto_kit import Moto


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Moto]:
    """Yield a running server."""
    yield from start_moto()


@pytest.fixture
def s3(moto_s3: Moto, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Return an empty bucket."""
    return new_bucket(f"http://127.0.0.1:{moto_s3.port}", monkeypatch)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a registry that lets everybody in."""
    yield from start_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a registry that lets one user in."""
    yield from start_registry(tmp_path_factory.mktemp("registry"), HTPASSWD)
