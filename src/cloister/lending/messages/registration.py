"""How an enclave comes to hold a key: challenge, evidence, grant (docs/spec/release.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cloister.attest.binding import NO_DEVICES
from cloister.attest.devices import MAX_DEVICES_BYTES
from cloister.attest.ear import MAX_TOKEN_CHARS
from cloister.attest.rats import MAX_EVIDENCE_BYTES, NONCE_BYTES, Evidence, Nonce, TeeKind
from cloister.crypto.sign import Label, VerifyKey
from cloister.lending.messages.form import (
    DIGEST_BYTES,
    MAX_KEM_BYTES,
    MAX_SOFTWARE_BYTES,
    open_payload,
    take_instance,
)
from cloister.lending.terms import (
    DIGEST,
    LOAN_ID,
    MAX_MODELS,
    InstanceId,
    LoanId,
    ModelDigest,
    Terms,
)
from cloister.wire import Fields, Json, dump_b64u, dump_json

if TYPE_CHECKING:
    from datetime import timedelta

_MAX_CONTRACT_BYTES = 512 * 1024  # bytes of a signed contract, as ``contract`` has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """K to E: a single-use nonce for one attestation for one loan, good for ``ttl``."""

    LABEL: ClassVar = Label.CHALLENGE

    nonce: Nonce
    custodian: VerifyKey
    loan: LoanId
    epoch: int
    ttl: timedelta

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "custodian": self.custodian.dump(),
                "epoch": self.epoch,
                "loan": self.loan,
                "nonce": dump_b64u(self.nonce),
                "ttl_s": int(self.ttl.total_seconds()),
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Challenge:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "challenge")
        message = cls(
            nonce=Nonce(fields.b64u("nonce", size=NONCE_BYTES)),
            custodian=VerifyKey.take(fields, "custodian"),
            loan=LoanId(fields.match("loan", LOAN_ID)),
            epoch=fields.integer("epoch", floor=1),
            ttl=fields.seconds("ttl_s", floor=1),
        )
        fields.end()
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestRequest:
    """E to K: evidence that binds the nonce and both keys, signed by the instance key it names."""

    LABEL: ClassVar = Label.ATTEST

    loan: LoanId
    nonce: Nonce
    instance_pub: VerifyKey
    kem_id: int
    kem_pub: bytes
    evidence: Evidence
    software: bytes
    devices: bytes = NO_DEVICES

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "devices": dump_b64u(self.devices),
                "evidence": dump_b64u(self.evidence.payload),
                "instance_pub": self.instance_pub.dump(),
                "kem_id": self.kem_id,
                "kem_pub": dump_b64u(self.kem_pub),
                "loan": self.loan,
                "nonce": dump_b64u(self.nonce),
                "software": dump_b64u(self.software),
                "tee": self.evidence.tee,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> AttestRequest:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "attest request")
        message = cls(
            loan=LoanId(fields.match("loan", LOAN_ID)),
            nonce=Nonce(fields.b64u("nonce", size=NONCE_BYTES)),
            instance_pub=VerifyKey.take(fields, "instance_pub"),
            kem_id=fields.integer("kem_id", cap=0xFFFF),
            kem_pub=fields.b64u("kem_pub", cap=MAX_KEM_BYTES),
            evidence=Evidence(
                tee=TeeKind(fields.text("tee", cap=32)),
                payload=fields.b64u("evidence", cap=MAX_EVIDENCE_BYTES),
            ),
            software=fields.b64u("software", cap=MAX_SOFTWARE_BYTES),
            devices=fields.b64u("devices", cap=MAX_DEVICES_BYTES),
        )
        fields.end()
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedKey:
    """The data encryption key of one sealed model, encrypted by HPKE to the attested KEM key.

    ``enc`` and ``ciphertext`` are as in RFC 9180 section 6.1; the info string is that of
    ``release.key_info``.
    """

    model: ModelDigest
    key_version: int
    enc: bytes
    ciphertext: bytes

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/release.md."""
        return {
            "ciphertext": dump_b64u(self.ciphertext),
            "enc": dump_b64u(self.enc),
            "key_version": self.key_version,
            "model": self.model,
        }

    @classmethod
    def from_json(cls, value: Json) -> ReleasedKey:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="released key")
        key = cls(
            model=ModelDigest(fields.match("model", DIGEST)),
            key_version=fields.integer("key_version", floor=1),
            enc=fields.b64u("enc", cap=MAX_KEM_BYTES),
            ciphertext=fields.b64u("ciphertext", cap=256),
        )
        fields.end()
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """K to E: the instance is registered, and here are the keys of the models it may open.

    ``request_digest`` is SHA-256 over the AttestRequest payload that this answers. ``publisher`` is the
    key that signed the manifests. ``result`` is the attestation result as an EAR token. ``contract`` is the loan's
    signed contract, empty for a loan that has none.
    """

    LABEL: ClassVar = Label.GRANT

    instance: InstanceId
    request_digest: bytes
    epoch: int
    terms: Terms
    policy_digest: str
    result: str
    publisher: VerifyKey
    keys: tuple[ReleasedKey, ...]
    block_version: int
    contract: bytes = b""

    def dump(self) -> bytes:
        """Return the canonical payload."""
        members: dict[str, Json] = {
            "block_version": self.block_version,
            "epoch": self.epoch,
            "instance": self.instance,
            "keys": [key.to_json() for key in self.keys],
            "policy_digest": self.policy_digest,
            "publisher": self.publisher.dump(),
            "request_digest": dump_b64u(self.request_digest),
            "result": self.result,
            "terms": self.terms.to_json(),
            "v": 1,
        }
        return dump_json(members | ({"contract": dump_b64u(self.contract)} if self.contract else {}))

    @classmethod
    def parse(cls, data: bytes) -> Grant:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "grant")
        message = cls(
            instance=take_instance(fields),
            request_digest=fields.b64u("request_digest", size=DIGEST_BYTES),
            epoch=fields.integer("epoch", floor=1),
            terms=Terms.from_json(fields.take("terms")),
            policy_digest=fields.match("policy_digest", DIGEST),
            result=fields.text("result", cap=MAX_TOKEN_CHARS),
            publisher=VerifyKey.take(fields, "publisher"),
            keys=tuple(ReleasedKey.from_json(item) for item in fields.items("keys", cap=MAX_MODELS)),
            block_version=fields.integer("block_version"),
            contract=_take_contract(fields) if "contract" in fields else b"",
        )
        fields.end()
        return message


def _take_contract(fields: Fields) -> bytes:
    contract = fields.b64u("contract", cap=_MAX_CONTRACT_BYTES)
    if not contract:
        fields.fail("contract", "want a signed contract, or no such member")
    return contract
