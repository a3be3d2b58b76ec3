"""A quote from files, and what explains it: every check made, all failures collected (docs/spec/evidence-vtpm.md).

For whoever has a key and a quote and no envelope of ours: cloud vTPMs, auditors, other projects' evidence. The
spellings in the field are taken: TPM2B with its length in front or bare, bare RSA signatures, four shapes of PCRs.

Not done here: who vouches for the key, the nonce, and whether PCRs are good.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from cloister.attest.tpm.algorithms import CURVES, DIGEST_BYTES, Alg
from cloister.attest.tpm.eventlog import EventLog, replay, secure_boot
from cloister.attest.tpm.quote import scheme_of, signature_holds, verify_attestation_key, verify_pcrs, verify_scheme
from cloister.attest.tpm.structures import (
    MAX_STRUCTURE_BYTES,
    PCR_COUNT,
    Public,
    Quote,
    RsaSignature,
    parse_signature,
)
from cloister.errors import Malformed, Rejected
from cloister.wire import Fields, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.attest.findings import Findings
    from cloister.attest.tpm.structures import Signature
    from cloister.wire import Json

__all__ = [
    "MAX_PCRS_BYTES",
    "BareKey",
    "Explained",
    "Quoted",
    "find_quoted",
    "parse_any_signature",
    "parse_key",
    "parse_pcrs",
    "unwrapped",
]

BareKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
"""A key without the TPM's word on what it does with it."""

MAX_PCRS_BYTES = 16 * 1024  # bytes of one file of PCR values
BANKS = (Alg.SHA256, Alg.SHA384, Alg.SHA512)
"""Banks that are accepted. SHA-1 has collisions: who can choose what is measured can choose twice."""

_FIRMWARE_PCRS = range(10)  # what only firmware and boot loaders extend; systems go on extending the others
_SECURE_BOOT_PCR = 7
_RSA_BITS = (2048, 3072, 4096)
_SIGNATURE_HEADS = {
    scheme.to_bytes(2, "big") + hashed.to_bytes(2, "big")
    for scheme in (Alg.RSASSA, Alg.RSAPSS)
    for hashed in DIGEST_BYTES
}
"""How a TPMT_SIGNATURE of an RSA key begins: one cut short to the size of a bare signature is none."""
_NAMES = {"sha1": Alg.SHA1, "sha256": Alg.SHA256, "sha384": Alg.SHA384, "sha512": Alg.SHA512}
_INDEX = re.compile(r"(?:pcr)?0?([0-9]|1[0-9]|2[0-3])")
_HEX = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2}){20,64})")


def unwrapped(data: bytes) -> bytes:
    """Return a structure without the length of a TPM2B, where one stands in front."""
    return data[2:] if int.from_bytes(data[:2], "big") == len(data) - 2 else data


def parse_key(data: bytes) -> Public | BareKey:
    """Parse a TPMT_PUBLIC, a TPM2B_PUBLIC, or a bare key as SubjectPublicKeyInfo (DER, PEM). Raises ``Malformed``."""
    if len(data) > MAX_STRUCTURE_BYTES:
        msg = f"attestation key: {len(data)} bytes, want at most {MAX_STRUCTURE_BYTES}"
        raise Malformed(msg)
    pem = data.lstrip().startswith(b"-----BEGIN PUBLIC KEY-----")
    if not pem and data[:1] != b"\x30":  # a DER SEQUENCE
        return Public.parse(unwrapped(data))
    try:
        key = load_pem_public_key(data) if pem else load_der_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        msg = "attestation key: not der or pem, or of a kind we do not read"
        raise Malformed(msg) from exc
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in {curve.name for curve in CURVES.values()}:
        return key
    msg = "attestation key: neither rsa of 2048 to 4096 bits nor on P-256 or P-384"
    raise Malformed(msg)


def parse_any_signature(data: bytes) -> Signature:
    """Parse a TPMT_SIGNATURE, or a bare RSA signature, which is RSASSA with SHA-256. Raises ``Malformed``."""
    if 8 * len(data) in _RSA_BITS and data[:4] not in _SIGNATURE_HEADS:
        return RsaSignature(scheme=Alg.RSASSA, hash_alg=Alg.SHA256, value=data)
    return parse_signature(unwrapped(data))


def parse_pcrs(data: bytes) -> dict[int, bytes]:
    """Parse PCR values of one bank.

    Shapes: values by index; an array from PCR 0 on; either inside one object named after its bank; ``hash`` and
    ``pcrs`` as go-tpm-tools writes them. Values are hex, or base64. Raises ``Malformed``.
    """
    value = parse_json(data, what="pcr values", cap=MAX_PCRS_BYTES)
    if isinstance(value, dict) and set(value) == {"hash", "pcrs"}:
        value = value["pcrs"]
    elif isinstance(value, dict) and len(value) == 1 and next(iter(value)).lower() in _NAMES:
        value = next(iter(value.values()))
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    members = Fields({"pcrs": value}, what="pcr values").members("pcrs", cap=PCR_COUNT)
    pcrs = {_index(name): _digest(item) for name, item in members.items()}
    if not pcrs or len(pcrs) != len(members) or len(set(map(len, pcrs.values()))) != 1:
        msg = "pcr values: none, one twice, or of several banks"
        raise Malformed(msg)
    return pcrs


