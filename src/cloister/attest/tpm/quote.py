"""What a TPM signed: the key it signed with, the signature, the PCRs under it (TPM 2.0 Part 1 section 31).

Not done here: who vouches for the key (``akcert``), whether the nonce is ours (``verifier``), whether
the PCRs are good (``appraise``).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cloister.attest.tpm.algorithms import DIGEST_BYTES, Alg, digest, hash_of
from cloister.attest.tpm.structures import Attribute, EcdsaSignature, Quote, RsaSignature
from cloister.errors import Malformed, Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cloister.attest.tpm.structures import Public, Signature

__all__ = [
    "ATTESTATION_KEY",
    "SignatureScheme",
    "pcr_digest",
    "scheme_of",
    "signature_holds",
    "verify_attestation_key",
    "verify_pcrs",
    "verify_scheme",
    "verify_signature",
]

SignatureScheme: TypeAlias = tuple[Alg, Alg]
"""Algorithm and hash."""

ATTESTATION_KEY = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.RESTRICTED
    | Attribute.SIGN
)
"""What an attestation key must be: born in this TPM, bound to it, signing nothing but the TPM's own words."""

_FREE = Attribute.USER_WITH_AUTH | Attribute.ADMIN_WITH_POLICY | Attribute.NO_DA | Attribute.ST_CLEAR


def verify_attestation_key(ak: Public) -> None:
    """Prove that the public area is that of an attestation key: a restricted signing key fixed to its TPM.

    A signing key that is not restricted signs a forged quote for whoever asks. Raises ``Rejected``
    (``ak_attributes_invalid``, ``algorithm_not_allowed``).
    """
    if ak.attributes & ~_FREE != ATTESTATION_KEY:
        raise Rejected.because(
            "ak_attributes_invalid",
            "attestation key",
            got=f"{ak.attributes:#010x}",
            want=f"{ATTESTATION_KEY:#010x} (restricted, fixed to its tpm, signing only)",
        )
    if ak.scheme is None or ak.scheme[1] == Alg.SHA1:
        got = "any scheme" if ak.scheme is None else ak.scheme[1].name
        raise Rejected.because("algorithm_not_allowed", "attestation key", got=got, want="a fixed scheme with SHA-2")


def verify_signature(attest: bytes, signature: Signature, ak: Public) -> Quote:
    """Prove that ``ak`` signed the quote ``attest``, with the scheme that is fixed in the key.

    Raises ``Malformed`` for a key that is none or bytes that are no quote, ``Rejected``
    (``algorithm_not_allowed``, ``signature_invalid``).
    """
    # 1. The scheme is the key's own: nobody chooses an easier one.
    verify_scheme(signature, ak.scheme)
    # 2. Signature over the exact bytes.
    if not signature_holds(attest, signature, ak.public_key()):
        raise Rejected.because("signature_invalid", "quote signature")
    # 3. What was signed is a quote.
    return Quote.parse(attest)


def scheme_of(signature: Signature) -> SignatureScheme:
    """Return the scheme a signature says it is in."""
    return Alg.ECDSA if isinstance(signature, EcdsaSignature) else signature.scheme, signature.hash_alg


def verify_scheme(signature: Signature, scheme: SignatureScheme | None) -> None:
    """Prove that a signature is in ``scheme``, which is no SHA-1. Raises ``Rejected`` (``algorithm_not_allowed``)."""
    found = scheme_of(signature)
    if found != scheme or signature.hash_alg == Alg.SHA1:
        got, want = ("-".join(alg.name for alg in item) if item else "a fixed scheme" for item in (found, scheme))
        raise Rejected.because("algorithm_not_allowed", "quote signature", got=got, want=want)


def signature_holds(data: bytes, signature: Signature, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bool:
    """Tell whether ``key`` signed ``data``; never with SHA-1, nor where the kinds of key and signature differ."""
    try:
        _verify(data, signature, key)
    except (InvalidSignature, UsageError):
        return False
    return True


def _verify(data: bytes, signature: Signature, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> None:
    """Raise ``InvalidSignature`` unless ``key`` signed ``data``; the kinds fit where the schemes do."""
    chosen = hash_of(signature.hash_alg)
    if isinstance(signature, EcdsaSignature) and isinstance(key, ec.EllipticCurvePublicKey):
        r, s = int.from_bytes(signature.r, "big"), int.from_bytes(signature.s, "big")
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(chosen))
    elif isinstance(signature, RsaSignature) and isinstance(key, rsa.RSAPublicKey):
        # Part 1 annex B.7: RSAPSS with either salt length
        pss = padding.PSS(padding.MGF1(chosen), padding.PSS.AUTO)
        key.verify(signature.value, data, padding.PKCS1v15() if signature.scheme == Alg.RSASSA else pss, chosen)
    else:
        raise InvalidSignature


def pcr_digest(alg: Alg, pcrs: Mapping[int, bytes]) -> bytes:
    """Return the digest over PCR values in order of their index (Part 4, PCRComputeCurrentDigest)."""
    return digest(alg, b"".join(pcrs[index] for index in sorted(pcrs)))


def verify_pcrs(
    quote: Quote, hash_alg: Alg, pcrs: Mapping[int, bytes], *, banks: Collection[Alg] = (Alg.SHA256,)
) -> Alg:
    """Prove that ``pcrs`` are the PCRs under the quote: these, all of them, no other; return their bank.

    ``hash_alg`` is the hash of the signature, ``banks`` those we accept. Raises ``Malformed`` for values of a wrong
    size, ``Rejected`` (``algorithm_not_allowed`` for another bank, several, or SHA-1; ``pcr_mismatch``).
    """
    chosen = [selection for selection in quote.selections if selection.pcrs]
    if len(chosen) != 1 or chosen[0].bank not in banks:
        got = ", ".join(selection.bank.name for selection in chosen)
        want = " or ".join(bank.name for bank in banks)
        raise Rejected.because("algorithm_not_allowed", "pcr banks", got=got, want=want)
    (selection,) = chosen
    if hash_alg == Alg.SHA1:
        raise Rejected.because("algorithm_not_allowed", "hash of the quote", got=hash_alg.name, want="SHA-2")
    size = DIGEST_BYTES[selection.bank]
    if any(len(value) != size for value in pcrs.values()):
        msg = f"pcr values: want {size} bytes each"
        raise Malformed(msg)
    if selection.pcrs != tuple(sorted(pcrs)):
        got = ", ".join(map(str, sorted(pcrs)))
        raise Rejected.because("pcr_mismatch", "quoted pcrs", got=got, want=", ".join(map(str, selection.pcrs)))
    want = pcr_digest(hash_alg, pcrs).hex()
    if not hmac.compare_digest(quote.pcr_digest.hex(), want):
        raise Rejected.because("pcr_mismatch", "pcr digest", got=quote.pcr_digest.hex(), want=want)
    return selection.bank
