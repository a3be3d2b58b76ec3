"""What a caller may ask, parsed: one object, strict, bounded, to the end (docs/spec/attestation-service.md section 2).

Raises ``Malformed`` and nothing else. Not done here: whether any of it is true.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from cloister.attest.binding import CarriedBinding, ServiceBinding
from cloister.attest.devices import MAX_DEVICES, MAX_DEVICES_BYTES, dump_devices, parse_devices
from cloister.attest.policy import Policy
from cloister.attest.rats import MAX_EVIDENCE_BYTES, NONCE_BYTES, Evidence, TeeKind
from cloister.verifier.settings_file import POLICY_ID
from cloister.wire import Fields

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_DATA_BYTES",
    "MAX_NONCE_BYTES",
    "MIN_NONCE_BYTES",
    "Asked",
    "Detail",
    "OnRefusal",
    "parse_attest",
    "parse_verify",
]

W = TypeVar("W", bound=Enum)

MAX_BODY_BYTES = 2 << 20  # bytes of one request: 1 MiB of evidence in base64, and room
MAX_DATA_BYTES = 16 * 1024  # bytes of what an attester binds beside the nonce
MIN_NONCE_BYTES, MAX_NONCE_BYTES = 8, 64  # RFC 9711 section 4.1
_MAX_AUDIENCE_CHARS = 512


class OnRefusal(Enum):
    """What somebody wants to be told who is refused."""

    PROBLEM = "problem"
    TOKEN = "token"  # noqa: S105 - a word


class Detail(Enum):
    """How much a token says."""

    FULL = "full"
    BRIEF = "brief"


class _Binding(Enum):
    SERVICE = "service"
    CARRIED = "carried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. ``policy`` is an id, a Relying Party's own, or None for the default."""

    evidence: Evidence
    binding: ServiceBinding | CarriedBinding
    policy: str | Policy | None = None
    audience: str | None = None
    on_refusal: OnRefusal = OnRefusal.PROBLEM
    detail: Detail = field(default=Detail.FULL)


def parse_attest(body: bytes) -> Asked:
    """Parse what an attester asks: evidence over a nonce of this service."""
    return _parse(body, background=False)


def parse_verify(body: bytes) -> Asked:
    """Parse what a Relying Party asks: evidence over a nonce of its own, by its own policy if it likes."""
    return _parse(body, background=True)


def _parse(body: bytes, *, background: bool) -> Asked:
    fields = Fields.parse(body, what="request", cap=MAX_BODY_BYTES)
    evidence = _take_evidence(fields.fields("evidence"))
    binding = _take_binding(fields, background=background)
    policy = fields.optional("policy", lambda name: _take_policy(fields, name, background=background))
    audience = fields.optional("audience", lambda name: fields.text(name, cap=_MAX_AUDIENCE_CHARS, floor=1))
    on_refusal = fields.optional("refusal", lambda name: _take_word(fields, name, OnRefusal))
    detail = fields.optional("detail", lambda name: _take_word(fields, name, Detail))
    fields.end()
    if isinstance(policy, Policy) and audience is not None:
        fields.fail("audience", "not for a policy of your own: name one of the service's")
    return Asked(
        evidence=evidence,
        binding=binding,
        policy=policy,
        audience=audience,
        on_refusal=on_refusal or OnRefusal.PROBLEM,
        detail=detail or (Detail.FULL if audience is None else Detail.BRIEF),
    )


def _take_evidence(fields: Fields) -> Evidence:
    tee = fields.text("tee", cap=32, floor=1)
    if not tee.isascii():
        fields.fail("tee", "want ascii")
    payload = fields.b64u("payload", cap=MAX_EVIDENCE_BYTES)
    fields.end()
    return Evidence(tee=TeeKind(tee), payload=payload)


def _take_binding(fields: Fields, *, background: bool) -> ServiceBinding | CarriedBinding:
    nonce = fields.b64u("nonce", cap=MAX_NONCE_BYTES)
    if not background and len(nonce) != NONCE_BYTES:
        fields.fail("nonce", f"{len(nonce)} bytes, want {NONCE_BYTES}")
    if len(nonce) < MIN_NONCE_BYTES:
        fields.fail("nonce", f"{len(nonce)} bytes, want at least {MIN_NONCE_BYTES}")
    data = fields.optional("data", lambda name: fields.b64u(name, cap=MAX_DATA_BYTES)) or b""
    devices = fields.optional("devices", lambda name: _take_devices(fields, name)) or b""
    form = fields.optional("binding", lambda name: _take_word(fields, name, _Binding)) or _Binding.SERVICE
    if form is _Binding.SERVICE:
        return ServiceBinding(nonce=nonce, data=data, devices=devices)
    if data or devices:
        fields.fail("binding", "carried binds a nonce alone: want neither data nor devices")
    return CarriedBinding(nonce=nonce)


def _take_devices(fields: Fields, name: str) -> bytes:
    """Return the exact bytes that the attester's report data binds, made of the devices in their order."""
    devices = tuple(
        _take_evidence(Fields(item, what="request: device")) for item in fields.items(name, cap=MAX_DEVICES)
    )
    if sum(len(item.payload) for item in devices) > MAX_DEVICES_BYTES:
        fields.fail(name, f"want at most {MAX_DEVICES_BYTES} bytes together")
    data = dump_devices(devices)
    parse_devices(data)
    return data


def _take_policy(fields: Fields, name: str, *, background: bool) -> str | Policy:
    value: Json = fields.take(name)
    if isinstance(value, dict) and background:
        return Policy.from_json(value)
    if not isinstance(value, str) or not POLICY_ID.fullmatch(value):
        fields.fail(name, "want the id of a policy" + (", or a policy" if background else ""))
    return value


def _take_word(fields: Fields, name: str, words: type[W]) -> W:
    text = fields.text(name, cap=16)
    found = next((word for word in words if word.value == text), None)
    return found or fields.fail(name, f"want {' or '.join(str(word.value) for word in words)}")
