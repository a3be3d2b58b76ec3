"""A CPU and its devices as one attester: what binds them, and what does not (docs/spec/evidence.md).

A composite device in the words of RFC 9334 section 3.3, bound from both ends: every device's report carries a value
made of the same nonce and keys as the CPU's, and the CPU's report carries the digest of all devices' evidence. So
neither end can be swapped afterwards, and no recording of another day fits (T16).

Not proven by any evidence of today: that a device sits in the machine of that CPU. The code that was measured by
the CPU asked it, over a session that this code set up; the result says so.

Not done here: verifying a device (``verifier``).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from cloister.attest.rats import Check, TeeKind, Verdict
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from cloister.attest.rats import Evidence, Submodule

__all__ = ["DEVICE_CLAIM", "DEVICE_KINDS", "composite_checks", "count_devices", "demand_cpu", "name_devices"]

DEVICE_CLAIM = "device"
"""The claim of a device that tells it from every other of its kind."""

DEVICE_KINDS: Final = frozenset(map(TeeKind, ("nras", "nvidia-gpu", "nvidia-switch")))
"""Evidence of these kinds is of devices alone: it says nothing of the code that asked them."""

_CODE = "composite_mismatch"
_ATTACHMENT = "the measured software asked the device; no evidence of today proves where it is attached"


def demand_cpu(tee: TeeKind, accepted: Collection[TeeKind]) -> None:
    """Refuse a device in the place of the CPU (``composite_mismatch``): whoever owns one would need no TEE at all.

    Only a policy that accepts nothing but devices is about a device by itself.
    """
    cpus = sorted(set(accepted) - DEVICE_KINDS)
    if tee in DEVICE_KINDS.intersection(accepted) and cpus:
        raise Rejected.because(_CODE, "evidence of the cpu", got=tee, want=" or ".join(cpus))


def count_devices(devices: Sequence[Evidence]) -> Mapping[str, int]:
    """Return a claim of the CPU's for each kind of device: ``devices.nvidia_gpu`` of 8. A policy demands by them."""
    counts = Counter(f"devices.{item.tee.replace('-', '_')}" for item in devices)
    return dict(sorted(counts.items()))


def name_devices(devices: Sequence[Evidence]) -> Iterator[tuple[str, Evidence]]:
    """Yield each device with its name in the result: ``nvidia-gpu0``, ``nvidia-gpu1``."""
    seen: Counter[str] = Counter()
    for item in devices:
        yield f"{item.tee}{seen[item.tee]}", item
        seen[item.tee] += 1


def composite_checks(submodules: Sequence[Submodule]) -> tuple[Check, ...]:
    """Return what holds them together, for the reader of the result; nothing where there is no device."""
    if not submodules:
        return ()
    identities = Counter((item.tee, item.claims.get(DEVICE_CLAIM, item.name)) for item in submodules)
    twice = [str(identity) for (_, identity), count in identities.items() if count > 1]
    names = ", ".join(item.name for item in submodules)
    return (
        Check(code=_CODE, subject="devices in the cpu's report data", verdict=Verdict.PASSED, got=names),
        Check(code=_CODE, subject="nonce and keys in every device", verdict=Verdict.PASSED, got=names),
        Check(
            code=_CODE,
            subject="every device once",
            verdict=Verdict.FAILED if twice else Verdict.PASSED,
            got=", ".join(twice)[:256],
        ),
        Check(
            code=_CODE,
            subject="devices in this machine",
            verdict=Verdict.NOT_CHECKED,
            got=names,
            note=_ATTACHMENT,
        ),
        *_one_mode(submodules),
        *_wiring(submodules),
    )


def _one_mode(submodules: Sequence[Submodule]) -> Iterator[Check]:
    """Yield the check that all GPUs protect in one mode: one outside of it reads what the others share with it."""
    modes = {str(item.claims["cc_mode"]) for item in submodules if "cc_mode" in item.claims}
    if modes:
        verdict = Verdict.PASSED if len(modes) == 1 else Verdict.FAILED
        got = ", ".join(sorted(modes))[:256]
        yield Check(code=_CODE, subject="one mode of all gpus", verdict=verdict, got=got, want="one")


def _wiring(submodules: Sequence[Submodule]) -> Iterator[Check]:
    """Yield the check that what a device is wired to has been appraised too, by the names that both ends report."""
    known = {item.claims["pdi"] for item in submodules if "pdi" in item.claims}
    wired = {
        peer
        for item in submodules
        for name in ("switches", "gpus")
        if isinstance(peers := item.claims.get(name), tuple)
        for peer in peers
    }
    if not wired:
        return
    absent = sorted(wired - known)
    if not any("gpus" in item.claims for item in submodules):
        got, note = ", ".join(absent)[:256], "evidence of the switches did not come along"
        yield Check(code=_CODE, subject="wiring of gpus", verdict=Verdict.NOT_CHECKED, got=got, note=note)
        return
    yield Check(
        code=_CODE,
        subject="wiring of gpus and switches",
        verdict=Verdict.FAILED if absent else Verdict.PASSED,
        got=", ".join(absent)[:256],
        want="evidence of every device that another is wired to",
    )
