"""What the cases of SGX and TDX share: claims in the words of the index, members of its policy.

See docs/spec/evidence-intel.md section 7.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.attest.dossier.expectations import bare, carried, refuse_member, rule_of, usual
from cloister.attest.intel.assess import assess, collateral_differences
from cloister.attest.intel.collateral import Collateral
from cloister.attest.intel.scheme import IntelVerifier
from cloister.attest.intel.second import second_opinion
from cloister.attest.roots import vendor_certificate
from cloister.attest.rules import AtLeast, AtMost, Exact, NoneOf, NotChecked, OneOf, Rule
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.dossier import Bound
    from cloister.attest.intel.verify import Platform
    from cloister.wire import Json

__all__ = ["IntelFiles", "Wishes", "index_claims", "open_files", "read_wishes"]

_NO_MATCH = "NO_MATCH"
_NONE = "none"
_REPORT_DATA_BYTES = 64
_TCB_CLAIMS = {
    "advisory_ids",
    "tcb.eval_number",
    "tcb.module_age",
    "tcb.module_date",
    "tcb.platform_age",
    "tcb.platform_date",
    "tcb.qe_age",
    "tcb.qe_date",
    "tcb.qe_eval_number",
    "tcb_status",
    "tcb_status.module",
    "tcb_status.platform",
    "tcb_status.qe",
    "tdx_module",
}
_OTHER_WORDS = {
    "advisories": "advisory_ids",
    "measurement": "mrtd",
    "module": "tdx_module",
    "module_status": "tcb_status.module",
    "qe_status": "tcb_status.qe",
    "mr_config_id": "mrconfigid",
    "mr_enclave": "mrenclave",
    "mr_owner": "mrowner",
    "mr_owner_config": "mrownerconfig",
    "mr_seam": "mrseam",
    "mr_service_td": "mrservicetd",
    "mr_signer": "mrsigner",
    "mr_signer_seam": "mrsignerseam",
    "mr_td": "mrtd",
    "isv_prod_id": "isvprodid",
    "isv_svn": "isvsvn",
    "sept_ve_disable": "td_attributes.sept_ve_disable",
    "tcb_age_days": "tcb.platform_age",
    "tcb_date": "tcb.platform_date",
    "tcb_eval_number": "tcb.eval_number",
    "tcb_eval_data_number": "tcb.eval_number",
    "tcb_evaluation_data_number": "tcb.eval_number",
    "tcb_evaluation_number": "tcb.eval_number",
    "version": "quote_version",
}
"""Words of the index, and other spellings, for claims of ours."""
_CARRIED = {
    "challenge": "nonce_mismatch",
    "nonce": "nonce_mismatch",
    "report_data": "report_data_mismatch",
    "reportdata": "report_data_mismatch",
    "user_data": "report_data_mismatch",
}
_HEX = ("attributes", "cpusvn", "fmspc", "misc", "mr", "ppid", "qe_mr", "rtmr", "seam", "td_", "xfam")
"""How claims begin that are bytes."""
_PERMISSIONS = {
    "debug": "debug",
    "migratable": "td_attributes.migratable",
    "migration": "td_attributes.migratable",
    "service_td": "service_td",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelFiles:
    """The files of one case, parsed. ``collateral`` is None where there is none, ``unfit`` why it cannot be read."""

    platform: Platform
    collateral: Collateral | None
    unfit: Rejected | None


def open_files(files: Mapping[str, bytes], *, tdx: bool) -> IntelFiles:
    """Parse quote and collateral. Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for the quote alone."""
    reader = IntelVerifier([vendor_certificate("intel-sgx-root")])
    platform = reader.read(files["quote"], tdx=tdx)
    if "collateral" not in files:
        return IntelFiles(platform=platform, collateral=None, unfit=None)
    try:
        return IntelFiles(platform=platform, collateral=Collateral.parse(files["collateral"]), unfit=None)
    except Rejected as exc:
        return IntelFiles(platform=platform, collateral=None, unfit=exc)


def index_claims(opened: IntelFiles, names: Mapping[str, str]) -> dict[str, Json]:
    """Return what the bytes say in the words of the index. ``names`` are the body's claims it has, by its own words.

    What only a second verifier says at a time is added by ``add_second``.
    """
    quote, pck = opened.platform.quote, opened.platform.pck
    said = {**quote.body.claims(), **pck.claims()}
    claims: dict[str, Json] = {name: _plain(said[claim]) for name, claim in names.items() if claim in said}
    claims |= {
        "fmspc": pck.fmspc.hex(),
        "qe_mrsigner": quote.qe_report.mrsigner.hex(),
        "report_data": quote.body.report_data.hex(),
        "version": quote.version,
    }
    if opened.collateral is None or collateral_differences(quote, pck, opened.collateral):
        return claims
    return claims | _tcb_claims(opened.platform, opened.collateral)


def _plain(value: object) -> Json:
    return value if isinstance(value, bool | int | str) else None


def _tcb_claims(platform: Platform, collateral: Collateral) -> dict[str, Json]:
    result = assess(platform.quote, platform.pck, collateral)
    module = result.module
    level = module.level if module is not None else None
    return {
        "advisory_ids": list(result.advisories),
        "module": module.name if module is not None else None,
        "module_status": level.status.value if level is not None else None,
        "qe_status": result.qe.status.value if result.qe is not None else _NO_MATCH,
        "tcb_date": result.platform.date.strftime("%Y-%m-%dT%H:%M:%SZ") if result.platform is not None else None,
        "tcb_eval_number": collateral.tcb_info.evaluation,
        "tcb_status": result.status.value if result.status is not None else _NO_MATCH,
    }


def add_second(claims: dict[str, Json], opened: IntelFiles, now: datetime) -> None:
    """Add what the second verifier says at ``now``, where it accepts."""
    if opened.collateral is None:
        return
    said = second_opinion(opened.platform.quote, opened.collateral, vendor_certificate("intel-sgx-root"), now)
    if said.accepted:
        claims |= {"advisory_ids_dcap": sorted(said.advisories), "tcb_status_dcap": said.status}


@dataclass(slots=True, kw_only=True)
class Wishes:
    """What the policy object asks for: rules by claim, values to be carried, whether collateral is checked."""

    rules: dict[str, Rule]
    bound: list[Bound] = field(default_factory=list)
    without_collateral: NotChecked | None = None


def read_wishes(expectations: Mapping[str, Json], opened: IntelFiles, rules: Mapping[str, Rule]) -> Wishes:
    """Return ``rules`` with every member of the policy object. Raises ``Unavailable`` for one nobody understands."""
    body = opened.platform.quote.body
    known = {*body.claims(), *opened.platform.pck.claims(), *_TCB_CLAIMS, "mrservicetd", "qe_mrsigner", "quote_version"}
    wishes = Wishes(rules=dict(rules))
    for name, value in expectations.items():
        if name == "collateral":
            if not isinstance(value, str) or not value.startswith(_NONE):
                refuse_member(name)
            wishes.without_collateral = NotChecked(value)
        elif name in _CARRIED:
            wishes.bound.append(carried(_CARRIED[name], name, _filled(value), body.report_data))
        else:
            wishes.rules |= dict(_rules_of(usual(name), bare(value), known))
    if "mrservicetd" in wishes.rules:  # a service TD by name in place of none at all
        wishes.rules.pop("service_td", None)
    return wishes


def _filled(value: Json) -> Json:
    """Return hex with zeros at the end up to the size of report data: what a guest does with a shorter nonce."""
    text = bare(value)
    return text.ljust(2 * _REPORT_DATA_BYTES, "0") if isinstance(text, str) else text


def _rules_of(name: str, value: Json, known: set[str]) -> list[tuple[str, Rule]]:
    if name == "require_sept_ve_disable" and isinstance(value, bool):
        rule = Exact(value=True) if value else NotChecked("not required by the policy")
        return [(_claim(name, "sept_ve_disable", known), rule)]
    for affix in ("allow_", "allowed_"):
        if name.startswith(affix):
            return [_permission(name, name.removeprefix(affix), value, known)]
    for affix in ("_allowed", "_denied"):
        if name.endswith(affix):
            return [_listed(name, name.removesuffix(affix), value, known, denied=affix == "_denied")]
    if name in {"rtmr", "rtmrs"}:
        return _rtmrs(name, value)
    if name.startswith(("min_", "max_")):
        return _bounds(name, value, known)
    return [(_claim(name, name, known), _lower(name, value))]


def _claim(member: str, name: str, known: set[str]) -> str:
    claim = _OTHER_WORDS.get(name, name)
    if claim == "mrtd" and "mrenclave" in known:
        claim = "mrenclave"
    if claim not in known:
        refuse_member(member)
    return claim


def _lower(name: str, value: Json) -> Rule:
    """Return the rule for hex in either case; words of Intel's keep theirs."""
    hexes = name.startswith(_HEX)
    if hexes and isinstance(value, str):
        return rule_of(name, value.lower())
    if hexes and isinstance(value, list):
        return rule_of(name, [item.lower() if isinstance(item, str) else item for item in value])
    return rule_of(name, value)


