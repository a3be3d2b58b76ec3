"""The keyset of an enclave and the document that carries it with its evidence (docs/spec/channel.md).

The exact bytes of a keyset matter: evidence binds their hash (``attest/binding.ChannelBinding``). They
are carried as they are, parsed strictly and never written again by a reader.

Not done here: whether the evidence is good, whether it binds this keyset (``client``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.channel.keyconfig import MAX_COLLECTION_BYTES, KeyConfig, parse_key_configs
from cloister.crypto.sign import VerifyKey
from cloister.errors import Rejected
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

__all__ = [
    "CHUNKED_REQUEST_TYPE",
    "CHUNKED_RESPONSE_TYPE",
    "GATEWAY_PATH",
    "KEYSET_PATH",
    "KEYSET_TYPE",
    "KEYS_TYPE",
    "MAX_DOCUMENT_BYTES",
    "MAX_KEYSET_BYTES",
    "NONCE_BYTES",
    "NO_NONCE",
    "OHTTP_KEY_PROBLEM",
    "PURPOSE",
    "EngineInfo",
    "EvidenceDocument",
    "Keyset",
    "KeysetModel",
    "verify_window",
]

KEYSET_PATH = "/.well-known/attested-keyset"
GATEWAY_PATH = "/.well-known/ohttp-gateway"  # RFC 9540 section 5
KEYSET_TYPE = "application/vnd.cloister.attested-keyset+json"
KEYS_TYPE = "application/ohttp-keys"
CHUNKED_REQUEST_TYPE = "message/ohttp-chunked-req"
CHUNKED_RESPONSE_TYPE = "message/ohttp-chunked-res"
OHTTP_KEY_PROBLEM = "https://iana.org/assignments/http-problem-types#ohttp-key"  # RFC 9458 section 5.3
PURPOSE = "inference"

NONCE_BYTES = 32
NO_NONCE = bytes(NONCE_BYTES)  # the nonce of the cached form

MAX_KEYSET_BYTES = 128 * 1024  # bytes of a dumped keyset
MAX_DOCUMENT_BYTES = 4 << 20  # bytes of a dumped evidence document
MAX_EVIDENCE_BYTES = 512 * 1024  # bytes of one TEE's evidence
MAX_DEVICES_BYTES = 512 * 1024  # bytes of the devices' evidence
MAX_COLLATERAL_BYTES = 256 * 1024  # bytes of one endorsement
MAX_COLLATERAL = 16  # endorsements
MAX_MODELS = 32
MAX_KEYS = 8  # receipt keys, TLS keys

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_COLLATERAL_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetModel:
    """One lent model that the enclave serves: its name, the sealed model, the loan's terms (SHA-256, hex).

    ``ticketed``: an answer of it counts only with a ticket of the custodian (docs/spec/ticket.md).
    """

    name: str
    digest: str
    loan_digest: str
    ticketed: bool = False

    def to_json(self) -> Json:
        """Return the JSON object; ``ticketed`` is there only where it is true, so that there is one spelling."""
        members: dict[str, Json] = {"digest": self.digest, "loan_digest": self.loan_digest, "name": self.name}
        return members | ({"ticketed": True} if self.ticketed else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What runs the model: its kind and a digest (SHA-256, hex) of what it is."""

    kind: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """The public keys of one enclave instance, what it serves and for whom."""

    instance: str
    service: str
    nbf: datetime
    exp: datetime
    ohttp_keys: bytes
    receipt_keys: tuple[VerifyKey, ...]
    models: tuple[KeysetModel, ...]
    engine: EngineInfo
    policy_digest: str
    custodian: VerifyKey
    loan: str
    tls_spki_sha256: tuple[bytes, ...] = ()
    purpose: str = PURPOSE

    @property
    def configs(self) -> tuple[KeyConfig, ...]:
        """The key configurations that requests may be sealed to."""
        return parse_key_configs(self.ohttp_keys)

    def dump(self) -> bytes:
        """Return the bytes that evidence binds: canonical JSON."""
        return dump_json(
            {
                "custodian": self.custodian.dump(),
                "engine": {"digest": self.engine.digest, "kind": self.engine.kind},
                "exp": dump_time(self.exp),
                "instance": self.instance,
                "loan": self.loan,
                "models": [model.to_json() for model in self.models],
                "nbf": dump_time(self.nbf),
                "ohttp_keys": dump_b64u(self.ohttp_keys),
                "policy_digest": self.policy_digest,
                "purpose": self.purpose,
                "receipt_keys": [key.dump() for key in self.receipt_keys],
                "service": self.service,
                "tls_spki_sha256": [digest.hex() for digest in self.tls_spki_sha256],
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the keyset. Does not prove where it comes from. Raises ``Malformed``."""
        fields = Fields.parse(data, what="keyset", cap=MAX_KEYSET_BYTES, canonical=True)
        fields.literal("v", 1)
        fields.literal("purpose", PURPOSE)
        engine = fields.fields("engine")
        keyset = cls(
            instance=fields.match("instance", _DIGEST),
            service=fields.text("service", cap=256),
            nbf=fields.time("nbf"),
            exp=fields.time("exp"),
            ohttp_keys=fields.b64u("ohttp_keys", cap=MAX_COLLECTION_BYTES),
            receipt_keys=_keys(fields),
            models=tuple(_model(item) for item in fields.items("models", cap=MAX_MODELS)),
            engine=EngineInfo(kind=engine.match("kind", _NAME), digest=engine.match("digest", _DIGEST)),
            policy_digest=fields.match("policy_digest", _DIGEST),
            custodian=VerifyKey.take(fields, "custodian"),
            loan=fields.match("loan", _NAME),
            tls_spki_sha256=_spki(fields),
        )
        engine.end()
        fields.end()
        if keyset.exp <= keyset.nbf:
            fields.fail("exp", "not after nbf")
        if len({model.name for model in keyset.models}) != len(keyset.models):
            fields.fail("models", "a name twice")
        if not keyset.configs:
            fields.fail("ohttp_keys", "no configuration this version knows")
        return keyset


def _keys(fields: Fields) -> tuple[VerifyKey, ...]:
    texts = fields.texts("receipt_keys", cap=MAX_KEYS, item_cap=64)
    if not texts:
        fields.fail("receipt_keys", "none, want at least one")
    return tuple(VerifyKey.take(Fields({"key": text}, what="keyset: receipt_keys"), "key") for text in texts)


def _spki(fields: Fields) -> tuple[bytes, ...]:
    texts = fields.texts("tls_spki_sha256", cap=MAX_KEYS, item_cap=64)
    return tuple(Fields({"digest": text}, what="keyset: tls_spki_sha256").hex("digest", size=32) for text in texts)


def _model(value: Json) -> KeysetModel:
    fields = Fields(value, what="keyset: models")
    model = KeysetModel(
        name=fields.match("name", _NAME),
        digest=fields.match("digest", _DIGEST),
        loan_digest=fields.match("loan_digest", _DIGEST),
        ticketed="ticketed" in fields,
    )
    if model.ticketed and not fields.boolean("ticketed"):
        fields.fail("ticketed", "want true, or no such member")
    fields.end()
    return model


def verify_window(keyset: Keyset, now: datetime, *, leeway: timedelta) -> None:
    """Prove that the keyset is in use at ``now``.

    Raises ``Rejected`` (``keyset_not_yet_valid``, ``keyset_expired``).
    """
    if now < keyset.nbf - leeway:
        raise Rejected.because("keyset_not_yet_valid", "keyset", got=dump_time(now), want=dump_time(keyset.nbf))
    if now > keyset.exp + leeway:
        raise Rejected.because("keyset_expired", "keyset", got=dump_time(now), want=dump_time(keyset.exp))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceDocument:
    """Evidence with what it binds, unverified. ``keyset`` and ``devices`` are exact bytes.

    ``nonce`` is the consumer's or ``NO_NONCE``; ``collateral`` has endorsements by the names the scheme
    asks for.
    """

    nonce: bytes
    tee: str
    evidence: bytes
    keyset: bytes
    devices: bytes
    collateral: Mapping[str, bytes]

    def dump(self) -> bytes:
        """Return the document as canonical JSON."""
        return dump_json(
            {
                "collateral": [
                    {"data": dump_b64u(data), "name": name} for name, data in sorted(self.collateral.items())
                ],
                "devices": dump_b64u(self.devices),
                "evidence": dump_b64u(self.evidence),
                "keyset": dump_b64u(self.keyset),
                "nonce": dump_b64u(self.nonce),
                "tee": self.tee,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the document. Does not parse evidence or keyset. Raises ``Malformed``."""
        fields = Fields.parse(data, what="evidence document", cap=MAX_DOCUMENT_BYTES)
        fields.literal("v", 1)
        entries = [_collateral(item) for item in fields.items("collateral", cap=MAX_COLLATERAL)]
        document = cls(
            nonce=fields.b64u("nonce", size=NONCE_BYTES),
            tee=fields.match("tee", _TEE),
            evidence=fields.b64u("evidence", cap=MAX_EVIDENCE_BYTES),
            keyset=fields.b64u("keyset", cap=MAX_KEYSET_BYTES),
            devices=fields.b64u("devices", cap=MAX_DEVICES_BYTES),
            collateral=dict(entries),
        )
        fields.end()
        if len(document.collateral) != len(entries):
            fields.fail("collateral", "a name twice")
        return document


def _collateral(value: Json) -> tuple[str, bytes]:
    fields = Fields(value, what="evidence document: collateral")
    name = fields.match("name", _COLLATERAL_NAME)
    data = fields.b64u("data", cap=MAX_COLLATERAL_BYTES)
    fields.end()
    return name, data
