"""An Azure attestation key certificate as it lies in NV memory: ``nv_blob``, ``intermediate``, ``root``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.azure.akcert import parse_nv_certificate
from cloister.attest.dossier.expectations import demand_files, refuse_member
from cloister.attest.dossier.tpm_akcert import akcert_case, certificates_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.dossier import Case
    from cloister.wire import Json

__all__ = ["open_case"]


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Open a certificate with its padding. Raises ``Malformed``, ``Unavailable``."""
    demand_files(files, ("nv_blob",), ("intermediate", "root"))
    for name in expectations:
        refuse_member(name)  # a certificate says nothing to compare with
    leaf = parse_nv_certificate(files["nv_blob"])
    sizes = {"blob_length": len(files["nv_blob"]), "der_length": len(leaf.der)}
    return akcert_case(
        "azure-akcert", leaf, certificates_in(files, "intermediate"), certificates_in(files, "root"), **sizes
    )
