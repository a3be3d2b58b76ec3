"""An SGX quote judged from a file (docs/spec/evidence-intel.md section 7)."""

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
from cloister.attest.schemes.sgx import SGX, SgxScheme

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.rats import VerifiedClaims
    from cloister.wire import Json

__all__ = ["open_case"]

_NAMES = {
    name: name
    for name in ("attributes", "cpusvn", "debug", "isvprodid", "isvsvn", "miscselect", "mrenclave", "mrsigner")
}
_DEFAULT = {"debug": Exact(value=False)}


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of a ``quote`` with its ``collateral``.

    What the second verifier says joins the claims when ``verify`` knows the time. Raises ``Malformed``,
    ``Rejected`` (``unsupported_format``) and ``Unavailable``.
    """
    demand_files(files, ("quote",), ("collateral",))
    opened = open_files(files, tdx=False)
    wishes = read_wishes(expectations, opened, _DEFAULT)
    claims = index_claims(opened, _NAMES) | {"tee": "SGX"}
    evidence = Evidence(tee=SGX, payload=dump_parts({"quote": files["quote"]}))
    given = {endorsement_name(opened.platform): files["collateral"]} if "collateral" in files else {}

    def verify(now: datetime) -> VerifiedClaims:
        add_second(claims, opened, now)
        scheme = SgxScheme([vendor_certificate("intel-sgx-root")], without_collateral=wishes.without_collateral)
        return scheme.verify(evidence, given, now)

    return Case(claims=claims, verify=verify, rules=wishes.rules, bound=tuple(wishes.bound))
