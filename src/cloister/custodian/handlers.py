"""What each route does: parameters and body to values, one use case, value to bytes; nothing else."""

from __future__ import annotations

from cloister import __version__
from cloister.attest.rats import NONCE_BYTES, Nonce
from cloister.custodian.calls import Call, Reply, changed, json_reply, statement_reply
from cloister.custodian.service import (
    access,
    asks,
    blocks,
    contracts,
    drills,
    instance_views,
    loan_views,
    loans,
    logbook,
    models,
    tickets,
    vouchers,
)
from cloister.custodian.service.leases import parse_instance_id
from cloister.custodian.service.standing import parse_loan_id
from cloister.wire import MAX_INT, Json, dump_b64u, parse_b64u, reason_json


def openapi(call: Call) -> Reply:
    """Describe this API (OpenAPI 3.1)."""
    return Reply(body=call.service.openapi())


def custodian(call: Call) -> Reply:
    """Tell who this is; the key is what borrowers and consumers compare."""
    service = call.service
    return json_reply(
        {
            "epoch": service.epoch,
            "key": dump_b64u(service.key.raw),
            "name": service.config.name,
            "publisher": dump_b64u(service.context.vault.publisher_key.verify_key.raw),
            "tees": sorted(service.context.verifier.tees),
            "version": __version__,
        }
    )


def challenge(call: Call) -> Reply:
    """Give a single-use nonce for one attestation."""
    return statement_reply(call.service.challenge(call.actor, call.loan))


def attest(call: Call) -> Reply:
    """Release the loan's keys to the enclave that the evidence proves."""
    return statement_reply(call.service.attest(call.actor, call.loan, call.body))


def lease(call: Call) -> Reply:
    """Settle what was used and raise the ceilings; the answer is a lease or a refusal, signed."""
    return statement_reply(call.service.lease(parse_instance_id(call.parameters["instance"]), call.body))


def renew(call: Call) -> Reply:
    """Take an enclave's usage report and answer the lease request behind it, as one after the other would."""
    instance, body = parse_instance_id(call.parameters["instance"]), call.fields()
    request, report = (body.b64u(name) for name in ("request", "report"))
    body.end()
    renewed = call.service.renew(instance, request, report)
    told: dict[str, Json] = {"answer": dump_b64u(renewed.answer)}
    if renewed.ack is not None:
        told["ack"] = dump_b64u(renewed.ack)
    if renewed.refused is not None:
        told["reasons"] = [reason_json(reason) for reason in renewed.refused.reasons]
    return json_reply(told)


def ticket(call: Call) -> Reply:
    """Pay for one inference of a ticketed model; the answer is a ticket or a refusal, signed."""
    instance = parse_instance_id(call.parameters["instance"])
    return statement_reply(tickets.ticket(call.service.context, instance, call.body))


def sign_voucher(call: Call) -> Reply:
    """Sign the voucher that a request file asks for; the same request gets the same voucher."""
    return statement_reply(vouchers.sign(call.service.context, call.actor, call.loan, call.fields()))


def settle_voucher(call: Call) -> Reply:
    """Take a consumption statement that an enclave without a network wrote."""
    return json_reply(vouchers.settle(call.service.context, call.loan, call.body))


def close(call: Call) -> Reply:
    """Note that an instance has erased its keys."""
    call.service.close_instance(parse_instance_id(call.parameters["instance"]), call.body)
    return json_reply({"closed": True})


def status(call: Call) -> Reply:
    """Tell a consumer, signed, how an instance stands."""
    instance = parse_instance_id(call.parameters["instance"])
    nonce = parse_b64u(call.query.get("nonce", ""), what="query: nonce", size=NONCE_BYTES)
    return statement_reply(call.service.status(instance, Nonce(nonce)))


def ask_more(call: Call) -> Reply:
    """Ask the custodian for more units."""
    return changed(call, asks.ask_more, call.loan, status=201)


def summary(call: Call) -> Reply:
    """Show a borrower its own loan."""
    return json_reply(loan_views.loan_summary(call.service.context, call.loan))


def publish(call: Call) -> Reply:
    """Publish a sealed model."""
    return changed(call, models.publish, status=201)


def list_models(call: Call) -> Reply:
    """List published models."""
    return json_reply(models.model_list(call.service.context))


def show_model(call: Call) -> Reply:
    """Show one model: files, card, loans."""
    return json_reply(models.model_view(call.service.context, models.parse_digest(call.parameters["digest"])))


def withdraw(call: Call) -> Reply:
    """Take a model out of every lease, for good."""
    digest = models.parse_digest(call.parameters["digest"])
    call.fields().end()
    return json_reply(call.run(lambda transaction: models.withdraw(transaction, call.actor, digest)))


