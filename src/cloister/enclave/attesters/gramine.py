"""SGX quotes through Gramine's ``/dev/attestation``.

Gramine documentation, "Attestation and Secret Provisioning", low-level interface: write 64 bytes to
``user_report_data``, read ``quote``. The library OS answers inside the enclave; outside there are no such files.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.enclave.attesters.field import demand_field
from cloister.enclave.attesters.files import cannot, read_part
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from cloister.enclave.attesters.files import Filesystem

__all__ = ["ATTESTATION", "ATTESTATION_TYPE", "GramineAttester"]

ATTESTATION = "dev/attestation"
ATTESTATION_TYPE = f"{ATTESTATION}/attestation_type"
MAX_QUOTE_BYTES = 32 * 1024  # bytes of a quote; 5 KiB are usual
_MAX_TEXT_BYTES = 64
_REPORT_DATA_BYTES = 64


class GramineAttester:
    """Quotes of an SGX enclave under Gramine.

    Contract of ``collect``: ``UsageError`` for report data that are not 64 bytes; ``Unavailable`` where this is no
    Gramine enclave, its manifest has no ``sgx.remote_attestation = "dcap"``, or no quote came;
    ``Malformed`` for a quote that is too long.
    """

    tee: Final = TeeKind("sgx")
    report_data_bytes: Final = _REPORT_DATA_BYTES

    def __init__(self, files: Filesystem) -> None:
        """Ask the library OS whose files are ``files``."""
        self._files = files
        self._turn = threading.Lock()  # the data written belong to the next quote read, whoever reads it

    def collect(self, report_data: bytes) -> Evidence:
        """Return a quote over ``report_data``; see the class for what is raised."""
        demand_field(report_data, _REPORT_DATA_BYTES, what="sgx report data")
        kind = read_part(self._files, ATTESTATION_TYPE, cap=_MAX_TEXT_BYTES, what="gramine")
        if kind.strip() != b"dcap":
            shown = kind.decode("ascii", errors="replace").strip() or "nothing"
            msg = f"gramine: attestation type {shown!r}, want 'dcap'"
            raise Unavailable(msg, hint='set sgx.remote_attestation = "dcap" in the manifest')
        with self._turn:
            try:
                self._files.write(f"{ATTESTATION}/user_report_data", report_data)
            except OSError as exc:
                raise cannot(f"gramine: cannot write /{ATTESTATION}/user_report_data", exc) from exc
            quote = read_part(self._files, f"{ATTESTATION}/quote", cap=MAX_QUOTE_BYTES, what="gramine")
        if not quote:
            msg = "gramine: the quote is empty"
            raise Unavailable(msg, hint="is the quoting service of this machine running?")
        return Evidence(tee=self.tee, payload=dump_parts({"quote": quote}))
