"""The custodian's API as the command line calls it, for the owner and for the borrower.

On the custodian's own machine its home says everything: address, authority, token. Elsewhere
``--url``, ``--ca`` and ``--token-file`` do, or a session file alone; a borrower has all three in its loan file.
"""

from __future__ import annotations

import os
import secrets
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import click
import httpx2

from cloister.cli.session_file import KeyProof, SessionFile
from cloister.cli.terminal import read_secret
from cloister.client.trust_file import is_loopback, parse_origin
from cloister.custodian.config_file import read_config
from cloister.custodian.setup import server_authority
from cloister.custodian.tenants.config import HOST_CA
from cloister.enclave.loanfile import read_loan_file
from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable, UsageError
from cloister.journal import Secret
from cloister.private_file import replace_private
from cloister.wire import Json, dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

__all__ = [
    "ADMIN_TOKEN_NAME",
    "OPERATOR_TOKEN_NAME",
    "Credentials",
    "Remote",
    "as_anybody",
    "credentials_of",
    "custodian_home",
    "from_loan_file",
    "from_options",
    "from_token",
    "remote_options",
    "segment",
]

ADMIN_TOKEN_NAME = "admin.token"  # noqa: S105 - the name of a file, not a token
OPERATOR_TOKEN_NAME = "operator.token"  # noqa: S105 - the same
HOME_VARIABLE = "CLOISTER_CUSTODIAN_HOME"
_DEFAULT_HOME = Path("~/.local/share/cloister/custodian")
STATEMENT_TYPE = "application/vnd.dsse.envelope.v1+json"
_MAX_ANSWER_BYTES = 16 << 20
_MAX_EVENT_BYTES = 1 << 20
_TIMEOUT_S = 30.0
_HTTP_BAD_REQUEST, _HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN, _HTTP_TOO_MANY, _HTTP_SERVER = 400, 401, 403, 429, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where the custodian is, whose certificate it must show, and who we are: nobody, for what is public."""

    url: str
    ca_pem: str | None
    token: Secret[str] | None
    """None for the few routes that anybody may call."""
    proof: KeyProof | None = None
    """What proves a key with every request, where the token alone is not enough."""
    session: SessionFile | None = None
    """The session that the token is of, as it is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A whole answer."""

    status: int
    content: bytes


class _Document(dict[str, Any]):
    """A JSON object of the custodian's: a member that is not there is the custodian's fault, not ours."""

    def __missing__(self, name: str) -> Any:
        msg = f"custodian's answer: {name}: missing"
        raise Malformed(msg, hint="is this a custodian of the same version?")


def _documents(value: Json) -> Any:
    """Return ``value`` with every object in it as a ``_Document``."""
    if isinstance(value, dict):
        return _Document({name: _documents(member) for name, member in value.items()})
    return [_documents(item) for item in value] if isinstance(value, list) else value


class Remote:
    """A connection to the custodian's API. Use it in a ``with`` block."""

    def __init__(self, credentials: Credentials) -> None:
        """Pin the authority; follow no redirect; take no proxy from the environment.

        Raises ``UsageError`` for an address, an authority or a token that is none, and for plain HTTP to another
        machine, which would carry the token in the clear.
        """
        self._url = parse_origin(credentials.url)
        token = None if credentials.token is None else credentials.token.reveal()
        if token and self._url.startswith("http:") and not is_loopback(self._url):
            msg = f"custodian {self._url}: want https: the token would travel in the clear"
            raise UsageError(msg)
        if token and not token.isascii():
            msg = "token: want printable ascii"
            raise UsageError(msg)
        headers = {"accept-encoding": "identity"}
        if token is not None and credentials.proof is None:
            headers["authorization"] = f"Bearer {token}"
        self._client = httpx2.Client(
            base_url=self._url,
            headers=headers,
            verify=_authority(credentials.ca_pem),
            timeout=_TIMEOUT_S,
            trust_env=False,
            auth=credentials.proof,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> Any:
        """GET a JSON document."""
        return self._call("GET", path, params=query)

    def raw(self, path: str, **query: str | int) -> bytes:
        """GET the exact bytes of a document."""
        return self._send("GET", path, params=query).content

    def post_text(self, path: str, body: bytes) -> Any:
        """POST a text that proves itself, by what it is signed with."""
        return self._call("POST", path, content=body, headers={"content-type": "text/plain"})

    def post(self, path: str, body: Json) -> Any:
        """POST once: a fresh Idempotency-Key makes a retry by the transport harmless."""
        headers = {"content-type": "application/json", "idempotency-key": secrets.token_urlsafe(18)}
        return self._call("POST", path, content=dump_json(body), headers=headers)

    def send(self, path: str, body: bytes, *, media_type: str = STATEMENT_TYPE) -> bytes:
        """POST bytes as they are, without a key for retries: a signed statement is its own. Returns the exact bytes."""
        return self._send("POST", path, content=body, headers={"content-type": media_type}).content

    def delete(self, path: str, **query: str) -> Any:
        """DELETE something."""
        return self._call("DELETE", path, params=query)

    @contextmanager
    def events(self, path: str) -> Iterator[Iterator[str]]:
        """Read server-sent events: yields the ``data`` lines as they come."""
        try:
            with self._client.stream("GET", path, timeout=None) as answer:
                if answer.status_code >= _HTTP_BAD_REQUEST:
                    raise _fault(_whole(answer))
                yield (line.removeprefix("data:").strip() for line in _lines(answer) if line.startswith("data:"))
        except httpx2.HTTPError as exc:
            raise self._unreachable(exc) from exc

    def _call(self, method: str, path: str, **options: Any) -> Any:
        answer = self._send(method, path, **options)
        if not answer.content:
            return _Document()
        value = _documents(parse_json(answer.content, what="custodian's answer", cap=_MAX_ANSWER_BYTES))
        if not isinstance(value, dict):
            msg = "custodian's answer: want a json object"
            raise Malformed(msg)
        return value

    def _send(self, method: str, path: str, **options: Any) -> _Answer:
        try:
            with self._client.stream(method, path, **options) as response:
                answer = _whole(response)
        except httpx2.HTTPError as exc:
            raise self._unreachable(exc) from exc
        if answer.status >= _HTTP_BAD_REQUEST:
            raise _fault(answer)
        return answer

    def _unreachable(self, exc: httpx2.HTTPError) -> Unavailable:
        msg = f"custodian {self._url}: {type(exc).__name__.lower()}"
        return Unavailable(msg, hint="is it running? see 'cloister custodian serve'")


def _authority(ca_pem: str | None) -> ssl.SSLContext:
    """Return the context that trusts the one authority, or the system's for None."""
    try:
        if ca_pem is not None and not ca_pem.strip():
            raise TypeError(ca_pem)  # noqa: TRY301 - for ssl an empty bundle is none, and none is the system's
        return ssl.create_default_context(cadata=ca_pem)
    except (ssl.SSLError, TypeError) as exc:  # TypeError: text beyond ascii
        msg = "custodian's authority: no certificate in PEM"
        raise UsageError(msg) from exc


def _whole(response: httpx2.Response) -> _Answer:
    """Return a bounded answer as it was sent; nothing is unpacked."""
    data = bytearray()
    for part in response.iter_raw():
        data += part
        if len(data) > _MAX_ANSWER_BYTES:
            msg = f"custodian's answer: more than {_MAX_ANSWER_BYTES} bytes"
            raise Malformed(msg)
    return _Answer(status=response.status_code, content=bytes(data))


def _lines(response: httpx2.Response) -> Iterator[str]:
    """Yield the lines of a stream, each bounded."""
    left = bytearray()
    for part in response.iter_raw():
        *lines, rest = (left + part).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
        left = rest
        if len(left) > _MAX_EVENT_BYTES:
            msg = f"custodian's events: a line of more than {_MAX_EVENT_BYTES} bytes"
            raise Malformed(msg)


def _fault(answer: _Answer) -> CloisterError:
    """Return the error that a problem document (RFC 9457) says."""
    try:
        problem = parse_json(answer.content, what="problem", cap=_MAX_ANSWER_BYTES)
    except Malformed:
        problem = {}
    members = problem if isinstance(problem, dict) else {}
    status = answer.status
    message = str(members.get("detail") or members.get("title") or f"custodian answered {status}")
    hint = members.get("hint")
    advice = hint if isinstance(hint, str) else None
    if status == _HTTP_TOO_MANY or status >= _HTTP_SERVER:
        return Unavailable(message, hint=advice)
    code = members.get("code")
    if code == "malformed":
        return Malformed(message, hint=advice)
    if code == "usage" or not isinstance(code, str):
        return UsageError(message, hint=advice)
    if status == _HTTP_UNAUTHORIZED and advice is None:
        advice = "pass --token-file, or --home on the custodian's machine"
    return Rejected(message, reasons=_reasons(members, code, message), hint=advice)


def _reasons(members: dict[str, Any], code: str, message: str) -> tuple[Reason, ...]:
    found = members.get("reasons")
    reasons = tuple(
        Reason(**{name: str(item.get(name, "")) for name in ("code", "subject", "got", "want")})
        for item in (found if isinstance(found, list) else [])
        if isinstance(item, dict)
    )
    return reasons or (Reason(code=code, subject=message),)


def segment(text: str) -> str:
    """Return ``text`` as one segment of a path."""
    return quote(text, safe="")


def custodian_home(home: Path | None) -> Path:
    """Return the home named by option, by environment or by default."""
    named = home or os.environ.get(HOME_VARIABLE)
    return Path(named or _DEFAULT_HOME).expanduser()


def from_options(
    *, home: Path | None, url: str | None, ca: Path | None, token_file: str | None, token_name: str = ADMIN_TOKEN_NAME
) -> Remote:
    """Return a connection from the options; what is missing comes from the custodian's home, or a tenant's.

    A session in the place of a token is renewed where little is left of it, and kept as it stands then.
    """
    found = credentials_of(home=home, url=url, ca=ca, token_file=token_file, token_name=token_name)
    remote = Remote(found)
    kept, now = found.session, datetime.now(UTC)
    if kept is not None and token_file not in {None, "-"} and kept.is_waning(now):
        replace_private(Path(str(token_file)), kept.renewed(remote.post("/v1/sessions/renew", {})).dump())
    return remote


def credentials_of(
    *, home: Path | None, url: str | None, ca: Path | None, token_file: str | None, token_name: str = ADMIN_TOKEN_NAME
) -> Credentials:
    """Return what the options say. Raises ``Rejected`` (``session_over``) for a session that is."""
    place = custodian_home(home)
    hint = "on the custodian's machine pass --home, elsewhere --token-file"
    token = read_secret(token_file or str(place / token_name), what="token", hint=hint)
    if token.reveal().startswith("{"):
        kept = SessionFile.parse(token.reveal().encode())
        kept.demand_good(datetime.now(UTC))
        own = kept.ca_pem if ca is None else _read_text(ca)
        return Credentials(url=url or kept.url, ca_pem=own, token=kept.token, proof=kept.proof(), session=kept)
    if url is None:
        config = read_config(place, environment=os.environ, now=datetime.now(UTC))
        url = config.public_url(config.port)
    ca_pem = _home_authority(place) if ca is None else _read_text(ca)
    return Credentials(url=url, ca_pem=ca_pem, token=token)


def _home_authority(place: Path) -> str | None:
    """Return the authority of the certificate that the custodian of a home shows, None where every system knows it."""
    hosted = place / HOST_CA  # a tenant's certificate is its host's
    if hosted.exists():
        return _read_text(hosted) or None
    if not (place / "config.toml").exists():
        return None
    return server_authority(place, read_config(place, environment=os.environ, now=datetime.now(UTC)))


def as_anybody(*, url: str, ca: Path | None) -> Remote:
    """Return a connection without a token, for what anybody may send."""
    return Remote(Credentials(url=url, ca_pem=None if ca is None else _read_text(ca), token=None))


def from_loan_file(path: Path) -> tuple[Remote, str]:
    """Return the connection of a borrower, and which loan its loan file is about. Raises ``UsageError``."""
    given = read_loan_file(path)
    return from_token(url=given.custodian_url, ca_pem=given.ca_pem, token=given.token), given.loan


def from_token(*, url: str, ca_pem: str | None, token: str | None) -> Remote:
    """Return a connection for somebody who has it all, as a borrower has in its loan file. No token is nobody."""
    return Remote(Credentials(url=url, ca_pem=ca_pem, token=None if token is None else Secret(token)))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{path}: cannot be read"
        raise UsageError(msg) from exc


def remote_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which custodian: the command gets ``home``, ``url``, ``ca``, ``token_file``."""
    folder = click.Path(path_type=Path, file_okay=False)
    file = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option(
            "--token-file", metavar="FILE", help="File with an API token or a session (mode 0600), - for stdin."
        ),
        click.option("--ca", type=file, help="PEM file of the custodian's TLS authority."),
        click.option("--url", help="Base URL of the custodian's API."),
        click.option(
            "--home", type=folder, help=f"The custodian's home [env {HOME_VARIABLE}; default {_DEFAULT_HOME}]."
        ),
    ):
        command = option(command)
    return command
