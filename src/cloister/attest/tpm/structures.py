"""TPM 2.0 structures, bytes to values and back (TPM 2.0 Library, Part 2: Structures, revision 1.59).

Exactly those that remote attestation needs: TPMT_PUBLIC of RSA and ECC keys, TPMS_ATTEST of a quote,
TPMT_SIGNATURE and TPML_PCR_SELECTION. Big-endian, exact, to the end; what parses dumps to the same bytes.

Not done here: whether a signature holds (``quote``) or a key may be trusted (``akcert``, ``ek``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Self, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cloister.attest.tpm.algorithms import CURVES, DIGEST_BYTES, Alg, CurveId, digest, take_alg
from cloister.errors import Malformed
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MAX_STRUCTURE_BYTES",
    "PCR_COUNT",
    "Attribute",
    "EccKey",
    "EcdsaSignature",
    "PcrSelection",
    "Public",
    "Quote",
    "RsaKey",
    "RsaSignature",
    "Signature",
    "Symmetric",
    "b2",
    "dump_selections",
    "parse_signature",
    "take_selections",
]

MAX_STRUCTURE_BYTES = 4096  # bytes of one structure: what a TPM's command buffer holds
PCR_COUNT = 24  # PCRs of a PC Client platform (PC Client Platform TPM Profile 1.05 section 4.6)
_MAX_BANKS = 4  # PCR banks one selection may name
_MAX_DIGEST_BYTES = 64  # sizeof(TPMU_HA)
_MAX_DATA_BYTES = 66  # sizeof(TPMT_HA): TPM2B_DATA and TPM2B_NAME
_MAX_KEY_BYTES = 512  # RSA-4096
_MAX_COORDINATE_BYTES = 48  # P-384
_RSA_BITS = (2048, 3072, 4096)
_AES_BITS = (128, 192, 256)
_DEFAULT_EXPONENT = 65537  # TPM 2.0 Part 2 section 12.2.3.5: an exponent of zero stands for it
_SELECT_BYTES = (3, 4)
_GENERATED = bytes.fromhex("ff544347")  # TPM_GENERATED_VALUE, Part 2 section 6.2
_ATTEST_QUOTE = 0x8018  # TPM_ST_ATTEST_QUOTE, Part 2 section 6.9
_KEY_HASHES = (Alg.SHA256, Alg.SHA384, Alg.SHA512)
_ALL_HASHES = (Alg.SHA1, *_KEY_HASHES)


def b2(data: bytes) -> bytes:
    """Return a TPM2B: ``data`` with its length as two big-endian bytes in front."""
    return len(data).to_bytes(2, "big") + data


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


class Attribute(IntFlag):
    """TPMA_OBJECT (Part 2 section 8.3). Bits without a name are reserved and refused."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


_ALL_ATTRIBUTES = sum(Attribute)


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrSelection:
    """PCRs of one bank (TPMS_PCR_SELECTION, Part 2 section 10.6.2). ``size`` is sizeofSelect, usually 3."""

    bank: Alg
    pcrs: tuple[int, ...]
    size: int = 3

    def dump(self) -> bytes:
        """Return the structure."""
        bits = sum(1 << index for index in self.pcrs)
        return _u16(self.bank) + bytes((self.size,)) + bits.to_bytes(self.size, "little")


def dump_selections(selections: Sequence[PcrSelection]) -> bytes:
    """Return TPML_PCR_SELECTION (Part 2 section 10.9.7)."""
    return _u32(len(selections)) + b"".join(selection.dump() for selection in selections)


def take_selections(reader: Reader) -> tuple[PcrSelection, ...]:
    """Return the TPML_PCR_SELECTION that comes next."""
    count = reader.u32()
    if count > _MAX_BANKS:
        reader.fail(f"{count} pcr banks, want at most {_MAX_BANKS}")
    return tuple(_take_selection(reader) for _ in range(count))


