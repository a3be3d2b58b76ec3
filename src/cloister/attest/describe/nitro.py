"""A Nitro document explained to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.describe import Description, Field
from cloister.attest.nitro.chain import parse_chain
from cloister.attest.nitro.document import MAX_DOCUMENT_BYTES, NitroDocument, parse_message
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from cloister.attest.chain import Certificate
    from cloister.attest.cose import CoseMessage

__all__ = ["NitroDescriber"]

_PCRS = {
    0: "hash of the whole enclave image; zero in debug mode, where anybody on the instance can read the console",
    1: "hash of the Linux kernel and its boot ramdisk",
    2: "hash of the application, without the boot ramdisk",
    3: "hash of the IAM role of the parent instance",
    4: "hash of the parent instance's id: other on every instance",
    8: "hash of the certificate that signed the image; zero where nobody signed it",
}
_MARKS = (b"module_id", b"nitrotpm_pcrs")
_STARTS = (b"\x84", b"\xd2\x84")  # COSE_Sign1 without and with its tag


class NitroDescriber:
    """Explains documents of the Nitro Secure Module."""

    kind: Final = "nitro"

    def recognises(self, data: bytes) -> bool:
        """Tell by the envelope and by a member every document has."""
        return data.startswith(_STARTS) and len(data) <= MAX_DOCUMENT_BYTES and any(mark in data for mark in _MARKS)

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        message = parse_message(data)
        try:
            document = NitroDocument.parse(message.payload)
        except Rejected as refusal:  # of a NitroTPM: well formed, and not this kind
            raise Malformed(refusal.message) from refusal
        fields = (
            *_of_message(message),
            *_of_document(document),
            *(_of_certificate(index, item) for index, item in enumerate(reversed(parse_chain(document)))),
        )
        return Description(kind=self.kind, title="AWS Nitro Enclaves attestation document", fields=fields)


def _of_message(message: CoseMessage) -> tuple[Field, ...]:
    return (
        Field(name="alg", value=str(message.algorithm), meaning="Signature algorithm; has to be -35, ES384."),
        Field(name="signature", value=message.proof.hex(), meaning="By the key in the certificate below, 96 bytes."),
    )


def _of_document(document: NitroDocument) -> tuple[Field, ...]:
    mode = "debug" if document.debug else "production"
    return (
        Field(name="module_id", value=document.module_id, meaning="Parent instance and enclave that asked."),
        Field(name="timestamp", value=str(document.timestamp), meaning="When the module signed; compare with now."),
        Field(name="digest", value=document.digest, meaning="Hash function of the registers."),
        Field(name="mode", value=mode, meaning="Debug where PCR 0 is zero: keep no secret there."),
        *(
            Field(name=f"pcrs.{index}", value=value.hex(), meaning=f"Register: {_PCRS.get(index, 'the enclave own')}.")
            for index, value in document.pcrs.items()
        ),
        _optional("public_key", document.public_key, "Key that the enclave asked to have signed."),
        _optional("user_data", document.user_data, "What the enclave wants vouched for: report data in Cloister."),
        _optional("nonce", document.nonce, "Freshness; has to be the one you sent."),
    )


def _optional(name: str, value: bytes | None, meaning: str) -> Field:
    return Field(name=name, value="absent" if value is None else value.hex() or "empty", meaning=meaning)


def _of_certificate(index: int, certificate: Certificate) -> Field:
    inner = certificate.x509
    window = f"{inner.not_valid_before_utc} to {inner.not_valid_after_utc}"
    meaning = "Root: has to be the pinned one." if index == 0 else "Has to be signed by the one above, and valid now."
    return Field(name=f"chain.{index}", value=f"{certificate.shown}, {window}", meaning=meaning)
