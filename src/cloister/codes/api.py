"""Codes: the custodian's API."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="The custodian's API",
    about="Statuses are in the [custodian API](custodian-api.md).",
    codes=(
        Code(
            name="already_decided",
            cause="the request for more was answered before",
            fix="see it with `cloister loan show`",
            who=Who.CALLER,
            example="contract: already_decided (got 3, want nothing)",
        ),
        Code(
            name="already_exists",
            cause="there is one of that name",
            fix="choose another name",
            who=Who.CALLER,
            example="token: already_exists",
        ),
        Code(
            name="borrower_key_fixed",
            cause="a contract's borrower key does not change",
            fix="make another loan",
            who=Who.CALLER,
            example="contract: borrower_key_fixed",
        ),
        Code(
            name="borrower_key_wanted",
            cause="profile `production` lends on countersigned contracts",
            fix="name the key, or set `unsigned_contracts`",
            who=Who.CALLER,
            example="contract: borrower_key_wanted",
        ),
        Code(
            name="consumers_open",
            cause="the loan serves anybody, so it has no consumers",
            fix="make a loan with consumers",
            who=Who.CALLER,
            example="loan: consumers_open",
        ),
        Code(
            name="contract_version_old",
            cause="another version of the contract is the newest",
            fix="read that one, and sign it",
            who=Who.CALLER,
            example="contract: contract_version_old (got 3, want 4)",
        ),
        Code(
            name="idempotency_mismatch",
            cause="the Idempotency-Key was used for another request",
            fix="use a new key",
            who=Who.CALLER,
            example="idempotency-key: idempotency_mismatch",
        ),
        Code(
            name="idempotency_unsupported",
            cause="the route honours no Idempotency-Key, which would promise what is not kept",
            fix="send it without; the API's page says what a repeat comes to",
            who=Who.CALLER,
            example="idempotency-key: idempotency_unsupported",
        ),
        Code(
            name="insecure_refused",
            cause="profile `production` does not lend to simulated TEEs",
            fix="use a policy for real TEEs",
            who=Who.CALLER,
            example="policy: insecure_refused (got simulated, want nothing)",
        ),
        Code(
            name="loan_wanted",
            cause="a consumer is blocked within a loan",
            fix="say which: `--loan`",
            who=Who.CALLER,
            example="block: loan_wanted",
        ),
        Code(
            name="media_type_unsupported",
            cause="the route takes another media type",
            fix="see the API's page",
            who=Who.CALLER,
            example="content-type: media_type_unsupported",
        ),
        Code(
            name="method_not_allowed",
            cause="the path does not take this method",
            fix="see the API's page",
            who=Who.CALLER,
            example="method: method_not_allowed",
        ),
        Code(
            name="name_invalid",
            cause="a model's name is out of form",
            fix="use lower case letters, digits, `.`, `_`, `-`",
            who=Who.CALLER,
            example="model: name_invalid (got Digits!, want lower case letters, digits, . _ -)",
        ),
        Code(
            name="not_found",
            cause="there is no such thing, or it is not yours to see",
            fix="check the id",
            who=Who.CALLER,
            example="loan: not_found",
        ),
        Code(
            name="payload_too_large",
            cause="a body over 1 MiB",
            fix="send a smaller body",
            who=Who.CALLER,
            example="request body: payload_too_large (got nothing, want at most 1048576 bytes)",
        ),
        Code(
            name="policy_version_old",
            cause="a policy's version must be higher than the last one's",
            fix="measure with a higher `--policy-version`",
            who=Who.CALLER,
            example="policy: policy_version_old (got 3, want more than 4)",
        ),
        Code(
            name="precondition_failed",
            cause="a change was to depend on an entity tag or a date, and nothing here has one",
            fix="leave out `If-Match` and `If-Unmodified-Since`",
            who=Who.CALLER,
            example="request: precondition_failed (got a condition, want none: nothing has a tag here)",
        ),
        Code(
            name="request_timeout",
            cause="the request did not arrive in time",
            fix="send it faster, or raise `request_timeout_s`",
            who=Who.CALLER,
            example="request body: request_timeout (got nothing, want within 10 s)",
        ),
        Code(
            name="too_many_requests",
            cause="over a rate or a number of open things",
            fix="wait a minute",
            who=Who.CALLER,
            example="event stream: too_many_requests",
        ),
        Code(
            name="too_many_units",
            cause="an allowance would be more than 2^53 - 1",
            fix="grant less",
            who=Who.CALLER,
            example="loan: too_many_units (got 9007199254740992, want at most 9007199254740991)",
        ),
        Code(
            name="too_many_versions",
            cause="a model has had 32 versions in this loan",
            fix="make a new loan",
            who=Who.CALLER,
            example="model: too_many_versions (got nothing, want at most 32)",
        ),
    ),
)
