"""How a platform signs: attestation key, Quoting Enclave, PCK (Intel SGX ECDSA Quote Library API, appendix A)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.intel.quote import INTEL_QE_VENDOR, TEE_SGX, TEE_TDX
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.documents import QE_SIGNER, TD_QE_SIGNER
from cloister.testing.vendors.intel.pki import raw_signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.testing.vendors.intel.pki import Authority

__all__ = ["QuoteSpec", "healthy_qe"]

_QE_ATTRIBUTES = bytes.fromhex("1500000000000000e700000000000000")


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteSpec:
    """One quote to make. Everything but ``body`` and ``chain`` has the value of a healthy platform.

    ``chain`` begins with the PCK, whose key signs; ``binding`` overrides what the Quoting Enclave reports about the
    attestation key.
    """

    body: EnclaveBody | TdBody
    chain: Sequence[Authority]
    version: int = 0
    key_type: int = 2
    qe_vendor: bytes = INTEL_QE_VENDOR
    qe: EnclaveBody = field(default_factory=EnclaveBody)
    qe_auth: bytes = bytes(range(32))
    binding: bytes | None = None
    certification: int = 5
    padding: bytes = b""

    def dump(self) -> bytes:
        """Return the signed quote."""
        key = ec.generate_private_key(ec.SECP256R1())
        numbers = key.public_key().public_numbers()
        public = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        signed = self._signed()
        auth = raw_signature(key, signed) + public + self._vouched(public)
        return signed + _le(len(auth), 4) + auth + self.padding

    @property
    def _tdx(self) -> bool:
        return isinstance(self.body, TdBody)

    @property
    def _version(self) -> int:
        usual = 3 if not self._tdx else 4 if self.body.kind == 2 else 5  # type: ignore[union-attr]  # noqa: PLR2004
        return self.version or usual

    def _signed(self) -> bytes:
        version = self._version
        tee = TEE_TDX if self._tdx else TEE_SGX
        header = (
            _le(version, 2) + _le(self.key_type, 2) + _le(tee, 4) + _le(4, 2) + _le(11, 2) + self.qe_vendor + bytes(20)
        )
        body = self.body.dump()
        kind = self.body.kind if isinstance(self.body, TdBody) else 1
        descriptor = _le(kind, 2) + _le(len(body), 4) if version == 5 else b""  # noqa: PLR2004 - quote version 5
        return header + descriptor + body

    def _vouched(self, public: bytes) -> bytes:
        """Return the QE's report about the key, the PCK's signature on it, and the chain."""
        bound = hashlib.sha256(public + self.qe_auth).digest() + bytes(32) if self.binding is None else self.binding
        report = replace(self.qe, report_data=bound).dump()
        chain = "".join(item.pem for item in self.chain).encode("ascii") + b"\x00"
        data = report + self.chain[0].sign(report) + _le(len(self.qe_auth), 2) + self.qe_auth
        data += _le(self.certification, 2) + _le(len(chain), 4) + chain
        return data if self._version == 3 else _le(6, 2) + _le(len(data), 4) + data  # noqa: PLR2004 - quote version 3


def healthy_qe(*, tdx: bool) -> EnclaveBody:
    """Return the Quoting Enclave that the vendor's identity documents describe."""
    return EnclaveBody(
        attributes=_QE_ATTRIBUTES,
        mrsigner=TD_QE_SIGNER if tdx else QE_SIGNER,
        mrenclave=hashlib.sha256(b"synthetic quoting enclave").digest(),
        isvprodid=2 if tdx else 1,
        isvsvn=4,
    )
