"""What a site trusts beyond the vendors' pinned roots. Nothing by default: those kinds are then refused."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_SITE", "Site"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site's own anchors, as bytes of files and as names.

    - ``tpm_authorities``: certificates (PEM or DER) of the enrolment authorities whose TPM keys count;
    - ``arm_anchors``: files of device keys for PSA and CCA tokens (docs/spec/evidence-arm.md);
    - ``maa_hosts``: Azure Attestation providers whose tokens count (``sharedweu.weu.attest.azure.net``);
    - ``audiences``: audiences that Confidential Space tokens may be to.
    """

    tpm_authorities: tuple[bytes, ...] = ()
    arm_anchors: tuple[bytes, ...] = ()
    maa_hosts: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()


NO_SITE = Site()
"""Pinned vendors alone."""
