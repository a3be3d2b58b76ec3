"""What the vendor publishes: TCB information and identities of its Quoting Enclaves (Intel PCS API version 4).

Values are plain JSON objects, so that a test alters any member before it is signed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloister.testing.vendors.intel.pki import PlatformSpec

__all__ = [
    "QE_SIGNER",
    "TD_QE_SIGNER",
    "Document",
    "component_level",
    "dump_document",
    "qe_identity",
    "shown_time",
    "tcb_info",
    "tcb_level",
]

Document: TypeAlias = "dict[str, object]"

QE_SIGNER = bytes.fromhex("51" * 32)
TD_QE_SIGNER = bytes.fromhex("7d" * 32)
_TCB_DATE = "2025-05-14T00:00:00Z"
_EVALUATION = 19


def shown_time(moment: datetime) -> str:
    """Return a time as Intel writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def dump_document(document: Document) -> bytes:
    """Return the text that is signed: no spaces, members in their order."""
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def tcb_level(
    sgx: Sequence[int],
    pcesvn: int,
    status: str = "UpToDate",
    *,
    tdx: Sequence[int] | None = None,
    date: str = _TCB_DATE,
    advisories: Sequence[str] = (),
) -> Document:
    """Return one level of TCB information."""
    tcb: Document = {"sgxtcbcomponents": [{"svn": value} for value in sgx], "pcesvn": pcesvn}
    if tdx is not None:
        tcb["tdxtcbcomponents"] = [{"svn": value} for value in tdx]
    level: Document = {"tcb": tcb, "tcbDate": date, "tcbStatus": status}
    return level | ({"advisoryIDs": list(advisories)} if advisories else {})


def component_level(isvsvn: int, status: str, *, date: str = _TCB_DATE, advisories: Sequence[str] = ()) -> Document:
    """Return one level of an enclave or a module."""
    level: Document = {"tcb": {"isvsvn": isvsvn}, "tcbDate": date, "tcbStatus": status}
    return level | ({"advisoryIDs": list(advisories)} if advisories else {})


def tcb_info(platform: PlatformSpec, issued: datetime, until: datetime, *, tdx: bool) -> Document:
    """Return TCB information in which ``platform`` is up to date, and is out of date one step below."""
    newest, older = platform.components, tuple(max(0, value - 1) for value in platform.components)
    module = (5, 0, 2, *([0] * 13)) if tdx else None
    document: Document = {
        "id": "TDX" if tdx else "SGX",
        "version": 3,
        "issueDate": shown_time(issued),
        "nextUpdate": shown_time(until),
        "fmspc": platform.fmspc.hex(),
        "pceId": platform.pceid.hex(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": _EVALUATION,
    }
    if tdx:
        identity: Document = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        document["tdxModule"] = identity
        document["tdxModuleIdentities"] = [
            {"id": "TDX_03", **identity, "tcbLevels": [component_level(3, "UpToDate")]},
            {
                "id": "TDX_01",
                **identity,
                "tcbLevels": [
                    component_level(5, "UpToDate"),
                    component_level(2, "OutOfDate", advisories=["INTEL-SA-01036"]),
                ],
            },
        ]
    document["tcbLevels"] = [
        tcb_level(newest, platform.pcesvn, tdx=module),
        tcb_level(
            older,
            platform.pcesvn - 1,
            "OutOfDate",
            tdx=[0] * 16 if tdx else None,
            advisories=["INTEL-SA-00960", "INTEL-SA-00982"],
        ),
    ]
    return document


def qe_identity(issued: datetime, until: datetime, *, tdx: bool) -> Document:
    """Return the identity of the Quoting Enclave that the vendor's platforms run."""
    return {
        "id": "TD_QE" if tdx else "QE",
        "version": 2,
        "issueDate": shown_time(issued),
        "nextUpdate": shown_time(until),
        "tcbEvaluationDataNumber": _EVALUATION,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": (TD_QE_SIGNER if tdx else QE_SIGNER).hex().upper(),
        "isvprodid": 2 if tdx else 1,
        "tcbLevels": [
            component_level(4, "UpToDate"),
            component_level(2, "OutOfDate", advisories=["INTEL-SA-00615"]),
        ],
    }
