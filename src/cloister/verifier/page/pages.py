"""The pages: a form, and what somebody pasted or a result that is kept, explained.

A token of this service is proven before anything of it is called true, and shown as ended where it has. Tokens of
others and evidence are explained field by field and marked as unverified: verifying evidence takes a challenge, or the
nonce that it answers.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import jwt
from starlette.responses import HTMLResponse

from cloister.attest.describe.table import explain
from cloister.attest.ear import MAX_TOKEN_CHARS, parse_ear
from cloister.attest.tokens.jws import Jws
from cloister.crypto.sign import KeyId
from cloister.errors import CloisterError, Malformed, Rejected
from cloister.serving.problems import status_of
from cloister.verifier.page.explained import explained
from cloister.verifier.page.style import CONTENT_SECURITY_POLICY, STYLE
from cloister.verifier.problems import STATUSES
from cloister.wire.markup import Html, joined, tag

if TYPE_CHECKING:
    from cloister.attest.describe import Description
    from cloister.verifier.service import AttestationService

__all__ = ["Pages"]

_TITLE = "Attestation service"
_RESULT_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_HEADERS = {"content-security-policy": CONTENT_SECURITY_POLICY}
_MAX_SHOWN = 512  # characters of one value
_MAX_FIELDS = 4  # of a form


class Pages:
    """Pages of one service."""

    def __init__(self, service: AttestationService) -> None:
        """Explain what ``service`` signed and keeps."""
        self._service = service

    def front(self) -> HTMLResponse:
        """Return the form."""
        return _page(_TITLE, tag("h1", _TITLE), tag("p", f"Issuer: {self._service.issuer}"), self._form())

    def result(self, result_id: str) -> HTMLResponse:
        """Return the page of a result that is kept."""
        try:
            found = self._service.results.find(result_id, self._service.now())
            return self._proven(found.token)
        except CloisterError as error:
            return self._problem(error)

    def explain(self, body: bytes) -> HTMLResponse:
        """Return the page about what was pasted."""
        try:
            text = _pasted(body)
            if _RESULT_ID.fullmatch(text):
                return self.result(text)
            return self._proven(text) if self._is_ours(text) else self._described(text)
        except CloisterError as error:
            return self._problem(error)

    def _is_ours(self, text: str) -> bool:
        """Tell whether a text is a token that names a key of this service."""
        if not _TOKEN.fullmatch(text):
            return False
        kid = _parse(text).kid
        return any(key.kid == kid for key in self._service.keys.ring(self._service.now()).keys)

    def _proven(self, token: str) -> HTMLResponse:
        """Explain a token that one of our keys signed. Raises ``Rejected`` (``signature_invalid``)."""
        jws, now = _parse(token), self._service.now()
        key = next((key for key in self._service.keys.ring(now).keys if key.kid == jws.kid), None)
        if key is None:
            raise Rejected.because("unknown_key", "token", hint="keys are kept until their tokens have ended")
        try:
            jwt.api_jws.decode(token, key.private.public_key(), algorithms=[key.algorithm])
        except (jwt.InvalidTokenError, ValueError) as exc:
            raise Rejected.because("signature_invalid", "token") from exc
        ear = parse_ear(jws.payload, KeyId(key.kid))
        ended = now >= ear.expires_at
        shown = "It has ended: it was true then, and may be no longer." if ended else "It is in its time."
        told = tag(
            "p", f"This service signed it, and nobody changed it. {shown}", class_="verdict untrue" if ended else ""
        )
        return _page("Result", tag("h1", "Result of an attestation"), told, explained(ear, jws.payload), self._form())

    def _described(self, text: str) -> HTMLResponse:
        """Explain what the bytes say. Raises ``Malformed``."""
        found = explain(text.encode() if _TOKEN.fullmatch(text) else _bytes(text))
        told = tag(
            "p", "Nothing here is verified: it is what the bytes say, not what is true.", class_="verdict warning"
        )
        return _page("Evidence", tag("h1", found.title), told, _fields(found), self._form())

    def _form(self) -> Html:
        label = "A token, evidence in base64 or hex, or the id of a result"
        area = tag("textarea", id="text", name="text", required="required", spellcheck="false", autocomplete="off")
        return tag(
            "form",
            tag("h2", "Explain something"),
            tag("label", label, for_="text"),
            area,
            tag("button", "Explain", type="submit"),
            action=f"{self._service.path}/explain",
            method="post",
        )

    def _problem(self, error: CloisterError) -> HTMLResponse:
        status = status_of(error, STATUSES)
        told = tag("p", tag("strong", "That cannot be explained. "), error.message, class_="verdict untrue")
        hint = tag("p", error.hint) if error.hint else joined()
        return _page("Not explained", tag("h1", "Not explained"), told, hint, self._form(), status=status)


def _parse(token: str) -> Jws:
    return Jws.parse(token.encode(), what="token", cap=MAX_TOKEN_CHARS)


def _pasted(body: bytes) -> str:
    """Return the one field of the form. Raises ``Malformed``."""
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as exc:
        msg = "form: want one field text"
        raise Malformed(msg) from exc
    if fields.keys() != {"text"} or len(fields["text"]) != 1:
        msg = "form: want one field text"
        raise Malformed(msg)
    return "".join(fields["text"][0].split())


def _bytes(text: str) -> bytes:
    """Return what hex or base64 of either alphabet spells. Raises ``Malformed``."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    try:
        plain = text.replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (ValueError, binascii.Error) as exc:
        msg = "text: neither a token, nor hex, nor base64, nor the id of a result"
        raise Malformed(msg) from exc


def _fields(found: Description) -> Html:
    head = tag("tr", *(tag("th", name, scope="col") for name in ("field", "value", "meaning")))
    rows = [
        tag("tr", tag("td", item.name), tag("td", tag("code", _short(item.value))), tag("td", item.meaning))
        for item in found.fields
    ]
    table = tag("table", tag("caption", "What it says"), tag("thead", head), tag("tbody", *rows))
    return tag("div", table, class_="wide", tabindex="0", role="region", aria_label="fields")


def _short(value: str) -> str:
    return value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}... ({len(value)} characters)"


def _page(title: str, *parts: str, status: int = 200) -> HTMLResponse:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        Html(f"<style>{STYLE}</style>"),
    )
    body = tag("body", tag("a", "To the content", href="#content", class_="skip"), tag("main", *parts, id="content"))
    return HTMLResponse("<!doctype html>" + tag("html", head, body, lang="en"), status_code=status, headers=_HEADERS)
