"""SNP evidence from files (docs/spec/evidence-snp.md section 7).

What is missing of the chain is AMD's own, pinned. Without a revocation list nothing is known of revocation, which the
result says; the policy member ``require_crl`` makes that a refusal.

Not done here: reading files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.attest.amd.authority import pinned_trust
from cloister.attest.amd.bits import PLATFORM_BITS, POLICY_BITS
from cloister.attest.amd.certificates import parse_certificates
from cloister.attest.amd.evidence import CAPS, SnpEvidence
from cloister.attest.amd.fit import line_of
from cloister.attest.amd.products import product_of_name
from cloister.attest.amd.report import REPORT_DATA_BYTES, SigningKey
from cloister.attest.amd.tcb import Tcb
from cloister.attest.amd.vek import Vek
from cloister.attest.dossier import Bound, Case
from cloister.attest.dossier.expectations import bare, carried, demand_files, refuse_member, rule_of, usual
from cloister.attest.endorse.names import amd_crl
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.rules import Exact, NoneOf, NotChecked
from cloister.attest.schemes.snp import SNP, SnpScheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.amd.report import Report
    from cloister.attest.rules import Rule
    from cloister.wire import Json

__all__ = ["index_claims", "open_case"]

_NO_LIST = NotChecked("no revocation list among the files")
_CARRIED = {"challenge": "nonce_mismatch", "nonce": "nonce_mismatch", "report_data": "report_data_mismatch"}
_SAME = (
    "author_key_digest",
    "chip_id",
    "csp",
    "family_id",
    "guest_svn",
    "host_data",
    "id_key_digest",
    "image_id",
    "measurement",
    "report_id",
    "report_id_ma",
    "signing_key",
    "version",
    "vmpl",
)
_BITS = {bit.name: bit.claim for bit in (*PLATFORM_BITS, *POLICY_BITS)}
_CLAIM_OF = {
    **{name: name for name in _SAME},
    **_BITS,
    "author_key_en": "author_key_en",
    "committed_build": "committed_firmware",
    "current_build": "current_firmware",
    "build": "current_firmware",
    "chip_ids": "chip_id",
    "guest_policy": "guest_policy",
    "measurements": "measurement",
    "migratable": "migratable",
    "migration": "migratable",
    "platform_info": "platform_info",
    "policy": "guest_policy",
}
"""Members of the policy object, and the claims they are about."""
_TCBS = {
    "tcb": "tcb",
    "reported_tcb": "tcb",
    "committed_tcb": "committed_tcb",
    "current_tcb": "current_tcb",
    "launch_tcb": "launch_tcb",
}
_BIT_GROUPS = {"policy_bits": POLICY_BITS, "platform_bits": PLATFORM_BITS}
_PARTS = {"boot_loader": "bl", "bootloader": "bl", "microcode": "ucode"}
"""Other names for parts of a TCB."""
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")
_DENIED = "_denied"
_ALLOWED = "_allowed"


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of a ``report`` with what lies beside it. Raises ``Malformed`` and ``Unavailable``."""
    demand_files(files, ("report",), tuple(CAPS))
    sent = {role: data for role, data in files.items() if role != "crl"}
    evidence = Evidence(tee=SNP, payload=dump_parts(sent))
    snp = SnpEvidence.parse(evidence.payload)
    if snp.leaf is None:
        demand_files(files, ("report", "leaf"), tuple(CAPS))
    vek = Vek.parse(parse_certificates(snp.leaf or b"", zero_serial=True)[0])
    lists = {amd_crl(vek.product.key): files["crl"]} if "crl" in files else {}
    asked = _asks_for_list(expectations)
    scheme = SnpScheme(pinned_trust(), revocation=None if lists or snp.crls or asked else _NO_LIST)
    rules, bound = _read(snp.report, expectations)
    return Case(
        claims=index_claims(snp.report, vek),
        verify=lambda now: scheme.verify(evidence, lists, now),
        rules=rules,
        bound=bound,
    )


def _asks_for_list(expectations: Mapping[str, Json]) -> bool:
    value = expectations.get("require_crl", False)
    return value if isinstance(value, bool) else refuse_member("require_crl", "want true or false")


def _read(report: Report, expectations: Mapping[str, Json]) -> tuple[dict[str, Rule], tuple[Bound, ...]]:
    """Return the rules and what has to be carried; debug is refused unless a member says otherwise."""
    rules: dict[str, Rule] = {"debug": Exact(value=False)}
    bound: list[Bound] = []
    for name, value in expectations.items():
        if name in _CARRIED:
            bound.append(carried(_CARRIED[name], name, _filled(name, value), report.report_data))
        elif name in {"allow_debug", "debug_allowed"}:
            if value is True:
                rules.pop("debug", None)
        elif name != "require_crl":
            rules |= _permission(name, value) if isinstance(value, bool) else _rules(usual(name), bare(value))
    return rules, tuple(bound)


