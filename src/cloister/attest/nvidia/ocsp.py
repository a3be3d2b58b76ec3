"""Answers of NVIDIA's revocation service (RFC 6960), given as bytes.

An answer is about one certificate, signed by that certificate's issuer or by a responder that the issuer itself
certified for this (extended key usage ``OCSPSigning``). It ends: an answer without ``nextUpdate`` proves nothing later.

Who asked over the network compares the nonce of the answer with the one of the question. Whoever is handed a stored
answer cannot: its window alone bounds its age, and ``nonce`` says so with a reason.

Not done here: asking (``needs`` of the scheme names what to ask for).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from cloister.attest.chain import UNREADABLE, Certificate, verify_chain
from cloister.attest.crl import demand_current
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from cloister.attest.rules import NotChecked

__all__ = ["MAX_ANSWER_BYTES", "Answer", "parse_answers", "verify_good"]

MAX_ANSWER_BYTES = 16 * 1024  # bytes of one answer, its responder's certificate included
MAX_ANSWERS = 32
_MAX_SINGLE = 16  # certificates one answer may be about
_MAX_CERTIFICATES = 4
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_ID_HASHES = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}
"""Hashes of an identifier; SHA-1 is every responder's default, and nothing rests on it but which answer this is."""
_LONG_1, _LONG_2 = 0x81, 0x82
_EXTENSIONS = frozenset({x509.OCSPNonce.oid})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Single:
    """What an answer says about one certificate."""

    serial: int
    name_hash: bytes
    key_hash: bytes
    algorithm: str
    status: ocsp.OCSPCertStatus
    reason: x509.ReasonFlags | None
    this_update: datetime
    next_update: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer whose every part was read once; unverified."""

    singles: tuple[_Single, ...]
    responder_name: x509.Name | None
    responder_key_hash: bytes | None
    certificates: tuple[Certificate, ...]
    nonce: bytes | None
    critical: tuple[str, ...]
    algorithm: hashes.HashAlgorithm | None
    signed: bytes
    signature: bytes

    @property
    def serials(self) -> frozenset[int]:
        """The numbers of the certificates that the answer names."""
        return frozenset(single.serial for single in self.singles)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse one DER response. Raises ``Malformed``; ``Rejected`` (``revocation_unknown``) where it is an error."""
        if len(data) > MAX_ANSWER_BYTES:
            msg = f"ocsp answer: {len(data)} bytes, want at most {MAX_ANSWER_BYTES}"
            raise Malformed(msg)
        try:
            answer = cls._read(ocsp.load_der_ocsp_response(data))
        except UNREADABLE as exc:
            msg = "ocsp answer: not der, or of a kind we do not read"
            raise Malformed(msg) from exc
        # The library does not look at the count of unused bits before the signature: one answer, two spellings.
        if data[data.find(answer.signature) - 1] != 0:
            msg = "ocsp answer: signature is not whole bytes"
            raise Malformed(msg)
        return answer

    @classmethod
    def _read(cls, found: ocsp.OCSPResponse) -> Self:
        if found.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise Rejected.because("revocation_unknown", "ocsp answer", got=found.response_status.name.lower())
        singles = tuple(_read_single(item) for item in found.responses)
        certificates = [item.public_bytes(serialization.Encoding.DER) for item in found.certificates]
        if not 0 < len(singles) <= _MAX_SINGLE or len(certificates) > _MAX_CERTIFICATES:
            msg = f"ocsp answer: {len(singles)} statuses, {len(certificates)} certificates"
            raise Malformed(msg)
        extensions = tuple(found.extensions)
        nonces = [item.value.nonce for item in extensions if isinstance(item.value, x509.OCSPNonce)]
        return cls(
            singles=singles,
            responder_name=found.responder_name,
            responder_key_hash=found.responder_key_hash,
            certificates=tuple(Certificate.parse(item) for item in certificates),
            nonce=nonces[0] if nonces else None,
            critical=tuple(e.oid.dotted_string for e in extensions if e.critical and e.oid not in _EXTENSIONS),
            algorithm=found.signature_hash_algorithm,
            signed=found.tbs_response_bytes,
            signature=found.signature,
        )


def _read_single(item: ocsp.OCSPSingleResponse) -> _Single:
    return _Single(
        serial=item.serial_number,
        name_hash=item.issuer_name_hash,
        key_hash=item.issuer_key_hash,
        algorithm=item.hash_algorithm.name,
        status=item.certificate_status,
        reason=item.revocation_reason,
        this_update=item.this_update_utc,
        next_update=item.next_update_utc,
    )


def parse_answers(data: bytes) -> tuple[Answer, ...]:
    """Parse DER responses one after another, at most ``MAX_ANSWERS``. Raises ``Malformed``, ``Rejected``."""
    answers: list[Answer] = []
    rest = data
    while rest:
        extra = {_LONG_1: 1, _LONG_2: 2}.get(rest[1] if len(rest) > 1 else 0, 0)
        size = 2 + extra + (int.from_bytes(rest[2 : 2 + extra], "big") if extra else rest[1] if len(rest) > 1 else 0)
        if len(answers) == MAX_ANSWERS or size > len(rest):
            msg = f"ocsp answers: cut short, or more than {MAX_ANSWERS}"
            raise Malformed(msg)
        answers.append(Answer.parse(rest[:size]))
        rest = rest[size:]
    return tuple(answers)


