"""The evidence of a TPM as one byte string (docs/spec/evidence-tpm.md section 2).

Not done here: believing any of it (``schemes/tpm``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.chain import MAX_CERTIFICATE_BYTES
from cloister.attest.tpm.algorithms import DIGEST_BYTES, Alg
from cloister.attest.tpm.eventlog import MAX_LOG_BYTES
from cloister.attest.tpm.structures import MAX_STRUCTURE_BYTES, PCR_COUNT
from cloister.wire import Reader, lp

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TPM", "TpmEvidence", "is_tpm_evidence"]

TPM = "tpm"
MAX_CERTIFICATES = 5
_MAGIC = b"CLOISTER-TPM\x00"
_VERSION = 1
_PCR_BYTES = DIGEST_BYTES[Alg.SHA256]


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmEvidence:
    """Quote, signature and key as the TPM wrote them, and what explains them.

    ``certificates`` begin with the attestation key's. ``software`` is the digest measured into PCR 23,
    ``event_log`` the firmware's; both may be empty.
    """

    attest: bytes
    signature: bytes
    ak_public: bytes
    certificates: tuple[bytes, ...]
    pcrs: Mapping[int, bytes]
    software: bytes
    event_log: bytes

    def dump(self) -> bytes:
        """Return the byte string."""
        pcrs = b"".join(bytes((index,)) + self.pcrs[index] for index in sorted(self.pcrs))
        return b"".join(
            (
                _MAGIC,
                bytes((_VERSION,)),
                lp(self.attest, self.signature, self.ak_public),
                bytes((len(self.certificates),)),
                lp(*self.certificates),
                bytes((len(self.pcrs),)),
                pcrs,
                lp(self.software, self.event_log),
            )
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the byte string to its end; the parts stay bytes. Raises ``Malformed``."""
        reader = Reader(data, what="tpm evidence")
        reader.expect(_MAGIC)
        version = reader.u8()
        if version != _VERSION:
            reader.fail(f"version {version}, want {_VERSION}")
        attest, signature, ak_public = (reader.prefixed(4, cap=MAX_STRUCTURE_BYTES) for _ in range(3))
        count = reader.u8()
        if not 0 < count <= MAX_CERTIFICATES:
            reader.fail(f"{count} certificates, want 1 to {MAX_CERTIFICATES}")
        certificates = tuple(reader.prefixed(4, cap=MAX_CERTIFICATE_BYTES) for _ in range(count))
        pcrs = _take_pcrs(reader)
        software = reader.prefixed(4, cap=_PCR_BYTES)
        if len(software) not in (0, _PCR_BYTES):
            reader.fail(f"software digest of {len(software)} bytes, want 0 or {_PCR_BYTES}")
        event_log = reader.prefixed(4, cap=MAX_LOG_BYTES)
        reader.end()
        return cls(
            attest=attest,
            signature=signature,
            ak_public=ak_public,
            certificates=certificates,
            pcrs=pcrs,
            software=software,
            event_log=event_log,
        )


def is_tpm_evidence(data: bytes) -> bool:
    """Tell by the first bytes whether ``data`` is meant to be this; nothing about whether it parses."""
    return data.startswith(_MAGIC)


def _take_pcrs(reader: Reader) -> dict[int, bytes]:
    pcrs: dict[int, bytes] = {}
    last = -1
    for _ in range(reader.u8()):
        index = reader.u8()
        if not last < index < PCR_COUNT:
            reader.fail(f"pcr {index} after pcr {last}: want each once, in order")
        pcrs[index] = reader.take(_PCR_BYTES)
        last = index
    return pcrs
