"""Microsoft Azure Attestation (Microsoft Learn: Azure Attestation claim sets; EAT profile for TDX).

Four kinds of evidence make four shapes, told apart by ``x-ms-attestation-type``: ``sgx``, ``sevsnpvm`` and ``tdxvm``
speak of the hardware at the top; ``azurevm`` speaks of a virtual machine's TPM, with the hardware below it in
``x-ms-isolation-tee`` (absent on machines without one, which makes no ``measurement``).

What the attester binds, 64 bytes: the hardware's report data for the first three (SHA-256 of the runtime data, zero
padded, where the attester sent any: Azure Attestation verified that, and echoes a JSON one as ``x-ms-runtime``); for
``azurevm`` the bytes it sent as ``nonce`` in the client payload, which the machine's TPM quoted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.rats import TeeKind
from cloister.attest.tokens.profile import Profile
from cloister.attest.tokens.rows import (
    Row,
    base64_bytes,
    boolean,
    debug_status,
    flatten,
    hexadecimal,
    integer,
    labels,
    place,
    text,
    text_or_none,
)
from cloister.attest.tokens.tdx import TCB_ROWS, TDX_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import ClaimValue
    from cloister.attest.tokens.profile import ClaimSet

__all__ = ["MAA", "MAA_TEE"]

MAA_TEE = TeeKind("maa")

_TYPE = "x-ms-attestation-type"
_ISOLATION = "x-ms-isolation-tee"
_MEASUREMENT = {"sgx": "mrenclave", "sevsnpvm": "launch_measurement", "tdxvm": "mrtd"}
_BASE64_CHARS = 256  # characters of a nonce that is looked at


def _vm(name: str) -> str:
    return f"x-ms-azurevm-{name}"


def _sgx(name: str) -> str:
    return f"x-ms-sgx-{name}"


def _snp(name: str) -> str:
    return f"x-ms-sevsnpvm-{name}"


_TOKEN_ROWS = (
    Row("attestation_type", text, (_TYPE,)),
    Row("policy_hash", text, ("x-ms-policy-hash",)),
    Row("secure_boot", boolean, ("secureboot",)),
    Row("vm_id", text, (_vm("vmid"),)),
    Row("os_type", text, (_vm("ostype"),)),
    Row("os_distro", text, (_vm("osdistro"),)),
    Row("os_build", text, (_vm("osbuild"),)),
    Row("os_version_major", integer, (_vm("osversion-major"),)),
    Row("os_version_minor", integer, (_vm("osversion-minor"),)),
    Row("attested_pcrs", labels, (_vm("attested-pcrs"),)),
    Row("boot_debug", boolean, (_vm("bootdebug-enabled"),)),
    Row("hypervisor_debug", boolean, (_vm("hypervisordebug-enabled"),)),
    Row("kernel_debug", boolean, (_vm("kerneldebug-enabled"),)),
    Row("debuggers_disabled", boolean, (_vm("debuggersdisabled"),)),
    Row("test_signing", boolean, (_vm("testsigning-enabled"),)),
    Row("flight_signing", boolean, (_vm("flightsigning-enabled"),)),
    Row("signing_disabled", boolean, (_vm("signingdisabled"),)),
    Row("db_validated", boolean, (_vm("dbvalidated"),)),
    Row("dbx_validated", boolean, (_vm("dbxvalidated"),)),
    Row("default_keys_validated", boolean, (_vm("default-securebootkeysvalidated"),)),
    Row("vm.console", boolean, ("x-ms-runtime", "vm-configuration", "console-enabled")),
    Row("vm.secure_boot", boolean, ("x-ms-runtime", "vm-configuration", "secure-boot")),
)

_HARDWARE_ROWS = (
    Row("isolation", text, (_TYPE,)),
    Row("compliance_status", text, ("x-ms-compliance-status",)),
    Row("vm.console", boolean, ("x-ms-runtime", "vm-configuration", "console-enabled")),
    Row("vm.secure_boot", boolean, ("x-ms-runtime", "vm-configuration", "secure-boot")),
    Row("mrenclave", hexadecimal(32), (_sgx("mrenclave"),)),
    Row("mrsigner", hexadecimal(32), (_sgx("mrsigner"),)),
    Row("isvprodid", integer, (_sgx("product-id"),)),
    Row("isvsvn", integer, (_sgx("svn"),)),
    Row("config_id", hexadecimal(64), (_sgx("config-id"),)),
    Row("config_svn", integer, (_sgx("config-svn"),)),
    Row("isv_family_id", hexadecimal(16), (_sgx("isv-family-id"),)),
    Row("isv_ext_prod_id", hexadecimal(16), (_sgx("isv-extended-product-id"),)),
    Row("hardware_report_data", hexadecimal(64), (_sgx("report-data"),)),
    Row("launch_measurement", hexadecimal(48), (_snp("launchmeasurement"),)),
    Row("host_data", hexadecimal(32), (_snp("hostdata"),)),
    Row("id_key_digest", hexadecimal(48), (_snp("idkeydigest"),)),
    Row("author_key_digest", hexadecimal(48), (_snp("authorkeydigest"),)),
    Row("family_id", hexadecimal(16), (_snp("familyId"),)),
    Row("image_id", hexadecimal(16), (_snp("imageId"),)),
    Row("report_id", hexadecimal(32), (_snp("reportid"),)),
    Row("guest_svn", integer, (_snp("guestsvn"),)),
    Row("vmpl", integer, (_snp("vmpl"),)),
    Row("migratable", boolean, (_snp("migration-allowed"),)),
    Row("smt_allowed", boolean, (_snp("smt-allowed"),)),
    Row("tcb.bl", integer, (_snp("bootloader-svn"),)),
    Row("tcb.tee", integer, (_snp("tee-svn"),)),
    Row("tcb.snp", integer, (_snp("snpfw-svn"),)),
    Row("tcb.ucode", integer, (_snp("microcode-svn"),)),
    Row("hardware_report_data", hexadecimal(64), (_snp("reportdata"),)),
    *TDX_ROWS,
    *TCB_ROWS,
)

_DEBUG_ROWS = (
    Row("sgx", boolean, (_sgx("is-debuggable"),)),
    Row("snp", boolean, (_snp("is-debuggable"),)),
    Row("tdx", boolean, ("tdx_td_attributes_debug",)),
    Row("eat", debug_status, ("dbgstat",)),
)


def _hardware(claims: ClaimSet) -> ClaimSet:
    """Return where the hardware is spoken of: nothing for a virtual machine on plain hardware."""
    if text_or_none(claims, _TYPE) != "azurevm":
        return claims
    below = claims.get(_ISOLATION)
    return below if isinstance(below, dict) else {}


def _flatten(claims: ClaimSet, devices: Mapping[str, ClaimSet]) -> dict[str, ClaimValue]:
    del devices
    hardware = _hardware(claims)
    found = flatten(claims, _TOKEN_ROWS) | flatten(hardware, _HARDWARE_ROWS)
    debug = flatten(hardware, _DEBUG_ROWS)
    if debug:
        found["debug"] = any(debug.values())
    measured = found.get(_MEASUREMENT.get(str(found.get("isolation")), ""))
    if measured is not None:
        found["measurement"] = measured
    return found


def _bound(claims: ClaimSet) -> bytes:
    if text_or_none(claims, _TYPE) == "azurevm":
        nonce = text_or_none(claims, "x-ms-runtime", "client-payload", "nonce") or ""
        return base64_bytes(nonce[:_BASE64_CHARS])
    found = flatten(claims, _HARDWARE_ROWS).get("hardware_report_data")
    return bytes.fromhex(found) if isinstance(found, str) else b""


def _nonces(claims: ClaimSet) -> tuple[str, ...]:
    paths = (
        ("nonce",),
        ("x-ms-runtime", "nonce"),
        ("x-ms-runtime", "client-payload", "nonce"),
        ("x-ms-runtime", "user-data"),
        ("eat_nonce",),
    )
    return tuple(found for path in paths if (found := text_or_none(claims, *path)) is not None)


def _recognises(claims: ClaimSet) -> bool:
    return place(claims, _TYPE) is not None or ".attest.azure." in (text_or_none(claims, "iss") or "")


MAA = Profile(
    tee=MAA_TEE,
    title="Microsoft Azure Attestation",
    algorithms=frozenset({"RS256"}),
    report_data_bytes=64,
    required=frozenset({"attestation_type", "debug", "measurement"}),
    ends=True,
    starts_issued=True,
    devices=False,
    flatten=_flatten,
    bound=_bound,
    nonces=_nonces,
    recognises=_recognises,
)
