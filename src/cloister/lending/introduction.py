"""How an enclave learns whose word counts for the consumers of its loan (docs/spec/lease.md, "Issuers").

A lease names a version. An enclave that has another asks with its attested key and a fresh one to seal to, and takes an
answer to that very request alone. So the host, which sees both pass, learns no consumer's name, and cannot give an
enclave what counted once for what counts now.

Not done here: what issuers are (``identity``), which of them a loan has (the custodian's service).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.crypto.hpke import DEFAULT_SUITE, Kem, KemPrivateKey, open_with, seal_to
from cloister.crypto.sign import Statement
from cloister.errors import Rejected, UsageError
from cloister.lending.messages.issuers import MAX_ISSUERS_BYTES, IssuersAnswer, IssuersRequest
from cloister.lending.terms import instance_id
from cloister.wire import lp

if TYPE_CHECKING:
    from cloister.crypto.sign import SigningKey, VerifyKey

__all__ = ["IssuersAsked", "answer_issuers", "ask_issuers", "open_issuers", "verify_issuers_request"]

_INFO = b"cloister/issuers/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuersAsked:
    """A request that was signed, and the key that its answer is sealed to. Each is for one answer."""

    statement: bytes
    digest: bytes
    kem: KemPrivateKey = field(repr=False)


def ask_issuers(key: SigningKey, nonce: bytes) -> IssuersAsked:
    """Return a request of the instance that owns ``key``."""
    kem = KemPrivateKey.generate(Kem.MLKEM768_X25519)
    message = IssuersRequest(instance=instance_id(key.verify_key.raw), nonce=nonce, kem_pub=kem.public_bytes())
    payload = message.dump()
    statement = Statement.sign(key, IssuersRequest.LABEL, payload).dump()
    return IssuersAsked(statement=statement, digest=hashlib.sha256(payload).digest(), kem=kem)


def verify_issuers_request(statement: bytes, key: VerifyKey) -> tuple[IssuersRequest, bytes]:
    """Return the request and SHA-256 over its payload once the instance is proven to have signed it.

    Raises ``Malformed`` and ``Rejected``. That something can be sealed to its key, sealing shows.
    """
    payload = Statement.parse(statement, label=IssuersRequest.LABEL).verify([key])
    request = IssuersRequest.parse(payload)
    if request.instance != instance_id(key.raw):
        raise Rejected.because("wrong_instance", "issuers request", got=request.instance, want=instance_id(key.raw))
    return request, hashlib.sha256(payload).digest()


def answer_issuers(request: IssuersRequest, digest: bytes, *, version: int, lent: bytes, key: SigningKey) -> bytes:
    """Return the signed answer: ``lent`` sealed to the request's key.

    Raises ``UsageError`` for too much, ``Malformed`` for a key that nothing can be sealed to.
    """
    if len(lent) > MAX_ISSUERS_BYTES:
        msg = f"issuers: {len(lent)} bytes, want at most {MAX_ISSUERS_BYTES}"
        raise UsageError(msg, hint="fewer issuers, or fewer rules, for the consumers of one loan")
    aad = _bound(request.instance, digest, version)
    enc, sealed = seal_to(DEFAULT_SUITE, request.kem_pub, info=_INFO, plaintext=lent, aad=aad)
    answer = IssuersAnswer(instance=request.instance, req_digest=digest, version=version, enc=enc, sealed=sealed)
    return Statement.sign(key, IssuersAnswer.LABEL, answer.dump()).dump()


def open_issuers(statement: bytes, asked: IssuersAsked, *, custodian: VerifyKey) -> tuple[int, bytes]:
    """Return the version and what it is, proven to be the custodian's answer to this request.

    Raises ``Malformed`` and ``Rejected`` (``wrong_request`` for an answer to another, ``decryption_failed``).
    """
    answer = IssuersAnswer.parse(Statement.parse(statement, label=IssuersAnswer.LABEL).verify([custodian]))
    if answer.req_digest != asked.digest:
        raise Rejected.because("wrong_request", "issuers", got=answer.req_digest.hex(), want=asked.digest.hex())
    aad = _bound(answer.instance, answer.req_digest, answer.version)
    lent = open_with(DEFAULT_SUITE, asked.kem, info=_INFO, enc=answer.enc, ciphertext=answer.sealed, aad=aad)
    return answer.version, lent


def _bound(instance: str, digest: bytes, version: int) -> bytes:
    return lp(instance.encode("ascii"), digest, version.to_bytes(8, "big"))
