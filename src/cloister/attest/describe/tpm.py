"""TPM quotes, keys, signatures, event logs and attestation key certificates explained (docs/spec/evidence-tpm.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.azure.akcert import parse_nv_certificate
from cloister.attest.chain import parse_certificates
from cloister.attest.describe import Description, Field
from cloister.attest.gce.instance import INSTANCE_DER, instance_of
from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.eventlog import EventLog, replay
from cloister.attest.tpm.quote import ATTESTATION_KEY
from cloister.attest.tpm.quoted import unwrapped
from cloister.attest.tpm.structures import (
    EcdsaSignature,
    Public,
    Quote,
    RsaKey,
    parse_signature,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.attest.chain import Certificate
    from cloister.attest.gce.instance import GceInstance

__all__ = [
    "AkCertificateDescriber",
    "EventLogDescriber",
    "TpmKeyDescriber",
    "TpmQuoteDescriber",
    "TpmSignatureDescriber",
    "pcr_fields",
    "quote_fields",
]

_QUOTE = bytes.fromhex("ff5443478018")  # TPM_GENERATED_VALUE, TPM_ST_ATTEST_QUOTE
_KEYS = tuple(kind.to_bytes(2, "big") + name.to_bytes(2, "big") for kind in (1, 0x23) for name in (0x0B, 0x0C, 0x0D))
_SIGNATURES = tuple(
    scheme.to_bytes(2, "big") + hashed.to_bytes(2, "big")
    for scheme in (Alg.RSASSA, Alg.RSAPSS, Alg.ECDSA)
    for hashed in (Alg.SHA1, Alg.SHA256, Alg.SHA384, Alg.SHA512)
)
_LOG_AT, _LOG = 32, b"Spec ID Event03\x00"
_AK_USAGE_DER = bytes.fromhex("0605678105 0803")  # 2.23.133.8.3
_PCRS = {
    0: "firmware code",
    1: "firmware configuration",
    2: "drivers of devices",
    3: "configuration of such drivers",
    4: "boot loaders and kernels that firmware started",
    5: "partition table and boot configuration",
    6: "the machine's maker",
    7: "Secure Boot: its state and its keys",
    8: "commands of GRUB",
    9: "files GRUB read; command line and initrd of a kernel's own stub",
    10: "Linux IMA",
    11: "parts of a unified kernel image, and phases of the boot",
    12: "kernel parameters from outside the image",
    13: "extensions of the system",
    14: "keys of shim",
    15: "identity of the system",
    16: "debugging: anybody may reset it",
    23: "applications: the system may reset it",
}
"""What each PCR is for (TCG PC Client Platform Firmware Profile 1.06 section 3.3; UAPI Linux TPM PCR Registry)."""


def pcr_fields(pcrs: Mapping[int, bytes]) -> Iterator[Field]:
    """Explain PCR values."""
    for index in sorted(pcrs):
        meaning = _PCRS.get(index, "dynamic launch of a measured environment")
        yield Field(name=f"PCR {index}", value=pcrs[index].hex(), meaning=meaning)


def quote_fields(quote: Quote) -> Iterator[Field]:
    """Explain a quote, in the order of its bytes."""
    yield Field(
        name="qualifiedSigner",
        value=quote.qualified_signer.hex(),
        meaning="name of the key that signed, with those above it; the signature says more",
    )
    yield Field(
        name="extraData",
        value=quote.extra_data.hex() or "empty",
        meaning="what the asker handed in: it has to be your nonce, length included",
    )
    yield Field(name="clock", value=str(quote.clock), meaning="milliseconds the TPM has been running since it was made")
    yield Field(name="resetCount", value=str(quote.reset_count), meaning="starts of the machine so far")
    yield Field(name="restartCount", value=str(quote.restart_count), meaning="resumes from sleep since the last start")
    yield Field(
        name="safe",
        value="yes" if quote.safe else "no",
        meaning="whether the clock was never set back behind a value shown",
    )
    yield Field(
        name="firmwareVersion", value=f"{quote.firmware_version:#018x}", meaning="version of the TPM's own firmware"
    )
    for selection in quote.selections:
        yield Field(
            name=f"pcrSelect {selection.bank.name}",
            value=", ".join(map(str, selection.pcrs)) or "none",
            meaning="PCRs of this bank under the quote; SHA1 is refused",
        )
    yield Field(
        name="pcrDigest", value=quote.pcr_digest.hex(), meaning="digest over those PCRs: their values come separately"
    )


class TpmQuoteDescriber:
    """Explains TPMS_ATTEST of a quote."""

    kind: Final = "tpm-quote"

    def recognises(self, data: bytes) -> bool:
        """Tell whether this begins as a quote does, with or without a length in front."""
        return unwrapped(data).startswith(_QUOTE)

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        fields = tuple(quote_fields(Quote.parse(unwrapped(data))))
        return Description(kind=self.kind, title="TPM 2.0 quote: what a TPM says of its PCRs", fields=fields)


class TpmKeyDescriber:
    """Explains TPMT_PUBLIC."""

    kind: Final = "tpm-key"

    def recognises(self, data: bytes) -> bool:
        """Tell whether this begins as a key with a name over SHA-2 does."""
        return unwrapped(data).startswith(_KEYS)

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        return Description(
            kind=self.kind,
            title="TPM 2.0 public key, and what its TPM does with it",
            fields=tuple(_key_fields(Public.parse(unwrapped(data)))),
        )


def _key_fields(public: Public) -> Iterator[Field]:
    key = public.key
    size = f"RSA {key.bits}" if isinstance(key, RsaKey) else f"ECC {key.curve.name}"
    fits = public.attributes & ATTESTATION_KEY == ATTESTATION_KEY
    yield Field(name="type", value=size, meaning="kind and size of the key")
    yield Field(name="nameAlg", value=public.name_alg.name, meaning="hash under which this area has its name")
    yield Field(
        name="objectAttributes",
        value=" ".join(flag.name or "" for flag in type(public.attributes) if flag in public.attributes),
        meaning="has what an attestation key needs" if fits else "no attestation key: it signs whatever it is handed",
    )
    policy = public.auth_policy.hex() or "none"
    yield Field(name="authPolicy", value=policy, meaning="what must hold in the TPM before the key is used")
    scheme = "any" if public.scheme is None else "-".join(alg.name for alg in public.scheme)
    yield Field(name="scheme", value=scheme, meaning="the one way this key signs; attestation keys have one")
    yield Field(name="name", value=public.name.hex(), meaning="how a TPM and enrolment certificates call this key")


class TpmSignatureDescriber:
    """Explains TPMT_SIGNATURE."""

    kind: Final = "tpm-signature"

    def recognises(self, data: bytes) -> bool:
        """Tell whether this begins as a signature does."""
        return unwrapped(data).startswith(_SIGNATURES)

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        signature = parse_signature(unwrapped(data))
        ecdsa = isinstance(signature, EcdsaSignature)
        fields = [
            Field(
                name="sigAlg",
                value="ECDSA" if isinstance(signature, EcdsaSignature) else signature.scheme.name,
                meaning="has to be the scheme fixed in the key",
            ),
            Field(name="hash", value=signature.hash_alg.name, meaning="hash that was signed; SHA1 is refused"),
        ]
        if isinstance(signature, EcdsaSignature):
            fields += [
                Field(name=name, value=value.hex(), meaning="half of the signature")
                for name, value in (("signatureR", signature.r), ("signatureS", signature.s))
            ]
        else:
            fields.append(Field(name="sig", value=signature.value.hex(), meaning="the signature"))
        title = f"TPM 2.0 signature ({'ECC' if ecdsa else 'RSA'})"
        return Description(kind=self.kind, title=title, fields=tuple(fields))


class EventLogDescriber:
    """Explains a firmware's event log."""

    kind: Final = "tpm-eventlog"

    def recognises(self, data: bytes) -> bool:
        """Tell whether the first event names the banks."""
        return data[_LOG_AT:].startswith(_LOG)

    def describe(self, data: bytes) -> Description:
        """Explain each event, and the PCRs they arrive at. Raises ``Malformed``."""
        log = EventLog.parse(data)
        fields = [
            Field(
                name=f"event {number}",
                value=next(iter(event.digests.values())).hex(),
                meaning=f"type {event.kind:#010x}, {len(event.data)} bytes, into PCR {event.pcr}",
            )
            for number, event in enumerate(log.events)
        ]
        if Alg.SHA256 in log.banks:
            fields += pcr_fields(replay(log))
        return Description(kind=self.kind, title="Event log of a boot: how PCRs came to be", fields=tuple(fields))


