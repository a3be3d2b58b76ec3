"""Codes: asking."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Asking",
    about="Inside the encrypted exchange, from the enclave itself, unless said otherwise.",
    codes=(
        Code(
            name="allowance_exhausted",
            cause="no units are left on one of the meters",
            fix="ask the borrower for more, or wait with `--wait`; also said by the custodian at release",
            who=Who.CUSTODIAN,
            example="loan: allowance_exhausted (got 0, want 1)",
        ),
        Code(
            name="blocked",
            cause="the custodian has stopped the loan, model, instance or consumer",
            fix="ask the custodian",
            who=Who.CUSTODIAN,
            example="model digits: blocked (got not released to this instance, want nothing)",
        ),
        Code(
            name="budget_spent",
            cause="this consumer has had its units of this time, as the contract bounds them",
            fix="wait as `Retry-After` says; `cloister contract URL` shows the budget",
            who=Who.CUSTODIAN,
            example="consumer: budget_spent (got 101, want 100 units in 1h)",
        ),
        Code(
            name="clock_step",
            cause="the enclave's clock jumped, so its lease is void",
            fix="mend the machine's clock and start the enclave anew",
            who=Who.BORROWER,
            example="lease: clock_step",
        ),
        Code(
            name="consumer_stopped",
            cause="what this consumer asked set off an alarm that the contract says stops it in this enclave",
            fix="ask whoever runs the loan; the contract says what is watched",
            who=Who.CUSTODIAN,
            example="consumer: consumer_stopped",
        ),
        Code(
            name="date_missing",
            cause="the request has no `Date`",
            fix="send one: it keeps requests from being replayed",
            who=Who.CONSUMER,
            example="inner request: date_missing",
        ),
        Code(
            name="date_skewed",
            cause="the request's `Date` is more than a minute away",
            fix="compare the clocks",
            who=Who.CONSUMER,
            example=(
                "inner request: date_skewed (got Wed, 06 May 2026 08:30:00 GMT, want Wed, 06 May 2026 08:35:00 GMT)"
            ),
        ),
        Code(
            name="deadline_passed",
            cause="the request did not start within its `timeout`; nothing was charged",
            fix="ask again, with more time or when less is asked for",
            who=Who.CONSUMER,
            example="timeout: deadline_passed",
        ),
        Code(
            name="decryption_failed",
            cause="something does not open; there is one error for every cause",
            fix="treat it as changed on the way",
            who=Who.CONSUMER,
            example="hpke: decryption_failed",
        ),
        Code(
            name="draining",
            cause="the enclave is being shut down",
            fix="try again at another instance, or later",
            who=Who.BORROWER,
            example="enclave: draining",
        ),
        Code(
            name="engine_failed",
            cause="the model failed on this input; nothing was charged, but a ticket stays paid",
            fix="check the input; tell the model's owner",
            who=Who.BORROWER,
            example="model digits: engine_failed",
        ),
        Code(
            name="input",
            cause="the input does not fit the model: name, type, shape or value",
            fix="see what the model wants: `client.model(name)`",
            who=Who.CONSUMER,
            example="input pixels: input (got shape [1, 32], want [-1, 64])",
        ),
        Code(
            name="instance_changed",
            cause="an answer was lost that may have been counted, and the instance there now would count it again",
            fix="ask anew if a second count is fine, or allow it: `Retry(other_instance=True)`",
            who=Who.CONSUMER,
            example="enclave: instance_changed (got 5b1e…, want 91ff…)",
        ),
        Code(
            name="lease_expired",
            cause="the enclave's lease has ended, or its keys are gone",
            fix="try again when the enclave has renewed; see its log",
            who=Who.BORROWER,
            example="lease: lease_expired",
        ),
        Code(
            name="not_accepted",
            cause="the gateway answered outside with a refusal; nothing in that is authentic",
            fix="check the address",
            who=Who.CONSUMER,
            example="gateway: not_accepted (got status 400, want 200)",
        ),
        Code(
            name="not_pinned",
            cause=(
                "pinned TLS was asked for, and the evidence did not come by TLS 1.3 under a key that the keyset lists"
            ),
            fix='is it served with `tls = "generated"`, with nobody ending TLS before it? else take `ohttp`',
            who=Who.BORROWER,
            example=(
                "enclave: not_pinned (got no attested key on the connection, want TLS 1.3 under a key that the "
                "keyset lists)"
            ),
        ),
        Code(
            name="ohttp_key",
            cause="the request was encrypted to keys the enclave does not have (said outside)",
            fix="verify again and ask again; clients of ours do, once",
            who=Who.CONSUMER,
            example="model digits: ohttp_key (got a version that was replaced, want nothing)",
        ),
        Code(
            name="output",
            cause="the answer cannot be given in the form asked for",
            fix="ask for binary outputs",
            who=Who.CONSUMER,
            example="output probabilities: output (got unknown output, want label)",
        ),
        Code(
            name="output_withheld",
            cause="the contract does not show an output that was asked for, or shows none of the model",
            fix="ask for another: the model's metadata name them",
            who=Who.CUSTODIAN,
            example="outputs: output_withheld (got none that the contract shows, want nothing)",
        ),
        Code(
            name="outside_hours",
            cause="the contract, or a sub-allowance, does not admit this hour",
            fix="ask within the hours: `cloister contract URL`",
            who=Who.CUSTODIAN,
            example="contract: outside_hours (got 2026-05-06T08:30:00Z, want nothing)",
        ),
        Code(
            name="parameter_refused",
            cause="a parameter of the request, an input or an output asks for what the enclave does not do",
            fix="leave it out; `reasons` names it and says why",
            who=Who.CONSUMER,
            example="request parameters: parameter_refused (got sequence_id, want none)",
        ),
        Code(
            name="rate_limited",
            cause="this consumer asks faster than the contract lets it",
            fix="wait as `Retry-After` says, or ask for fewer items at once",
            who=Who.CUSTODIAN,
            example="consumer: rate_limited (got 12, want at most 10 a second)",
        ),
        Code(
            name="replayed",
            cause="this encrypted request was received before",
            fix="encrypt anew; clients of ours do",
            who=Who.CONSUMER,
            example="ohttp request: replayed",
        ),
        Code(
            name="request_id_reused",
            cause="the idempotency key was used for another request",
            fix="use a new key for a new question",
            who=Who.CONSUMER,
            example="request id: request_id_reused (got another request, want the same bytes)",
        ),
        Code(
            name="request_id_too_long",
            cause="the idempotency key is too long",
            fix="use at most what the enclave's API says",
            who=Who.CONSUMER,
            example="request id: request_id_too_long (got 80, want at most 64)",
        ),
        Code(
            name="request_in_flight",
            cause="a request under this key is still running",
            fix="wait and ask again under the same key",
            who=Who.CONSUMER,
            example="request id: request_in_flight",
        ),
        Code(
            name="terms_changed",
            cause="the enclave was granted terms that differ in more than versions of models",
            fix="start the enclave anew",
            who=Who.CONSUMER,
            example="grant: terms_changed (got nothing, want other versions of the same models, and no more)",
        ),
        Code(
            name="tls_key_mismatch",
            cause="a connection showed a TLS key that the attested keyset does not list; nothing was sent on it",
            fix="somebody between ends TLS, or enclaves share an address; take `ohttp`",
            who=Who.BORROWER,
            example="enclave: tls_key_mismatch (got nothing, want a tls key that its keyset lists)",
        ),
        Code(
            name="too_large",
            cause="a request or answer is over a limit",
            fix="ask for less at once, or see the enclave's limits",
            who=Who.CONSUMER,
            example="response: too_large (got nothing, want at most 1048576 bytes)",
        ),
        Code(
            name="truncated",
            cause="a stream or file ended before its end",
            fix="ask or copy again; there is no shorter answer",
            who=Who.CONSUMER,
            example="response: truncated (got nothing, want a final chunk)",
        ),
        Code(
            name="unauthorized",
            cause="no consumer's token, or one this loan does not know",
            fix="pass `--token-file`",
            who=Who.CONSUMER,
            example="consumer: unauthorized",
        ),
    ),
)
