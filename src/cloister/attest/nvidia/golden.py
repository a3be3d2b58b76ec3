"""What a device measured, against what its manifests say it should (attestation-sdk, ``gpu/verify.cpp``).

Not done here: who signed the manifests (``rimsignature``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.nvidia.opaque import MIN_SVN

if TYPE_CHECKING:
    from cloister.attest.nvidia.report import Report
    from cloister.attest.nvidia.rim import Manifest, Reference

__all__ = ["conflicting_indices", "mismatching_indices"]

_NVDEC0_INDEX = 35  # measured by the video decoder: no golden value where it is fused off
_SVN_BYTES = 2


def mismatching_indices(report: Report, manifest: Manifest) -> tuple[int, ...]:
    """Return the indices of active references that the report does not satisfy, ascending.

    A measurement has to equal one of the alternatives in value and size; one that the report lacks does not.
    """
    return tuple(sorted(item.index for item in manifest.active if not _is_satisfied(report, item)))


def _is_satisfied(report: Report, reference: Reference) -> bool:
    if reference.min_svn is not None:
        field = report.opaque.fields.get(reference.opaque_type)
        return (
            field is not None
            and field.value_type == MIN_SVN
            and len(field.value) == _SVN_BYTES
            and int.from_bytes(field.value, "little") >= reference.min_svn
        )
    if reference.index == _NVDEC0_INDEX and report.nvdec0_disabled:
        return True
    block = report.response.measurements.get(reference.index + 1)
    return block is not None and block.value in reference.values


def conflicting_indices(one: Manifest, other: Manifest) -> tuple[int, ...]:
    """Return the indices that are active in both manifests: neither then says what is right."""
    return tuple(sorted({item.index for item in one.active} & {item.index for item in other.active}))