def verify_good(
    certificate: Certificate,
    issuer: Certificate,
    answers: Sequence[Answer],
    now: datetime,
    *,
    nonce: bytes | NotChecked,
    hold: NotChecked | None = None,
) -> str:
    """Prove that ``issuer``, already trusted, says at ``now`` that ``certificate`` is not revoked; return the status.

    The first answer about the certificate decides. ``hold`` admits ``certificateHold`` and then ``hold`` is returned,
    else ``good``. Raises ``Rejected``: ``revoked``, ``revocation_unknown``, ``collateral_signature_invalid``,
    ``collateral_not_yet_valid``, ``collateral_expired``, ``nonce_mismatch``, and the codes of ``verify_chain`` for the
    responder.
    """
    subject = f"ocsp answer about {certificate.shown}"
    # 1. An answer about this certificate of this issuer (RFC 6960 section 3.2, 1).
    pair = next(((a, s) for a in answers for s in a.singles if _is_about(s, certificate, issuer)), None)
    if pair is None:
        raise Rejected.because(
            "revocation_unknown", subject, got="no answer", want=f"{certificate.x509.serial_number:x}"
        )
    answer, single = pair
    if answer.critical:
        raise Rejected.because("revocation_unknown", subject, got=f"critical extension {answer.critical[0]}")
    # 2. Signed by the issuer, or by whom the issuer made its responder (sections 4.2.2.2 and 3.2, 2 to 4).
    _verify_answer_signature(answer, _responder(answer, issuer, now, subject), subject)
    # 3. In its window (section 4.2.2.1); no nextUpdate is no bound.
    demand_current(single.this_update, single.next_update, now, subject=subject, what="an answer")
    if isinstance(nonce, bytes) and answer.nonce != nonce:
        raise Rejected.because("nonce_mismatch", subject, got=(answer.nonce or b"").hex()[:64], want=nonce.hex()[:64])
    # 4. What it says (section 2.2).
    return _verify_status(single, hold, subject)


def _is_about(single: _Single, certificate: Certificate, issuer: Certificate) -> bool:
    build = _ID_HASHES.get(single.algorithm)
    return (
        build is not None
        and single.serial == certificate.x509.serial_number
        and single.name_hash == build(issuer.x509.subject.public_bytes()).digest()
        and single.key_hash == _key_hash(issuer, build)
    )


def _key_hash(certificate: Certificate, build: Callable[[bytes], hashlib._Hash] = hashlib.sha1) -> bytes:
    """Hash the bits of the public key without the structure around them (RFC 6960 section 4.1.1)."""
    key = certificate.x509.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return build(point).digest()


def _responder(answer: Answer, issuer: Certificate, now: datetime, subject: str) -> Certificate:
    if _is_responder(answer, issuer):
        return issuer
    for candidate in answer.certificates:
        if not _is_responder(answer, candidate):
            continue
        verify_chain(candidate, (), (issuer,), now)
        usages = {item.oid: item.value for item in candidate.x509.extensions}
        allowed = usages.get(ExtensionOID.EXTENDED_KEY_USAGE)
        if not isinstance(allowed, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.OCSP_SIGNING not in allowed:
            raise Rejected.because("chain_invalid", candidate.shown, got="key usage", want="OCSPSigning")
        return candidate
    raise Rejected.because("revocation_unknown", subject, got="a responder whose certificate is not there")


def _is_responder(answer: Answer, candidate: Certificate) -> bool:
    if answer.responder_name is not None:
        return answer.responder_name == candidate.x509.subject
    return answer.responder_key_hash == _key_hash(candidate)


def _verify_answer_signature(answer: Answer, responder: Certificate, subject: str) -> None:
    key, chosen = responder.x509.public_key(), answer.algorithm
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(chosen, _HASHES):
        raise Rejected.because("algorithm_not_allowed", subject, want="ecdsa over SHA-2")
    try:
        key.verify(answer.signature, answer.signed, ec.ECDSA(chosen))
    except InvalidSignature as exc:
        raise Rejected.because("collateral_signature_invalid", subject) from exc


def _verify_status(single: _Single, hold: NotChecked | None, subject: str) -> str:
    if single.status is ocsp.OCSPCertStatus.GOOD:
        return "good"
    if single.status is ocsp.OCSPCertStatus.UNKNOWN:
        raise Rejected.because("revocation_unknown", subject, got="unknown", want="good")
    if single.reason is x509.ReasonFlags.certificate_hold and hold is not None:
        return "hold"
    got = "revoked" if single.reason is None else single.reason.value
    raise Rejected.because("revoked", subject, got=got, want="good")
