"""A package on a web server, read by range requests below its URL."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from cloister.errors import UsageError
from cloister.stores.access import Access
from cloister.stores.link import Link
from cloister.stores.patience import Patience
from cloister.stores.reader import RangeReader, RangeSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.stores.link import Answer, Traffic
    from cloister.stores.place import ModelUrl

__all__ = ["HttpSource", "demand_private"]


def demand_private(url: ModelUrl, access: Access) -> None:
    """Refuse to send a token in the clear to another machine. Raises ``UsageError``."""
    if access.token is not None and url.scheme == "http" and not url.is_loopback:
        msg = f"{url}: want https: the token would travel in the clear"
        raise UsageError(msg)


class HttpSource(RangeSource):
    """The parts of a package below a URL. Any number of threads may read; close it, or use it in ``with``."""

    def __init__(self, url: ModelUrl, *, access: Access | None = None, patience: Patience | None = None) -> None:
        """Connect to nothing yet. Raises ``UsageError`` where a token would travel in the clear."""
        access, patience = access or Access(), patience or Patience()
        demand_private(url, access)
        self._url = url
        self._link = Link(url, access, patience)
        self._headers = {} if access.token is None else {"authorization": f"Bearer {access.token}"}
        self._reader = RangeReader(self._get, patience, lambda name: f"{url}/{name}")

    @property
    def traffic(self) -> Traffic:
        """What went over the wire so far."""
        return self._link.traffic

    @contextmanager
    def _get(self, name: str, headers: Mapping[str, str], *, deadline: float) -> Iterator[Answer]:
        target = f"{self._url.path}/{name}"
        with self._link.exchange("GET", target, {**self._headers, **headers}, deadline=deadline) as answer:
            yield answer

    def close(self) -> None:
        """Close all connections; harmless the second time."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
