"""Codes: evidence does not satisfy the policy."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Fault, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Evidence does not satisfy the policy",
    about=(
        "Each is one claim: the message says what was got and what the policy wants. A new enclave version "
        "or another machine needs new reference values: `cloister enclave measure` on a machine you trust, "
        "then `cloister loan policy` or a new trust file. A code of the form `CLAIM_mismatch` that is "
        "missing here is about a claim of that name."
    ),
    codes=(
        Code(
            name="ak_mismatch",
            cause="the attestation key is not one the policy names",
            fix="add it to the policy, or enrol again",
            who=Who.CUSTODIAN,
            example="ak: ak_mismatch (got 000b91ff…, want 000b81c1…)",
        ),
        Code(
            name="audience_mismatch",
            cause="the token was made for somebody else",
            fix="ask for a token to an audience that the custodian names",
            who=Who.CALLER,
            example="audience: audience_mismatch (got https://other.example, want https://custodian.example)",
        ),
        Code(
            name="audience_not_allowed",
            cause="the policy lists no such audience for results under it",
            fix="ask for one that it lists, or have it listed",
            who=Who.CALLER,
            example="audience: audience_not_allowed (got https://other.example, want one that the policy lists)",
        ),
        Code(
            name="chip_id_mismatch",
            cause="the chip is not one the policy names",
            fix="add the chip to the policy, or use another machine",
            who=Who.CUSTODIAN,
            example="chip_id: chip_id_mismatch (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="claim_missing",
            cause="the evidence says nothing about a claim that the policy compares",
            fix="use a TEE that makes the claim, or say `not_checked` with a reason",
            who=Who.BORROWER,
            example="chip_id: claim_missing (got nothing, want 81c1b7aa…)",
        ),
        Code(
            name="debug_enabled",
            cause="the enclave can be debugged, so read",
            fix="start it without debugging",
            who=Who.BORROWER,
            example="debug: debug_enabled (got true, want false)",
        ),
        Code(
            name="device_mismatch",
            cause="the enrolled device is not one the policy names",
            fix="add the device to the policy, or use another machine",
            who=Who.CUSTODIAN,
            example="device: device_mismatch (got device-5f2c81, want device-0a11d3)",
        ),
        Code(
            name="evidence_not_trusted",
            cause="the verdict is below what a loan may accept",
            fix="read the other reasons in the same answer",
            who=Who.CUSTODIAN,
            example="evidence: evidence_not_trusted (got warning, want nothing)",
        ),
        Code(
            name="firmware_version_mismatch",
            cause="the firmware version is not a reference value",
            fix="update the firmware, or the policy",
            who=Who.BORROWER,
            example="firmware_version: firmware_version_mismatch (got 2024.2, want 2025.1)",
        ),
        Code(
            name="host_data_mismatch",
            cause="the digest of the software manifest in the report is not a reference value",
            fix="as `software_mismatch`",
            who=Who.BORROWER,
            example="host_data: host_data_mismatch (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="measurement_mismatch",
            cause="the measured code is not a reference value",
            fix="compare builds; measure anew if the change was yours",
            who=Who.BORROWER,
            example="measurement: measurement_mismatch (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="memory_not_protected",
            cause="a note, never a refusal: a TPM does not protect memory",
            fix="do not rely on it against the machine's administrator",
            who=Who.NOBODY,
            example="memory encryption: memory_not_protected",
            fault=Fault.NOTE,
        ),
        Code(
            name="migratable",
            cause="the enclave may be moved to another machine",
            fix="start it without migration",
            who=Who.BORROWER,
            example="migratable: migratable (got true, want false)",
        ),
        Code(
            name="pcr_mismatch",
            cause="a PCR has another value than the policy, the quote, the event log or a vault sealed to it says",
            fix=(
                "see what changed in the machine's boot; measure anew if the change was yours; a vault comes back by "
                "[shares](vaults.md)"
            ),
            who=Who.BORROWER,
            example="pcr.7: pcr_mismatch (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="policy_incomplete",
            cause="the policy has no rule for a claim that must be decided",
            fix="add a rule; not comparing is spelled `not_checked` with a reason",
            who=Who.CUSTODIAN,
            example="secure_boot: policy_incomplete (got true, want a rule)",
        ),
        Code(
            name="policy_unknown",
            cause="the attestation service has no policy of this id, or no default",
            fix="name one that it has",
            who=Who.CALLER,
            example="policy: policy_unknown (got strict, want nothing)",
        ),
        Code(
            name="product_mismatch",
            cause="the processor's line is not what the policy allows, or report and certificate name different ones",
            fix="use another machine, change the policy, or look at the chain",
            who=Who.BORROWER,
            example="product: product_mismatch (got Genoa, want Milan)",
        ),
        Code(
            name="secure_boot_mismatch",
            cause="Secure Boot is not in the state that the policy wants",
            fix="switch it on, or decide otherwise in the policy",
            who=Who.BORROWER,
            example="secure_boot: secure_boot_mismatch (got false, want true)",
        ),
        Code(
            name="service_td_not_allowed",
            cause="the TD is served by a service TD that the policy does not name",
            fix="start it without one, or name it in the policy",
            who=Who.BORROWER,
            example="mrservicetd: service_td_not_allowed (got 91ff04c2…, want 000000…)",
        ),
        Code(
            name="simulated",
            cause="a note, never a refusal: the TEE is simulated and protects nothing",
            fix="do not use it for anything real",
            who=Who.NOBODY,
            example="hardware: simulated",
            fault=Fault.NOTE,
        ),
        Code(
            name="software_mismatch",
            cause="the software manifest is not the one measured, or not a reference value",
            fix="compare settings and packages; measure anew if the change was yours",
            who=Who.BORROWER,
            example="software manifest in host_data: software_mismatch (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="svn_too_low",
            cause="the security version is below the policy's floor",
            fix="update the enclave or its firmware",
            who=Who.BORROWER,
            example="svn: svn_too_low (got 3, want at least 4)",
        ),
        Code(
            name="tcb_out_of_date",
            cause="a security version of module, firmware or microcode is below the floor of the policy",
            fix="update firmware and microcode; or lower the floor, knowing what was mended since",
            who=Who.BORROWER,
            example="tee_tcb_svn: tcb_out_of_date (got 5, want at least 6)",
        ),
        Code(
            name="tcb_status_not_allowed",
            cause="the vendor's status of this platform's firmware is not one the policy allows",
            fix="update firmware and microcode; or allow the status, knowing the advisories",
            who=Who.BORROWER,
            example="tcb_status: tcb_status_not_allowed (got OutOfDate, want UpToDate)",
        ),
        Code(
            name="td_attributes_invalid",
            cause="the TD was started with attributes or extensions that the policy does not allow",
            fix="start it as the policy says",
            who=Who.BORROWER,
            example="td_attributes: td_attributes_invalid (got 0000000010000001, want 0000000010000000)",
        ),
        Code(
            name="tee_not_allowed",
            cause="the policy does not name this kind of TEE",
            fix="add the TEE to the policy if you accept it",
            who=Who.CUSTODIAN,
            example="tee: tee_not_allowed (got tpm, want snp, tdx)",
        ),
        Code(
            name="tier_too_low",
            cause="the result left something unchecked, and the policy wants more before it is somebody's identity",
            fix="ask without an audience and read what was not checked; `least_tier` decides",
            who=Who.CALLER,
            example="trust tier: tier_too_low (got warning, want affirming)",
        ),
        Code(
            name="unsupported_tee",
            cause="this build cannot verify this kind of TEE",
            fix="use a build that can; a simulated TEE needs its flag",
            who=Who.CALLER,
            example="tee: unsupported_tee (got cheri, want one that this build verifies)",
        ),
        Code(
            name="vmpl_mismatch",
            cause="the report was asked for at another privilege level than the policy wants, or by the hypervisor",
            fix="ask from the level that the policy names",
            who=Who.BORROWER,
            example="vmpl: vmpl_mismatch (got 2, want 0)",
        ),
    ),
)