def _take_selection(reader: Reader) -> PcrSelection:
    bank = take_alg(reader, *_ALL_HASHES)
    size = reader.u8()
    if size not in _SELECT_BYTES:
        reader.fail(f"pcr selection of {size} bytes, want 3 or 4")
    bits = reader.uint(size, little=True)
    if bits >> PCR_COUNT:
        reader.fail(f"pcr selection names pcrs from {PCR_COUNT} on")
    return PcrSelection(bank=bank, pcrs=tuple(i for i in range(PCR_COUNT) if bits >> i & 1), size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaKey:
    """An RSA public key; ``exponent`` as on the wire, where zero stands for 65537."""

    bits: int
    exponent: int
    modulus: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EccKey:
    """A point on a NIST curve; coordinates as on the wire."""

    curve: CurveId
    x: bytes
    y: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Symmetric:
    """The AES-CFB cipher with which a storage key protects its children (TPMT_SYM_DEF_OBJECT)."""

    key_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Public:
    """An asymmetric key and what its TPM does with it (TPMT_PUBLIC, Part 2 section 12.2.4).

    ``symmetric`` is there for storage keys, ``scheme`` (algorithm, hash) for signing keys.
    """

    name_alg: Alg
    attributes: Attribute
    auth_policy: bytes
    symmetric: Symmetric | None
    scheme: tuple[Alg, Alg] | None
    key: RsaKey | EccKey

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse exactly one TPMT_PUBLIC. Raises ``Malformed``."""
        reader = _reader(data, "tpm public")
        kind = take_alg(reader, Alg.RSA, Alg.ECC)
        name_alg = take_alg(reader, *_KEY_HASHES)
        bits = reader.u32()
        if bits & ~_ALL_ATTRIBUTES:
            reader.fail(f"reserved attributes in {bits:#010x}")
        auth_policy = reader.prefixed(2, cap=DIGEST_BYTES[name_alg])
        if len(auth_policy) not in (0, DIGEST_BYTES[name_alg]):
            reader.fail(f"policy of {len(auth_policy)} bytes, want 0 or {DIGEST_BYTES[name_alg]}")
        symmetric = _take_symmetric(reader)
        schemes = (Alg.RSASSA, Alg.RSAPSS) if kind == Alg.RSA else (Alg.ECDSA,)
        scheme = _take_scheme(reader, schemes)
        key = _take_rsa(reader) if kind == Alg.RSA else _take_ecc(reader)
        reader.end()
        return cls(
            name_alg=name_alg,
            attributes=Attribute(bits),
            auth_policy=auth_policy,
            symmetric=symmetric,
            scheme=scheme,
            key=key,
        )

    def dump(self) -> bytes:
        """Return the structure."""
        kind = Alg.RSA if isinstance(self.key, RsaKey) else Alg.ECC
        cipher = _u16(Alg.NULL)
        if self.symmetric is not None:
            cipher = _u16(Alg.AES) + _u16(self.symmetric.key_bits) + _u16(Alg.CFB)
        scheme = _u16(Alg.NULL) if self.scheme is None else b"".join(map(_u16, self.scheme))
        head = _u16(kind) + _u16(self.name_alg) + _u32(self.attributes) + b2(self.auth_policy) + cipher + scheme
        if isinstance(self.key, RsaKey):
            return head + _u16(self.key.bits) + _u32(self.key.exponent) + b2(self.key.modulus)
        return head + _u16(self.key.curve) + _u16(Alg.NULL) + b2(self.key.x) + b2(self.key.y)

    @property
    def name(self) -> bytes:
        """The Name: algorithm number and digest of the structure (Part 1 section 16)."""
        return _u16(self.name_alg) + digest(self.name_alg, self.dump())

    def public_key(self) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
        """Return the key for arithmetic. Raises ``Malformed`` for a point off its curve or numbers that are no key."""
        try:
            if isinstance(self.key, RsaKey):
                modulus = int.from_bytes(self.key.modulus, "big")
                if modulus.bit_length() != self.key.bits:
                    msg = f"tpm public: modulus of {modulus.bit_length()} bits, want {self.key.bits}"
                    raise Malformed(msg)
                return rsa.RSAPublicNumbers(self.key.exponent or _DEFAULT_EXPONENT, modulus).public_key()
            x, y = int.from_bytes(self.key.x, "big"), int.from_bytes(self.key.y, "big")
            return ec.EllipticCurvePublicNumbers(x, y, CURVES[self.key.curve]).public_key()
        except ValueError as exc:
            msg = "tpm public: numbers that are no key"
            raise Malformed(msg) from exc


def _reader(data: bytes, what: str) -> Reader:
    if len(data) > MAX_STRUCTURE_BYTES:
        msg = f"{what}: {len(data)} bytes, want at most {MAX_STRUCTURE_BYTES}"
        raise Malformed(msg)
    return Reader(data, what=what)


def _take_symmetric(reader: Reader) -> Symmetric | None:
    if take_alg(reader, Alg.AES, Alg.NULL) == Alg.NULL:
        return None
    bits = reader.u16()
    if bits not in _AES_BITS:
        reader.fail(f"aes key of {bits} bits")
    take_alg(reader, Alg.CFB)
    return Symmetric(key_bits=bits)


def _take_scheme(reader: Reader, allowed: tuple[Alg, ...]) -> tuple[Alg, Alg] | None:
    scheme = take_alg(reader, *allowed, Alg.NULL)
    if scheme == Alg.NULL:
        return None
    return scheme, take_alg(reader, *_ALL_HASHES)


def _take_rsa(reader: Reader) -> RsaKey:
    bits = reader.u16()
    if bits not in _RSA_BITS:
        reader.fail(f"rsa key of {bits} bits")
    exponent = reader.u32()
    return RsaKey(bits=bits, exponent=exponent, modulus=reader.prefixed(2, cap=_MAX_KEY_BYTES))


def _take_ecc(reader: Reader) -> EccKey:
    number = reader.u16()
    if number not in tuple(CurveId):
        reader.fail(f"curve {number:#06x}, want P-256 or P-384")
    take_alg(reader, Alg.NULL)  # the key derivation scheme, of no use with these keys
    x = reader.prefixed(2, cap=_MAX_COORDINATE_BYTES)
    return EccKey(curve=CurveId(number), x=x, y=reader.prefixed(2, cap=_MAX_COORDINATE_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a TPM says about its PCRs (TPMS_ATTEST with TPMS_QUOTE_INFO, Part 2 sections 10.12.1 and 10.12.8)."""

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    selections: tuple[PcrSelection, ...]
    pcr_digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse exactly one TPMS_ATTEST, which must be a quote a TPM made. Raises ``Malformed``.

        The magic is what a restricted key never signs unless its TPM wrote the structure itself.
        """
        reader = _reader(data, "tpm quote")
        reader.expect(_GENERATED)
        kind = reader.u16()
        if kind != _ATTEST_QUOTE:
            reader.fail(f"attestation of type {kind:#06x}, want a quote ({_ATTEST_QUOTE:#06x})")
        quote = cls(
            qualified_signer=reader.prefixed(2, cap=_MAX_DATA_BYTES),
            extra_data=reader.prefixed(2, cap=_MAX_DATA_BYTES),
            clock=reader.u64(),
            reset_count=reader.u32(),
            restart_count=reader.u32(),
            safe=_take_yes_no(reader),
            firmware_version=reader.u64(),
            selections=take_selections(reader),
            pcr_digest=reader.prefixed(2, cap=_MAX_DIGEST_BYTES),
        )
        reader.end()
        return quote

    def dump(self) -> bytes:
        """Return the structure."""
        return b"".join(
            (
                _GENERATED,
                _u16(_ATTEST_QUOTE),
                b2(self.qualified_signer),
                b2(self.extra_data),
                self.clock.to_bytes(8, "big"),
                _u32(self.reset_count),
                _u32(self.restart_count),
                bytes((self.safe,)),
                self.firmware_version.to_bytes(8, "big"),
                dump_selections(self.selections),
                b2(self.pcr_digest),
            )
        )


def _take_yes_no(reader: Reader) -> bool:
    value = reader.u8()
    if value > 1:
        reader.fail(f"{value} where yes or no stands")
    return value == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaSignature:
    """TPMS_SIGNATURE_RSA, ``scheme`` RSASSA or RSAPSS."""

    scheme: Alg
    hash_alg: Alg
    value: bytes

    def dump(self) -> bytes:
        """Return TPMT_SIGNATURE."""
        return _u16(self.scheme) + _u16(self.hash_alg) + b2(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class EcdsaSignature:
    """TPMS_SIGNATURE_ECC with ECDSA; the integers as on the wire."""

    hash_alg: Alg
    r: bytes
    s: bytes

    def dump(self) -> bytes:
        """Return TPMT_SIGNATURE."""
        return _u16(Alg.ECDSA) + _u16(self.hash_alg) + b2(self.r) + b2(self.s)


Signature: TypeAlias = RsaSignature | EcdsaSignature


def parse_signature(data: bytes) -> Signature:
    """Parse exactly one TPMT_SIGNATURE (Part 2 section 11.3.4). Raises ``Malformed``."""
    reader = _reader(data, "tpm signature")
    scheme = take_alg(reader, Alg.RSASSA, Alg.RSAPSS, Alg.ECDSA)
    hash_alg = take_alg(reader, *_ALL_HASHES)
    signature: Signature
    if scheme == Alg.ECDSA:
        r = reader.prefixed(2, cap=_MAX_COORDINATE_BYTES)
        signature = EcdsaSignature(hash_alg=hash_alg, r=r, s=reader.prefixed(2, cap=_MAX_COORDINATE_BYTES))
    else:
        signature = RsaSignature(scheme=scheme, hash_alg=hash_alg, value=reader.prefixed(2, cap=_MAX_KEY_BYTES))
    reader.end()
    return signature
