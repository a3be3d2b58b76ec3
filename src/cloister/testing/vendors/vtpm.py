"""A synthetic virtual TPM: an attestation key, a boot with its event log, quotes; Azure's and Google's alike.

Its key lies in this process: it protects nothing.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloister.attest.tpm.algorithms import DIGEST_BYTES, Alg, CurveId, digest, hash_of
from cloister.attest.tpm.eventlog import Event, EventLog, EventType, replay
from cloister.attest.tpm.policy import SOFTWARE_PCR, software_pcr_value
from cloister.attest.tpm.quote import ATTESTATION_KEY, pcr_digest
from cloister.attest.tpm.structures import (
    PCR_COUNT,
    Attribute,
    EccKey,
    EcdsaSignature,
    PcrSelection,
    Public,
    Quote,
    RsaKey,
    RsaSignature,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.tpm.structures import Signature

__all__ = ["AkKey", "SyntheticVtpm", "rsa_key"]

AkKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")  # EFI_GLOBAL_VARIABLE, UEFI 2.10 section 3.3
_SEPARATOR = bytes(4)
_BOOT_PCRS = range(8)
_BOOT_APPLICATION = 0x80000003
_CRTM_VERSION = 0x00000008
_DYNAMIC = range(17, 23)
_BANKS = (Alg.SHA1, Alg.SHA256, Alg.SHA384)
_FIRMWARE_VERSION = 0x2024010100120000


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    """Return one of the RSA keys of this process: they are slow to make."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class SyntheticVtpm:
    """One machine's vTPM after a boot. ``pcrs`` are those of the SHA-256 bank; any of them may be changed."""

    def __init__(self, key: AkKey | None = None, *, secure_boot: bool = True, software: bytes = b"") -> None:
        """Boot, with the digest of a software manifest in PCR 23 where there is one."""
        self.key = key or rsa_key(0)
        self.software = software
        self.event_log = _log(secure_boot=secure_boot)
        self.pcrs = self.bank(Alg.SHA256)

    def bank(self, bank: Alg) -> dict[int, bytes]:
        """Return all PCRs of a SHA-2 bank."""
        size = DIGEST_BYTES[bank]
        pcrs = {index: (b"\xff" if index in _DYNAMIC else b"\x00") * size for index in range(PCR_COUNT)}
        pcrs |= replay(EventLog.parse(self.event_log), bank=bank)
        if self.software and bank is Alg.SHA256:
            pcrs[SOFTWARE_PCR] = software_pcr_value(self.software)
        return pcrs

    def public(self, attributes: Attribute = ATTESTATION_KEY | Attribute.USER_WITH_AUTH) -> Public:
        """Return the public area of the attestation key."""
        ecc = isinstance(self.key, ec.EllipticCurvePrivateKey)
        return Public(
            name_alg=Alg.SHA256,
            attributes=attributes,
            auth_policy=b"",
            symmetric=None,
            scheme=(Alg.ECDSA if ecc else Alg.RSASSA, Alg.SHA256),
            key=_key_area(self.key),
        )

    def quote(
        self,
        nonce: bytes,
        *,
        pcrs: Mapping[int, bytes] | None = None,
        bank: Alg = Alg.SHA256,
        hash_alg: Alg = Alg.SHA256,
    ) -> bytes:
        """Return TPMS_ATTEST over ``pcrs`` (all of SHA-256) with ``nonce`` as extra data."""
        chosen = self.pcrs if pcrs is None else pcrs
        quote = Quote(
            qualified_signer=self.public().name,
            extra_data=nonce,
            clock=1000,
            reset_count=3,
            restart_count=0,
            safe=True,
            firmware_version=_FIRMWARE_VERSION,
            selections=(PcrSelection(bank=bank, pcrs=tuple(sorted(chosen))),),
            pcr_digest=pcr_digest(hash_alg, chosen),
        )
        return quote.dump()

    def sign(self, attest: bytes, *, scheme: Alg = Alg.RSASSA, hash_alg: Alg = Alg.SHA256) -> Signature:
        """Return the signature of the key over any bytes, which a real TPM would refuse."""
        chosen = hash_of(hash_alg)
        if isinstance(self.key, rsa.RSAPrivateKey):
            pss = padding.PSS(padding.MGF1(chosen), chosen.digest_size)
            value = self.key.sign(attest, padding.PKCS1v15() if scheme is Alg.RSASSA else pss, chosen)
            return RsaSignature(scheme=scheme, hash_alg=hash_alg, value=value)
        size = (self.key.key_size + 7) // 8
        r, s = decode_dss_signature(self.key.sign(attest, ec.ECDSA(chosen)))
        return EcdsaSignature(hash_alg=hash_alg, r=r.to_bytes(size, "big"), s=s.to_bytes(size, "big"))


def _key_area(key: AkKey) -> RsaKey | EccKey:
    if isinstance(key, rsa.RSAPrivateKey):
        modulus = key.public_key().public_numbers().n
        return RsaKey(bits=key.key_size, exponent=0, modulus=modulus.to_bytes(key.key_size // 8, "big"))
    size = (key.key_size + 7) // 8
    numbers = key.public_key().public_numbers()
    curve = {256: CurveId.P256, 384: CurveId.P384}[key.key_size]
    return EccKey(curve=curve, x=numbers.x.to_bytes(size, "big"), y=numbers.y.to_bytes(size, "big"))


def _log(*, secure_boot: bool) -> bytes:
    """Return the log of a boot, from firmware to kernel."""
    measured = [
        (0, _CRTM_VERSION, "Synthetic firmware".encode("utf-16-le"), None),
        (7, EventType.VARIABLE_DRIVER_CONFIG, _variable("SecureBoot", bytes((secure_boot,))), None),
        *((index, EventType.SEPARATOR, _SEPARATOR, None) for index in _BOOT_PCRS),
        (4, _BOOT_APPLICATION, b"device path", b"boot loader"),
        (4, _BOOT_APPLICATION, b"device path", b"kernel"),
    ]
    events = [_event(pcr, kind, data, data if over is None else over) for pcr, kind, data, over in measured]
    banks = {int(bank): DIGEST_BYTES[bank] for bank in _BANKS}
    return EventLog(header=_header(), banks=banks, events=tuple(events)).dump()


def _event(pcr: int, kind: int, data: bytes, over: bytes) -> Event:
    digests = {int(Alg.SHA1): hashlib.sha1(over, usedforsecurity=False).digest()}
    digests |= {int(bank): digest(bank, over) for bank in _BANKS if bank is not Alg.SHA1}
    return Event(pcr=pcr, kind=kind, digests=digests, data=data)


def _header() -> bytes:
    """Return the first event, which names the banks (TCG PC Client Platform Firmware Profile 1.06 section 10.4.5.1)."""
    sizes = b"".join(bank.to_bytes(2, "little") + DIGEST_BYTES[bank].to_bytes(2, "little") for bank in _BANKS)
    inner = (
        b"Spec ID Event03\x00" + bytes((0, 0, 0, 0, 0, 2, 0, 2)) + len(_BANKS).to_bytes(4, "little") + sizes + b"\x00"
    )
    head = bytes(4) + EventType.NO_ACTION.to_bytes(4, "little") + bytes(20)
    return head + len(inner).to_bytes(4, "little") + inner


def _variable(name: str, value: bytes) -> bytes:
    """Return UEFI_VARIABLE_DATA (section 10.2.6)."""
    sizes = len(name).to_bytes(8, "little") + len(value).to_bytes(8, "little")
    return _GLOBAL_VARIABLE + sizes + name.encode("utf-16-le") + value
