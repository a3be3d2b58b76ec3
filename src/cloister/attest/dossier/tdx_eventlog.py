"""The event log of a TD's boot compared with the RTMRs of a quote (docs/spec/evidence-intel.md section 6).

Not done here: verifying the quote, which is another case of the same files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.dossier import Case
from cloister.attest.dossier.expectations import demand_files, refuse_member
from cloister.attest.findings import Findings
from cloister.attest.intel.eventlog import RTMRS, CcelLog, record_replay, rtmrs_of
from cloister.attest.intel.quote import Quote
from cloister.attest.intel.td import TdReport
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.wire import Json

__all__ = ["TDX_EVENTLOG", "open_case"]

TDX_EVENTLOG = TeeKind("tdx-eventlog")


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of a ``ccel`` table and a ``quote``; ``rtmrs`` chooses the registers, all where it is not there.

    Raises ``Malformed``, ``Rejected`` (``unsupported_format``) and ``Unavailable``.
    """
    demand_files(files, ("ccel", "quote"), ("collateral",))
    log, body = CcelLog.parse(files["ccel"]), Quote.parse(files["quote"]).body
    if not isinstance(body, TdReport):
        raise Rejected.because("unsupported_format", "quote", got="sgx", want="tdx")
    chosen = _chosen(expectations)
    replayed = rtmrs_of(log)
    differing = [index for index in range(RTMRS) if replayed[index] != body.rtmrs[index]]
    claims: dict[str, Json] = {
        "events": len(log.events),
        "mismatching_rtmrs": differing,
        "rtmrs": [value.hex() for value in replayed],
    }

    def verify(now: datetime) -> VerifiedClaims:
        del now
        found = Findings("tdx event log")
        record_replay(found, log, body.rtmrs, chosen)
        said = {f"rtmr{index}": body.rtmrs[index].hex() for index in chosen}
        return VerifiedClaims(tee=TDX_EVENTLOG, claims=said, report_data=body.report_data, checks=found.settle())

    return Case(claims=claims, verify=verify, rules={})


def _chosen(expectations: Mapping[str, Json]) -> list[int]:
    chosen: list[int] = []
    for name, value in expectations.items():
        if name != "rtmrs":
            refuse_member(name)
        for item in value if isinstance(value, list) else [value]:
            if type(item) is not int or not 0 <= item < RTMRS:
                refuse_member(name, "want numbers of rtmrs")
            chosen.append(item)
        if not chosen:
            refuse_member(name, "an empty list")
    return chosen or list(range(RTMRS))
