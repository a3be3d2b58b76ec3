"""Endorsements from a folder and from the vendors' services: the one file of ``attest`` with a network and a disk.

What goes out is HTTPS to hosts of a closed list, with no redirect followed, no proxy taken from the environment and
nothing about the asker in it. What comes back is bounded while it streams, proven by its vendor's signature
(``vouch``), never older than what was seen before, and kept until its own end and no longer: where nothing is in its
window, there is no answer.

Not done here: trusting any of it (the schemes prove every signature again).
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import tempfile
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx2

from cloister.attest.endorse import MAX_ENDORSEMENT_BYTES, demand_count, missing
from cloister.attest.endorse.names import Kind, Name, parse_name
from cloister.attest.endorse.sources import KEYS_LIFE, Answer, Sources
from cloister.attest.endorse.vouch import STORED
from cloister.attest.endorse.window import Window, issued_at, window_of
from cloister.errors import CloisterError, Malformed, Unavailable
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cloister.attest.chain import Certificate
    from cloister.attest.endorse.sources import Query
    from cloister.attest.endorse.vouch import Vouch
    from cloister.attest.rules import NotChecked

__all__ = ["FolderEndorsements", "OnlineEndorsements", "https_client"]

_LOG = logging.getLogger(__name__)
_CONNECT_S = 5.0
_READ_S = 10.0  # seconds without a byte
_DEADLINE_S = 30.0  # seconds of one fetch, all its names and tries together
_TRIES = 4  # of one query
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
_REFUSAL_S = 30.0  # seconds in which a name that was not to be had, or a host that was silent, is not asked again
_MAX_HELD = 1024  # objects in memory
_NONCE_BYTES = 32  # RFC 9654 section 2.1
_MAX_RETRY_AFTER_DIGITS = 5
_HTTP_OK, _HTTP_REDIRECTS = 200, range(300, 400)
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


class _NoAnswerError(Exception):
    """A host said something that is no answer; asking again does not help."""


class _BusyError(Exception):
    """A host could not be reached (``silent``), or has no time now."""

    def __init__(self, why: str, *, retry_after_s: float = 0.0, silent: bool = False) -> None:
        super().__init__(why)
        self.retry_after_s, self.silent = retry_after_s, silent


class FolderEndorsements:
    """A folder of files called as their names say: ``FOLDER/amd/milan/crl``. For files that a person put there."""

    def __init__(self, folder: Path) -> None:
        """Read from ``folder``; nothing is read yet."""
        self._folder = folder

    def fetch(
        self, names: Sequence[str], now: datetime, certificates: Sequence[Certificate] = ()
    ) -> Mapping[str, bytes]:
        """Return the objects by name. Raises ``Unavailable`` for one that is not there or not in its window."""
        del certificates
        demand_count(names)
        return {name: self._one(name, now) for name in names}

    def _one(self, name: str, now: datetime) -> bytes:
        data = self.read(name)
        if data is None:
            raise missing(name, f"not in {self._folder}")
        try:
            window = window_of(parse_name(name), data)
        except Malformed as exc:
            raise missing(name, exc.message) from exc
        if now not in window:
            raise missing(name, _outside(window, now))
        return data

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, None where there is none. Raises ``Unavailable`` for one that cannot be read."""
        try:
            path = self.path(name)
            if not path.is_file():
                return None
            with path.open("rb") as file:
                data = file.read(MAX_ENDORSEMENT_BYTES + 1)
        except (OSError, Malformed) as exc:
            why = exc.message if isinstance(exc, Malformed) else f"{exc.strerror}"
            raise missing(name, why) from exc
        if len(data) > MAX_ENDORSEMENT_BYTES:
            raise missing(name, f"more than {MAX_ENDORSEMENT_BYTES} bytes")
        return data

    def path(self, name: str) -> Path:
        """Return where an object lies. A name has a form that leads out of no folder. Raises ``Malformed``."""
        return self._folder.joinpath(*parse_name(name).text.split("/"))

    def fetched_at(self, name: str) -> datetime:
        """Return when the file was put there. Raises ``OSError``."""
        return datetime.fromtimestamp(self.path(name).stat().st_mtime, UTC)

    def write(self, name: str, data: bytes, now: datetime) -> None:
        """Put a file there, whole or not at all, readable to its owner alone. Raises ``OSError``."""
        path = self.path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.utime(temporary, (now.timestamp(), now.timestamp()))
            os.replace(temporary, path)  # noqa: PTH105 - the same on a path object
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 - the same on a path object
            raise


