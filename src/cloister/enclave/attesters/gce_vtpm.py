"""Evidence of a Google Compute Engine vTPM: a quote by the key whose template and certificate Google left in NV memory.

google/go-tpm-tools, client/handles.go and client/keys.go: the template is a TPMT_PUBLIC, from which the endorsement
hierarchy makes the same key each time.

    NV 0x01c10000, 0x01c10001   certificate and template, RSA 2048
    NV 0x01c10002, 0x01c10003   certificate and template, P-256

Not done here: fetching the authority above the certificate. Its address is in the certificate (authority information
access); a verifier needs it, so it is given to the attester once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attest.chain import Certificate, parse_certificates
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.tpm.ek import trim_der
from cloister.attest.tpm.eventlog import EventLog
from cloister.attest.tpm.measured import dump_pcrs
from cloister.attest.tpm.structures import Public
from cloister.enclave.attesters.field import demand_field
from cloister.enclave.attesters.tpm import BOOT_PCRS, explaining
from cloister.errors import Unavailable
from cloister.tpm.codec import Handle
from cloister.tpm.commands import Tpm
from cloister.tpm.nv import nv_indices, nv_read
from cloister.tpm.quoting import quote_pcrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.tpm.transport import Transport

__all__ = ["TEMPLATE_INDICES", "GceVtpmAttester"]

_CERTIFICATE_OF = {0x01C10003: 0x01C10002, 0x01C10001: 0x01C10000}
TEMPLATE_INDICES = tuple(_CERTIFICATE_OF)
"""Where templates are, P-256 first: it is made in milliseconds, RSA in seconds."""

_REPORT_DATA_BYTES = 32


class GceVtpmAttester:
    """Quotes of a GCE vTPM.

    Contract of ``collect``: ``UsageError`` for report data that are not 32 bytes; ``Unavailable`` where the TPM does
    not answer or Google left no key in it; ``Rejected`` (``tpm_refused``) where it says no; ``Malformed``.
    """

    tee: Final = TeeKind("gce-vtpm")
    report_data_bytes: Final = _REPORT_DATA_BYTES

    def __init__(
        self,
        transport: Transport,
        *,
        issuers: Sequence[bytes] = (),
        software: bytes = b"",
        pcrs: Sequence[int] = BOOT_PCRS,
        event_log: bytes = b"",
    ) -> None:
        """Attest; ``issuers`` (DER) are sent along above the key's own certificate.

        ``software`` is what ``measure_software`` was given.
        """
        self._tpm = Tpm(transport)
        self._issuers = tuple(issuers)
        self._software = software
        self._pcrs = tuple(sorted(set(pcrs)))
        self._log = EventLog.parse(event_log) if event_log else None
        self._turn = threading.Lock()  # commands and answers must not interleave

    def collect(self, report_data: bytes) -> Evidence:
        """Return a quote over ``report_data`` and the PCRs as they are now; see the class."""
        demand_field(report_data, _REPORT_DATA_BYTES, what="gce vtpm report data")
        with self._turn:
            template, leaf = self._google()
            with self._tpm.create_primary(Handle.ENDORSEMENT, template) as (handle, public):
                quoted = quote_pcrs(self._tpm, handle, extra=report_data, pcrs=self._pcrs)
        certificates = [leaf, *(item for der in self._issuers for item in parse_certificates(der))]
        parts = {
            "ak_public_tpmt": public.dump(),
            "chain": b"".join(item.x509.public_bytes(Encoding.PEM) for item in certificates),
            "pcrs": dump_pcrs(quoted.pcrs),
            "quote": quoted.attest,
            "signature_tpmt": quoted.signature,
        }
        events = explaining(self._log, quoted.pcrs)
        parts |= {"eventlog": events} if events else {}
        parts |= {"software": self._software} if self._software else {}
        return Evidence(tee=self.tee, payload=dump_parts(parts))

    def _google(self) -> tuple[Public, Certificate]:
        """Return template and certificate of the key Google made for this machine."""
        there = nv_indices(self._tpm)
        for template, certificate in _CERTIFICATE_OF.items():
            if {template, certificate} <= there:
                found = Public.parse(nv_read(self._tpm, template))
                return found, Certificate.parse(trim_der(nv_read(self._tpm, certificate)))
        wanted = " or ".join(f"{index:#010x}" for index in TEMPLATE_INDICES)
        msg = f"gce vtpm: no template with a certificate in nv {wanted}"
        raise Unavailable(msg, hint="is this a shielded vm of google compute engine?")
