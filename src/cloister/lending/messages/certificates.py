"""A certificate for an attested instance: its request and the answer (docs/spec/certificates.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cloister.crypto.sign import Label
from cloister.lending.messages.form import DIGEST_BYTES, open_payload, take_instance
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from datetime import timedelta

    from cloister.lending.terms import InstanceId

__all__ = ["MAX_AUTHORITIES", "MAX_CERTIFICATE_BYTES", "MAX_CERTIFICATE_S", "CertificateRequest", "InstanceCertificate"]

MAX_CERTIFICATE_BYTES = 8 * 1024  # bytes of one certificate, or of a request for one, DER
MAX_CERTIFICATE_S = 604_800  # seconds a certificate may live
MAX_AUTHORITIES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """E to K: certify this key of mine. Signed by the instance key, which evidence bound.

    ``csr`` (PKCS #10, DER) proves that the key is held; ``server`` asks for a certificate that listeners may show too.
    """

    LABEL: ClassVar = Label.CERTIFICATE_REQUEST

    instance: InstanceId
    csr: bytes
    server: bool = False

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json({"csr": dump_b64u(self.csr), "instance": self.instance, "server": self.server, "v": 1})

    @classmethod
    def parse(cls, data: bytes) -> CertificateRequest:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "certificate request")
        message = cls(
            instance=take_instance(fields),
            csr=fields.b64u("csr", cap=MAX_CERTIFICATE_BYTES),
            server=fields.boolean("server"),
        )
        fields.end()
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCertificate:
    """K to E: your certificate, and the authorities whose peers you may meet. Signed by the custodian.

    ``req_digest`` is SHA-256 over the payload of the request, ``life`` how long from now it is good.
    """

    LABEL: ClassVar = Label.CERTIFICATE

    instance: InstanceId
    req_digest: bytes
    certificate: bytes
    authorities: tuple[bytes, ...]
    life: timedelta

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "authorities": [dump_b64u(item) for item in self.authorities],
                "certificate": dump_b64u(self.certificate),
                "instance": self.instance,
                "life_s": int(self.life.total_seconds()),
                "req_digest": dump_b64u(self.req_digest),
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> InstanceCertificate:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "certificate")
        message = cls(
            instance=take_instance(fields),
            req_digest=fields.b64u("req_digest", size=DIGEST_BYTES),
            certificate=fields.b64u("certificate", cap=MAX_CERTIFICATE_BYTES),
            authorities=_take_authorities(fields),
            life=fields.seconds("life_s", floor=1, cap=MAX_CERTIFICATE_S),
        )
        fields.end()
        return message


def _take_authorities(fields: Fields) -> tuple[bytes, ...]:
    texts = fields.texts("authorities", cap=MAX_AUTHORITIES, item_cap=MAX_CERTIFICATE_BYTES * 2)
    return tuple(
        Fields({"authority": text}, what="certificate").b64u("authority", cap=MAX_CERTIFICATE_BYTES) for text in texts
    )
