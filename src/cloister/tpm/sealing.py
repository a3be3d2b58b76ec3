"""Secrets that this machine's TPM gives back only while its PCRs are as they were meant to be.

The sealed object has no password: a PolicyPCR session is the only way in, also for its duplication (there is
none) and for whoever owns the machine. docs/spec/evidence-tpm.md section 6 has the format.

Not done here: rollback protection. An old sealed secret opens again when the machine boots the old software.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.tpm.algorithms import DIGEST_BYTES, Alg, CurveId, digest
from cloister.attest.tpm.policy import pcr_policy
from cloister.attest.tpm.structures import MAX_STRUCTURE_BYTES, PCR_COUNT, Attribute, EccKey, Public, Symmetric, b2
from cloister.errors import Rejected, UsageError
from cloister.tpm.codec import Handle
from cloister.wire import Reader, lp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.tpm.commands import Tpm

__all__ = ["MAX_SECRET_BYTES", "SealedSecret", "seal_to_pcrs", "unseal"]

MAX_SECRET_BYTES = 128  # MAX_SYM_DATA, TPM 2.0 Part 2 section 11.1.14
_MAGIC = b"CLOISTER-TPM-SEALED\x00"
_VERSION = 2

_STORAGE_ROOT = Public(  # TPM 2.0 Provisioning Guidance 1.0 section 7.5.1, over P-256
    name_alg=Alg.SHA256,
    attributes=Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.USER_WITH_AUTH
    | Attribute.NO_DA
    | Attribute.RESTRICTED
    | Attribute.DECRYPT,
    auth_policy=b"",
    symmetric=Symmetric(key_bits=128),
    scheme=None,
    key=EccKey(curve=CurveId.P256, x=bytes(32), y=bytes(32)),
)
_NAME_BYTES = 2 + DIGEST_BYTES[Alg.SHA256]
_DATA_OBJECT = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.ADMIN_WITH_POLICY | Attribute.NO_DA


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """A sealed data object: worthless without the TPM that made it. ``pcrs`` names what it is bound to.

    ``parent`` is the Name of the storage key it is under: with no other key is a session salted that unseals it.
    """

    pcrs: tuple[int, ...]
    policy: bytes
    parent: bytes
    private: bytes
    public: bytes

    def dump(self) -> bytes:
        """Return the byte string."""
        head = _MAGIC + bytes((_VERSION, len(self.pcrs), *self.pcrs))
        return head + self.policy + self.parent + lp(self.private, self.public)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the byte string to its end. Raises ``Malformed``. The TPM alone knows whether it is intact."""
        reader = Reader(data, what="sealed secret")
        reader.expect(_MAGIC)
        version = reader.u8()
        if version != _VERSION:
            reader.fail(f"version {version}, want {_VERSION}")
        pcrs = tuple(reader.take(reader.u8()))
        if not pcrs or list(pcrs) != sorted(set(pcrs)) or pcrs[-1] >= PCR_COUNT:
            reader.fail("pcrs: want at least one, each once, in order")
        sealed = cls(
            pcrs=pcrs,
            policy=reader.take(DIGEST_BYTES[Alg.SHA256]),
            parent=reader.take(_NAME_BYTES),
            private=reader.prefixed(4, cap=MAX_STRUCTURE_BYTES),
            public=reader.prefixed(4, cap=MAX_STRUCTURE_BYTES),
        )
        reader.end()
        return sealed


def seal_to_pcrs(tpm: Tpm, secret: bytes, pcrs: Mapping[int, bytes]) -> SealedSecret:
    """Return ``secret`` sealed to these SHA-256 PCR values: read now (``tpm.pcr_read``) or predicted for another boot.

    The policy is computed here and not by the TPM, which is what makes prediction possible.
    """
    if not 0 < len(secret) <= MAX_SECRET_BYTES:
        msg = f"seal: secret is {len(secret)} bytes, want 1 to {MAX_SECRET_BYTES}"
        raise UsageError(msg)
    if not pcrs:
        msg = "seal: no pcr to bind to"
        raise UsageError(msg)
    policy = pcr_policy(pcrs)
    kind, name_alg, none = (alg.to_bytes(2, "big") for alg in (Alg.KEYEDHASH, Alg.SHA256, Alg.NULL))
    template = kind + name_alg + _DATA_OBJECT.to_bytes(4, "big") + b2(policy) + none + b2(b"")
    with (
        tpm.create_primary(Handle.OWNER, _STORAGE_ROOT) as (parent, root),
        tpm.salted_session(parent, root, policy=False) as session,
    ):
        private, public = tpm.create_sealed(parent, root.name, data=secret, template=template, session=session)
    return SealedSecret(pcrs=tuple(sorted(pcrs)), policy=policy, parent=root.name, private=private, public=public)


def unseal(tpm: Tpm, sealed: SealedSecret) -> bytes:
    """Return the secret, if the PCRs are now what it was sealed to. It is encrypted on its way from the TPM.

    Raises ``Rejected``: ``pcr_mismatch``, or ``tpm_refused`` for a secret of another TPM or one that was altered.
    """
    with tpm.create_primary(Handle.OWNER, _STORAGE_ROOT) as (parent, root):
        if not hmac.compare_digest(root.name, sealed.parent):  # another TPM, or somebody between who would listen
            raise Rejected.because("tpm_refused", "tpm command load", got=root.name.hex(), want=sealed.parent.hex())
        return _unseal(tpm, sealed, parent, root)


def _unseal(tpm: Tpm, sealed: SealedSecret, parent: int, root: Public) -> bytes:
    with (
        tpm.load(parent, private=sealed.private, public=sealed.public) as item,
        tpm.salted_session(parent, root, policy=True) as session,
    ):
        tpm.policy_pcr(session.handle, sealed.pcrs)
        now = tpm.policy_digest(session.handle)
        if not hmac.compare_digest(now, sealed.policy):  # the TPM would refuse too; this says why
            raise Rejected.because(
                "pcr_mismatch",
                f"sealed secret, pcrs {', '.join(map(str, sealed.pcrs))}",
                got=now.hex(),
                want=sealed.policy.hex(),
                hint="the machine runs other firmware or software than the secret was sealed to",
            )
        name = Alg.SHA256.to_bytes(2, "big") + digest(Alg.SHA256, sealed.public)
        return tpm.unseal(item, name, session)
