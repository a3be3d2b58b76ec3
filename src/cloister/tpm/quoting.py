"""A quote together with the PCR values it is about.

Not done here: which key signs, and what it is worth (``attest/tpm``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.quote import pcr_digest
from cloister.attest.tpm.structures import Quote
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.tpm.commands import Tpm

__all__ = ["Quoted", "quote_pcrs"]

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """TPMS_ATTEST, TPMT_SIGNATURE and the SHA-256 PCRs under them."""

    attest: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]


def quote_pcrs(tpm: Tpm, ak: int, *, extra: bytes, pcrs: Sequence[int]) -> Quoted:
    """Return a quote by the key ``ak`` whose PCRs are those read: nobody extended one between the two.

    Raises ``Unavailable`` where they change faster than that, and what the commands raise.
    """
    for _ in range(_ATTEMPTS):
        values = tpm.pcr_read(pcrs)
        attest, signature = tpm.quote(ak, extra=extra, pcrs=pcrs)
        if Quote.parse(attest).pcr_digest == pcr_digest(Alg.SHA256, values):
            return Quoted(attest=attest, signature=signature, pcrs=values)
    msg = "tpm: pcrs change faster than they are quoted"
    raise Unavailable(msg)
