"""Style sheet, script and picture of the pages, each at an address that names its digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response

from cloister.pages.headers import ASSET_HEADERS, PAGE_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

__all__ = ["Asset", "Assets"]

_FOLDER = Path(__file__).parent / "assets"
_MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_DIGEST_CHARS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file that a page refers to."""

    name: str
    address: str
    body: bytes
    media_type: str


class Assets:
    """What pages refer to, read once; an ASGI application to be mounted below ``assets``."""

    def __init__(self, *folders: Path) -> None:
        """Read the room's own files, and those of ``folders``."""
        self._by_name = {item.name: item for folder in (_FOLDER, *folders) for item in _read(folder)}
        self._by_address = {item.address: item for item in self._by_name.values()}

    def address(self, name: str) -> str:
        """Return where an asset is, below the mount."""
        return self._by_name[name].address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an asset, or that there is none of that digest."""
        path = str(scope.get("path", ""))
        found = self._by_address.get(path.rpartition("/")[2])
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"} or found is None:
            response = Response("no such asset\n", status_code=404, media_type="text/plain", headers=PAGE_HEADERS)
        else:
            response = Response(found.body, media_type=found.media_type, headers=ASSET_HEADERS)
        await response(scope, receive, send)


def _read(folder: Path) -> Iterator[Asset]:
    for path in sorted(folder.iterdir()):
        if path.suffix in _MEDIA:
            body = path.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:_DIGEST_CHARS]
            address = f"{path.stem}.{digest}{path.suffix}"
            yield Asset(name=path.name, address=address, body=body, media_type=_MEDIA[path.suffix])