def _permission(name: str, value: bool) -> dict[str, Rule]:  # noqa: FBT001 - the member's own value
    """Return what true or false asks for: of a bit by name, of one that may be set or has to be."""
    for affix, demanded in (("allow_", False), ("require_", True)):
        if name.startswith(affix) and name.removeprefix(affix) in _CLAIM_OF:
            claim = _CLAIM_OF[name.removeprefix(affix)]
            return {claim: Exact(value=demanded)} if value is demanded else {}
    return _rules(name, value)


def _filled(name: str, value: Json) -> Json:
    """Return hex with zeros at the end up to the size of the field: what a guest does with a shorter nonce."""
    if isinstance(value, list):
        return [_filled(name, item) for item in value]
    text = bare(value)
    return text.ljust(2 * REPORT_DATA_BYTES, "0") if isinstance(text, str) else refuse_member(name, "want hex")


def _rules(name: str, value: Json) -> dict[str, Rule]:
    """Return what one member asks for. Raises ``Unavailable`` for one that nobody understands."""
    bound = name[:4] if name.startswith(("min_", "max_")) else ""
    base = name[len(bound) :].removesuffix(_ALLOWED).removesuffix(_DENIED)
    if base in _TCBS and isinstance(value, dict):
        levels = {_PARTS.get(part, part): level for part, level in value.items()}
        return {f"{_TCBS[base]}.{part}": rule_of(f"{bound}{part}", level) for part, level in levels.items()}
    if base in _BIT_GROUPS and isinstance(value, dict):
        claims = {bit.name: bit.claim for bit in _BIT_GROUPS[base]}
        return {claims.get(bit) or refuse_member(f"{name}.{bit}"): rule_of(bit, want) for bit, want in value.items()}
    claim = _product_claim(value) if base in {"product", "products"} else _CLAIM_OF.get(base)
    if claim is None:
        refuse_member(name)
    wanted = (
        [_spelled(name, claim, item) for item in value] if isinstance(value, list) else _spelled(name, claim, value)
    )
    if name.endswith(_DENIED):
        return {claim: NoneOf(tuple(item for item in _listed(wanted) if isinstance(item, str | int)))}
    if name.endswith(_ALLOWED):
        return {claim: rule_of(base, _listed(wanted))}
    return {claim: rule_of(f"{bound}{base}", wanted)}


def _listed(value: Json) -> list[Json]:
    return list(value) if isinstance(value, list) else [value]


def _product_claim(value: Json) -> str:
    """Tell lines of processors (``Genoa``) from names as certificates have them (``Milan-B0``)."""
    lines = all(isinstance(item, str) and "-" not in item and product_of_name(item.title()) for item in _listed(value))
    return "product" if lines else "product_name"


def _spelled(name: str, claim: str, value: Json) -> Json:
    """Return a value as claims spell it: lower-case hex, one number for a version, eight bytes for bits."""
    match claim, value:
        case (("guest_policy" | "platform_info"), (int() | str())):
            return f"{_number(name, value):016x}"
        case (("current_firmware" | "committed_firmware"), str()):
            found = _VERSION.fullmatch(value) or refuse_member(name, "want a version like 1.55.29")
            major, minor, build = map(int, found.groups())
            return major << 16 | minor << 8 | build
        case "author_key_en", 0 | 1:
            return bool(value)
        case (("csp" | "product_name"), str()):
            return value
        case _, str():
            return value.lower()
        case _:
            return value


def _number(name: str, value: int | str) -> int:
    try:
        return value if isinstance(value, int) else int(value, 16)
    except ValueError:
        refuse_member(name, "want hex")


def index_claims(report: Report, vek: Vek) -> dict[str, Json]:
    """Return what the bytes say in the words of the evidence index, true or not."""
    product = line_of(report, vek)
    key = report.signing_key
    bits: dict[str, Json] = {bit.name: bit.of(report.policy) for bit in POLICY_BITS}
    return {
        "author_key_en": int(report.author_key_en),
        "chip_id": report.chip_id.hex(),
        "csp": vek.csp or None,
        "current_build": str(report.current),
        "family_id": report.family_id.hex(),
        "guest_svn": report.guest_svn,
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "image_id": report.image_id.hex(),
        "measurement": report.measurement.hex(),
        "platform_info": f"{report.platform_info:#x}",
        "policy": f"{report.policy:#x}",
        "policy_bits": {**bits, "abi_major": report.policy >> 8 & 0xFF, "abi_minor": report.policy & 0xFF},
        "product": vek.product_name,
        "report_data": report.report_data.hex(),
        "reported_tcb": dict(Tcb.read(report.reported_tcb, product).parts),
        "signing_key": "NONE" if key is None else SigningKey(key).name,
        "version": report.version,
        "vmpl": report.vmpl,
    }