def https_client(*, transport: httpx2.BaseTransport | None = None, environment_proxies: bool = False) -> httpx2.Client:
    """Return the client that asks vendors: the system's authorities, no redirect, no proxy unless told.

    ``transport`` is a seam for tests: it leads every host to a server of their own.
    """
    return httpx2.Client(
        follow_redirects=False,
        headers={"accept-encoding": "identity", "user-agent": "cloister"},
        timeout=httpx2.Timeout(_READ_S, connect=_CONNECT_S),
        transport=transport,
        trust_env=environment_proxies,
        verify=ssl.create_default_context(),
    )


class OnlineEndorsements:
    """The vendors' services behind a cache in memory and on disk. May be used by several threads at once."""

    def __init__(
        self,
        client: httpx2.Client,
        *,
        vouch: Vouch,
        sources: Sources,
        cache: FolderEndorsements,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Ask by ``client``; keep in ``cache`` what ``vouch`` proves."""
        self._client, self._vouch, self._sources, self._cache, self._sleep = client, vouch, sources, cache, sleep
        self._held: OrderedDict[str, tuple[bytes, Window]] = OrderedDict()
        self._refused: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._busy: set[str] = set()
        self._turn = threading.Condition()

    def fetch(
        self, names: Sequence[str], now: datetime, certificates: Sequence[Certificate] = ()
    ) -> Mapping[str, bytes]:
        """Return the objects by name, each in its window at ``now``. Raises ``Unavailable``."""
        demand_count(names)
        deadline = time.monotonic() + _DEADLINE_S
        return {name: self._one(name, now, certificates, deadline) for name in names}

    def _one(self, text: str, now: datetime, certificates: Sequence[Certificate], deadline: float) -> bytes:
        try:
            name = parse_name(text)
        except Malformed as exc:
            raise missing(text, exc.message) from exc
        with self._alone(name.text, deadline):  # one at a time: whoever waits finds it done
            known = self._known(name, now, certificates)
            if known is not None:
                return known
            self._demand_retry(name.text, name)
            try:
                return self._download(name, now, certificates, deadline)
            except Unavailable as exc:
                if name.kind is not Kind.NVIDIA_OCSP:  # who made up a certificate speaks for none with its number
                    self._refuse(name.text, exc.message)
                raise

    @contextlib.contextmanager
    def _alone(self, name: str, deadline: float) -> Iterator[None]:
        with self._turn:
            free = self._turn.wait_for(lambda: name not in self._busy, max(0.0, deadline - time.monotonic()))
            if not free:
                raise missing(name, "somebody else waits for it")
            self._busy.add(name)
        try:
            yield
        finally:
            with self._turn:
                self._busy.discard(name)
                self._turn.notify_all()

    # what we have

    def _known(self, name: Name, now: datetime, certificates: Sequence[Certificate]) -> bytes | None:
        """Return an object from memory or disk that is good at ``now``, None where there is none."""
        held = self._held.get(name.text)
        if held is None or now not in held[1]:
            held = self._from_disk(name, now, certificates)
        if held is None:
            return None
        self._hold(name.text, held)
        return held[0]

    def _from_disk(self, name: Name, now: datetime, certificates: Sequence[Certificate]) -> tuple[bytes, Window] | None:
        """Return what the cache has and is proven again: a file that somebody changed counts for nothing."""
        data = self._cache.read(name.text)
        if data is None:
            return None
        try:
            proven = self._vouch.verify(name, data, now, certificates=certificates)
            window = self._bounded(name, proven, self._cache.fetched_at(name.text))
        except (CloisterError, OSError):
            return None
        return (data, window) if now in window else None

    @staticmethod
    def _bounded(name: Name, window: Window, fetched_at: datetime) -> Window:
        """Return the window, ended for what has no end of its own."""
        return window.meet(Window(fetched_at, fetched_at + KEYS_LIFE)) if name.kind is Kind.JWKS else window

    def _hold(self, name: str, held: tuple[bytes, Window]) -> None:
        with self._turn:
            self._held[name] = held
            self._held.move_to_end(name)
            if len(self._held) > _MAX_HELD:
                self._held.popitem(last=False)

    def _demand_retry(self, asked: str, name: Name) -> None:
        """Refuse to ask again for a name, or a host, that gave nothing a moment ago: its limit is everybody's."""
        known = self._refused.get(asked)
        if known is not None and time.monotonic() < known[0]:
            raise missing(name.text, known[1])

    def _refuse(self, asked: str, why: str) -> None:
        with self._turn:
            self._refused[asked] = (time.monotonic() + _REFUSAL_S, why)
            if len(self._refused) > _MAX_HELD:
                self._refused.popitem(last=False)

    # what they have

    def _download(self, name: Name, now: datetime, certificates: Sequence[Certificate], deadline: float) -> bytes:
        """Ask, prove, keep."""
        nonce: bytes | NotChecked = os.urandom(_NONCE_BYTES) if name.kind is Kind.NVIDIA_OCSP else STORED
        queries = self._sources.queries(
            name, certificates=certificates, nonce=nonce if isinstance(nonce, bytes) else b""
        )
        answers = [self._ask(name, query, deadline) for query in queries]
        host = queries[0].host
        try:
            data = self._sources.read(name, answers)
            proven = self._vouch.verify(name, data, now, certificates=certificates, nonce=nonce)
            window = self._bounded(name, proven, now)
            self._demand_newer(name, data)
        except CloisterError as exc:
            raise missing(name.text, f"{host} answered, and it is not to be used: {exc.message}") from exc
        self._keep(name.text, data, now)
        self._hold(name.text, (data, window))
        return data

    def _demand_newer(self, name: Name, data: bytes) -> None:
        """Refuse an object of which any part is older than one seen before (T15). Raises ``Unavailable``."""
        known = self._cache.read(name.text)
        if known is None:
            return
        try:
            before = issued_at(name, known)
        except Malformed:
            return  # a file that does not parse was no endorsement
        if any(new < old for new, old in zip(issued_at(name, data), before, strict=True)):
            msg = "older than what was seen before"
            raise Unavailable(msg)

    def _keep(self, name: str, data: bytes, now: datetime) -> None:
        try:
            self._cache.write(name, data, now)
        except OSError as exc:
            _LOG.warning("endorsement cache: %s", exc.strerror)

    def _ask(self, name: Name, query: Query, deadline: float) -> Answer:
        """Send one query, again where the host is busy. Raises ``Unavailable``."""
        if query.host not in self._sources.hosts:
            raise missing(name.text, f"{query.host} is not a host to ask")
        self._demand_retry(query.host, name)  # many names of a silent host take no longer than one
        left, wait = _TRIES, _FIRST_WAIT_S
        while True:
            left -= 1
            try:
                return self._send(query, deadline)
            except _BusyError as exc:
                pause = min(max(wait, exc.retry_after_s), _LONGEST_WAIT_S)
                if not left or time.monotonic() + pause > deadline:
                    if exc.silent:
                        self._refuse(query.host, f"{query.host}: {exc}")
                    raise missing(name.text, f"{query.host}: {exc}") from exc
                self._sleep(pause)
                wait *= 2
            except _NoAnswerError as exc:
                raise missing(name.text, f"{query.host}: {exc}") from exc

    def _send(self, query: Query, deadline: float) -> Answer:
        """Return the whole, bounded answer to one try."""
        headers = {"content-type": query.media_type} if query.body else {}
        try:
            with self._client.stream(query.method, query.url, content=query.body, headers=headers) as response:
                _demand_ok(response)
                return Answer(body=_bounded_body(response, query.cap, deadline), headers=_chains(response))
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, ssl.SSLError) as exc:
            raise _BusyError(type(exc).__name__.lower(), silent=True) from exc