def _permission(member: str, name: str, value: Json, known: set[str]) -> tuple[str, Rule]:
    if not isinstance(value, bool):
        return _listed(member, name, value, known, denied=False)
    claim = _PERMISSIONS.get(name)
    if claim is None:
        refuse_member(member)
    return claim, NotChecked("allowed by the policy") if value else Exact(value=False)


def _listed(member: str, name: str, value: Json, known: set[str], *, denied: bool) -> tuple[str, Rule]:
    if isinstance(value, bool):
        return _permission(member, name, value, known)
    values = value if isinstance(value, list) else [value]
    words = tuple(item for item in values if isinstance(item, str | int))
    if not words or len(words) != len(values):
        refuse_member(member, "want a list of words")
    return _claim(member, name, known), NoneOf(words) if denied else OneOf(words)


def _rtmrs(member: str, value: Json) -> list[tuple[str, Rule]]:
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    by_index = {name.removeprefix("rtmr"): item for name, item in value.items()} if isinstance(value, dict) else {}
    if not by_index or not set(by_index) <= {"0", "1", "2", "3"}:
        refuse_member(member, "want values of rtmr 0 to 3")
    return [(f"rtmr{index}", _lower("rtmr", item)) for index, item in by_index.items()]


def _bounds(member: str, value: Json, known: set[str]) -> list[tuple[str, Rule]]:
    """Return lower or upper bounds; of an SVN with components, one for each."""
    claim = _claim(member, member[4:], known)
    kind = AtLeast if member.startswith("min_") else AtMost
    if isinstance(value, str):
        try:
            value = list(bytes.fromhex(value))
        except ValueError:
            refuse_member(member, "want hex")
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    parts = value if isinstance(value, dict) else None
    if parts is None:
        return [(claim, rule_of(member, value))]
    found: list[tuple[str, Rule]] = []
    for index, item in parts.items():
        if f"{claim}.{index}" not in known or type(item) is not int:
            refuse_member(member, "want integers by component")
        found.append((f"{claim}.{index}", kind(item)))
    return found
