"""Whether the clock of an attested enclave is outside its host's control (docs/spec/lease.md section 1; threat T37).

The custodian decides this once, at key release, from the attestation result and its own settings; what an
enclave says about its clock counts for nothing. A TEE without a rule here is untrusted: its instances hold fewer
units (``terms.unserved_cap``), because then only the count protects.

Not proven: that the kernel inside reads the clock that the TEE guards. Its measurement says so, and the policy
pins that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.attest.rats import AttestationResult, ClaimValue

__all__ = ["CLOCK_TEES", "COUNTED_CLOCKS", "ClockPolicy", "ClockStanding", "judge_clock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStanding:
    """What was decided: ``code`` is stored with the instance, ``why`` is for a person."""

    trusted: bool
    code: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockPolicy:
    """Whose clocks a custodian counts on.

    ``tees`` are the kinds whose rule below may say yes. ``secure_tsc`` are launch measurements (lower-case hex) of
    SEV-SNP guests that were computed with SecureTSC on (``cloister reference snp --guest-features 0x201``): a report
    does not carry SEV_FEATURES, its measurement covers them.
    """

    tees: frozenset[str]
    secure_tsc: frozenset[str] = frozenset()


COUNTED_CLOCKS = ClockPolicy(tees=frozenset({"simulated", "snp", "tdx"}))
"""What a custodian counts on that sets nothing. A simulated TEE proves nothing at all, and is let in by hand only."""


def _yes(code: str, why: str) -> ClockStanding:
    return ClockStanding(trusted=True, code=code, why=why)


def _no(code: str, why: str) -> ClockStanding:
    return ClockStanding(trusted=False, code=code, why=why)


def _snp(claims: Mapping[str, ClaimValue], policy: ClockPolicy) -> ClockStanding:
    """Judge SecureTSC: scale and offset of the TSC come with the guest's own state (AMD APM volume 2, Secure TSC)."""
    if claims.get("measurement") in policy.secure_tsc:
        return _yes("secure_tsc", "SecureTSC is in the measured processor state: the host cannot move the TSC")
    return _no("clock_of_host", "no measurement computed with SecureTSC: the host scales and offsets the TSC")


def _tdx(claims: Mapping[str, ClaimValue], _: ClockPolicy) -> ClockStanding:
    """Judge a TD: the module sets TSC offset and multiplier (TDX Module Base Architecture, TSC virtualization)."""
    if claims.get("td_attributes.migratable") is not False:
        return _no("migratable", "migration may set the TSC anew")
    return _yes("tdx_module", "the TDX module virtualises the TSC: the host can neither scale nor move it")


def _nitro(_: Mapping[str, ClaimValue], __: ClockPolicy) -> ClockStanding:
    return _yes("nitro_hypervisor", "kvm-clock of the hypervisor that isolates the enclave; its parent cannot touch it")


def _simulated(claims: Mapping[str, ClaimValue], _: ClockPolicy) -> ClockStanding:
    if claims.get("migratable") is not False:
        return _no("migratable", "migration may set the clock anew")
    return _yes("simulated", "simulated: protects nothing")


_RULES: Mapping[str, Callable[[Mapping[str, ClaimValue], ClockPolicy], ClockStanding]] = {
    "nitro": _nitro,
    "simulated": _simulated,
    "snp": _snp,
    "tdx": _tdx,
}
CLOCK_TEES = frozenset(_RULES)
"""The TEEs that a custodian can count on for time at all."""

_WHY_NOT = {
    "azure-snp-vtpm": "time comes from a page of the hypervisor",
    "azure-tdx-vtpm": "time comes from a page of the hypervisor",
    "gce-vtpm": "the hypervisor keeps TSC and vTPM clock",
    "sgx": "an enclave has no clock: every reading comes from the host",
    "tpm": "a quote dates itself by the TPM's clock, but nothing says what runs the processor's",
}


def judge_clock(result: AttestationResult, policy: ClockPolicy = COUNTED_CLOCKS) -> ClockStanding:
    """Return whether the host cannot slow, stop or set the clock of what ``result`` is about. No claim, no trust."""
    rule = _RULES.get(result.tee)
    if rule is None:
        return _no("no_rule", _WHY_NOT.get(result.tee, f"nothing is known of clocks in {result.tee}"))
    if result.tee not in policy.tees:
        return _no("not_counted", f"this custodian does not count on clocks in {result.tee}")
    if result.claims.get("debug") is not False:
        return _no("debug", "debugging is on or unknown: whoever debugs stops it")
    return rule(result.claims, policy)
