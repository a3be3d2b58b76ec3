"""Server certificates of an authority that speaks ACME (RFC 8555), got and renewed while the custodian runs.

Control over the names is proven by http-01 (RFC 8555 section 8.3): a listener of its own is open while an order runs,
answers exactly the challenges of that order, and nothing else ever. The protocol is the library ``acme``'s, of certbot;
the extra of that name brings it. Key and chain come into one file, replaced at once, which the listener takes over like
any other (``live_tls``): what fails leaves the certificate that is there.

Not done here: tls-alpn-01 and dns-01, external account binding, revoking.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.custodian.logs import LOG, Event
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError
from cloister.private_file import read_private, replace_private, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from socketserver import BaseServer

    from acme import messages
    from acme.client import ClientV2

__all__ = ["Acme", "is_due"]

_MAX_PEM_BYTES = 256 * 1024
_PATIENCE_S = 10  # seconds a validating server may take to ask
_TIMEOUT_S = 30  # seconds for one call to the authority
_TRIES = 4  # of one order
_RETRY = timedelta(minutes=10)  # between two orders, where one failed


class _TryAgain(Unavailable):
    """The same again has every chance."""


def is_due(pem: bytes, names: Sequence[str], now: datetime) -> bool:
    """Tell whether a certificate is to be renewed: in the last third of its life, for other names, or none at all."""
    try:
        leaf = x509.load_pem_x509_certificates(pem)[0]
        held = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.DuplicateExtension, x509.ExtensionNotFound):
        return True
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return set(held.get_values_for_type(x509.DNSName)) != set(names) or now >= leaf.not_valid_after_utc - life / 3


@dataclass(slots=True, kw_only=True)
class Acme:
    """Keeps one certificate, in the file ``place``.

    ``answer_at`` is where http-01 is answered, ``ca`` a file of PEM that the authority's own server must be below,
    where the system does not know it.
    """

    directory: str
    names: Sequence[str]
    folder: Path
    answer_at: tuple[str, int]
    contact: str
    clock: Callable[[], datetime]
    ca: Path | None = None
    _thread: threading.Thread | None = field(default=None, repr=False)
    _not_before: datetime | None = None

    @property
    def place(self) -> Path:
        """The file with key and chain."""
        return self.folder / "acme.pem"

    @property
    def is_good(self) -> bool:
        """Tell whether there is a certificate whose time is now: one that has ended keeps nobody from starting."""
        try:
            leaf = x509.load_pem_x509_certificates(self.place.read_bytes())[0]
        except (OSError, ValueError, x509.InvalidVersion):
            return False
        return leaf.not_valid_before_utc <= self.clock() < leaf.not_valid_after_utc

    def keep(self) -> None:
        """Begin an order where one is due; never waits for it."""
        now = self.clock()
        if self._thread is not None and self._thread.is_alive():
            return
        if self._not_before is not None and now < self._not_before:
            return
        held = read_private(self.place, cap=_MAX_PEM_BYTES) if self.place.exists() else b""
        if is_due(held, self.names, now):
            self._not_before = now + _RETRY
            self._thread = threading.Thread(target=self._order_or_say, name="acme", daemon=True)
            self._thread.start()

    def _order_or_say(self) -> None:
        try:
            self.order()
        except CloisterError as exc:
            LOG.write(Event.ACME_FAILED, code=exc.code if isinstance(exc, Rejected) else "unavailable")
        except Exception as exc:  # noqa: BLE001 - a thread's edge: the library has more faults than it names
            LOG.write(Event.ACME_FAILED, code="internal", error=type(exc).__name__)

    def order(self) -> None:
        """Get a certificate and put it in its place.

        Raises ``Rejected`` (``acme_refused``) where the authority says no, ``Unavailable`` where it does not answer or
        our answers have no place to be given, ``UsageError`` without the extra.
        """
        for _ in range(_TRIES - 1):
            try:
                self._order()
            except _TryAgain:
                continue
            return
        self._order()

    def _order(self) -> None:
        with _faults():
            client = self._client()
            key = ec.generate_private_key(ec.SECP256R1())
            order = client.new_order(_csr(key, self.names))
            with self._answering(client, order):
                for authorization in order.authorizations:
                    challenge = _http_challenge(authorization)
                    if challenge is not None:
                        client.answer_challenge(challenge, challenge.response(client.net.key))
                done = client.poll_and_finalize(order)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + done.fullchain_pem.encode("ascii")
        self.place.with_name(self.place.name + ".new").unlink(missing_ok=True)  # of an order that was killed
        replace_private(self.place, pem)

    def _client(self) -> ClientV2:
        """Return a client whose account the authority knows; the account's key is made once and kept."""
        try:
            from acme import client, errors, messages  # noqa: PLC0415 - the extra
            from josepy import jwa, jwk  # noqa: PLC0415 - what it signs with
        except ImportError as exc:
            msg = "acme: the extra is not installed"
            raise UsageError(msg, hint="pip install 'cloister[acme]'") from exc
        logging.getLogger("acme").setLevel(logging.WARNING)  # below that it says what it sends
        key = jwk.JWK.load(self._account_key())
        net = client.ClientNetwork(key, alg=jwa.ES256, user_agent="cloister", timeout=_TIMEOUT_S)
        net.session.trust_env = False
        if self.ca is not None:
            net.verify_ssl = str(self.ca)  # type: ignore[assignment]  # requests takes a file too
        made = client.ClientV2(client.ClientV2.get_directory(self.directory, net), net)
        new = messages.NewRegistration.from_data(email=self.contact or None, terms_of_service_agreed=True)
        try:
            made.new_account(new)
        except errors.ConflictError as exc:  # it knows the account already, and says where it is
            made.net.account = made.query_registration(
                messages.RegistrationResource(uri=exc.location, body=messages.Registration())
            )
        return made

    def _account_key(self) -> bytes:
        place = self.folder / "acme-account.key"
        if not place.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            write_private(place, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return read_private(place, cap=_MAX_PEM_BYTES)

    @contextlib.contextmanager
    def _answering(self, client: ClientV2, order: messages.OrderResource) -> Iterator[None]:
        """Answer the challenges of an order over HTTP. Raises ``Unavailable`` where the port is taken."""
        answers = {}
        for authorization in order.authorizations:
            challenge = _http_challenge(authorization)
            if challenge is not None:
                answers[challenge.path] = challenge.validation(client.net.key).encode("ascii")
        try:
            server = ThreadingHTTPServer(self.answer_at, _responder(answers))
        except OSError as exc:
            msg = f"acme_http: {self.answer_at[0]} port {self.answer_at[1]}: {exc.strerror}"
            raise Unavailable(msg) from exc
        thread = threading.Thread(target=server.serve_forever, name="http-01", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _csr(key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> bytes:
    wanted = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(wanted, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _http_challenge(authorization: messages.AuthorizationResource) -> messages.ChallengeBody | None:
    """Return the http-01 challenge of an authorization that is still to be proven.

    Raises ``Rejected`` (``acme_refused``) where the authority offers none.
    """
    if authorization.body.status.name == "valid":
        return None
    for challenge in authorization.body.challenges:
        if challenge.chall.typ == "http-01":
            return challenge
    raise Rejected.because("acme_refused", "acme: authorization", got="no http-01", want="http-01")


def _responder(answers: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
    """Return what answers these paths with these bytes, and everything else with 404."""

    class Responder(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S
        server_version, sys_version = "", ""

        def do_GET(self) -> None:
            """Answer one challenge."""
            body = answers.get(self.path, b"")
            self.send_response(200 if body else 404)
            self.send_header("content-type", "application/octet-stream")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: who asks is of no interest, and what is asked is anybody's to choose."""

        def __init__(self, request: object, address: object, server: BaseServer) -> None:
            with contextlib.suppress(OSError):  # one that hangs up is not answered
                super().__init__(request, address, server)  # type: ignore[arg-type]  # as they came

    return Responder


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Turn the library's errors into ours, without their words: they quote what the other side sent."""
    try:
        import requests  # noqa: PLC0415 - what it speaks HTTP with
        from acme import errors, messages  # noqa: PLC0415 - the extra
        from josepy import errors as josepy_errors  # noqa: PLC0415 - what it signs with
    except ImportError as exc:
        msg = "acme: the extra is not installed"
        raise UsageError(msg, hint="pip install 'cloister[acme]'") from exc
    try:
        yield
    except (errors.TimeoutError, requests.RequestException, errors.ClientError, errors.NonceError) as exc:
        msg = f"acme: no answer that could be used ({type(exc).__name__})"
        raise Unavailable(msg) from exc
    except messages.Error as exc:
        if exc.code == "badNonce":  # the library tries once more, and an authority may forget twice
            msg = "acme: the authority forgot its nonces"
            raise _TryAgain(msg) from exc
        raise Rejected.because("acme_refused", "acme", got=(exc.code or "unknown")[:64]) from exc
    except (errors.Error, josepy_errors.Error, ValueError) as exc:
        raise Rejected.because("acme_refused", "acme", got=type(exc).__name__) from exc
