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
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.dossier import Case, OpenCase
    from cloister.wire import Json

__all__ = ["DOSSIERS", "Dossier", "dossier_for"]

_MAX_PART_BYTES = 1 << 20  # bytes of one part of a payload; the kind has caps of its own
_REPORT_DATA_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """One kind. ``main`` is the role of the evidence itself, ``beside`` its name where other files come along.

    ``roles`` are the other files it may have, ``also`` the other parts of a payload as attesters make it; a kind with
    no such payload names in ``collected`` the kinds that have. A nonce goes into the member ``freshness`` of the
    expectations, filled up to ``freshness_bytes`` if it has a width; into ``carried`` where the evidence is a payload,
    for there our attesters have put it.
    """

    open_case: OpenCase
    main: str
    beside: str = ""
    roles: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    collected: tuple[str, ...] = ()
    freshness: str = "nonce"
    freshness_bytes: int = 0
    carried: tuple[str, int] | None = None

    def files(self, evidence: bytes, others: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return files by role: ``evidence`` is the main one, or a payload of parts that is taken apart.

        Raises ``Malformed`` for parts that are none, ``UsageError`` for a role given twice or a payload of other kinds.
        """
        if not is_parts(evidence):
            found = {self.beside if self.beside and others else self.main: evidence}
        elif self.collected:
            msg = f"evidence: a payload as attesters make it, want --tee {' or '.join(self.collected)}"
            raise UsageError(msg)
        else:
            caps = dict.fromkeys((self.main, *self.also), _MAX_PART_BYTES)
            found = parse_parts(evidence, what="evidence", caps=caps)
        twice = sorted(found.keys() & others.keys())
        if twice:
            msg = f"evidence: role {twice[0]} is there already"
            raise UsageError(msg)
        return {**found, **others}

    def fresh(self, evidence: bytes, nonce: bytes) -> dict[str, Json]:
        """Return the member of the expectations that demands ``nonce``."""
        name, width = self.freshness, self.freshness_bytes
        if self.carried is not None and is_parts(evidence):
            name, width = self.carried
        return {name: nonce.ljust(width, b"\x00").hex()}

    def open(self, files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
        """Return the case. Raises ``Malformed``, ``Rejected`` (unsupported formats), ``Unavailable``."""
        return self.open_case(files, expectations)


DOSSIERS: Mapping[str, Dossier] = {
    "azure-akcert": Dossier(open_case=azure_akcert.open_case, main="nv_blob", roles=("intermediate", "root")),
    "azure-vtpm": Dossier(
        open_case=azure_vtpm.open_case, main="evidence", collected=("azure-snp-vtpm", "azure-tdx-vtpm")
    ),
    "cca": Dossier(
        open_case=cca.open_case,
        main="token",
        roles=("trust_anchor",),
        freshness="challenge",
        freshness_bytes=_REPORT_DATA_BYTES,
    ),
    "nitro": Dossier(
        open_case=nitro.open_case, main="document", roles=("root",), carried=("user_data", _REPORT_DATA_BYTES)
    ),
    "nvidia": Dossier(
        open_case=nvidia.open_case,
        main="evidence",
        beside="report_bin",
        roles=("chain", "driver_rim", "ocsp", "vbios_rim"),
        collected=("nvidia-gpu", "nvidia-switch"),
    ),
    "nvidia-rim": Dossier(open_case=nvidia_rim.open_case, main="rim", roles=("root",)),
    "psa": Dossier(open_case=psa.open_case, main="token", roles=("key",), carried=("nonce", _REPORT_DATA_BYTES)),
    "sgx": Dossier(
        open_case=sgx.open_case,
        main="quote",
        roles=("collateral",),
        freshness="report_data",
        freshness_bytes=_REPORT_DATA_BYTES,
    ),
    "snp": Dossier(
        open_case=snp.open_case,
        main="report",
        roles=("certs", "crl", "intermediate", "leaf", "root"),
        also=("certs", "crl", "intermediate", "leaf", "root"),
        freshness="report_data",
        freshness_bytes=_REPORT_DATA_BYTES,
    ),
    "tdx": Dossier(
        open_case=tdx.open_case,
        main="quote",
        roles=("ccel", "collateral"),
        also=("ccel",),
        freshness="report_data",
        freshness_bytes=_REPORT_DATA_BYTES,
    ),
    "tdx-eventlog": Dossier(open_case=tdx_eventlog.open_case, main="ccel", roles=("collateral", "quote")),
    "token": Dossier(open_case=token.open_case, main="token", roles=("keys",)),
    "tpm": Dossier(
        open_case=tpm.open_case, main="quote", roles=("ak_public_tpmt", "eventlog", "pcrs", "signature_tpmt")
    ),
    "tpm-akcert": Dossier(open_case=tpm_akcert.open_case, main="chain", roles=("intermediate", "root")),
}


def dossier_for(tee: str) -> Dossier:
    """Return the dossier of a kind. Raises ``Rejected`` (``unsupported_tee``)."""
    found = DOSSIERS.get(tee)
    if found is None:
        raise Rejected.because("unsupported_tee", "tee", got=tee[:64], want=", ".join(DOSSIERS))
    return found
