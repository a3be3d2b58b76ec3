"""Intel Trust Authority, formerly Project Amber (Intel Trust Authority documentation: attestation tokens).

Version 1 speaks of one TEE at the top. Version 2 has one object for each attester, ``sgx``, ``tdx``, ``nvgpu``,
``tpm``, ``sevsnp``; the CPU's is read like a version 1 token, the GPU's verdict is read, what is left is said to be
unread. Tokens are signed with PS384, in version 2 also with RS256 where the request asks for it.

What the attester binds, 64 bytes: ``attester_held_data``, base64 of the user data whose hash with the verifier's nonce
Trust Authority found in the report data; where there is none, the user data that Azure's paravisor reported; where
there is none either, the report data itself.
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
    place,
    text,
    text_or_none,
    words,
)
from cloister.attest.tokens.tdx import TCB_ROWS, TDX_ROWS
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import ClaimValue
    from cloister.attest.tokens.profile import ClaimSet
    from cloister.wire import Json

__all__ = ["ITA", "ITA_TEE"]

ITA_TEE = TeeKind("ita")

_CPUS = ("tdx", "sgx")
_OTHERS = ("sevsnp", "tpm")
_GPU = "nvgpu"
_MAX_HELD_CHARS = 8192  # characters of held data that is looked at


def _policies(value: Json, what: str) -> tuple[str, ...]:
    """Return the ids of policies: an array of objects with ``id``; null where there was none."""
    if not isinstance(value, list):
        msg = f"{what}: want an array"
        raise Malformed(msg)
    return words([place(item, "id") if isinstance(item, dict) else item for item in value], what)


_TOKEN_ROWS = (
    Row("version", text, ("ver",)),
    Row("policies_matched", _policies, ("policy_ids_matched",)),
    Row("policies_unmatched", _policies, ("policy_ids_unmatched",)),
    Row("gpu_result", boolean, (_GPU, "x-nvidia-overall-att-result")),
    Row("gpu_secure_boot", boolean, (_GPU, "secboot")),
    Row("gpu_debug", debug_status, (_GPU, "dbgstat")),
    Row("gpu_measurements", text, (_GPU, "measres")),
    Row("gpu_hwmodel", text, (_GPU, "hwmodel")),
)

_CPU_ROWS = (
    Row("attester_type", text, ("attester_type",)),
    Row("mrenclave", hexadecimal(32), ("sgx_mrenclave",)),
    Row("mrsigner", hexadecimal(32), ("sgx_mrsigner",)),
    Row("isvprodid", integer, ("sgx_isvprodid",)),
    Row("isvsvn", integer, ("sgx_isvsvn",)),
    Row("hardware_report_data", hexadecimal(64), ("sgx_report_data",)),
    *TDX_ROWS,
    *TCB_ROWS,
)

_DEBUG_ROWS = (
    Row("sgx", boolean, ("sgx_is_debuggable",)),
    Row("td", boolean, ("tdx_is_debuggable",)),
    Row("td_attributes", boolean, ("tdx_td_attributes_debug",)),
    Row("eat", debug_status, ("dbgstat",)),
)


def _cpu(claims: ClaimSet) -> ClaimSet:
    """Return where the CPU is spoken of: below in version 2, at the top in version 1."""
    below = (claims.get(name) for name in _CPUS)
    return next((item for item in below if isinstance(item, dict)), claims)


def _flatten(claims: ClaimSet, devices: Mapping[str, ClaimSet]) -> dict[str, ClaimValue]:
    del devices
    cpu = _cpu(claims)
    found = flatten(claims, _TOKEN_ROWS) | flatten(cpu, _CPU_ROWS)
    debug = flatten(cpu, _DEBUG_ROWS)
    if debug:
        found["debug"] = any(debug.values())
    measured = found.get("mrtd", found.get("mrenclave"))
    if measured is not None:
        found["measurement"] = measured
    return found


def _bound(claims: ClaimSet) -> bytes:
    cpu = _cpu(claims)
    held = text_or_none(cpu, "attester_held_data")
    if held:
        return base64_bytes(held[:_MAX_HELD_CHARS])
    reported = place(cpu, "attester_runtime_data", "user-data")
    if reported is not None:
        taken = hexadecimal(64)(reported, "token: attester_runtime_data.user-data")
        return bytes.fromhex(str(taken))
    found = flatten(cpu, _CPU_ROWS).get("hardware_report_data")
    return bytes.fromhex(found) if isinstance(found, str) else b""


def _nonces(claims: ClaimSet) -> tuple[str, ...]:
    cpu = _cpu(claims)
    paths = (("verifier_nonce", "val"), ("eat_nonce",), ("nonce",))
    places = [(item, path) for item in (claims, cpu) for path in paths]
    return tuple(found for item, path in places if (found := text_or_none(item, *path)) is not None)


def _recognises(claims: ClaimSet) -> bool:
    issuer = text_or_none(claims, "iss") or ""
    named = issuer == "Intel Trust Authority" or ".trustauthority.intel.com" in issuer
    return named or (place(claims, "attester_type") is not None and "policy_ids_matched" in claims)


def _unread(claims: ClaimSet) -> tuple[str, ...]:
    second_cpu = [name for name in _CPUS if isinstance(claims.get(name), dict)][1:]
    return (*second_cpu, *(name for name in _OTHERS if isinstance(claims.get(name), dict)))


ITA = Profile(
    tee=ITA_TEE,
    title="Intel Trust Authority",
    algorithms=frozenset({"PS384", "RS256"}),
    report_data_bytes=64,
    required=frozenset({"attester_type", "debug", "measurement", "tcb_status"}),
    ends=True,
    starts_issued=True,
    devices=False,
    flatten=_flatten,
    bound=_bound,
    nonces=_nonces,
    recognises=_recognises,
    unread=_unread,
)
