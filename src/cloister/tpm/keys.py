"""Endorsement and attestation keys of this machine's TPM.

Both are primary keys made from fixed templates: the same TPM makes the same key again, so nothing is
stored and nothing can be lost. A clear of the endorsement seed ends both, and with them the enrolment.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cloister.attest.chain import Certificate
from cloister.attest.tpm.algorithms import Alg, CurveId
from cloister.attest.tpm.ek import trim_der
from cloister.attest.tpm.policy import endorsement_policy
from cloister.attest.tpm.quote import ATTESTATION_KEY
from cloister.attest.tpm.structures import Attribute, EccKey, Public, RsaKey, Symmetric
from cloister.errors import Rejected
from cloister.tpm.codec import PASSWORD, Handle, Session
from cloister.tpm.nv import nv_read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.attest.tpm.credential import Credential
    from cloister.tpm.commands import Tpm

__all__ = [
    "AkKind",
    "Ek",
    "EkKind",
    "activate",
    "attestation_key",
    "available_eks",
    "ek_certificate",
    "endorsement_key",
]

_EK = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.ADMIN_WITH_POLICY
    | Attribute.RESTRICTED
    | Attribute.DECRYPT
)
# EK Credential Profile 2.5 section B.6.5, PolicyB with SHA-384: PolicyA or an authorisation kept in NV.
_POLICY_B_SHA384 = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
_AK_LABEL = b"cloister attestation key v1"


class EkKind(Enum):
    """The endorsement keys that makers certify: templates L-1, L-2 and H-3 of the profile, sections B.3 and B.4."""

    RSA_2048 = "rsa-2048"
    ECC_P256 = "ecc-p256"
    ECC_P384 = "ecc-p384"


_NV_INDEX = {EkKind.RSA_2048: 0x01C00002, EkKind.ECC_P256: 0x01C0000A, EkKind.ECC_P384: 0x01C00016}
_TEMPLATES = {
    EkKind.RSA_2048: Public(
        name_alg=Alg.SHA256,
        attributes=_EK,
        auth_policy=endorsement_policy(),
        symmetric=Symmetric(key_bits=128),
        scheme=None,
        key=RsaKey(bits=2048, exponent=0, modulus=bytes(256)),
    ),
    EkKind.ECC_P256: Public(
        name_alg=Alg.SHA256,
        attributes=_EK,
        auth_policy=endorsement_policy(),
        symmetric=Symmetric(key_bits=128),
        scheme=None,
        key=EccKey(curve=CurveId.P256, x=bytes(32), y=bytes(32)),
    ),
    EkKind.ECC_P384: Public(
        name_alg=Alg.SHA384,
        attributes=_EK | Attribute.USER_WITH_AUTH,
        auth_policy=_POLICY_B_SHA384,
        symmetric=Symmetric(key_bits=256),
        scheme=None,
        key=EccKey(curve=CurveId.P384, x=b"", y=b""),
    ),
}


class AkKind(Enum):
    """Kinds of attestation keys; ECC is made in milliseconds, RSA in seconds."""

    ECC_P256 = "ecc-p256"
    RSA_2048 = "rsa-2048"


def _ak_template(kind: AkKind) -> Public:
    """Return the template; the label in ``unique`` keeps our key apart from others of the same template."""
    rsa = kind is AkKind.RSA_2048
    return Public(
        name_alg=Alg.SHA256,
        attributes=ATTESTATION_KEY | Attribute.USER_WITH_AUTH | Attribute.NO_DA,
        auth_policy=b"",
        symmetric=None,
        scheme=(Alg.RSASSA if rsa else Alg.ECDSA, Alg.SHA256),
        key=RsaKey(bits=2048, exponent=0, modulus=_AK_LABEL) if rsa else EccKey(curve=CurveId.P256, x=_AK_LABEL, y=b""),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ek:
    """A loaded endorsement key. ``certificate`` is the maker's (DER), empty where the TPM carries none."""

    handle: int
    public: Public
    certificate: bytes


def ek_certificate(tpm: Tpm, kind: EkKind) -> bytes:
    """Return the maker's certificate (DER) from NV memory, empty where there is none."""
    try:
        data = nv_read(tpm, _NV_INDEX[kind])
    except Rejected:
        return b""  # the index is not there: this maker certified another kind of key, or none
    return Certificate.parse(trim_der(data)).der


def available_eks(tpm: Tpm) -> tuple[EkKind, ...]:
    """Return the kinds of endorsement keys this TPM has certificates for."""
    return tuple(kind for kind in EkKind if ek_certificate(tpm, kind))


@contextmanager
def endorsement_key(tpm: Tpm, kind: EkKind = EkKind.RSA_2048) -> Iterator[Ek]:
    """Load the endorsement key of ``kind``."""
    certificate = ek_certificate(tpm, kind)
    with tpm.create_primary(Handle.ENDORSEMENT, _TEMPLATES[kind]) as (handle, public):
        yield Ek(handle=handle, public=public, certificate=certificate)


@contextmanager
def attestation_key(tpm: Tpm, kind: AkKind = AkKind.ECC_P256) -> Iterator[tuple[int, Public]]:
    """Load the attestation key of ``kind``: handle and public area.

    It lives under the endorsement hierarchy, where quotes carry the TPM's real counters and firmware version
    (Part 1 section 31.4: elsewhere they are obfuscated).
    """
    with tpm.create_primary(Handle.ENDORSEMENT, _ak_template(kind)) as (handle, public):
        yield handle, public


def activate(tpm: Tpm, ak: int, ek: Ek, credential: Credential) -> bytes:
    """Return the secret in ``credential``. Raises ``Rejected`` (``tpm_refused``) when it is for other keys."""
    if ek.public.attributes & Attribute.USER_WITH_AUTH:
        return tpm.activate_credential(ak, ek.handle, credential, ek_session=PASSWORD)
    with tpm.policy_session(ek.public.name_alg) as session:
        tpm.policy_secret(session, Handle.ENDORSEMENT)
        return tpm.activate_credential(ak, ek.handle, credential, ek_session=Session(session))
