"""NVIDIA Remote Attestation Service (NVIDIA attestation documentation: claims guide, versions 1 to 4).

An overall token with one token for each GPU and switch (``bundle``). Every device's claims are appraised: what is
said of several is a set (``hwmodel``), true only where true of all (``secure_boot``), or true where true of one
(``debug``). Claims of a device that are verdicts and not true are counted in ``verdicts_failed``, and named by the
first of them. A single token of version 1 is its own one device.

What the attester binds, 32 bytes: ``eat_nonce``, the nonce the GPUs were asked with, in hexadecimal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.rats import TeeKind
from cloister.attest.tokens.confidential_space import eat_nonces, single_hex_nonce
from cloister.attest.tokens.profile import Profile
from cloister.attest.tokens.rows import Row, boolean, debug_status, flatten, text, text_or_none, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import ClaimValue
    from cloister.attest.tokens.profile import ClaimSet
    from cloister.wire import Json

__all__ = ["NRAS", "NRAS_ISSUER", "NRAS_TEE"]

NRAS_TEE = TeeKind("nras")
NRAS_ISSUER = "https://nras.attestation.nvidia.com"

_OVERALL_ROWS = (
    Row("version", text, ("x-nvidia-ver",)),
    Row("subject", text, ("sub",)),
    Row("result", boolean, ("x-nvidia-overall-att-result",)),
)

_DEVICE_ROWS = (
    Row("hwmodel", text, ("hwmodel",)),
    Row("device_type", text, ("x-nvidia-device-type",)),
    Row("driver_version", text, ("x-nvidia-gpu-driver-version",)),
    Row("vbios_version", text, ("x-nvidia-gpu-vbios-version",)),
    Row("switch_bios_version", text, ("x-nvidia-switch-bios-version",)),
    Row("measurements", text, ("measres",)),
    Row("device_ids", whole, ("ueid",)),
    Row("debug", debug_status, ("dbgstat",)),
    Row("secure_boot", boolean, ("secboot",)),
)
_PREFIXES = ("x-nvidia-gpu-", "x-nvidia-switch-")
_STATUS = {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}
_MAX_FAILED = 32  # failed verdicts that are named


def _flatten(claims: ClaimSet, devices: Mapping[str, ClaimSet]) -> dict[str, ClaimValue]:
    single = {} if devices or "measres" not in claims else {"device": claims}
    each = {name: flatten(device, _DEVICE_ROWS) for name, device in (devices or single).items()}
    found = flatten(claims, _OVERALL_ROWS)
    if not each:
        return found
    for row in _DEVICE_ROWS:
        values = [device[row.claim] for device in each.values() if row.claim in device]
        if row.take is boolean:  # a device that is silent is not in order
            found[row.claim] = len(values) == len(each) and all(values)
        elif row.take is debug_status and len(values) == len(each):
            found[row.claim] = any(values)
        elif values and row.take is not debug_status:
            missing = ["none"] if len(values) < len(each) and row.claim == "measurements" else []
            found[row.claim] = tuple(sorted({*map(str, values), *missing}))
    failed = [item for name, device in (devices or single).items() for item in _failed(name, device)]
    found |= {"devices": tuple(sorted(each)), "device_count": len(each), "verdicts_failed": len(failed)}
    if failed:
        found["failed"] = tuple(failed[:_MAX_FAILED])
    return found


def _failed(name: str, device: ClaimSet) -> list[str]:
    """Return the verdicts about a device that are not good: false, null, or a certificate that is not valid."""
    verdicts = {claim: value for claim, value in device.items() if claim.startswith(_PREFIXES)}
    return [f"{name} {claim}"[:128] for claim, value in verdicts.items() if _is_bad(value)]


def _is_bad(value: Json) -> bool:
    if isinstance(value, dict):
        return any(value.get(claim, good) != good for claim, good in _STATUS.items())
    return value is None or value is False


def _recognises(claims: ClaimSet) -> bool:
    issuer = text_or_none(claims, "iss") or ""
    return "nras.attestation" in issuer or any(claim.startswith("x-nvidia-") for claim in claims)


NRAS = Profile(
    tee=NRAS_TEE,
    title="NVIDIA Remote Attestation Service",
    algorithms=frozenset({"ES384"}),
    report_data_bytes=32,
    required=frozenset({"debug", "hwmodel", "measurements", "result", "secure_boot", "verdicts_failed"}),
    ends=True,
    starts_issued=True,
    devices=True,
    flatten=_flatten,
    bound=single_hex_nonce,
    nonces=eat_nonces,
    recognises=_recognises,
)
