"""A relay's certificate, renewed by itself: shown to the custodian in the last half of its life, for the next one.

    file half through -> fresh key, request -> POST /v1/certificates/renewal, the old one shown -> file replaced at once

The custodian does so while a token of staff vouches for the host (docs/spec/certificates.md section 3). The file of
authorities is written too, so that a relay follows these. What goes wrong, foreseen or not, leaves both as they are, is
said and counted, and is tried again a minute later: a relay whose renewal died in silence would serve until its
certificate ends, and no longer.

Not done here: connections to the gateway, which take new files over (``link``).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx2
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.private_file import read_private, replace_private
from cloister.serving.logs import LOG, ServingEvent
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.relay.metrics import RelayMetrics

__all__ = ["Renewal"]

_LOOK_S = 10.0
_PAUSE = timedelta(seconds=60)  # between two tries
_WITHIN_S = 30
_MAX_ANSWER_BYTES = 256 * 1024
_MAX_PEM_BYTES = 64 * 1024
_CREATED = 201
_EVER = datetime.min.replace(tzinfo=UTC)
_REFUSED = range(400, 500)


@dataclass(slots=True, kw_only=True)
class Renewal:
    """Keeps the file ``certificate`` (key and certificate in one, mode 0600) and the file ``authorities`` fresh."""

    custodian: str
    ca: Path | None
    certificate: Path
    authorities: Path
    not_before: datetime = _EVER

    async def until_cancelled(self, counts: RelayMetrics | None = None) -> None:
        """Look again and again."""
        while True:
            result = await self.tick(datetime.now(UTC))
            if counts is not None and result is not None:
                counts.add("cloister_relay_renewals_total", label=result)
            await asyncio.sleep(_LOOK_S)

    async def tick(self, now: datetime) -> str | None:
        """Renew what is in the last half of its life; return how a try went, None where there was none.

        Raises nothing: what goes wrong is written down.
        """
        if now < self.not_before:
            return None
        try:
            leaf = _leaf(read_private(self.certificate, cap=_MAX_PEM_BYTES, holds="a private key", links=True))
            if now < leaf.not_valid_before_utc + (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / 2:
                return None
            await self._renew()
        except (CloisterError, OSError) as exc:
            self.not_before = now + _PAUSE
            code = exc.logged if isinstance(exc, CloisterError) else type(exc).__name__.lower()
            LOG.write(ServingEvent.CERTIFICATE_FAILED, code=code)
            return "failed"
        except Exception as exc:  # noqa: BLE001 - the task's edge: nobody waits for it, and nobody would see it end
            self.not_before = now + _PAUSE
            LOG.write(ServingEvent.INTERNAL_ERROR, route="renewal", error=type(exc).__name__)
            return "internal_error"
        LOG.write(ServingEvent.CERTIFICATE_RENEWED)
        return "renewed"

    async def _renew(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
        body = dump_json({"csr": dump_b64u(csr.public_bytes(Encoding.DER))})
        answer = Fields.parse(await self._asked(body), what="custodian: certificate", cap=_MAX_ANSWER_BYTES)
        issued, authorities = _pem(answer, "certificate"), _pem(answer, "authorities")
        if _key_of(issued) != key.public_key():
            raise Rejected.because("wrong_certificate", "certificate", got="another key's")
        _replace(self.authorities, authorities)
        _beside(self.certificate).unlink(missing_ok=True)  # of a try that was cut short: it must not end all others
        replace_private(self.certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + issued)

    async def _asked(self, body: bytes) -> bytes:
        """Return the custodian's answer on a connection that shows the certificate. Raises as the family does."""
        headers = {"accept-encoding": "identity", "content-type": "application/json"}
        address = self.custodian + "/v1/certificates/renewal"
        try:
            async with (
                asyncio.timeout(_WITHIN_S),
                httpx2.AsyncClient(verify=self._context(), trust_env=False, follow_redirects=False) as client,
                client.stream("POST", address, content=body, headers=headers) as answer,
            ):
                data = await _bounded(answer)
        except (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError, TimeoutError) as exc:
            msg = f"custodian: no answer ({type(exc).__name__})"
            raise Unavailable(msg) from exc
        if answer.status_code in _REFUSED:
            raise Rejected.because("refused", "custodian", got=f"status {answer.status_code}")
        if answer.status_code != _CREATED:
            msg = f"custodian: answered {answer.status_code}"
            raise Unavailable(msg)
        return data

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.load_cert_chain(self.certificate, password=lambda: b"")
        except OSError as exc:  # ssl.SSLError is one
            msg = f"relay: {self.certificate}: not a certificate and its key in pem"
            raise UsageError(msg) from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def _beside(path: Path) -> Path:
    """Return where a file is written before it takes the other's place."""
    return path.with_name(path.name + ".new")


def _replace(path: Path, data: bytes) -> None:
    """Put ``data``, which is no secret, where a file is. Raises ``OSError``; then that is as it was."""
    fresh = _beside(path)
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


async def _bounded(answer: httpx2.Response) -> bytes:
    data = b""
    async for part in answer.aiter_raw():
        data += part
        if len(data) > _MAX_ANSWER_BYTES:
            msg = f"custodian: answer longer than {_MAX_ANSWER_BYTES} bytes"
            raise Unavailable(msg)
    return data


def _pem(answer: Fields, name: str) -> bytes:
    """Return a member that is certificates in PEM. Raises ``Malformed``."""
    text = answer.take(name)
    if not isinstance(text, str):
        answer.fail(name, "want certificates in pem")
    pem = text.encode("utf-8", "replace")
    _leaf(pem)
    return pem


def _key_of(pem: bytes) -> object:
    """Return the key that a certificate is of. Raises ``Malformed``."""
    try:
        return _leaf(pem).public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        msg = "certificate: of a key that is not known here"
        raise Malformed(msg) from exc


def _leaf(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a PEM file. Raises ``Malformed``."""
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except (ValueError, x509.InvalidVersion) as exc:
        msg = "certificate: not x.509 in pem"
        raise Malformed(msg) from exc
