"""Which file of this folder judges which kind of evidence, and which role is the evidence itself.

Imports every verifier: loaded when evidence is judged from files, by nothing that serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.dossier import (
    azure_akcert,
    azure_vtpm,
    cca,
    nitro,
    nvidia,
    nvidia_rim,
    psa,
    sgx,
    snp,
    tdx,
    tdx_eventlog,
    token,
    tpm,
    tpm_akcert,
)
from cloister.attest.parts import is_parts, parse_parts
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.dossier import Case, OpenCase
    from cloister.wire import Json

__all__ = ["DOSSIERS", "Dossier", "dossier_for"]

_MAX_PART_BYTES = 1 << 20  # bytes of one part of a payload; the kind has caps of its own
_REPORT_DATA_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """One kind. ``main`` is the role of the evidence itself, ``also`` roles a payload of parts may have.

    ``freshness`` is the member of the expectations that a nonce goes into, ``freshness_bytes`` its width if it has one.
    """

    open_case: OpenCase
    main: str
    also: tuple[str, ...] = ()
    freshness: str = "nonce"
    freshness_bytes: int = 0

    def files(self, evidence: bytes, others: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return files by role: ``evidence`` is the main one, or a payload of parts that is taken apart."""
        if not is_parts(evidence):
            return {self.main: evidence, **others}
        caps = dict.fromkeys((self.main, *self.also), _MAX_PART_BYTES)
        return {**parse_parts(evidence, what="evidence", caps=caps), **others}

    def open(self, files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
        """Return the case. Raises ``Malformed``, ``Rejected`` (unsupported formats), ``Unavailable``."""
        return self.open_case(files, expectations)


DOSSIERS: Mapping[str, Dossier] = {
    "azure-akcert": Dossier(open_case=azure_akcert.open_case, main="nv_blob"),
    "azure-vtpm": Dossier(open_case=azure_vtpm.open_case, main="evidence"),
    "cca": Dossier(open_case=cca.open_case, main="token", freshness="challenge"),
    "nitro": Dossier(open_case=nitro.open_case, main="document"),
    "nvidia": Dossier(open_case=nvidia.open_case, main="evidence"),
    "nvidia-rim": Dossier(open_case=nvidia_rim.open_case, main="rim"),
    "psa": Dossier(open_case=psa.open_case, main="token"),
    "sgx": Dossier(open_case=sgx.open_case, main="quote", freshness="report_data", freshness_bytes=_REPORT_DATA_BYTES),
    "snp": Dossier(
        open_case=snp.open_case,
        main="report",
        also=("certs", "crl", "intermediate", "leaf", "root"),
        freshness="report_data",
        freshness_bytes=_REPORT_DATA_BYTES,
    ),
    "tdx": Dossier(
        open_case=tdx.open_case,
        main="quote",
        also=("ccel",),
        freshness="report_data",
        freshness_bytes=_REPORT_DATA_BYTES,
    ),
    "tdx-eventlog": Dossier(open_case=tdx_eventlog.open_case, main="ccel"),
    "token": Dossier(open_case=token.open_case, main="token"),
    "tpm": Dossier(open_case=tpm.open_case, main="quote"),
    "tpm-akcert": Dossier(open_case=tpm_akcert.open_case, main="chain"),
}


def dossier_for(tee: str) -> Dossier:
    """Return the dossier of a kind. Raises ``Rejected`` (``unsupported_tee``)."""
    found = DOSSIERS.get(tee)
    if found is None:
        raise Rejected.because("unsupported_tee", "tee", got=tee[:64], want=", ".join(DOSSIERS))
    return found