def create_loan(call: Call) -> Reply:
    """Make a loan; the answer shows the borrower's and the consumers' tokens once."""
    service = call.service
    return json_reply(
        call.change(
            lambda transaction, body: loans.create_loan(
                transaction, call.actor, body, url=service.url, ca_pem=service.ca_pem
            )
        ),
        status=201,
    )


def list_loans(call: Call) -> Reply:
    """List loans."""
    return json_reply(loan_views.loan_list(call.service.context))


def show_loan(call: Call) -> Reply:
    """Show one loan: terms, policy, meters, instances, requests."""
    return json_reply(loan_views.loan_view(call.service.context, call.loan))


def top_up(call: Call) -> Reply:
    """Add units to an allowance."""
    return changed(call, loans.add_units, call.loan)


def set_units(call: Call) -> Reply:
    """Set what an allowance still holds."""
    return changed(call, loans.set_units, call.loan)


def approve(call: Call) -> Reply:
    """Approve a request for more: its units are added at once."""
    return changed(call, asks.approve, call.loan, call.parameters["request"])


def deny(call: Call) -> Reply:
    """Deny a request for more."""
    return changed(call, asks.deny, call.loan, call.parameters["request"])


def add_consumers(call: Call) -> Reply:
    """Add consumers to a loan; the answer shows their tokens once."""
    return changed(call, loans.add_consumers, call.loan, status=201)


def show_contract(call: Call) -> Reply:
    """Show the contract in force, and the one that waits for the borrower's signature."""
    return json_reply(contracts.contract_view(call.service.context, call.loan))


def accept_contract(call: Call) -> Reply:
    """Sign the newest version of the contract: the borrower's word."""
    return changed(call, contracts.accept, call.loan)


def amend(call: Call) -> Reply:
    """Offer other clauses; they count once the borrower has signed them."""
    return changed(call, contracts.amend, call.loan)


def roll_out(call: Call) -> Reply:
    """Offer a newer version of a lent model; running enclaves change over once it is in force."""
    return changed(call, contracts.roll_out, call.loan)


def replace_policy(call: Call) -> Reply:
    """Replace a loan's policy by a newer one; instances attest again."""
    return changed(call, loans.replace_loan_policy, call.loan)


def list_blocks(call: Call) -> Reply:
    """List blocks in force."""
    return json_reply(blocks.block_list(call.service.context))


def block(call: Call) -> Reply:
    """Block a model, loan, instance or consumer; the answer says within which bound it stops."""
    return changed(call, blocks.block, status=201)


def unblock(call: Call) -> Reply:
    """Lift a block."""
    kind, subject = call.parameters["kind"], call.parameters["subject"]
    loan = parse_loan_id(call.query["loan"]) if "loan" in call.query else None
    return json_reply(call.run(lambda transaction: blocks.unblock(transaction, call.actor, kind, subject, loan)))


def record_drill(call: Call) -> Reply:
    """Write down what a drill measured, beside what was promised."""
    return changed(call, drills.record_drill, status=201)


def recall(call: Call) -> Reply:
    """Judge past key releases again by what is known now; block the instances that fall, where asked."""
    return json_reply(call.service.recall(call.actor, call.fields()))


def list_instances(call: Call) -> Reply:
    """List enclave instances."""
    return json_reply(loan_views.instance_list(call.service.context))


def show_instance(call: Call) -> Reply:
    """Show one enclave instance, with its attestation result."""
    instance = parse_instance_id(call.parameters["instance"])
    return json_reply(instance_views.instance_view(call.service.context, instance))


def evidence(call: Call) -> Reply:
    """Give the evidence that an instance's last key release was decided by, to be judged anew."""
    instance = parse_instance_id(call.parameters["instance"])
    return json_reply(instance_views.evidence_view(call.service.context, instance))


def audit(call: Call) -> Reply:
    """Read the audit log, a page at a time."""
    after = call.number("after", default=-1, floor=-1, cap=MAX_INT)
    limit = call.number("limit", default=100, floor=1, cap=logbook.MAX_ENTRIES)
    return json_reply(logbook.audit_page(call.service.context, after=after, limit=limit))


def checkpoint(call: Call) -> Reply:
    """Get a signed checkpoint of the audit log."""
    return statement_reply(logbook.signed_checkpoint(call.service.context))


def list_tokens(call: Call) -> Reply:
    """List tokens, without what they are."""
    return json_reply(access.token_list(call.service.context))


def create_token(call: Call) -> Reply:
    """Make a token; the answer shows it once."""
    return changed(call, access.create_token, status=201)


def revoke_token(call: Call) -> Reply:
    """Revoke a token."""
    token = call.parameters["token"]
    return json_reply(call.run(lambda transaction: access.withdraw_token(transaction, call.actor, token)))
