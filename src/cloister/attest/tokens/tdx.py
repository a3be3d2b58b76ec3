"""Claims about an Intel TD as Microsoft and Intel both spell them.

Microsoft: Azure Attestation EAT profile for TDX. Intel: Trust Authority, attestation tokens, TDX claims. Registers are
those of the TD report (Intel TDX Module, TDREPORT_STRUCT), in hexadecimal.
"""

from __future__ import annotations

from cloister.attest.tokens.rows import Row, boolean, hexadecimal, integer, text, words

__all__ = ["TCB_ROWS", "TDX_ROWS"]

_MEASUREMENT_BYTES = 48
_MEASUREMENTS = (
    "mrtd",
    "rtmr0",
    "rtmr1",
    "rtmr2",
    "rtmr3",
    "mrconfigid",
    "mrowner",
    "mrownerconfig",
    "mrseam",
    "mrsignerseam",
)

TDX_ROWS = (
    *(Row(name, hexadecimal(_MEASUREMENT_BYTES), (f"tdx_{name}",)) for name in _MEASUREMENTS),
    Row("hardware_report_data", hexadecimal(64), ("tdx_report_data",)),
    Row("seam_attributes", hexadecimal(8), ("tdx_seam_attributes",)),
    Row("td_attributes", hexadecimal(8), ("tdx_td_attributes",)),
    Row("tee_tcb_svn", hexadecimal(16), ("tdx_tee_tcb_svn",)),
    Row("xfam", hexadecimal(8), ("tdx_xfam",)),
    Row("seam_svn", integer, ("tdx_seamsvn",)),
    Row("sept_ve_disable", boolean, ("tdx_td_attributes_septve_disable",)),
    Row("migratable", boolean, ("tdx_is_migratable",)),
)

TCB_ROWS = (
    Row("advisory_ids", words, ("attester_advisory_ids",), may_be_empty=True),
    Row("tcb_date", text, ("attester_tcb_date",)),
    Row("tcb_status", text, ("attester_tcb_status",)),
)
