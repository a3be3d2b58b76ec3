"""Codes: receipts and tickets."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Receipts and tickets",
    about="What a consumer holds in its hand afterwards. One that contradicts is proof: keep it.",
    codes=(
        Code(
            name="chain_broken",
            cause="receipts that follow each other do not fit",
            fix="keep both and tell the custodian",
            who=Who.CUSTODIAN,
            example="receipt 7: chain_broken (got index 9, want nothing)",
        ),
        Code(
            name="commitment_mismatch",
            cause="a receipt is about other bytes",
            fix="keep the receipt with the bytes you have; they are not its own",
            who=Who.CUSTODIAN,
            example="response: commitment_mismatch",
        ),
        Code(
            name="loan_mismatch",
            cause="a receipt names another loan than the keyset",
            fix="keep the receipt and tell the custodian",
            who=Who.CUSTODIAN,
            example="receipt: loan_mismatch (got loan-setlc73afwdskjip, want loan-q2m7xk5hd3va6tye)",
        ),
        Code(
            name="rate_capped",
            cause="tickets were asked for faster than the loan allows",
            fix="ask more slowly",
            who=Who.CUSTODIAN,
            example="loan: rate_capped (got nothing, want 10 units a second)",
        ),
        Code(
            name="receipt_fork",
            cause="two receipts have one place in one instance's order",
            fix="keep both and tell the custodian: the enclave's memory was copied",
            who=Who.CUSTODIAN,
            example="receipt 7: receipt_fork (got nothing, want one receipt in this place)",
        ),
        Code(
            name="receipt_missing",
            cause="an answer came without its receipt",
            fix="do not use the answer; tell the custodian",
            who=Who.CUSTODIAN,
            example="response: receipt_missing (got nothing, want a receipt in the trailers)",
        ),
        Code(
            name="ticket_expired",
            cause="the ticket came too late for its inference to start; its units are spent",
            fix="ask again; look at the way to the custodian",
            who=Who.CUSTODIAN,
            example="model digits: ticket_expired",
        ),
        Code(
            name="ticket_malformed",
            cause="what came as the ticket of an answer is none",
            fix="keep the receipt and tell the custodian",
            who=Who.CUSTODIAN,
            example="trailer cloister-ticket: ticket_malformed (got twice, want once)",
        ),
        Code(
            name="ticket_mismatch",
            cause="the ticket is for another inference than the receipt",
            fix="keep both and tell the custodian",
            who=Who.CUSTODIAN,
            example="ticket: instance: ticket_mismatch (got cbd5a194d92f5a20, want 5a04c1d97bb02f3e)",
        ),
        Code(
            name="ticket_missing",
            cause="an answer of a ticketed model came without a ticket",
            fix="keep the receipt and tell the custodian",
            who=Who.CUSTODIAN,
            example="response: ticket_missing (got nothing, want a ticket: the model takes one)",
        ),
        Code(
            name="ticket_refused",
            cause="the custodian gave no ticket; the reason says why",
            fix="wait, or ask who runs the enclave",
            who=Who.CUSTODIAN,
            example="custodian: ticket_refused",
        ),
        Code(
            name="ticket_reused",
            cause="one ticket came with two answers",
            fix="keep both receipts and tell the custodian",
            who=Who.CUSTODIAN,
            example="ticket: ticket_reused",
        ),
        Code(
            name="ticket_wanted",
            cause="an inference of a ticketed model without its ticket",
            fix="nothing: the enclave refuses it; if you see it, report it",
            who=Who.CUSTODIAN,
            example="model digits: ticket_wanted (got one for another request, want nothing)",
        ),
        Code(
            name="units_mismatch",
            cause="the receipt names other units than the answer",
            fix="keep the receipt and tell the custodian",
            who=Who.CUSTODIAN,
            example="receipt: units_mismatch (got 2, want 1)",
        ),
        Code(
            name="wrong_ticket",
            cause="a ticket for something else than was asked for",
            fix="nothing; if it repeats, the custodian is not ours",
            who=Who.CUSTODIAN,
            example="ticket: wrong_ticket (got index 7, 12 units, want nothing)",
        ),
    ),
)
