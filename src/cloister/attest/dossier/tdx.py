"""A TDX quote judged from a file, with its event log where there is one (docs/spec/evidence-intel.md section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.dossier import Case
from cloister.attest.dossier.expectations import demand_files
from cloister.attest.dossier.intel import add_second, index_claims, open_files, read_wishes
from cloister.attest.intel.scheme import endorsement_name
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.roots import vendor_certificate
from cloister.attest.rules import Exact
from cloister.attest.schemes.tdx import TDX, TdxScheme

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.rats import VerifiedClaims
    from cloister.wire import Json

__all__ = ["TD_DEFAULT", "TD_NAMES", "open_case"]

TD_NAMES = {
    name: name
    for name in (
        "mrconfigid",
        "mrowner",
        "mrownerconfig",
        "mrseam",
        "mrservicetd",
        "mrsignerseam",
        "mrtd",
        "rtmr0",
        "rtmr1",
        "rtmr2",
        "rtmr3",
        "seam_attributes",
        "td_attributes",
        "tee_tcb_svn",
        "tee_tcb_svn2",
        "xfam",
    )
}
TD_DEFAULT = {
    "debug": Exact(value=False),
    "service_td": Exact(value=False),
    "td_attributes.migratable": Exact(value=False),
    "td_attributes.profiling": Exact(value=False),
    "td_attributes.reserved": Exact(value=False),
    "td_attributes.sept_ve_disable": Exact(value=True),
    "td_attributes.servtd_ext": Exact(value=False),
    "xfam.valid": Exact(value=True),
}


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of a ``quote`` with its ``collateral``, and its ``ccel`` where there is one.

    What the second verifier says joins the claims when ``verify`` knows the time. Raises ``Malformed``,
    ``Rejected`` (``unsupported_format``) and ``Unavailable``.
    """
    demand_files(files, ("quote",), ("collateral", "ccel"))
    opened = open_files(files, tdx=True)
    wishes = read_wishes(expectations, opened, TD_DEFAULT)
    claims = index_claims(opened, TD_NAMES) | {"tee": "TDX"}
    parts = {role: files[role] for role in ("quote", "ccel") if role in files}
    evidence = Evidence(tee=TDX, payload=dump_parts(parts))
    given = {endorsement_name(opened.platform): files["collateral"]} if "collateral" in files else {}

    def verify(now: datetime) -> VerifiedClaims:
        add_second(claims, opened, now)
        scheme = TdxScheme([vendor_certificate("intel-sgx-root")], without_collateral=wishes.without_collateral)
        return scheme.verify(evidence, given, now)

    return Case(claims=claims, verify=verify, rules=wishes.rules, bound=tuple(wishes.bound))
