"""Where this custodian's endorsements come from: the vendors' services if it may ask them, then its bundle.

The bundle is a file in the home. It is read again whenever it was replaced, and counts only while a pinned key has
signed it, it is in its window, and none newer was accepted before: the newest version is remembered in the
database, so that an older file put in its place is refused (T15).

Not done here: who may sign one (the setting ``endorsement_keys``), fetching (``attest.endorse.fetch``).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cloister.attest.endorse import FirstOf, missing
from cloister.attest.endorse.bundle import MAX_BUNDLE_BYTES, VerifiedBundle, verify_bundle
from cloister.attest.endorse.fetch import FolderEndorsements, OnlineEndorsements, https_client
from cloister.attest.endorse.sources import Sources
from cloister.attest.endorse.vouch import production_vouch
from cloister.crypto.sign import VerifyKey
from cloister.custodian.store.releases import accepted_bundle, set_accepted_bundle
from cloister.custodian.tokens import SYSTEM
from cloister.errors import CloisterError, Unavailable
from cloister.lending.events import EventKind
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cloister.attest.chain import Certificate
    from cloister.attest.endorse import Endorsements
    from cloister.custodian.config import Config
    from cloister.custodian.service.context import Context, Transaction

__all__ = ["HomeBundle", "bundle_keys", "home_endorsements"]

_KEY_BYTES = 32


def bundle_keys(config: Config) -> tuple[VerifyKey, ...]:
    """Return the keys that may sign bundles beside the custodian's own. Raises ``Malformed``."""
    return tuple(
        VerifyKey(parse_b64u(item, what="setting endorsement_keys", size=_KEY_BYTES))
        for item in config.endorsement_keys
    )


def home_endorsements(bundle: HomeBundle, config: Config, home: Path) -> Endorsements:
    """Return the sources that the settings name, none of which has a network unless ``endorsements_online`` says so."""
    if not config.endorsements_online:
        return bundle
    online = OnlineEndorsements(
        https_client(environment_proxies=config.endorsement_proxies),
        vouch=production_vouch(),
        sources=Sources((*config.jwks_hosts, *config.maa_hosts)),
        cache=FolderEndorsements(home / config.endorsement_cache),
    )
    return FirstOf(online, bundle)


class HomeBundle:
    """The bundle in the home, as it lies there now."""

    def __init__(self, context: Context, path: Path) -> None:
        """Read from ``path``; nothing is read yet."""
        self._context, self._path = context, path
        self._keys = (context.vault.signing_key.verify_key, *bundle_keys(context.config))
        self._seen: tuple[int, int, int] | None = None
        self._bundle: VerifiedBundle | None = None
        self._judged: tuple[tuple[int, int, int], datetime] | None = None
        self._lock = threading.Lock()

    def fetch(
        self, names: Sequence[str], now: datetime, certificates: Sequence[Certificate] = ()
    ) -> Mapping[str, bytes]:
        """Return the objects by name. Raises ``Unavailable``, also for a bundle that is refused."""
        if not names:
            return {}
        try:
            bundle = self._current(now)
        except CloisterError as exc:
            raise missing(names[0], f"{self._path.name}: {exc.message}") from exc
        if bundle is None:
            raise missing(names[0], f"no {self._path.name} in the home")
        return bundle.fetch(names, now, certificates)

    def verify(self, data: bytes, now: datetime) -> VerifiedBundle:
        """Return a bundle that this custodian would accept, without accepting it. Raises as ``verify_bundle``."""
        with self._context.reading() as connection:
            last = accepted_bundle(connection)
        return verify_bundle(data, self._keys, now, last=last)

    def standing(self, now: datetime) -> tuple[str, datetime | None]:
        """Return how the file in the home stands, without accepting it: a reason code, and until when it is good.

        ``no_bundle``, ``bundle_good``, ``bundle_refused``, ``bundle_unreadable``.
        """
        with self._lock:
            try:
                status = self._path.stat()
                seen = (status.st_mtime_ns, status.st_size, status.st_ino)
                if self._judged is None or self._judged[0] != seen:
                    data = self._path.read_bytes() if status.st_size <= MAX_BUNDLE_BYTES else b""
                    self._judged = (seen, self.verify(data, now).bundle.window.not_after)
            except FileNotFoundError:
                return "no_bundle", None
            except OSError:
                return "bundle_unreadable", None
            except CloisterError:
                return "bundle_refused", None
            return "bundle_good", self._judged[1]

    def _current(self, now: datetime) -> VerifiedBundle | None:
        """Return the bundle that lies there, None where there is none."""
        with self._lock:
            try:
                status = self._path.stat()
            except FileNotFoundError:
                self._seen = self._bundle = None
                return None
            except OSError as exc:
                raise Unavailable(f"{exc.strerror}") from exc
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._bundle is None or seen != self._seen:
                self._bundle = None
                self._bundle = self._accept(now)
                self._seen = seen
            return self._bundle

    def _accept(self, now: datetime) -> VerifiedBundle:
        """Verify the file and remember its version, in one transaction with its audit entry."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BUNDLE_BYTES + 1)
        except OSError as exc:
            raise Unavailable(f"{exc.strerror}") from exc
        bundle = self.verify(data, now)

        def work(transaction: Transaction) -> VerifiedBundle:
            last = accepted_bundle(transaction.connection)
            if bundle.accepted == last:
                return bundle
            newer = verify_bundle(data, self._keys, now, last=last)
            set_accepted_bundle(transaction.connection, newer.accepted, transaction.now)
            transaction.record(
                EventKind.ENDORSEMENTS_ACCEPTED, SYSTEM, "custodian", bundle=newer.accepted.sha256.hex(),
                size=len(newer.bundle.entries), version=str(newer.accepted.version),
            )  # fmt: skip
            return newer

        return self._context.transact(work)
