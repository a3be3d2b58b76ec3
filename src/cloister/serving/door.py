"""The door of a page that one person opens in a browser of their own: a link that works once, then a cookie.

Pages for one person listen on their own machine, where others have accounts too and where every page of the web can
send requests. So:

- A request names this machine as its host; a name that was made to point here (DNS rebinding) is refused.
- Everything lies below a path that nobody can guess, and so does the cookie: a server of somebody else's at another
  port of this machine is never sent it, for cookies know no ports.
- The link is good for one browser and a quarter of an hour. A new one replaces it.
- A form comes from a page of ours: the browser says so (``Origin``), and a token of the visitor's is in it.

An open door, of a small site, lets in everybody by a cookie of their own, at no secret path.

Not done here: what is behind the door; users and passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.errors import Rejected
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

__all__ = ["DOOR_STATUSES", "FORM_TOKEN", "Door", "Visitor"]

COOKIE = "cloister_page"
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a form's field

DOOR_STATUSES: Mapping[str, int] = {
    "form_foreign": 403,
    "host_not_allowed": 403,
    "link_used": 403,
    "signed_out": 401,
}
"""Codes of the door's own."""

_LINK_LIFE = timedelta(minutes=15)
_VISIT_LIFE = timedelta(hours=12)
_SECRET_BYTES, _PATH_BYTES = 32, 16
_MAX_COOKIE_CHARS = 4096
_MAX_VISITORS, _MAX_STRANGERS = 16, 4096  # remembered at once; the one seen longest ago is forgotten first
_LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """One browser that came in. ``form_token`` goes into every form; ``id`` says which visitor, and is no secret."""

    id: str
    form_token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    digest: bytes
    until: datetime


class Door:
    """Lets in one person's browsers, or everybody's where it is open. Of one event loop."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime],
        rng: Callable[[int], bytes],
        hosts: Iterable[str] = (),
        open_to_all: bool = False,
    ) -> None:
        """Answer to ``hosts`` besides the names of this machine; an open door answers to ``hosts`` alone."""
        self._clock, self._rng = clock, rng
        self._hosts = frozenset(host.lower() for host in hosts) | (frozenset() if open_to_all else _LOCAL)
        self.is_open = open_to_all
        self.prefix = "" if open_to_all else f"/{dump_b64u(rng(_PATH_BYTES))}"
        self._link: _Link | None = None
        self._visitors: OrderedDict[bytes, tuple[Visitor, datetime]] = OrderedDict()

    def new_link(self) -> str:
        """Return the path that lets in the next browser, once; an older one lets in nobody any more."""
        secret = dump_b64u(self._rng(_SECRET_BYTES))
        self._link = _Link(digest=_digest(secret), until=self._clock() + _LINK_LIFE)
        return f"{self.prefix}/enter/{secret}"

    def enter(self, secret: str) -> str:
        """Use the link up, and return the cookie of a new visitor. Raises ``Rejected`` (``link_used``)."""
        link = self._link
        if link is None or not hmac.compare_digest(link.digest, _digest(secret)) or self._clock() >= link.until:
            raise Rejected.because("link_used", "link", hint="a link lets in one browser, within 15 minutes")
        self._link = None
        return self.welcome()[0]

    def welcome(self) -> tuple[str, Visitor]:
        """Return a new visitor with the secret of its cookie."""
        secret = dump_b64u(self._rng(_SECRET_BYTES))
        visitor = Visitor(id=dump_b64u(self._rng(_PATH_BYTES)), form_token=dump_b64u(self._rng(_SECRET_BYTES)))
        self._visitors[_digest(secret)] = (visitor, self._clock() + _VISIT_LIFE)
        while len(self._visitors) > (_MAX_STRANGERS if self.is_open else _MAX_VISITORS):
            self._visitors.popitem(last=False)
        return secret, visitor

    def visitor(self, cookie: str) -> Visitor:
        """Return whose the cookie is. Raises ``Rejected`` (``signed_out``)."""
        for secret in _secrets(cookie):
            digest = _digest(secret)
            found = self._visitors.get(digest)
            if found is not None and self._clock() < found[1]:
                self._visitors.move_to_end(digest)
                return found[0]
        raise Rejected.because("signed_out", "visitor", hint="open the link that the terminal shows")

    def demand_host(self, hosts: list[str]) -> None:
        """Prove that a request names us as its host. Raises ``Rejected`` (``host_not_allowed``)."""
        found = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        if found is None or found[1] not in self._hosts:
            raise Rejected.because("host_not_allowed", "host", want="the address that the terminal shows")

    def demand_own(self, *, host: str, origins: list[str], site: str) -> None:
        """Prove that the browser sends a form of ours. Raises ``Rejected`` (``form_foreign``).

        ``site`` is what it says of the two (``Sec-Fetch-Site``), empty where it says nothing.
        """
        own = site == "same-origin" if origins in ([], ["null"]) else _is_origin_of(origins[0], host)
        if not own or len(origins) > 1 or site not in ("", "same-origin"):
            raise Rejected.because("form_foreign", "form", got="of another page", want="a form of this page")

    def demand_token(self, visitor: Visitor, token: str) -> None:
        """Prove that the form was made for this visitor. Raises ``Rejected`` (``form_foreign``)."""
        if not hmac.compare_digest(_digest(token), _digest(visitor.form_token)):
            raise Rejected.because("form_foreign", "form", got="of another visit", hint="load the page anew")


def _is_origin_of(origin: str, host: str) -> bool:
    """Tell whether an origin is of the host that was asked; its scheme is not known where another server ends TLS."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _secrets(cookie: str) -> list[str]:
    """Return what our cookies hold. Others of this machine may have set more of the same name."""
    found = []
    for part in cookie[:_MAX_COOKIE_CHARS].split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            found.append(value)
    return found


def _digest(secret: str) -> bytes:
    """Return what is kept and compared: equal in length whatever came."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
