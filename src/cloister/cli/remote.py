"""The custodian's API as the command line calls it, for the owner and for the borrower.

On the custodian's own machine its home says everything: address, authority, token. Elsewhere
``--url``, ``--ca`` and ``--token-file`` do, or a session file alone; a borrower has all three in its loan file.
"""

from __future__ import annotations

import os
import secrets
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import click
import httpx2

from cloister.cli.answers import HTTP_BAD_REQUEST, MAX_ANSWER_BYTES, Answer, Document, documents, fault, lines, whole
from cloister.cli.certificate_file import beside, new_request, read_held
from cloister.cli.session_file import KeyProof, SessionFile
from cloister.cli.terminal import read_secret
from cloister.client.trust_file import is_loopback, parse_origin
from cloister.custodian.config_file import read_config
from cloister.custodian.tenants.config import HOST_CA
from cloister.custodian.tls import server_authority
from cloister.enclave.loanfile import read_loan_file
from cloister.errors import CloisterError, Malformed, Unavailable, UsageError
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
    "home_option",
    "remote_options",
    "segment",
    "token_place",
]

ADMIN_TOKEN_NAME = "admin.token"  # noqa: S105 - the name of a file, not a token
OPERATOR_TOKEN_NAME = "operator.token"  # noqa: S105 - the same
HOME_VARIABLE = "CLOISTER_CUSTODIAN_HOME"
_DEFAULT_HOME = Path("~/.local/share/cloister/custodian")
STATEMENT_TYPE = "application/vnd.dsse.envelope.v1+json"
_TIMEOUT_S = 30.0

home_option = click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help=f"The custodian's home [env {HOME_VARIABLE}]."
)
"""For a command that works on the custodian's own machine alone; ``custodian_home`` reads it."""


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
    identity: Path | None = None
    """The certificate that is shown beside the token, with its key."""


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
            verify=_context(credentials),
            timeout=_TIMEOUT_S,
            trust_env=False,
            auth=credentials.proof,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._client.close()

    @property
    def url(self) -> str:
        """Where the custodian is."""
        return self._url

    def get(self, path: str, **query: str | int) -> Any:
        """GET a JSON document."""
        return self._call("GET", path, params=query)

    def raw(self, path: str, **query: str | int) -> bytes:
        """GET the exact bytes of a document."""
        return self._send("GET", path, params=query).content

    def post_text(self, path: str, body: bytes) -> Any:
        """POST a text that proves itself, by what it is signed with."""
        return self._call("POST", path, content=body, headers={"content-type": "text/plain"})

    def post(self, path: str, body: Json, *, key: str = "") -> Any:
        """POST to a route that takes an Idempotency-Key: a fresh one makes a retry harmless, ``key`` one by hand."""
        headers = {"content-type": "application/json", "idempotency-key": key or secrets.token_urlsafe(18)}
        return self._call("POST", path, content=dump_json(body), headers=headers)

    def send_json(self, path: str, body: Json) -> Any:
        """POST a JSON document to a route that takes no key for retries, and refuses one."""
        return self._call("POST", path, content=dump_json(body), headers={"content-type": "application/json"})

    def send(self, path: str, body: bytes, *, media_type: str = STATEMENT_TYPE) -> bytes:
        """POST bytes as they are, without a key for retries: a signed statement is its own. Returns the exact bytes."""
        return self._send("POST", path, content=body, headers={"content-type": media_type}).content

    def delete(self, path: str, **query: str) -> Any:
        """DELETE something, with a key for retries: every such route takes one."""
        return self._call("DELETE", path, params=query, headers={"idempotency-key": secrets.token_urlsafe(18)})

    @contextmanager
    def events(self, path: str, *, quiet_s: float | None = None) -> Iterator[Iterator[str]]:
        """Read server-sent events: yields the ``data`` lines as they come.

        A stream that says nothing at all for ``quiet_s`` is ``Unavailable``, and a sign of life in it is yielded as an
        empty text; None waits for ever, for data alone.
        """
        heads = ("data:",) if quiet_s is None else ("data:", ":")
        try:
            with self._client.stream("GET", path, timeout=httpx2.Timeout(_TIMEOUT_S, read=quiet_s)) as answer:
                if answer.status_code >= HTTP_BAD_REQUEST:
                    raise fault(whole(answer))
                found = (line for line in lines(answer) if line.startswith(heads))
                yield ("" if line.startswith(":") else line.removeprefix("data:").strip() for line in found)
        except httpx2.HTTPError as exc:
            raise self._unreachable(exc) from exc

    def _call(self, method: str, path: str, **options: Any) -> Any:
        answer = self._send(method, path, **options)
        if not answer.content:
            return Document()
        value = documents(parse_json(answer.content, what="custodian's answer", cap=MAX_ANSWER_BYTES))
        if not isinstance(value, dict):
            msg = "custodian's answer: want a json object"
            raise Malformed(msg)
        return value

    def _send(self, method: str, path: str, **options: Any) -> Answer:
        try:
            with self._client.stream(method, path, **options) as response:
                answer = whole(response)
        except httpx2.HTTPError as exc:
            raise self._unreachable(exc) from exc
        if answer.status >= HTTP_BAD_REQUEST:
            raise fault(answer)
        return answer

    def _unreachable(self, exc: httpx2.HTTPError) -> Unavailable:
        msg = f"custodian {self._url}: {type(exc).__name__.lower()}"
        return Unavailable(msg, hint="is it running? see 'cloister custodian serve'", code="no_answer")


