"""The subject of a token: the same for the same software under the same policy on the same kind of TEE.

    sub = policy id ":" kind ":" SHA-256 of canonical JSON of the claims that say which software runs, lower-case hex

Which claims those are is fixed for each kind (``trust_vector.executables``: ``measurement`` of SNP, MRTD and RTMRs of
TDX, PCRs of a vTPM, ...); of tokens of other verifiers those named below. The subject is at most 117 characters:
systems of workload identity cut at 127 and more.

It is a digest of what was verified, whether the policy compared it or not; who writes a policy answers for its id.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cloister.attest.trust_vector import executables
from cloister.wire import dump_json

if TYPE_CHECKING:
    from cloister.attest.rats import AttestationResult
    from cloister.wire import Json

__all__ = ["subject_of"]

_OF_TOKENS = ("image_digest", "measurement", "mrenclave", "mrsigner", "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")


def subject_of(result: AttestationResult, policy_id: str) -> str:
    """Return the subject of a result under the policy with this id."""
    names = executables(result.tee) or _OF_TOKENS
    said: dict[str, Json] = {name: result.claims[name] for name in names if name in result.claims}
    return f"{policy_id}:{result.tee}:{hashlib.sha256(dump_json(said)).hexdigest()}"
