"""Whose word counts for consumers: an enclave asks, its custodian answers, sealed (docs/spec/lease.md, "Issuers")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cloister.crypto.sign import Label
from cloister.lending.messages.form import DIGEST_BYTES, MAX_KEM_BYTES, open_payload, take_instance
from cloister.lending.terms import MAX_UNITS, InstanceId
from cloister.wire import dump_b64u, dump_json

__all__ = ["MAX_ISSUERS_BYTES", "IssuersAnswer", "IssuersRequest"]

MAX_ISSUERS_BYTES = 512 * 1024  # bytes of what is sealed in one answer
_NONCE_BYTES = 16
_MAX_ANSWER_BYTES = 2 * MAX_ISSUERS_BYTES  # base64url, and the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuersRequest:
    """E to K: whose word counts for the consumers of my loan? Signed by the instance key.

    ``kem_pub`` is of MLKEM768-X25519, made for this request: names of consumers are not for the host to read.
    """

    LABEL: ClassVar = Label.ISSUERS_REQUEST

    instance: InstanceId
    nonce: bytes
    kem_pub: bytes

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {"instance": self.instance, "kem_pub": dump_b64u(self.kem_pub), "nonce": dump_b64u(self.nonce), "v": 1}
        )

    @classmethod
    def parse(cls, data: bytes) -> IssuersRequest:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "issuers request")
        message = cls(
            instance=take_instance(fields),
            nonce=fields.b64u("nonce", size=_NONCE_BYTES),
            kem_pub=fields.b64u("kem_pub", cap=MAX_KEM_BYTES),
        )
        fields.end()
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuersAnswer:
    """K to E: these count since ``version``, the number that leases name. Signed by the custodian.

    ``sealed`` opens with the key of the request that ``req_digest`` names to what ``identity.parse_lent`` reads.
    """

    LABEL: ClassVar = Label.ISSUERS

    instance: InstanceId
    req_digest: bytes
    version: int
    enc: bytes
    sealed: bytes

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "enc": dump_b64u(self.enc),
                "instance": self.instance,
                "req_digest": dump_b64u(self.req_digest),
                "sealed": dump_b64u(self.sealed),
                "v": 1,
                "version": self.version,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> IssuersAnswer:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "issuers", cap=_MAX_ANSWER_BYTES)
        message = cls(
            instance=take_instance(fields),
            req_digest=fields.b64u("req_digest", size=DIGEST_BYTES),
            version=fields.integer("version", floor=1, cap=MAX_UNITS),
            enc=fields.b64u("enc", cap=MAX_KEM_BYTES),
            sealed=fields.b64u("sealed", cap=MAX_ISSUERS_BYTES + 1024),
        )
        fields.end()
        return message
