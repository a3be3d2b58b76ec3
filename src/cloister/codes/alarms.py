"""Codes: alarms."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Fault, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Alarms",
    about=(
        "From `cloister alerts` and `GET /v1/alarms`: what the custodian noticed by itself ([when each is "
        "active](observability.md#alarms)). `fork_detected` and `disk_low` are alarms too."
    ),
    codes=(
        Code(
            name="allowance_low",
            cause="a loan that an instance lives on has less than `allowance_low_percent` of what it was granted",
            fix="`cloister loan top-up`",
            who=Who.CUSTODIAN,
            example="warning  allowance_low  loan-setlc73afwdskjip",
            fault=Fault.ALARM,
        ),
        Code(
            name="attestations_failing",
            cause="`alarm_attestations` were refused within `alarm_window_s`",
            fix="see which and why: `cloister audit list`; new code or firmware wants new reference values",
            who=Who.CUSTODIAN,
            example="warning  attestations_failing  loan-setlc73afwdskjip",
            fault=Fault.ALARM,
        ),
        Code(
            name="certificate_ending",
            cause="the server's certificate or its authority's ends within `certificate_days`",
            fix="renew it: [TLS](tls.md)",
            who=Who.CUSTODIAN,
            example="warning  certificate_ending  server.pem",
            fault=Fault.ALARM,
        ),
        Code(
            name="checkpoint_stale",
            cause="entries wait for more than a minute for the checkpoint outside",
            fix="see the disk that it lies on",
            who=Who.CUSTODIAN,
            example="critical  checkpoint_stale  checkpoint",
            fault=Fault.ALARM,
        ),
        Code(
            name="clock_anomaly",
            cause="a renewal did not come as the lease says: a clock runs wrong, or somebody holds messages back",
            fix="compare the clocks; see the way between",
            who=Who.CUSTODIAN,
            example="warning  clock_anomaly  cbd5a194d92f5a20",
            fault=Fault.ALARM,
        ),
        Code(
            name="endorsements_ending",
            cause="the check `endorsements` is not ok",
            fix="make the next bundle: [endorsements](endorsements.md)",
            who=Who.CUSTODIAN,
            example="warning  endorsements_ending  bundle_ending",
            fault=Fault.ALARM,
        ),
        Code(
            name="extraction",
            cause="an enclave told of a [watch](../spec/watches.md) about how a consumer asks",
            fix="look at the consumer; block it if that is no mistake",
            who=Who.CUSTODIAN,
            example="warning  extraction  loan-setlc73afwdskjip",
            fault=Fault.ALARM,
        ),
        Code(
            name="heartbeat_missing",
            cause="an instance was not heard of for two renewal intervals, or was written off",
            fix="ask the borrower whether it was switched off; its units come back once the lease is over",
            who=Who.CUSTODIAN,
            example="critical  heartbeat_missing  cbd5a194d92f5a20",
            fault=Fault.ALARM,
        ),
        Code(
            name="key_old",
            cause="the key-encryption key is older than `key_age_days`",
            fix="`cloister key rotate`",
            who=Who.CUSTODIAN,
            example="warning  key_old  keys",
            fault=Fault.ALARM,
        ),
        Code(
            name="requests_waiting",
            cause="a request for more units waits for a day",
            fix="`cloister loan approve`, or `deny` it",
            who=Who.CUSTODIAN,
            example="warning  requests_waiting  requests",
            fault=Fault.ALARM,
        ),
        Code(
            name="unhealthy",
            cause="a check has failed",
            fix="see which: `curl https://CUSTODIAN/readyz`",
            who=Who.CUSTODIAN,
            example="critical  unhealthy  database",
            fault=Fault.ALARM,
        ),
        Code(
            name="vault_failing",
            cause="the check `vault` is not ok",
            fix="see the code of the check: `curl https://CUSTODIAN/readyz`",
            who=Who.CUSTODIAN,
            example="critical  vault_failing  vault_locked",
            fault=Fault.ALARM,
        ),
        Code(
            name="witness_behind",
            cause="a witness has not cosigned what was logged `witness_late_s` ago",
            fix="see the witness; `cloister audit witness` is what it runs",
            who=Who.CUSTODIAN,
            example="warning  witness_behind  witness.example",
            fault=Fault.ALARM,
        ),
    ),
)
