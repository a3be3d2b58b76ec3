"""Codes: endorsements are not there, or not good."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Endorsements are not there, or not good",
    about=(
        "What vendors publish about their hardware: certificates, revocation lists, TCB information, "
        "manifests. See [endorsements](endorsements.md). One that is missing is an unavailable, never a yes."
    ),
    codes=(
        Code(
            name="bundle_expired",
            cause="the bundle's window is over",
            fix="export, sign and import a new one",
            who=Who.CUSTODIAN,
            example="bundle: bundle_expired (got 2026-05-06T08:30:00Z, want until 2026-05-05T00:00:00Z)",
        ),
        Code(
            name="bundle_not_yet_valid",
            cause="the bundle's window has not begun",
            fix="compare the clocks, or wait",
            who=Who.CUSTODIAN,
            example="bundle: bundle_not_yet_valid (got 2026-05-06T08:30:00Z, want from 2026-05-05T00:00:00Z)",
        ),
        Code(
            name="bundle_unsigned",
            cause="a draft was offered as a bundle",
            fix="`cloister attest bundle sign`",
            who=Who.CUSTODIAN,
            example="bundle: bundle_unsigned (got a draft, want nothing)",
        ),
        Code(
            name="bundle_version_old",
            cause="a newer bundle was accepted before, or another of the same version",
            fix="import one with a higher version",
            who=Who.CUSTODIAN,
            example="bundle: bundle_version_old (got 3, want over 4)",
        ),
        Code(
            name="collateral_expired",
            cause="a list or a text is past its next update",
            fix="fetch it anew",
            who=Who.CUSTODIAN,
            example="tcb info: collateral_expired (got 2026-05-06T08:30:00Z, want until 2026-05-05T00:00:00Z)",
        ),
        Code(
            name="collateral_mismatch",
            cause="it is about another platform, version or TEE",
            fix="fetch the one that the evidence names",
            who=Who.CUSTODIAN,
            example="tcb info: collateral_mismatch (got fmspc 00906ed10000, want fmspc 90c06f000000)",
        ),
        Code(
            name="collateral_not_yet_valid",
            cause="it begins later",
            fix="compare the clocks",
            who=Who.CUSTODIAN,
            example="tcb info: collateral_not_yet_valid (got 2026-05-04T08:30:00Z, want from 2026-05-05T00:00:00Z)",
        ),
        Code(
            name="collateral_signature_invalid",
            cause="it is not signed by the vendor's key",
            fix="never use it; fetch it anew, and ask who changed it",
            who=Who.CUSTODIAN,
            example="tcb info: collateral_signature_invalid",
        ),
        Code(
            name="reference_version_old",
            cause="a newer set of reference values was accepted before",
            fix="import one with a higher version",
            who=Who.CUSTODIAN,
            example="reference values: reference_version_old (got 3, want more than 4)",
        ),
        Code(
            name="revocation_unknown",
            cause="nobody says whether a certificate was revoked",
            fix="fetch the list or the answer; leaving it out is spelled with a reason",
            who=Who.CUSTODIAN,
            example="CN=Intel SGX PCK Platform CA: revocation_unknown",
        ),
        Code(
            name="rim_cert_expired",
            cause="the certificate that signed a manifest has ended",
            fix="fetch the manifest anew",
            who=Who.CUSTODIAN,
            example="rim: rim_cert_expired (got 2026-05-06T08:30:00Z, want until 2026-05-05T00:00:00Z)",
        ),
        Code(
            name="rim_conflict",
            cause="one measurement is in both manifests of a device",
            fix="one of them is the wrong manifest; fetch both anew",
            who=Who.VENDOR,
            example="measurement 7: rim_conflict",
        ),
        Code(
            name="rim_missing",
            cause="the manifest of this driver or firmware is not there",
            fix="fetch it by the name in the message",
            who=Who.CUSTODIAN,
            example="rim NV_GPU_DRIVER_GH100_550.90.07: rim_missing",
        ),
        Code(
            name="rim_signature_invalid",
            cause="a manifest was altered, or is signed in another form",
            fix="never use it; fetch it anew",
            who=Who.CUSTODIAN,
            example="rim: rim_signature_invalid (got another manifest is signed, want nothing)",
        ),
    ),
)
