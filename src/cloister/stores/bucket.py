"""A package in a bucket of S3, Google Cloud Storage or Azure, through ``obstore`` (extra ``s3``).

Credentials, region and endpoint come from the environment, by the names that the providers' own programs use, or from
the machine's role; a bearer token is never shown. Reads are ranges, pinned by entity tag. Writes create and never
replace, but for an envelope that somebody asked to replace. Texts of the library and of servers are not repeated: they
hold requests.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from cloister.errors import Unavailable, UsageError
from cloister.sealed.manifest import ENVELOPE_NAME, MANIFEST_NAME, SIGNATURE_NAME
from cloister.sealed.parts import demand_part
from cloister.stores.access import Access
from cloister.stores.link import Traffic
from cloister.stores.part import Part
from cloister.stores.patience import Patience, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore import ObjectMeta
    from obstore.store import AzureStore, ClientConfig, GCSStore, RetryConfig, S3Store

    from cloister.stores.place import ModelUrl

__all__ = ["Bucket"]

_WHOLE: Final = frozenset({MANIFEST_NAME, SIGNATURE_NAME, ENVELOPE_NAME})  # compared byte for byte
_CHUNK_BYTES = 8 << 20  # bytes of one part of a multipart upload, as long as the object is small enough
_MAX_CHUNKS = 9000  # of 10,000 that S3 allows
_UPLOADS = 4  # chunks on their way at once
_CONNECT = timedelta(seconds=10)
_STEP_BYTES = 1 << 20  # bytes handed over at a time


class Bucket:
    """The parts of a package below a prefix, for reading and for writing. Any thread may read."""

    def __init__(self, url: ModelUrl, *, access: Access | None = None, patience: Patience | None = None) -> None:
        """Connect to nothing yet. Raises ``UsageError`` where the extra is not installed or a setting is unfit."""
        self._url = url
        self._patience = patience or Patience()
        self._store = _connect(url, access or Access(), self._patience)
        self._seen: dict[str, ObjectMeta] = {}
        self._turn = Lock()
        self.traffic = Traffic()

    # reading

    def size(self, name: str) -> int:
        """Return the size of part ``name`` in bytes. Raises ``Unavailable``."""
        return self._look(name)["size"]

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return at most ``size`` bytes of part ``name``. Raises ``Unavailable``."""
        out = bytearray(max(0, min(size, self.size(name) - offset)))  # no more memory than there is to read
        return bytes(out[: self.read_into(name, offset, memoryview(out))])

    def read_into(self, name: str, offset: int, out: memoryview) -> int:
        """Fill ``out`` from part ``name``; return the bytes there were. Raises ``Unavailable``."""
        seen = self._look(name)
        want = out[: max(0, min(len(out), seen["size"] - offset))]
        done = 0

        def work(deadline: float) -> None:
            nonlocal done
            for part in self._range(name, offset + done, len(want) - done, seen):
                want[done : done + len(part)] = part
                done += len(part)
                if time.monotonic() > deadline:
                    msg = "took too long"
                    raise TryAgainError(msg)

        if want:
            self._patience.insist(self._subject(name), work)
        return len(want)

    def _range(self, name: str, offset: int, size: int, seen: ObjectMeta) -> Iterator[memoryview]:
        """Yield exactly the bytes asked for, of the object seen first."""
        import obstore  # noqa: PLC0415 - an extra

        with self._faults(name):
            self.traffic.count(requests=1)
            found = obstore.get(
                self._store, name, options={"range": (offset, offset + size), "if_match": seen["e_tag"]}
            )
            if found.meta["e_tag"] != seen["e_tag"]:
                raise self._changed(name)
            if found.range != (offset, offset + size) or found.meta["size"] != seen["size"]:
                msg = f"{self._subject(name)}: sent another range than asked for"
                raise Unavailable(msg)
            left = size
            for part in found.stream(_STEP_BYTES):
                left -= len(part)
                if left < 0:
                    msg = f"{self._subject(name)}: more was sent than asked for"
                    raise Unavailable(msg)
                self.traffic.count(body_bytes=len(part))
                yield memoryview(part)
        if left:
            msg = "ended early"
            raise TryAgainError(msg)

    def _look(self, name: str) -> ObjectMeta:
        """Return what part ``name`` was when it was first looked at."""
        demand_part(name)
        with self._turn:
            known = self._seen.get(name)
        if known is None:
            found = self._head(name)
            if found is None:
                raise self._missing(name)
            with self._turn:
                known = self._seen.setdefault(name, found)
        return known

    def _head(self, name: str) -> ObjectMeta | None:
        import obstore  # noqa: PLC0415 - an extra

        def work(_: float) -> ObjectMeta | None:
            self.traffic.count(requests=1)
            with self._faults(name):
                try:
                    return obstore.head(self._store, name)
                except FileNotFoundError:
                    return None

        return self._patience.insist(self._subject(name), work)

    # writing

    def demand_free(self, manifest: bytes) -> None:
        """Prove that no other model is there. Raises ``UsageError`` or ``Unavailable``."""
        part = Part(name=MANIFEST_NAME, size=len(manifest), read=lambda: iter((manifest,)))
        self.holds(part)

    def holds(self, part: Part, *, replace: bool = False) -> bool:
        """Tell whether ``part`` is there already: small ones by their bytes, bulk by size and name, which is random.

        Raises ``UsageError`` where something else is there in its place, unless ``replace``.
        """
        found = self._head(part.name)
        if found is None:
            return False
        same = found["size"] == part.size
        if same and part.name in _WHOLE:
            same = self.read(part.name, 0, part.size) == b"".join(part.read())
        if not same and not replace:
            raise self._taken(part.name)
        return same

    def put(self, part: Part, *, replace: bool = False) -> None:
        """Write ``part``, whole or not at all. Raises ``UsageError`` where it is there, ``Unavailable``."""
        import obstore  # noqa: PLC0415 - an extra

        chunk = max(_CHUNK_BYTES, -(-part.size // _MAX_CHUNKS))

        def work(_: float) -> None:
            self.traffic.count(requests=1)
            with self._faults(part.name):
                try:
                    if part.size <= chunk:
                        mode = "overwrite" if replace else "create"  # create: If-None-Match: *
                        data = b"".join(part.read())
                        obstore.put(self._store, part.name, data, mode=mode, use_multipart=False)  # type: ignore[arg-type]
                    else:
                        obstore.put(self._store, part.name, part.read(), chunk_size=chunk, max_concurrency=_UPLOADS)
                except obstore.exceptions.AlreadyExistsError:
                    raise self._taken(part.name) from None

        self._patience.insist(self._subject(part.name), work)

    def finish(self, parts: tuple[Part, ...]) -> None:
        """Do nothing: the manifest, written last, is what makes a package of parts in a bucket."""

    def _taken(self, name: str) -> UsageError:
        msg = f"{self._subject(name)}: something else is there already, and nothing is overwritten"
        return UsageError(msg, hint="choose another place")

    def _changed(self, name: str) -> Unavailable:
        return Unavailable(
            f"{self._subject(name)}: changed while it was read", hint="try again when nobody writes there"
        )

    def _missing(self, name: str) -> Unavailable:
        return Unavailable(f"{self._subject(name)}: not there", hint="is the sealed model whole, and the url right?")

    @contextmanager
    def _faults(self, name: str) -> Iterator[None]:
        """Turn what the library raises into our words."""
        from obstore import exceptions  # noqa: PLC0415 - an extra

        try:
            yield
        except FileNotFoundError:
            raise self._missing(name) from None
        except exceptions.PreconditionError:
            raise self._changed(name) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError):
            msg = f"{self._subject(name)}: not let in"
            raise Unavailable(msg, hint="may these credentials do this? see docs/reference/sources.md") from None
        except (exceptions.BaseError, OSError):
            msg = "the store failed"
            raise TryAgainError(msg) from None

    def _subject(self, name: str) -> str:
        return f"{self._url}/{name}"

    def close(self) -> None:
        """Do nothing: the library closes its connections with its last reference."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(url: ModelUrl, access: Access, patience: Patience) -> S3Store | GCSStore | AzureStore:
    try:
        from obstore import exceptions, store  # noqa: PLC0415 - an extra
    except ImportError as exc:
        msg = f"{url.scheme}: not installed"
        raise UsageError(msg, hint="pip install 'cloister[s3]'") from exc
    client: ClientConfig = {
        "allow_http": _is_loopback(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")),
        "connect_timeout": _CONNECT,
        "read_timeout": timedelta(seconds=patience.silence_s),
        "timeout": timedelta(seconds=patience.deadline_s),
        "user_agent": "cloister",
    }
    if access.ca is not None:
        access.tls()  # proves that it is an authority
        client["root_certificate"] = access.ca.read_bytes()
    retry: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=patience.deadline_s)}
    kinds = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}
    options: dict[str, Any] = {"prefix": url.path.lstrip("/") or None, "client_options": client, "retry_config": retry}
    try:
        made: S3Store | GCSStore | AzureStore = kinds[url.scheme](url.host, **options)
    except (exceptions.BaseError, ValueError, OSError) as exc:
        msg = f"{url}: the environment's settings for this store are not fit"
        raise UsageError(msg, hint="see docs/reference/sources.md") from exc
    return made


def _is_loopback(endpoint: str) -> bool:
    return urlsplit(endpoint).hostname in {"127.0.0.1", "::1", "localhost"}
