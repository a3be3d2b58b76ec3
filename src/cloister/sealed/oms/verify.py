"""Prove a model signature: one of the pinned makers signed the list, and the files are those of the list.

OMS v1.0 section 8. Time comes in: a certificate counts at that moment. Not done here: revocation of certificates,
and hashing, which who seals or opens does on the way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloister.attest.chain import Certificate, verify_chain
from cloister.errors import Reason, Rejected
from cloister.sealed.oms.bundle import PAYLOAD_TYPE, Bundle, ByChain, ByKey, Keyless
from cloister.sealed.oms.maker import CURVES, Maker, MakerKind
from cloister.sealed.oms.statement import Statement

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

__all__ = ["MadeBy", "verify_files", "verify_maker", "verify_names"]

_SUBJECT = "model signature"
_MAX_SHOWN = 8  # reasons in one line of text; all of them are in the rejection
_HINT = re.compile(r"[0-9a-f]{64}")
_MAY_SIGN = (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBy:
    """What a pinned maker is proven to have said. Only ``verify_maker`` makes one.

    ``signer`` is for people: the key's fingerprint, or the name in the signing certificate.
    """

    maker: Maker
    signer: str
    statement: Statement


def verify_maker(data: bytes, makers: Sequence[Maker], now: datetime) -> MadeBy:
    """Return the list in bundle ``data`` once one of ``makers`` is proven to have signed it.

    Does not look at files: see ``verify_files``. Raises ``Malformed``, or ``Rejected``: ``unsupported_signature``,
    ``unknown_key``, ``signature_invalid``, ``algorithm_not_allowed``, and for certificates ``untrusted_root``,
    ``chain_invalid``, ``cert_not_yet_valid``, ``cert_expired``.
    """
    bundle = Bundle.parse(data)
    # 1. Whose signature it can be, of those that are pinned.
    match bundle.signer:
        case ByKey(hint=hint):
            maker, signer = _signed_by_key(bundle, hint, makers)
        case ByChain() as chain:
            maker, signer = _signed_by_certificate(bundle, chain, makers, now)
        case Keyless():
            hint = "have it signed by a key or a certificate"
            raise Rejected.because("unsupported_signature", _SUBJECT, got="keyless", want="a key or chain", hint=hint)
        case _:
            assert_never(bundle.signer)
    # 2. The very bytes that were signed are those that are read.
    statement = Statement.parse(bundle.payload)
    if (statement.method, statement.hash_type) != ("files", "sha256"):
        got = f"{statement.method} by {statement.hash_type}"
        raise Rejected.because("unsupported_signature", _SUBJECT, got=got, want="files by sha256")
    return MadeBy(maker=maker, signer=signer, statement=statement)


def _signed_by_key(bundle: Bundle, hint: str, makers: Sequence[Maker]) -> tuple[Maker, str]:
    keys = [maker for maker in makers if maker.kind is MakerKind.KEY]
    fitting = [maker for maker in keys if not hint or _hint(maker) == hint]
    if not fitting:
        got = hint if _HINT.fullmatch(hint) else "another key"
        raise Rejected.because("unknown_key", _SUBJECT, got=got, want=f"one of {len(keys)} pinned keys")
    for maker in fitting:
        if _holds(bundle, maker.key()):
            return maker, maker.shown
    raise Rejected.because("signature_invalid", _SUBJECT)


def _hint(maker: Maker) -> str:
    """Return the name that signers give a key: SHA-256 over its PEM."""
    pem = maker.key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(pem)
    return digest.finalize().hex()


def _signed_by_certificate(bundle: Bundle, chain: ByChain, makers: Sequence[Maker], now: datetime) -> tuple[Maker, str]:
    roots = [maker for maker in makers if maker.kind is MakerKind.ROOT]
    path = verify_chain(chain.leaf, chain.between, [maker.certificate() for maker in roots], now)
    _demand_signing(chain.leaf)
    key = chain.leaf.x509.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        got, want = type(key).__name__, "a key on P-256, P-384 or P-521"
        raise Rejected.because("algorithm_not_allowed", chain.leaf.shown, got=got, want=want)
    if not _holds(bundle, key):
        raise Rejected.because("signature_invalid", _SUBJECT, got=chain.leaf.shown)
    return next(maker for maker in roots if maker.der == path[-1].der), chain.leaf.shown


def _demand_signing(leaf: Certificate) -> None:
    """Demand a certificate that is for signing code (RFC 5280 sections 4.2.1.3 and 4.2.1.12).

    Each of both extensions narrows what a certificate is for, so neither makes up for the other; one has to be there.
    """
    found = {type(item.value): item.value for item in leaf.x509.extensions}
    usage, extended = found.get(x509.KeyUsage), found.get(x509.ExtendedKeyUsage)
    if usage is None and extended is None:
        raise Rejected.because("chain_invalid", leaf.shown, got="no key usage", want="one for signing")
    if isinstance(usage, x509.KeyUsage) and not usage.digital_signature:
        raise Rejected.because("chain_invalid", leaf.shown, got="key usage", want="digitalSignature")
    if isinstance(extended, x509.ExtendedKeyUsage) and not any(purpose in _MAY_SIGN for purpose in extended):
        raise Rejected.because("chain_invalid", leaf.shown, got="extended key usage", want="codeSigning")


def _holds(bundle: Bundle, key: ec.EllipticCurvePublicKey) -> bool:
    """Tell whether ``key`` signed the payload (DSSE v1.0; the hash goes with the curve, OMS v1.0 section 4.1)."""
    kind = PAYLOAD_TYPE.encode("ascii")
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(bundle.payload), bundle.payload)
    match key.curve.key_size:
        case 256:
            algorithm: hashes.HashAlgorithm = hashes.SHA256()
        case 384:
            algorithm = hashes.SHA384()
        case _:
            algorithm = hashes.SHA512()
    try:
        key.verify(bundle.signature, signed, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def verify_names(statement: Statement, paths: Collection[str]) -> None:
    """Prove that a model with ``paths`` has every file that was signed, and no other: before hours of hashing.

    Raises ``Rejected`` with every reason: ``file_unsigned``, ``file_missing``.
    """
    _refuse(_strangers(statement, paths))


def verify_files(statement: Statement, digests: Mapping[str, bytes]) -> None:
    """Prove that the files with these SHA-256 digests, by path, are those that were signed, every one and no other.

    What the maker passed over is no exception: who seals leaves it out. Raises ``Rejected`` with every reason:
    ``file_unsigned``, ``file_missing``, ``signed_otherwise``.
    """
    want = statement.digests(digests)
    _refuse(
        _strangers(statement, digests)
        + [
            Reason(code="signed_otherwise", subject=path, got=digest.hex(), want=want[path].hex())
            for path, digest in sorted(digests.items())
            if path in want and want[path] != digest
        ]
    )


def _strangers(statement: Statement, paths: Collection[str]) -> list[Reason]:
    want = statement.digests(paths)
    extra = [Reason(code="file_unsigned", subject=path) for path in sorted(paths) if path not in want]
    return extra + [Reason(code="file_missing", subject=path) for path in sorted(want) if path not in paths]


def _refuse(reasons: list[Reason]) -> None:
    if reasons:
        shown = "; ".join(map(str, reasons[:_MAX_SHOWN]))
        more = len(reasons) - _MAX_SHOWN
        raise Rejected(f"{shown}; and {more} more" if more > 0 else shown, reasons=tuple(reasons))