def _context(credentials: Credentials) -> ssl.SSLContext:
    """Return what the connection believes and shows."""
    context = _authority(credentials.ca_pem)
    if credentials.identity is not None:
        try:
            context.load_cert_chain(credentials.identity)
        except (ssl.SSLError, OSError) as exc:
            msg = f"{credentials.identity}: not a key and its certificate in pem"
            raise UsageError(msg) from exc
    return context


def _authority(ca_pem: str | None) -> ssl.SSLContext:
    """Return the context that trusts the one authority, or the system's for None."""
    try:
        if ca_pem is not None and not ca_pem.strip():
            raise TypeError(ca_pem)  # noqa: TRY301 - for ssl an empty bundle is none, and none is the system's
        return ssl.create_default_context(cadata=ca_pem)
    except (ssl.SSLError, TypeError) as exc:  # TypeError: text beyond ascii
        msg = "custodian's authority: no certificate in PEM"
        raise UsageError(msg) from exc


def segment(text: str) -> str:
    """Return ``text`` as one segment of a path."""
    return quote(text, safe="")


def custodian_home(home: Path | None) -> Path:
    """Return the home named by option, by environment or by default."""
    named = home or os.environ.get(HOME_VARIABLE)
    return Path(named or _DEFAULT_HOME).expanduser()


def token_place(*, home: Path | None, token_file: str | None, token_name: str = ADMIN_TOKEN_NAME, **_: object) -> Path:
    """Return where the token of these options lies. Raises ``UsageError`` for one that came by standard input."""
    if token_file == "-":  # noqa: S105 - no token
        msg = "certificate: a token from standard input has no place beside it"
        raise UsageError(msg, hint="pass --out, or the token by its file")
    return Path(token_file or custodian_home(home) / token_name)


def from_options(
    *,
    home: Path | None,
    url: str | None,
    ca: Path | None,
    token_file: str | None,
    token_name: str = ADMIN_TOKEN_NAME,
    shows: bool = True,
) -> Remote:
    """Return a connection from the options; what is missing comes from the custodian's home, or a tenant's.

    A session in the place of a token is renewed where little is left of it, and kept as it stands then; so is the
    certificate beside a token, which is shown unless ``shows`` is False.
    """
    found = credentials_of(home=home, url=url, ca=ca, token_file=token_file, token_name=token_name)
    if shows and token_file != "-":  # noqa: S105 - no token
        found = _with_certificate(found, beside(token_place(home=home, token_file=token_file, token_name=token_name)))
    remote = Remote(found)
    kept, now = found.session, datetime.now(UTC)
    if kept is not None and token_file not in {None, "-"} and kept.is_waning(now):
        replace_private(Path(str(token_file)), kept.renewed(remote.send_json("/v1/sessions/renew", {})).dump())
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


def _with_certificate(found: Credentials, path: Path) -> Credentials:
    """Return what is shown where a certificate lies at ``path``: that one, or a fresh one where it wanes."""
    held, now = read_held(path), datetime.now(UTC)
    if held is None:
        return found
    if held.is_waning(now):
        made, of_host = new_request(), held.name.startswith("operator/")
        asked: dict[str, Json] = {"csr": made.csr, "kind": held.kind}
        try:
            with Remote(found) as remote:
                shown = remote.send_json("/operator/certificates" if of_host else "/v1/certificates", asked)
            replace_private(path, made.joined(str(shown["certificate"])))
        except CloisterError:
            if held.is_over(now):
                raise
    return replace(found, identity=path)


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


def from_loan_file(path: Path, *, shows: bool = True) -> tuple[Remote, str]:
    """Return the connection of a borrower, and which loan its loan file is about. Raises ``UsageError``.

    It shows the certificate beside the loan file, renewed where it wanes, unless ``shows`` is False.
    """
    given = read_loan_file(path)
    found = Credentials(url=given.custodian_url, ca_pem=given.ca_pem, token=Secret(given.token))
    return Remote(_with_certificate(found, beside(path)) if shows else found), given.loan


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