def _demand_ok(response: httpx2.Response) -> None:
    status = response.status_code
    if status in _TRY_AGAIN:
        after = response.headers.get("retry-after", "")
        raise _BusyError(
            f"status {status}",
            retry_after_s=float(after) if after.isdecimal() and len(after) <= _MAX_RETRY_AFTER_DIGITS else 0.0,
        )
    if status in _HTTP_REDIRECTS:
        msg = f"status {status}, a redirect: none is followed"
        raise _NoAnswerError(msg)
    if status != _HTTP_OK:
        msg = f"status {status}"
        raise _NoAnswerError(msg)
    if response.headers.get("content-encoding", "identity") != "identity":
        msg = "an encoding that was not asked for"
        raise _NoAnswerError(msg)


def _bounded_body(response: httpx2.Response, cap: int, deadline: float) -> bytes:
    """Return the body as it was sent, refused while it grows or takes too long."""
    data = bytearray()
    for part in response.iter_raw():
        data += part
        if len(data) > cap:
            msg = f"more than {cap} bytes"
            raise _NoAnswerError(msg)
        if time.monotonic() > deadline:
            msg = f"not whole within {_DEADLINE_S:.0f} s"
            raise _NoAnswerError(msg)
    return bytes(data)


def _chains(response: httpx2.Response) -> Mapping[str, str]:
    """Return the headers in which Intel sends issuers."""
    return {name: value for name, value in response.headers.items() if name.lower().endswith("-issuer-chain")}


def _outside(window: Window, now: datetime) -> str:
    return f"good from {dump_time(window.not_before)} to {dump_time(window.not_after)}, and now is {dump_time(now)}"
