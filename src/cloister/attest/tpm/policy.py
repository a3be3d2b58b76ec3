"""PCR values and policies computed without a TPM (TPM 2.0 Part 1 section 17.6, Part 3 section 23).

A custodian or a build machine can say today which PCRs a machine will have, and what a secret must be
sealed to. The TPM arrives at the same digests, which the tests prove.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.tpm.algorithms import DIGEST_BYTES, Alg, digest
from cloister.attest.tpm.quote import pcr_digest
from cloister.attest.tpm.structures import PcrSelection, dump_selections

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SOFTWARE_PCR", "endorsement_policy", "extend", "pcr_policy", "software_pcr_value"]

SOFTWARE_PCR = 23
"""The application PCR: the one an operating system may reset (PC Client Platform TPM Profile 1.05 section 4.6)."""

_POLICY_PCR = bytes.fromhex("0000017f")  # TPM_CC_PolicyPCR
_POLICY_SECRET = bytes.fromhex("00000151")  # TPM_CC_PolicySecret
_ENDORSEMENT = bytes.fromhex("4000000b")  # TPM_RH_ENDORSEMENT, whose name is its handle


def extend(value: bytes, measured: bytes, *, bank: Alg = Alg.SHA256) -> bytes:
    """Return the PCR that had ``value`` after TPM2_PCR_Extend with the digest ``measured``."""
    return digest(bank, value + measured)


def software_pcr_value(software: bytes) -> bytes:
    """Return PCR 23 after a reset and one extend with the digest of a software manifest."""
    return extend(bytes(DIGEST_BYTES[Alg.SHA256]), software)


def pcr_policy(pcrs: Mapping[int, bytes], *, bank: Alg = Alg.SHA256, alg: Alg = Alg.SHA256) -> bytes:
    """Return the policy digest of one PolicyPCR over ``pcrs`` (Part 3 section 23.7)."""
    selection = dump_selections([PcrSelection(bank=bank, pcrs=tuple(sorted(pcrs)))])
    return digest(alg, bytes(DIGEST_BYTES[alg]) + _POLICY_PCR + selection + pcr_digest(alg, pcrs))


def endorsement_policy(alg: Alg = Alg.SHA256) -> bytes:
    """Return PolicyA of the EK Credential Profile 2.5 section B.6.2: PolicySecret of the endorsement hierarchy."""
    first = digest(alg, bytes(DIGEST_BYTES[alg]) + _POLICY_SECRET + _ENDORSEMENT)
    return digest(alg, first)  # Part 3 section 23.4: the second step takes the (empty) policyRef
