"""The attester's side of the passport model: take a challenge, send evidence, get a result.

HTTPS to the service that was named and nowhere else: no redirect is followed, no proxy taken from the environment.

Not done here: collecting evidence (the caller gives what does), believing the result (``reader``).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NoReturn

import httpx2

from cloister.attest.rats import NONCE_BYTES, Nonce
from cloister.errors import Malformed, Reason, Rejected, Unavailable, UsageError
from cloister.verifier.settings import demand_issuer
from cloister.wire import Fields, Json, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloister.attest.rats import Evidence
    from cloister.journal import Secret

__all__ = ["Asking", "web_client"]

_TIMEOUT_S = 60.0  # a verifier may wait for a vendor
_MAX_ANSWER_BYTES = 1 << 20
_OK, _UNAVAILABLE = 200, 503
_MAX_REASONS = 512


def web_client(ca: Path | None, *, timeout_s: float) -> httpx2.Client:
    """Return a client that adds nothing of its own and follows nobody. Raises ``UsageError``."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as exc:
        msg = f"{ca}: no certificates in pem"
        raise UsageError(msg) from exc
    return httpx2.Client(
        follow_redirects=False,
        headers={"accept-encoding": "identity", "user-agent": "cloister"},
        timeout=timeout_s,
        trust_env=False,
        verify=context,
    )


class Asking:
    """One attester's way to one service. Every method raises ``Rejected``, ``Malformed`` and ``Unavailable``."""

    def __init__(self, issuer: str, *, token: Secret[str] | None, ca: Path | None) -> None:
        """Ask the service at ``issuer``, as the caller whom ``token`` names. Raises ``UsageError``."""
        demand_issuer(issuer)
        self._issuer, self._token, self._ca = issuer, token, ca

    def challenge(self) -> Nonce:
        """Return a nonce of the service."""
        fields = self._post("/v1/challenge", b"")
        return Nonce(fields.b64u("nonce", size=NONCE_BYTES))

    def attest(
        self,
        evidence: Evidence,
        nonce: Nonce,
        *,
        data: bytes = b"",
        devices: Sequence[Evidence] = (),
        policy: str | None = None,
        audience: str | None = None,
    ) -> str:
        """Return the result of evidence over ``nonce`` as a token, unverified."""
        body: dict[str, Json] = {"evidence": _json(evidence), "nonce": dump_b64u(nonce)}
        body |= {"data": dump_b64u(data)} if data else {}
        body |= {"devices": [_json(item) for item in devices]} if devices else {}
        body |= {name: text for name, text in (("policy", policy), ("audience", audience)) if text is not None}
        return self._post("/v1/attest", dump_json(body)).text("token", cap=_MAX_ANSWER_BYTES, floor=1)

    def _post(self, path: str, body: bytes) -> Fields:
        url = self._issuer + path
        headers = {"content-type": "application/json"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token.reveal()}"
        try:
            with (
                web_client(self._ca, timeout_s=_TIMEOUT_S) as client,
                client.stream("POST", url, content=body, headers=headers) as response,
            ):
                status, data = response.status_code, _whole(response, url)
        except httpx2.HTTPError as exc:
            msg = f"{url}: {type(exc).__name__}"
            raise Unavailable(msg) from exc
        fields = Fields.parse(data, what=f"answer of {url}", cap=_MAX_ANSWER_BYTES)
        return fields if status == _OK else _refused(status, fields)


def _whole(response: httpx2.Response, url: str) -> bytes:
    data = b""
    for part in response.iter_raw():
        data += part
        if len(data) > _MAX_ANSWER_BYTES:
            msg = f"{url}: want at most {_MAX_ANSWER_BYTES} bytes"
            raise Malformed(msg)
    return data


def _json(evidence: Evidence) -> Json:
    return {"payload": dump_b64u(evidence.payload), "tee": evidence.tee}


def _refused(status: int, fields: Fields) -> NoReturn:
    """Raise what a problem document says (RFC 9457): what it says is the service's word, and is shown as such."""
    code = fields.text("code", cap=64, floor=1)
    detail = fields.text("detail")
    if status == _UNAVAILABLE:
        msg = f"the service could not decide: {detail}"
        raise Unavailable(msg)
    given = fields.optional("reasons", lambda name: fields.items(name, cap=_MAX_REASONS)) or []
    reasons = tuple(_reason(Fields(item, what="reason")) for item in given)
    raise Rejected(f"the service refuses: {detail}", reasons=reasons or (Reason(code=code, subject="request"),))


def _reason(fields: Fields) -> Reason:
    return Reason(
        code=fields.text("code", cap=64, floor=1),
        subject=fields.text("subject"),
        got=fields.text("got"),
        want=fields.text("want"),
    )
