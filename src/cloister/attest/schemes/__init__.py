"""One file per TEE, behind the Scheme protocol, and the table of those a production build has.

The simulated TEE is not here and cannot be: it lives in the test kit and is handed in by whoever wants
it (docs/adr/0005).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.schemes.tpm import TpmScheme

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.attest.verifier import Scheme

__all__ = ["production_schemes"]


def production_schemes(tpm_authorities: Sequence[bytes]) -> tuple[Scheme, ...]:
    """Return the schemes for real TEEs.

    ``tpm_authorities`` are the certificates (PEM or DER) of the enrolment authorities whose TPM keys are
    trusted. There is no default root: without one, TPM evidence is refused as ``unsupported_tee``.
    """
    return (TpmScheme(tpm_authorities),) if tpm_authorities else ()
