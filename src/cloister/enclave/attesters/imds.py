"""What Azure's metadata service adds on a confidential VM: a TD quote, and the certificate of an SNP chip.

The address is the host's, plain HTTP, and authenticates nobody: what it gives is signed by Intel and AMD, and
verified like everything else.

    POST /acc/tdquote {"report": base64url of the TDREPORT} -> {"quote": base64url}
    GET /metadata/THIM/amd/certification, Metadata: true -> {"vcekCert": PEM, "certificateChain": PEM, ...}

Azure documentation: "Trusted Hardware Identity Management"; Azure/azure-cvm-tooling, az-tdx-vtpm and az-snp-vtpm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.wire import Fields, dump_b64u, dump_json, parse_b64u

if TYPE_CHECKING:
    from cloister.enclave.attesters.local_http import Fetch

__all__ = ["IMDS_HOST", "MAX_CERTIFICATES_BYTES", "MAX_QUOTE_BYTES", "td_quote", "vcek_certificates"]

IMDS_HOST = "169.254.169.254"
MAX_QUOTE_BYTES = 32 * 1024  # bytes of a TD quote
MAX_CERTIFICATES_BYTES = 16 * 1024  # bytes of one member: VCEK, or ASK and ARK, as PEM
_MAX_ANSWER_BYTES = 64 * 1024


def td_quote(fetch: Fetch, tdreport: bytes) -> bytes:
    """Return the quote that the host's quoting enclave makes of a TDREPORT of this machine.

    Raises ``Unavailable``, ``Rejected`` (``tee_refused``), ``Malformed``.
    """
    answer = fetch(
        "POST",
        "/acc/tdquote",
        headers={"Accept": "application/json", "Content-Type": "application/json"},
        body=dump_json({"report": dump_b64u(tdreport)}),
        cap=_MAX_ANSWER_BYTES,
    )
    fields = Fields.parse(answer, what="imds: td quote", cap=_MAX_ANSWER_BYTES)
    text = fields.take("quote")
    if not isinstance(text, str):
        fields.fail("quote", "want base64url")
    return parse_b64u(text.rstrip("="), what="imds: td quote", cap=MAX_QUOTE_BYTES)


def vcek_certificates(fetch: Fetch) -> tuple[bytes, bytes]:
    """Return the chip's certificate, and AMD's above it, as PEM.

    Raises ``Unavailable``, ``Rejected`` (``tee_refused``), ``Malformed``.
    """
    answer = fetch(
        "GET", "/metadata/THIM/amd/certification", headers={"Metadata": "true"}, body=b"", cap=_MAX_ANSWER_BYTES
    )
    fields = Fields.parse(answer, what="imds: amd certificates", cap=_MAX_ANSWER_BYTES)
    return _pem(fields, "vcekCert"), _pem(fields, "certificateChain")


def _pem(fields: Fields, name: str) -> bytes:
    text = fields.take(name)
    if not isinstance(text, str) or not text.isascii() or len(text) > MAX_CERTIFICATES_BYTES:
        fields.fail(name, f"want pem of at most {MAX_CERTIFICATES_BYTES} bytes")
    return text.encode("ascii")