def _index(name: str) -> int:
    found = _INDEX.fullmatch(name)
    if found is None:
        msg = f"pcr values: {name[:16]!r} is no pcr"
        raise Malformed(msg)
    return int(found[1])


def _digest(value: Json) -> bytes:
    text = value if isinstance(value, str) else ""
    found = _HEX.fullmatch(text)
    try:
        data = bytes.fromhex(found[1]) if found else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as exc:
        msg = "pcr values: neither hex nor base64"
        raise Malformed(msg) from exc
    if len(data) not in DIGEST_BYTES.values():
        msg = f"pcr values: {len(data)} bytes, want a digest"
        raise Malformed(msg)
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """A quote, its signature, and what came along to explain it; unverified. ``pcrs`` may be empty."""

    attest: bytes
    quote: Quote
    signature: Signature
    pcrs: Mapping[int, bytes]
    event_log: EventLog | None

    @classmethod
    def parse(cls, attest: bytes, signature: bytes, pcrs: Mapping[int, bytes], event_log: bytes = b"") -> Self:
        """Parse the parts. Raises ``Malformed``."""
        bare = unwrapped(attest)
        return cls(
            attest=bare,
            quote=Quote.parse(bare),
            signature=parse_any_signature(signature),
            pcrs=pcrs,
            event_log=EventLog.parse(event_log) if event_log else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What a log explains of a quote: ``pcrs`` it arrives at, and what these say of Secure Boot, if anything."""

    pcrs: frozenset[int] = frozenset()
    secure_boot: bool | None = None


def find_quoted(
    findings: Findings, quoted: Quoted, key: Public | BareKey, *, code: str = "signature_invalid"
) -> Explained:
    """Record whether ``key`` may quote, signed this quote, over these PCRs, and whether the log arrives at them.

    ``code`` is that of a signature which does not hold. Raises ``Malformed``.
    """
    # 1. An attestation key signs nothing but its TPM's own words; what a bare key signs, its voucher has to know.
    if isinstance(key, Public):
        _attempt(findings, "ak_attributes_invalid", "attestation key", lambda: verify_attestation_key(key))
        scheme, public = key.scheme, key.public_key()
    else:
        scheme, public = scheme_of(quoted.signature), key
    # 2. The scheme, and the signature over the exact bytes.
    if _attempt(findings, "algorithm_not_allowed", "quote scheme", lambda: verify_scheme(quoted.signature, scheme)):
        findings.expect(signature_holds(quoted.attest, quoted.signature, public), code, "quote signature")
    # 3. The PCRs that were sent are those under the quote.
    got = quoted.quote.pcr_digest.hex()
    if not quoted.pcrs:
        findings.skip("pcr_mismatch", "pcr digest", "no pcr values came along", got=got)
        return Explained()
    try:
        bank = verify_pcrs(quoted.quote, quoted.signature.hash_alg, quoted.pcrs, banks=BANKS)
    except Rejected as exc:
        findings.refused(exc)
        return Explained()
    findings.expect(True, "pcr_mismatch", "pcr digest", got=got)  # noqa: FBT003 - the step above did not raise
    # 4. The log arrives at them.
    return Explained() if quoted.event_log is None else _find_replay(findings, quoted.event_log, quoted.pcrs, bank)


def _attempt(findings: Findings, code: str, subject: str, step: Callable[[], None]) -> bool:
    """Record the outcome of a step that raises ``Rejected``."""
    try:
        step()
    except Rejected as exc:
        findings.refused(exc)
        return False
    return findings.expect(True, code, subject)  # noqa: FBT003 - the step did not raise


def _find_replay(findings: Findings, log: EventLog, pcrs: Mapping[int, bytes], bank: Alg) -> Explained:
    """Record the replay: PCRs that only firmware and boot loaders extend must be met, others may have gone on."""
    replayed = replay(log, bank=bank)
    met = frozenset(index for index in replayed.keys() & pcrs.keys() if replayed[index] == pcrs[index])
    for index in sorted(replayed.keys() & pcrs.keys()):
        got, want, subject = replayed[index].hex(), pcrs[index].hex(), f"event log, pcr {index}"
        if index in met or index in _FIRMWARE_PCRS:
            findings.expect(index in met, "pcr_mismatch", subject, got=got, want=want)
        else:
            findings.skip("pcr_mismatch", subject, "extended outside the firmware's log", got=got)
    return Explained(pcrs=met, secure_boot=secure_boot(log, bank=bank) if _SECURE_BOOT_PCR in met else None)
