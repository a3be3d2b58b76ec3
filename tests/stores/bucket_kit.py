"""A bucket of a test's own, in the S3 that moto plays."""

from __future__ import annotations

import itertools
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

if TYPE_CHECKING:
    import pytest

__all__ = ["S3", "at_endpoint", "new_bucket"]

NUMBERS = itertools.count()
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_REGION": "us-east-1"}


@dataclass(frozen=True)
class S3:
    """A bucket of its own."""

    endpoint: str
    url: str

    def names(self) -> set[str]:
        """Return what is in it."""
        with urllib.request.urlopen(f"{self.endpoint}/{self.url.split('/')[2]}") as answer:  # noqa: S310
            return {part.split("</Key>")[0] for part in answer.read().decode().split("<Key>m/")[1:]}

    def remove(self, name: str) -> None:
        """Remove an object."""
        client = {"allow_http": True}
        obstore.delete(S3Store.from_url(self.url, client_options=client), name)  # type: ignore[arg-type]

    def uploads(self) -> int:
        """Count multipart uploads that were begun and not ended."""
        with urllib.request.urlopen(f"{self.endpoint}/{self.url.split('/')[2]}?uploads") as answer:  # noqa: S310
            return int(answer.read().decode().count("<Upload>"))


def at_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let the environment lead to an endpoint, with credentials that are none."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)


def new_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Make a bucket, and let the environment lead there."""
    name = f"models-{next(NUMBERS)}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")).close()  # noqa: S310
    at_endpoint(monkeypatch, endpoint)
    return S3(endpoint, f"s3://{name}/m")
