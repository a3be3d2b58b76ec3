"""Enrolment: once per device, an authority learns which TPM an attestation key lives in (docs/spec/evidence-tpm.md).

    device                          authority
    EnrolRequest (EK, AK)   ---->   begin_enrolment: maker's chain, AK attributes
    activate in the TPM     <----   EnrolChallenge (a secret only that TPM opens, for that AK only)
    EnrolProof (secret)     ---->   finish_enrolment: the certificate for the AK

Pure: the caller keeps ``PendingEnrolment`` between the two calls, takes it once, and says who may enrol.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.chain import MAX_CERTIFICATE_BYTES, Certificate, parse_certificates
from cloister.attest.tpm.akcert import issue_ak_certificate
from cloister.attest.tpm.credential import Credential, make_credential
from cloister.attest.tpm.ek import TpmModel, verify_ek
from cloister.attest.tpm.quote import verify_attestation_key
from cloister.attest.tpm.structures import MAX_STRUCTURE_BYTES, Public
from cloister.errors import Rejected
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "EnrolChallenge",
    "EnrolProof",
    "EnrolRequest",
    "EnrolResult",
    "PendingEnrolment",
    "begin_enrolment",
    "finish_enrolment",
]

ENROLMENT_TTL = timedelta(minutes=5)
MAX_ENROLMENT_BYTES = 64 * 1024  # bytes of one message
_MAX_CERTIFICATES = 5
_SECRET_BYTES = 32
_ID_BYTES = 16
_MAX_BLOB_BYTES = 1024


def _open(data: bytes, what: str) -> Fields:
    fields = Fields.parse(data, what=what, cap=MAX_ENROLMENT_BYTES, canonical=True)
    fields.literal("v", 1)
    return fields


def _take_certificates(fields: Fields, name: str) -> tuple[bytes, ...]:
    texts = fields.texts(name, cap=_MAX_CERTIFICATES, item_cap=2 * MAX_CERTIFICATE_BYTES)
    return tuple(parse_b64u(text, what=name, cap=MAX_CERTIFICATE_BYTES) for text in texts)


def _certificates_json(certificates: Sequence[bytes]) -> Json:
    return [dump_b64u(item) for item in certificates]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolRequest:
    """What a device shows: its endorsement key with the maker's certificates (own first), and the key to certify."""

    ek_public: bytes
    ak_public: bytes
    ek_certificates: tuple[bytes, ...]

    def dump(self) -> bytes:
        """Return canonical JSON."""
        return dump_json(
            {
                "ak_public": dump_b64u(self.ak_public),
                "ek_certificates": _certificates_json(self.ek_certificates),
                "ek_public": dump_b64u(self.ek_public),
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> EnrolRequest:
        """Parse a request. Raises ``Malformed``. What is inside the parts is read by ``begin_enrolment``."""
        fields = _open(data, "enrolment request")
        request = cls(
            ek_public=fields.b64u("ek_public", cap=MAX_STRUCTURE_BYTES),
            ak_public=fields.b64u("ak_public", cap=MAX_STRUCTURE_BYTES),
            ek_certificates=_take_certificates(fields, "ek_certificates"),
        )
        fields.end()
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolChallenge:
    """A credential for the device's TPM; ``enrolment`` names the conversation."""

    enrolment: str
    credential: Credential

    def dump(self) -> bytes:
        """Return canonical JSON."""
        return dump_json(
            {
                "encrypted_secret": dump_b64u(self.credential.encrypted_secret),
                "enrolment": self.enrolment,
                "id_object": dump_b64u(self.credential.id_object),
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> EnrolChallenge:
        """Parse a challenge. Raises ``Malformed``."""
        fields = _open(data, "enrolment challenge")
        challenge = cls(
            enrolment=fields.hex("enrolment", size=_ID_BYTES).hex(),
            credential=Credential(
                id_object=fields.b64u("id_object", cap=_MAX_BLOB_BYTES),
                encrypted_secret=fields.b64u("encrypted_secret", cap=_MAX_BLOB_BYTES),
            ),
        )
        fields.end()
        return challenge


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolProof:
    """The secret the TPM released."""

    secret: bytes

    def dump(self) -> bytes:
        """Return canonical JSON."""
        return dump_json({"secret": dump_b64u(self.secret), "v": 1})

    @classmethod
    def parse(cls, data: bytes) -> EnrolProof:
        """Parse a proof. Raises ``Malformed``."""
        fields = _open(data, "enrolment proof")
        proof = cls(secret=fields.b64u("secret", size=_SECRET_BYTES))
        fields.end()
        return proof


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolResult:
    """The certificate of the attestation key, then the authority's."""

    certificates: tuple[bytes, ...]

    def dump(self) -> bytes:
        """Return canonical JSON."""
        return dump_json({"certificates": _certificates_json(self.certificates), "v": 1})

    @classmethod
    def parse(cls, data: bytes) -> EnrolResult:
        """Parse a result. Raises ``Malformed``. Does not look into the certificates."""
        fields = _open(data, "enrolment result")
        certificates = _take_certificates(fields, "certificates")
        fields.end()
        if not certificates:
            fields.fail("certificates", "want at least one")
        return cls(certificates=certificates)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingEnrolment:
    """What the authority keeps: of the secret only its digest."""

    enrolment: str
    device: str
    model: TpmModel
    ak_public: bytes
    secret_digest: bytes
    expires: datetime

    def dump(self) -> bytes:
        """Return canonical JSON."""
        return dump_json(
            {
                "ak_public": dump_b64u(self.ak_public),
                "device": self.device,
                "enrolment": self.enrolment,
                "expires": dump_time(self.expires),
                "manufacturer": self.model.manufacturer,
                "model": self.model.model,
                "secret_digest": self.secret_digest.hex(),
                "v": 1,
                "version": self.model.version,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> PendingEnrolment:
        """Parse what ``dump`` wrote. Raises ``Malformed``."""
        fields = _open(data, "pending enrolment")
        pending = cls(
            enrolment=fields.hex("enrolment", size=_ID_BYTES).hex(),
            device=fields.hex("device", size=32).hex(),
            model=TpmModel(
                manufacturer=fields.text("manufacturer", cap=64),
                model=fields.text("model", cap=64),
                version=fields.text("version", cap=64),
            ),
            ak_public=fields.b64u("ak_public", cap=MAX_STRUCTURE_BYTES),
            secret_digest=fields.hex("secret_digest", size=32),
            expires=fields.time("expires"),
        )
        fields.end()
        return pending


def begin_enrolment(
    request: EnrolRequest,
    ek_roots: Sequence[bytes],
    now: datetime,
    rng: Callable[[int], bytes],
    *,
    pinned: Collection[str] = (),
) -> tuple[EnrolChallenge, PendingEnrolment]:
    """Prove that the request shows a TPM's endorsement key and a proper attestation key; challenge the device.

    ``ek_roots`` are the makers' certificates (DER or PEM), ``pinned`` names of devices somebody compared by
    hand. Nothing yet proves that the two keys live together. Raises ``Malformed``, and ``Rejected`` with the codes
    of ``verify_ek`` and ``verify_attestation_key``.
    """
    ek = Public.parse(request.ek_public)
    ak = Public.parse(request.ak_public)
    # 1. A certificate for a key that signs anything would be worth nothing.
    verify_attestation_key(ak)
    ak.public_key()
    # 2. The maker, or the custodian by hand, vouches for the endorsement key.
    certificates = [Certificate.parse(item) for item in request.ek_certificates]
    roots = [root for item in ek_roots for root in parse_certificates(item)]
    verified = verify_ek(ek, certificates, roots, now, pinned=pinned)
    # 3. A secret for this endorsement key and this attestation key's Name, attributes included.
    secret = rng(_SECRET_BYTES)
    enrolment = rng(_ID_BYTES).hex()
    pending = PendingEnrolment(
        enrolment=enrolment,
        device=verified.device,
        model=verified.model,
        ak_public=request.ak_public,
        secret_digest=hashlib.sha256(secret).digest(),
        expires=now + ENROLMENT_TTL,
    )
    credential = make_credential(ek, ak.name, secret, rng=rng)
    return EnrolChallenge(enrolment=enrolment, credential=credential), pending


def finish_enrolment(
    pending: PendingEnrolment,
    secret: bytes,
    ca_key: ec.EllipticCurvePrivateKey,
    ca_cert: bytes,
    now: datetime,
) -> bytes:
    """Prove that the device opened the credential; return the certificate (DER) for its attestation key.

    Raises ``Rejected`` (``enrolment_expired``, ``enrolment_secret_wrong``). The caller takes ``pending``
    once, whatever comes out.
    """
    if now > pending.expires:
        got, want = dump_time(now), dump_time(pending.expires)
        raise Rejected.because("enrolment_expired", "enrolment", got=got, want=f"by {want}")
    if not hmac.compare_digest(hashlib.sha256(secret).digest(), pending.secret_digest):
        raise Rejected.because("enrolment_secret_wrong", "enrolment secret")
    ak = Public.parse(pending.ak_public)
    return issue_ak_certificate(ak, pending.device, pending.model, ca_key=ca_key, ca_cert=ca_cert, now=now)