class AkCertificateDescriber:
    """Explains a cloud's certificate for an attestation key, with the padding of NV memory or as PEM."""

    kind: Final = "tpm-akcert"

    def recognises(self, data: bytes) -> bool:
        """Tell whether this is DER for attestation keys, or with Google's instance."""
        return data[:1] == b"\x30" and (_AK_USAGE_DER in data or INSTANCE_DER in data)

    def describe(self, data: bytes) -> Description:
        """Explain what the certificate says beside its key. Raises ``Malformed``."""
        pem = data.lstrip().startswith(b"-----BEGIN")
        certificate = parse_certificates(data)[0] if pem else parse_nv_certificate(data)
        fields = [*_certificate_fields(certificate)]
        instance = instance_of(certificate)
        if instance is not None:
            fields += _instance_fields(instance)
        return Description(kind=self.kind, title="Certificate of a vTPM's attestation key", fields=tuple(fields))


def _certificate_fields(certificate: Certificate) -> Iterator[Field]:
    inner = certificate.x509
    issuer = inner.issuer.rfc4514_string()[:120]
    yield Field(name="subject", value=certificate.shown, meaning="the machine, as its cloud calls it")
    yield Field(name="issuer", value=issuer, meaning="the cloud's authority: it has to lead to a pinned root")
    yield Field(name="notBefore", value=inner.not_valid_before_utc.isoformat(), meaning="valid from here")
    yield Field(name="notAfter", value=inner.not_valid_after_utc.isoformat(), meaning="to here")


def _instance_fields(instance: GceInstance) -> Iterator[Field]:
    yield Field(name="zone", value=instance.zone, meaning="where Google runs the machine")
    yield Field(name="project", value=instance.project, meaning="whose it is")
    yield Field(name="projectNumber", value=str(instance.project_number), meaning="the same, for good")
    yield Field(name="instance", value=str(instance.instance), meaning="the one machine: a new one has a new number")
    yield Field(name="instanceName", value=instance.instance_name, meaning="its name, which another may have later")
    value = "yes" if instance.production else "no"
    yield Field(name="isProduction", value=value, meaning="no means a test environment of Google: refused")
