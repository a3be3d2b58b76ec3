"""Being let in by a registry: what it asks for (RFC 9110 section 11, the token protocol of distribution).

Credentials come from ``--token-file`` or its variables, else from the file that container tools keep, mode 0600. They
go to the registry itself, or to where it asks for tokens if that is the same host, its parent or a sibling, over TLS or
loopback. No helper program is started.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from cloister.errors import CloisterError, Malformed, Unavailable, UsageError
from cloister.stores.link import Link
from cloister.stores.place import ModelUrl
from cloister.stores.ranges import refused
from cloister.wire import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.stores.access import Access
    from cloister.stores.patience import Patience

__all__ = ["Login", "is_related", "parse_challenge"]

_CHALLENGE = re.compile(r"(?P<scheme>[A-Za-z]{1,16}) +(?P<rest>.{1,4000})")
_PARAMETER = re.compile(r'([a-z_]{1,32})="([ !#-\[\]-~]{0,2048})"(?:, *|$)')
_TOKEN = re.compile(r"[!-~]{1,16384}", re.ASCII)
_MAX_TOKEN_BYTES = 64 * 1024
_MAX_CONFIG_BYTES = 1 << 20
_OK = 200


def parse_challenge(text: str) -> tuple[str, dict[str, str]]:
    """Return scheme, in lower case, and parameters of one challenge. Raises ``Malformed``."""
    found = _CHALLENGE.fullmatch(text)
    parameters: dict[str, str] = {}
    at = 0
    while found is not None and at < len(found["rest"]):
        one = _PARAMETER.match(found["rest"], at)
        if one is None or one[1] in parameters:
            found = None
            break
        parameters[one[1]], at = one[2], one.end()
    if found is None:
        msg = "registry's challenge: not one that is known"
        raise Malformed(msg)
    return found["scheme"].lower(), parameters


def is_related(host: str, registry: str) -> bool:
    """Tell whether ``host`` may see what lets us in at ``registry``: the same, its parent, or a sibling of it.

    A sibling shares all but the first label, two at least. Whoever has a name directly below a suffix of two labels
    (``co.uk``) has strangers for siblings.
    """
    if host == registry:
        return True
    labels, theirs = registry.split("."), host.split(".")
    if _is_address(host) or _is_address(registry):
        return False
    return len(labels) > 2 and labels[1:] in (theirs, theirs[1:])  # noqa: PLR2004 - a domain has two labels


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class Login:
    """Answers challenges of one registry."""

    def __init__(self, registry: ModelUrl, access: Access, patience: Patience, environment: Mapping[str, str]) -> None:
        """Read the credentials. Raises ``UsageError`` for a file that is none or that others may read."""
        self._registry = registry
        self._access = access
        self._patience = patience
        self._basic = None if access.token else _read_basic(registry.netloc, environment)

    def first(self) -> str | None:
        """Return the header to begin with, None where the registry is to be asked first."""
        return f"Bearer {self._access.token}" if self._access.token else None

    def answer(self, challenge: str, deadline: float) -> str:
        """Return the header that answers ``challenge``. Raises ``Unavailable`` where there is no answer."""
        try:
            scheme, parameters = parse_challenge(challenge)
        except Malformed as exc:
            raise self._not_let_in() from exc
        if scheme == "basic" and self._basic is not None:
            return f"Basic {self._basic}"
        if scheme == "bearer" and self._access.token is None:
            return f"Bearer {self._fetch(parameters, deadline)}"
        raise self._not_let_in()

    def _fetch(self, parameters: Mapping[str, str], deadline: float) -> str:
        """Ask for a token where the registry says."""
        realm, query = self._realm(parameters.get("realm", ""))
        wanted = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        target = f"{realm.path or '/'}?{'&'.join(part for part in (query, urlencode(wanted)) if part)}"
        headers = {} if self._basic is None else {"authorization": f"Basic {self._basic}"}
        link = Link(realm, self._access, self._patience)
        try:
            with link.exchange("GET", target, headers, deadline=deadline) as answer:
                if answer.status != _OK:
                    raise refused(answer, f"{realm.scheme}://{realm.netloc}: token")
                data = answer.whole(_MAX_TOKEN_BYTES)
        finally:
            link.close()
        try:
            found = parse_json(data, what="registry's token", cap=_MAX_TOKEN_BYTES)
        except Malformed as exc:
            raise self._not_let_in() from exc
        token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise self._not_let_in()
        return token

    def _realm(self, text: str) -> tuple[ModelUrl, str]:
        """Return where tokens are to be had, if it is a place to send credentials to."""
        try:
            parts = urlsplit(text)
            realm = ModelUrl(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, path=parts.path)
        except ValueError as exc:
            raise self._not_let_in() from exc
        sound = realm.scheme == "https" or (realm.scheme == "http" and realm.is_loopback)
        if not sound or not is_related(realm.host, self._registry.host) or "@" in parts.netloc:
            msg = f"{self._registry}: wants us to ask for tokens elsewhere"
            raise Unavailable(msg, hint="get a token yourself, and name its file with --token-file")
        return realm, parts.query

    def _not_let_in(self) -> CloisterError:
        return Unavailable(f"{self._registry}: not let in", hint="see 'credentials' in docs/reference/sources.md")


def _read_basic(host: str, environment: Mapping[str, str]) -> str | None:
    """Return base64 of user and password for ``host`` from the file of container tools, None where it has none."""
    named = environment.get("REGISTRY_AUTH_FILE", "")
    folder = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME") or "/") / ".docker")
    place = Path(named) if named else Path(folder) / "config.json"
    try:
        with os.fdopen(os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(_MAX_CONFIG_BYTES)
    except FileNotFoundError:
        return None
    except OSError as exc:
        msg = f"{place}: {exc.strerror}"
        raise UsageError(msg) from exc
    try:
        found = json.loads(data).get("auths", {}).get(host, {}).get("auth")
    except (ValueError, AttributeError, RecursionError):
        msg = f"{place}: not a file of registry credentials"
        raise UsageError(msg) from None  # the cause would repeat what is in it
    if found is None:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        msg = f"{place}: want a regular file of mode 0600"
        raise UsageError(msg, hint=f"chmod 600 {place}")
    if not isinstance(found, str) or not _is_basic(found):
        msg = f"{place}: the credentials for {host} are not user and password"
        raise UsageError(msg, hint="name a token's file with --token-file")
    return found


def _is_basic(text: str) -> bool:
    """Tell whether ``text`` is base64 of a user and a password."""
    try:
        return b":" in base64.b64decode(text, validate=True)
    except ValueError:
        return False
